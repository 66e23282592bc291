"""The data plane on a fake engine: names and labels, splitting and joining, what a failure does."""

import asyncio
from typing import Any

import pytest

from adapter.core.dataplane import DataPlane
from adapter.core.datatypes import pack_bytes
from adapter.core.errors import (
    AdapterError,
    DeadlineExceeded,
    EngineUnavailable,
    InferenceFailed,
    InvalidInput,
    ModelCrashed,
    ModelGone,
    ModelNotFound,
    ModelNotReady,
)
from adapter.core.types import InferRequest, InferResponse, ModelMetadata, Tensor
from tests.fakes import FakeEngine, model, tensor

MODEL = model(tensor("x", "UINT8", -1, 2), tensor("s", "BYTES", -1, 1), max_batch_size=3)


def dataplane(engine: FakeEngine) -> DataPlane:
    return DataPlane(engine)


def request(rows: int) -> InferRequest:
    return InferRequest(
        "m",
        "",
        (
            Tensor("x", "UINT8", (rows, 2), bytes(range(2 * rows))),
            Tensor("s", "BYTES", (rows, 1), pack_bytes([b"s" * i for i in range(rows)])),
        ),
        parameters={"seed": 1},
    )


def infer(
    engine: FakeEngine, sent: InferRequest, metadata: ModelMetadata = MODEL, timeout_s: float = 5
) -> Any:
    return asyncio.run(dataplane(engine).infer(metadata, sent, timeout_s))


# --- Finding a model ---


@pytest.mark.parametrize(
    "name",
    ["", ".", "..", "a b", "a/b", "a*", "a>", "é", "a\n", "a\0", "m@1", "a:b", "x" * 129, "../m", "$x"],
)
def test_a_name_that_no_model_may_have_never_reaches_the_engine(name: str) -> None:
    engine = FakeEngine(MODEL)
    for place in ({}, {"version": "1"}, {"label": "stable"}):
        with pytest.raises(ModelNotFound, match=r"^Model not found: ") as caught:
            asyncio.run(dataplane(engine).metadata(name, **place))
        assert caught.value.message == f"Model not found: {name[:128]}"
    assert engine.looked_up == []


@pytest.mark.parametrize("version", ["v1", "-1", "1.0", " 1", "1\n", "٣", "1" * 19, "latest", "*"])
def test_a_version_that_no_model_may_have_never_reaches_the_engine(version: str) -> None:
    engine = FakeEngine(MODEL)
    with pytest.raises(ModelNotFound, match=r"^Model not found: m version "):
        asyncio.run(dataplane(engine).metadata("m", version))
    assert engine.looked_up == []


@pytest.mark.parametrize("name", ["m", "M.1_x-y", "x" * 128, "...", ".hidden", "-", "0"])
def test_any_other_name_is_looked_up(name: str) -> None:
    engine = FakeEngine(model(tensor("x", "UINT8", -1), name=name))
    assert asyncio.run(dataplane(engine).metadata(name)).name == name
    assert engine.looked_up == [(name, "")]


def test_a_version_a_label_or_the_latest_is_found() -> None:
    labels = {"stable": "2", "broken": "9"}
    engine = FakeEngine(
        *(model(tensor("x", "UINT8", -1), version=version, labels=labels) for version in ("2", "9", "10"))
    )
    del engine.served["m", "9"]
    plane = dataplane(engine)
    assert asyncio.run(plane.metadata("m")).version == "10"
    assert asyncio.run(plane.metadata("m", "2")).version == "2"
    assert asyncio.run(plane.metadata("m", label="stable")).version == "2"
    for place in ({"version": "3"}, {"label": "broken"}, {"label": "Stable"}):
        with pytest.raises(ModelNotFound):
            asyncio.run(plane.metadata("m", **place))
    with pytest.raises(ModelNotFound, match=r"^Model not found: m label canary$"):
        asyncio.run(plane.metadata("m", label="canary"))


# --- Splitting and joining ---


@pytest.mark.parametrize("rows", [1, 2, 3])
def test_what_fits_goes_in_one_call_as_it_is(rows: int) -> None:
    engine = FakeEngine(MODEL)
    sent = request(rows)
    answer = infer(engine, sent)
    assert engine.requests == [sent]
    assert engine.requests[0] is sent
    assert engine.timeouts == [5]
    assert answer == InferResponse("m", "1", sent.inputs)


@pytest.mark.parametrize(("rows", "parts"), [(4, [3, 1]), (6, [3, 3]), (7, [3, 3, 1]), (100, [3] * 33 + [1])])
def test_more_rows_than_the_maximum_are_split_and_joined_in_order(rows: int, parts: list[int]) -> None:
    engine = FakeEngine(MODEL)
    sent = request(rows)
    answer = infer(engine, sent)
    assert [part.inputs[0].shape for part in engine.requests] == [(size, 2) for size in parts]
    assert [part.inputs[1].shape for part in engine.requests] == [(size, 1) for size in parts]
    assert engine.requests[1].inputs[0].data == bytes((6, 7, 8, 9, 10, 11)[: 2 * parts[1]])
    assert engine.requests[1].inputs[1].data == pack_bytes([b"sss", b"ssss", b"sssss"][: parts[1]])
    assert all(part.parameters == {"seed": 1} for part in engine.requests)
    assert answer == InferResponse("m", "1", sent.inputs)


def test_parts_that_end_out_of_order_are_joined_in_order() -> None:
    class Uneven(FakeEngine):
        async def infer(self, request: InferRequest, timeout_s: float) -> InferResponse:
            first = request.inputs[0].data[0]
            await asyncio.sleep(0.03 - first / 1000)
            return await super().infer(request, timeout_s)

    engine, sent = Uneven(MODEL), request(12)
    assert infer(engine, sent).outputs == sent.inputs
    assert [part.inputs[0].data[0] for part in engine.requests] == [18, 12, 6, 0]


def test_views_into_a_message_are_split_too() -> None:
    engine, sent = FakeEngine(MODEL), request(5)
    views = sent._replace(inputs=tuple(t._replace(data=memoryview(t.data)) for t in sent.inputs))
    assert infer(engine, views).outputs == sent.inputs


def test_elements_of_several_axes_stay_with_their_row() -> None:
    metadata = model(tensor("s", "BYTES", -1, 2, -1), max_batch_size=1)
    elements = [b"a", b"bb", b"ccc", b"dddd", b"", b"e", b"f", b"g"]
    sent = InferRequest("m", "", (Tensor("s", "BYTES", (2, 2, 2), pack_bytes(elements)),))
    engine = FakeEngine(metadata)
    assert infer(engine, sent, metadata).outputs == sent.inputs
    assert [part.inputs[0] for part in engine.requests] == [
        Tensor("s", "BYTES", (1, 2, 2), pack_bytes(elements[:4])),
        Tensor("s", "BYTES", (1, 2, 2), pack_bytes(elements[4:])),
    ]


def test_without_a_batch_axis_nothing_is_split() -> None:
    metadata = model(tensor("x", "UINT8", -1))
    engine = FakeEngine(metadata)
    sent = InferRequest("m", "", (Tensor("x", "UINT8", (50,), bytes(50)),))
    assert infer(engine, sent, metadata).outputs == sent.inputs
    assert engine.requests == [sent]


def test_only_some_parts_run_at_a_time() -> None:
    engine = FakeEngine(MODEL)
    engine.pause_s = 0.001
    sent = request(120)
    assert infer(engine, sent).outputs == sent.inputs
    assert len(engine.requests) == 40
    assert engine.most_running == 16


def test_one_deadline_is_for_all_parts() -> None:
    engine = FakeEngine(MODEL)
    engine.pause_s = 0.06
    with pytest.raises(DeadlineExceeded):
        infer(engine, request(120), timeout_s=0.1)
    assert 16 <= len(engine.requests) < 40
    assert all(left <= 0.1 for left in engine.timeouts[:16])
    assert all(left < 0.1 - 0.05 for left in engine.timeouts[16:])


def refusing(engine: FakeEngine, error: AdapterError) -> None:
    """Let the second part fail at once, while the others are still at work."""

    def run(part: InferRequest) -> InferResponse:
        if part.inputs[0].data[0] == 6:
            raise error
        return engine.echo(part)

    engine.run = run


def test_one_failing_part_cancels_the_others() -> None:
    class Slow(FakeEngine):
        async def infer(self, request: InferRequest, timeout_s: float) -> InferResponse:
            self.pause_s = 0.0 if request.inputs[0].data[0] == 6 else 30.0
            return await super().infer(request, timeout_s)

    async def scenario() -> None:
        with pytest.raises(InvalidInput) as caught:
            await dataplane(engine).infer(MODEL, request(100), 60)
        assert caught.value.message == "counted from row 3: not this one"
        # The others hear of it before anything else happens.
        await asyncio.sleep(0)

    engine, error = Slow(MODEL), InvalidInput("not this one")
    refusing(engine, error)
    asyncio.run(scenario())
    assert engine.cancelled == 15
    assert engine.running == 0
    # The second part's place went to nobody.
    assert len(engine.requests) == 16


def test_a_caller_that_gives_up_cancels_every_part() -> None:
    async def scenario() -> None:
        task = asyncio.create_task(dataplane(engine).infer(MODEL, request(12), 60))
        await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    engine = FakeEngine(MODEL)
    engine.pause_s = 30
    asyncio.run(scenario())
    assert engine.cancelled == 4


def answering(*outputs: tuple[Tensor, ...]) -> FakeEngine:
    """An engine whose answers are these, in turn."""
    engine, turns = FakeEngine(MODEL), iter(outputs)
    engine.run = lambda _: InferResponse("m", "1", next(turns))
    return engine


@pytest.mark.parametrize(
    ("second", "message"),
    [
        ((), "the model has other outputs from one batch to the next"),
        ((Tensor("z", "UINT8", (1, 1), b"1"),), "the model has other outputs from one batch to the next"),
        (
            (Tensor("y", "UINT8", (1, 2), b"12"),),
            "output 'y' has another shape from one batch to the next",
        ),
        ((Tensor("y", "UINT8", (1,), b"1"),), "output 'y' has another shape from one batch to the next"),
        ((Tensor("y", "UINT8", (), b"1"),), "output 'y' has another shape from one batch to the next"),
        ((Tensor("y", "INT8", (1, 1), b"1"),), "output 'y' has another shape from one batch to the next"),
    ],
)
def test_answers_that_do_not_fit_each_other_are_the_models_fault(
    second: tuple[Tensor, ...], message: str
) -> None:
    first = (Tensor("y", "UINT8", (3, 1), b"123"),)
    with pytest.raises(InferenceFailed) as caught:
        infer(answering(first, second), request(4))
    assert caught.value.message == message


def test_outputs_without_a_batch_axis_cannot_be_joined() -> None:
    scalar = (Tensor("y", "UINT8", (), b"1"),)
    with pytest.raises(InferenceFailed, match="output 'y' has another shape"):
        infer(answering(scalar, scalar), request(4))


def test_outputs_are_joined_by_name_whatever_their_order() -> None:
    a, b = Tensor("a", "UINT8", (3,), b"123"), Tensor("b", "UINT8", (3, 1), b"456")
    c, d = Tensor("a", "UINT8", (1,), b"7"), Tensor("b", "UINT8", (1, 1), b"8")
    assert infer(answering((a, b), (d, c)), request(4)).outputs == (
        Tensor("a", "UINT8", (4,), b"1237"),
        Tensor("b", "UINT8", (4, 1), b"4568"),
    )


# --- What a failure does ---


@pytest.mark.parametrize("rows", [1, 7])
@pytest.mark.parametrize(
    ("error", "forgotten"),
    [
        (EngineUnavailable("down"), 1),
        (ModelNotReady("loading"), 0),
        (ModelCrashed("crashed"), 0),
        (InvalidInput("bad"), 0),
        (DeadlineExceeded("late"), 0),
        (InferenceFailed("broke"), 0),
    ],
)
def test_the_repository_is_looked_at_anew_after_it_proved_out_of_date(
    rows: int, error: AdapterError, forgotten: int
) -> None:
    def run(_: InferRequest) -> InferResponse:
        raise error

    engine = FakeEngine(MODEL)
    engine.run = run
    with pytest.raises(type(error)) as caught:
        infer(engine, request(rows))
    assert caught.value is error
    assert engine.forgotten == forgotten


def test_a_model_that_went_between_look_up_and_call_may_come_back() -> None:
    def run(_: InferRequest) -> InferResponse:
        raise ModelNotFound("gone")

    engine = FakeEngine(MODEL)
    engine.run = run
    with pytest.raises(ModelGone, match=r"^Model m is not ready: gone$"):
        infer(engine, request(1))
    assert engine.forgotten == 1
