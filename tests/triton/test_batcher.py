"""The batcher: what is joined, what is not, and that nobody pays for a neighbour."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from adapter.core import tracing
from adapter.core.errors import (
    BatchQueueFull,
    DeadlineExceeded,
    EngineUnavailable,
    InferenceFailed,
    InvalidInput,
    ModelCrashed,
    ModelNotFound,
    ModelNotReady,
    Unavailable,
)
from adapter.core.metrics import Metrics
from adapter.core.trace_context import TraceContext
from adapter.core.types import InferRequest, InferResponse, Tensor
from adapter.triton.batcher import Batcher, Limits
from tests.spans import recorded

LIMITS = Limits(rows=8, calls=1)
BAD = 66


class Triton:
    """Echoes; each call waits until it is let go. A call with the element BAD in it fails."""

    def __init__(self) -> None:
        self.calls: list[InferRequest] = []
        self.answers: list[int] = []
        """How many requests each call answers."""
        self.metrics = Metrics()
        self.contexts: list[TraceContext | None] = []
        """What each call is part of."""
        self.gate = asyncio.Event()
        self.failure: Exception = InvalidInput("bad")

    async def send(self, request: InferRequest, timeout_s: float, requests: int) -> InferResponse:
        self.calls.append(request)
        self.answers.append(requests)
        self.contexts.append(tracing.current())
        await self.gate.wait()
        if BAD in b"".join(bytes(tensor.data) for tensor in request.inputs):
            raise self.failure
        outputs = tuple(Tensor(f"{t.name}'", t.datatype, t.shape, t.data) for t in request.inputs)
        return InferResponse(request.model_name, "1", outputs, request.id)

    @property
    def sizes(self) -> list[int]:
        return [request.inputs[0].shape[0] for request in self.calls]


def request(
    *elements: int, version: str = "", model: str = "m", width: int = 1, name: str = "x"
) -> InferRequest:
    shape = (len(elements) // width, width)
    return InferRequest(model, version, (Tensor(name, "UINT8", shape, bytes(elements)),), id=str(elements))


def run(scenario: Callable[[Triton, Batcher], Coroutine[Any, Any, None]], most_waiting: int = 100) -> None:
    async def main() -> None:
        triton = Triton()
        await scenario(triton, Batcher(triton.send, most_waiting, triton.metrics))

    asyncio.run(main())


async def settle(count: int = 5) -> None:
    """Let everything that can run run."""
    for _ in range(count):
        await asyncio.sleep(0)


def start_together(
    batcher: Batcher, *requests: InferRequest, limits: Limits = LIMITS
) -> list[asyncio.Task[InferResponse]]:
    """Have them come in one turn of the event loop."""
    return [asyncio.create_task(batcher.infer(request, limits, 5)) for request in requests]


async def start(
    batcher: Batcher, *requests: InferRequest, limits: Limits = LIMITS
) -> list[asyncio.Task[InferResponse]]:
    """Have each come in a turn of its own."""
    tasks = []
    for request in requests:
        tasks += start_together(batcher, request, limits=limits)
        await settle()
    return tasks


def test_those_that_come_together_go_together() -> None:
    async def scenario(triton: Triton, batcher: Batcher) -> None:
        tasks = start_together(batcher, request(1), request(2, 3), request(4))
        await settle()
        assert triton.sizes == [4]
        triton.gate.set()
        answers = await asyncio.gather(*tasks)
        assert triton.sizes == [4]
        assert [bytes(answer.outputs[0].data) for answer in answers] == [b"\1", b"\2\3", b"\4"]

    run(scenario)


def test_the_first_goes_at_once_and_those_that_wait_go_together() -> None:
    async def scenario(triton: Triton, batcher: Batcher) -> None:
        tasks = await start(batcher, request(1), request(2, 3), request(4))
        assert triton.sizes == [1]
        triton.gate.set()
        answers = await asyncio.gather(*tasks)
        assert triton.sizes == [1, 3]
        assert triton.answers == [1, 2]
        assert triton.metrics.stage_seconds.labels("batch_wait", "m").count == 3
        assert [bytes(answer.outputs[0].data) for answer in answers] == [b"\1", b"\2\3", b"\4"]
        assert [answer.outputs[0].shape for answer in answers] == [(1, 1), (2, 1), (1, 1)]
        assert [answer.id for answer in answers] == ["(1,)", "(2, 3)", "(4,)"]

    run(scenario)


def test_a_call_holds_no_more_rows_than_the_model_takes() -> None:
    async def scenario(triton: Triton, batcher: Batcher) -> None:
        tasks = await start(batcher, request(0), *[request(i, i, i) for i in range(1, 6)])
        triton.gate.set()
        await asyncio.gather(*tasks)
        assert triton.sizes == [1, 6, 6, 3]

    run(scenario)


def test_as_many_calls_are_in_flight_as_may_be() -> None:
    async def scenario(triton: Triton, batcher: Batcher) -> None:
        tasks = await start(batcher, *[request(i) for i in range(6)], limits=Limits(8, 2))
        assert triton.sizes == [1, 1]
        triton.gate.set()
        await asyncio.gather(*tasks)
        assert triton.sizes == [1, 1, 4]

    run(scenario)


@pytest.fixture
def unhurried(monkeypatch: pytest.MonkeyPatch) -> None:
    """However slow the machine is, calls are quick, and no request has waited for long."""
    monkeypatch.setattr("adapter.triton.batcher._LONG_S", 60.0)


async def warm(triton: Triton, batcher: Batcher) -> None:
    """Have the model be known as one whose calls are quick."""
    triton.gate.set()
    for i in range(3):
        await batcher.infer(request(i), LIMITS, 5)
    triton.gate.clear()
    triton.calls.clear()


@pytest.mark.usefixtures("unhurried")
def test_of_quick_calls_one_is_in_flight_until_many_requests_wait() -> None:
    async def scenario(triton: Triton, batcher: Batcher) -> None:
        await warm(triton, batcher)
        limits = Limits(rows=64, calls=2)
        tasks = await start(batcher, *[request(i) for i in range(16)], limits=limits)
        assert triton.sizes == [1]
        tasks += await start(batcher, *[request(i) for i in range(8)], limits=limits)
        assert triton.sizes == [1, 16]
        triton.gate.set()
        await asyncio.gather(*tasks)
        assert triton.sizes == [1, 16, 7]

    run(scenario)


def test_a_quick_model_whose_call_hangs_holds_nobody_up() -> None:
    async def scenario(triton: Triton, batcher: Batcher) -> None:
        await warm(triton, batcher)
        limits = Limits(rows=64, calls=2)
        [hanging] = await start(batcher, request(1), limits=limits)
        hung, triton.gate = triton.gate, asyncio.Event()
        triton.gate.set()
        [other] = await start(batcher, request(2), limits=limits)
        assert bytes((await asyncio.wait_for(other, 2)).outputs[0].data) == b"\2"
        assert not hanging.done()
        hung.set()
        await hanging

    run(scenario)


@pytest.mark.usefixtures("unhurried")
def test_a_call_that_is_full_does_not_wait_for_a_quick_one() -> None:
    async def scenario(triton: Triton, batcher: Batcher) -> None:
        await warm(triton, batcher)
        tasks = await start(batcher, *[request(i) for i in range(6)], limits=Limits(rows=4, calls=2))
        assert triton.sizes == [1, 4]
        triton.gate.set()
        await asyncio.gather(*tasks)
        assert triton.sizes == [1, 4, 1]

    run(scenario)


@pytest.mark.usefixtures("unhurried")
def test_each_server_has_a_call_of_a_quick_model() -> None:
    async def scenario(triton: Triton, batcher: Batcher) -> None:
        await warm(triton, batcher)
        tasks = await start(
            batcher, *[request(i) for i in range(6)], limits=Limits(rows=8, calls=6, servers=3)
        )
        assert triton.sizes == [1, 1, 1]
        triton.gate.set()
        await asyncio.gather(*tasks)
        assert triton.sizes == [1, 1, 1, 3]

    run(scenario)


def test_only_requests_of_one_kind_are_joined() -> None:
    async def scenario(triton: Triton, batcher: Batcher) -> None:
        others = [
            request(2, 3, width=2),
            request(4, version="2"),
            request(5, name="y"),
            request(6),
            request(7),
        ]
        tasks = await start(batcher, request(1), *others)
        triton.gate.set()
        await asyncio.gather(*tasks)
        assert sorted(triton.sizes) == [1, 1, 1, 1, 2]
        assert bytes(max(triton.calls, key=lambda call: call.inputs[0].shape[0]).inputs[0].data) == b"\6\7"

    run(scenario)


def test_models_do_not_wait_for_each_other() -> None:
    async def scenario(triton: Triton, batcher: Batcher) -> None:
        tasks = await start(batcher, request(1), request(2, model="other"))
        assert [call.model_name for call in triton.calls] == ["m", "other"]
        triton.gate.set()
        await asyncio.gather(*tasks)

    run(scenario)


def test_nobody_fails_for_a_neighbour() -> None:
    async def scenario(triton: Triton, batcher: Batcher) -> None:
        tasks = await start(batcher, request(1), request(2), request(BAD), request(3))
        triton.gate.set()
        answers = await asyncio.gather(*tasks, return_exceptions=True)
        assert triton.sizes == [1, 3, 1, 1, 1]
        assert [type(answer) for answer in answers] == [
            InferResponse,
            InferResponse,
            InvalidInput,
            InferResponse,
        ]

    run(scenario)


@pytest.mark.parametrize(
    "failure",
    [
        EngineUnavailable("away"),
        DeadlineExceeded("late"),
        ModelCrashed("not healthy"),
        ModelNotReady("loading"),
        ModelNotFound("gone"),
        Unavailable("Triton's queue for this model is full"),
    ],
)
def test_what_is_said_to_all_is_not_asked_again_for_each(failure: Exception) -> None:
    async def scenario(triton: Triton, batcher: Batcher) -> None:
        triton.failure = failure
        tasks = await start(batcher, request(1), request(2), request(BAD))
        triton.gate.set()
        answers = await asyncio.gather(*tasks, return_exceptions=True)
        assert triton.sizes == [1, 2]
        assert [type(answer) for answer in answers] == [InferResponse, type(failure), type(failure)]

    run(scenario)


def test_a_model_that_answers_other_rows_than_asked_is_run_alone() -> None:
    async def scenario(triton: Triton, batcher: Batcher) -> None:
        async def summed(request: InferRequest, timeout_s: float, requests: int) -> InferResponse:
            await triton.send(request, timeout_s, requests)
            return InferResponse(
                "m", "1", (Tensor("sum", "UINT8", (1,), bytes([sum(request.inputs[0].data)])),)
            )

        batcher = Batcher(summed, 100, Metrics())
        tasks = await start(batcher, request(1), request(2, 3), request(4))
        triton.gate.set()
        answers = await asyncio.gather(*tasks, return_exceptions=True)
        assert [bytes(answer.outputs[0].data) for answer in answers if isinstance(answer, InferResponse)] == [
            b"\1",
            b"\5",
            b"\4",
        ]

    run(scenario)


def test_a_request_whose_client_is_gone_is_never_sent() -> None:
    async def scenario(triton: Triton, batcher: Batcher) -> None:
        tasks = await start(batcher, request(1), request(2), request(3))
        tasks[1].cancel()
        triton.gate.set()
        answers = await asyncio.gather(*tasks, return_exceptions=True)
        assert isinstance(answers[1], asyncio.CancelledError)
        assert [bytes(call.inputs[0].data) for call in triton.calls] == [b"\1", b"\3"]

    run(scenario)


def test_each_has_its_own_deadline() -> None:
    async def scenario(triton: Triton, batcher: Batcher) -> None:
        slow = asyncio.create_task(batcher.infer(request(1), LIMITS, 5))
        await settle()
        with pytest.raises(DeadlineExceeded):
            await batcher.infer(request(2), LIMITS, 0.02)
        triton.gate.set()
        assert bytes((await slow).outputs[0].data) == b"\1"
        assert triton.sizes == [1]

    run(scenario)


def test_more_than_may_wait_are_refused() -> None:
    async def scenario(triton: Triton, batcher: Batcher) -> None:
        tasks = await start(batcher, *[request(i) for i in range(4)])
        with pytest.raises(BatchQueueFull, match="3 requests wait for the model 'm' already"):
            await batcher.infer(request(9), LIMITS, 5)
        triton.gate.set()
        await asyncio.gather(*tasks)
        assert bytes((await batcher.infer(request(9), LIMITS, 5)).outputs[0].data) == b"\x09"

    run(scenario, most_waiting=3)


def test_nothing_waits_and_nothing_is_in_flight_of_a_model_that_was_answered() -> None:
    async def scenario(triton: Triton, batcher: Batcher) -> None:
        triton.gate.set()
        triton.failure = InferenceFailed("broken")
        await asyncio.gather(
            *await start(batcher, request(1), request(BAD), request(3)), return_exceptions=True
        )
        await settle()
        assert batcher.idle

    run(scenario)


def test_a_call_for_several_is_in_the_trace_of_the_first_and_linked_with_each() -> None:
    contexts = [TraceContext(f"{i:032x}", f"{i:016x}", 1) for i in range(1, 5)]

    async def traced(batcher: Batcher, context: TraceContext | None, element: int) -> InferResponse:
        tracing.resume(context)
        return await batcher.infer(request(element), LIMITS, 5)

    async def scenario(triton: Triton, batcher: Batcher) -> None:
        unrecorded = TraceContext("f" * 32, "f" * 16, 0)
        everyone = [contexts[0], None, unrecorded, *contexts[1:]]
        tasks = [asyncio.create_task(traced(batcher, everyone[0], 0))]
        await settle()
        tasks += [asyncio.create_task(traced(batcher, c, i)) for i, c in enumerate(everyone[1:], 1)]
        await settle()
        triton.gate.set()
        await asyncio.gather(*tasks)
        assert triton.sizes == [1, 5]
        assert triton.contexts[0] == contexts[0]
        assert triton.contexts[1] is not None
        assert triton.contexts[1].trace_id == contexts[1].trace_id

    with recorded() as kept:
        run(scenario)
    [batch] = [span for span in kept.spans if span.name == "batch"]
    assert batch.parent is not None
    assert batch.parent.span_id == int(contexts[1].span_id, 16)
    assert {f"{link.context.span_id:016x}" for link in batch.links} == {c.span_id for c in contexts[1:]}
    waits = [span for span in kept.spans if span.name == "wait"]
    assert [len(wait.links) for wait in waits] == [0, 1, 1, 1]
    assert batch.context is not None
    assert {link.context.span_id for wait in waits for link in wait.links} == {batch.context.span_id}


def test_after_a_failed_batch_each_is_in_its_own_trace() -> None:
    contexts = [TraceContext(f"{i:032x}", f"{i:016x}", 1) for i in range(1, 4)]

    async def traced(batcher: Batcher, context: TraceContext, element: int) -> InferResponse:
        tracing.resume(context)
        return await batcher.infer(request(element), LIMITS, 5)

    async def scenario(triton: Triton, batcher: Batcher) -> None:
        elements = zip(contexts, (1, BAD, 3), strict=True)
        tasks = [asyncio.create_task(traced(batcher, *each)) for each in elements]
        triton.gate.set()
        await asyncio.gather(*tasks, return_exceptions=True)
        assert triton.sizes == [3, 1, 1, 1]
        assert triton.contexts[1:] == contexts

    with recorded() as kept:
        run(scenario)
    assert sorted(kept.names()) == ["batch", "wait", "wait", "wait"]
