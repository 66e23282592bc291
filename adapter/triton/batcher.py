"""Joins requests of one model that wait for Triton into one call.

A call costs far more than a row of it, on both sides. So a request is sent at once, with those that came in
the same turn of the event loop, while a model has fewer calls in flight than may be; the requests that come
meanwhile are joined into the next call. No request waits for others to come: at most it waits for a call that
is quick to end.
"""

import asyncio
from collections import OrderedDict, deque
from collections.abc import Awaitable, Callable
from contextvars import Context
from dataclasses import dataclass, field
from time import perf_counter
from typing import NamedTuple

import structlog

from adapter.core import tracing
from adapter.core.errors import (
    AdapterError,
    BatchQueueFull,
    DeadlineExceeded,
    InferenceFailed,
    ModelNotFound,
    Unavailable,
)
from adapter.core.metrics import Metrics
from adapter.core.rows import cut_answer, join_inputs
from adapter.core.trace_context import TraceContext
from adapter.core.types import InferRequest, InferResponse
from adapter.triton.deadlines import Deadlines

_log = structlog.get_logger()

Send = Callable[[InferRequest, float, int], Awaitable[InferResponse]]
"""Runs one request, which answers so many: see `Engine.infer`."""

Kind = tuple[str, tuple[tuple[str, str, tuple[int, ...]], ...], tuple[str, ...]]
"""What requests must have in common to be joined: version, inputs without their rows, outputs."""


_MANY = 16
"""So many waiting requests are worth a call beside those in flight."""
_LONG_S = 0.005
"""Beside calls that take so long its price is no matter; nor is it to a request that has waited so long."""
_WEIGHT = 0.2
"""Of the newest call in the mean of how long they take."""


class Limits(NamedTuple):
    """Of one model: rows in a call, calls in flight, and the servers that these are spread over."""

    rows: int
    calls: int
    servers: int = 1


@dataclass(slots=True, eq=False)
class _Waiting:
    request: InferRequest
    rows: int
    since: float
    deadline: float
    answer: asyncio.Future[InferResponse]
    trace: TraceContext | None
    """What its call is a part of."""
    wait: tracing.Span
    """Until its call begins."""


@dataclass(slots=True)
class _Model:
    in_flight: int = 0
    waiting: int = 0
    call_s: float = _LONG_S
    """How long its calls take, about."""
    looking: bool = False
    """Whether somebody will look after those that wait."""
    gathering: bool = False
    """Whether those that wait are sent at the end of this turn of the event loop."""
    queues: OrderedDict[Kind, deque[_Waiting]] = field(default_factory=OrderedDict)

    def may_send(self, limits: Limits) -> bool:
        """Whether another call may begin.

        A call costs as much as many rows of it. Of quick calls it is better to have one in flight on each
        server, with all that wait in the next, until enough wait to keep a second one worth its price.
        """
        if self.in_flight < limits.servers:
            return True
        if self.in_flight >= limits.calls:
            return False
        if self.waiting >= min(_MANY, limits.rows) or self.call_s >= _LONG_S:
            return True
        # The call in flight may be anything but quick: its process may be dead.
        first = next(iter(self.queues.values()))[0]
        return perf_counter() - first.since >= _LONG_S


class Batcher:
    """One per engine; at most `most_waiting` requests may wait for one model."""

    def __init__(self, send: Send, most_waiting: int, metrics: Metrics) -> None:
        self._send = send
        self._most_waiting = most_waiting
        self._metrics = metrics
        self._models: dict[str, _Model] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._running: asyncio.AbstractEventLoop | None = None
        self._deadlines: Deadlines[asyncio.Future[InferResponse]] | None = None

    async def infer(self, request: InferRequest, limits: Limits, timeout_s: float) -> InferResponse:
        """Run the request, perhaps together with others, in calls within `limits`.

        Raises what `send` raises for this request alone, DeadlineExceeded after `timeout_s`, and
        BatchQueueFull when too many wait already.
        """
        model = self._models.get(request.model_name)
        if model is None:
            model = self._models[request.model_name] = _Model()
        if model.waiting >= self._most_waiting:
            raise BatchQueueFull(
                f"{model.waiting} requests wait for the model {request.model_name!r} already"
            )
        loop = self._loop()
        # uvloop's own clock counts milliseconds: deadlines need no more, waits do.
        since, deadline = perf_counter(), loop.time() + timeout_s
        answer: asyncio.Future[InferResponse] = loop.create_future()
        wait, trace = tracing.span("wait"), tracing.current()
        waiting = _Waiting(request, request.inputs[0].shape[0], since, deadline, answer, trace, wait)
        kind = _kind(request)
        queue = model.queues.get(kind)
        if queue is None:
            queue = model.queues[kind] = deque()
        queue.append(waiting)
        model.waiting += 1
        if not model.gathering:
            model.gathering = True
            loop.call_soon(self._send_gathered, model, limits)
        deadlines = self._deadlines
        if deadlines is None:
            deadlines = self._deadlines = Deadlines(loop, _expire)
        deadlines.set(answer, deadline)
        try:
            return await answer
        finally:
            deadlines.strike(answer)
            wait.end()

    def _loop(self) -> asyncio.AbstractEventLoop:
        """The event loop. Before Python 3.12 asyncio makes a system call to tell which it is."""
        if self._running is None:
            self._running = asyncio.get_running_loop()
        return self._running

    @property
    def idle(self) -> bool:
        """Whether nothing waits and nothing is in flight."""
        return not self._tasks and not any(model.queues for model in self._models.values())

    def _send_next(self, model: _Model, limits: Limits) -> None:
        """Send what waits while fewer calls than may be are in flight; kinds take turns."""
        while model.queues and model.may_send(limits):
            kind, queue = next(iter(model.queues.items()))
            batch = _take(queue, limits.rows, model)
            if queue:
                model.queues.move_to_end(kind)
            else:
                del model.queues[kind]
            if batch:
                self._count_waits(batch)
                model.in_flight += 1
                # It is nobody's own: least of all his whose answer made room for it.
                task = self._loop().create_task(self._run(model, batch, limits), context=Context())
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)
        if model.queues and model.in_flight < limits.calls and not model.looking:
            model.looking = True
            self._loop().call_later(_LONG_S, self._look, model, limits)

    def _send_gathered(self, model: _Model, limits: Limits) -> None:
        """Those that came in the same turn of the event loop have reached their queue."""
        model.gathering = False
        self._send_next(model, limits)

    def _look(self, model: _Model, limits: Limits) -> None:
        """A request waited for a quick call; if that is none, it waits no longer."""
        model.looking = False
        self._send_next(model, limits)

    def _count_waits(self, batch: list[_Waiting]) -> None:
        now = perf_counter()
        waits = self._metrics.stage_seconds.labels("batch_wait", batch[0].request.model_name)
        for waiting in batch:
            waits.observe(now - waiting.since)

    async def _run(self, model: _Model, batch: list[_Waiting], limits: Limits) -> None:
        began = perf_counter()
        try:
            await self._call(batch)
        finally:
            model.in_flight -= 1
            model.call_s += _WEIGHT * (perf_counter() - began - model.call_s)
            self._send_next(model, limits)

    async def _call(self, batch: list[_Waiting]) -> None:
        with _begin(batch):
            await self._answer(batch)

    async def _answer(self, batch: list[_Waiting]) -> None:
        """Answer every request of the batch, or each alone where the batch as a whole fails."""
        left = max(waiting.deadline for waiting in batch) - self._loop().time()
        try:
            if len(batch) == 1:
                answers = [await self._send(batch[0].request, left, 1)]
            else:
                requests = [waiting.request for waiting in batch]
                joined = requests[0]._replace(id="", inputs=join_inputs(requests))
                answer = await self._send(joined, left, len(batch))
                answers = cut_answer(answer, [waiting.rows for waiting in batch])
        except AdapterError as error:
            if len(batch) > 1 and not isinstance(error, DeadlineExceeded | Unavailable | ModelNotFound):
                # Nobody fails for a neighbour. What is said of the model or of Triton is said to all.
                await asyncio.gather(*(self._call([waiting]) for waiting in batch))
                return
            for waiting in batch:
                _settle(waiting.answer, error)
            return
        except Exception:
            _log.exception("batch failed", model=batch[0].request.model_name)
            for waiting in batch:
                _settle(waiting.answer, InferenceFailed("an internal error; the server's log has more"))
            return
        for waiting, answer in zip(batch, answers, strict=True):
            _settle(waiting.answer, answer._replace(id=waiting.request.id))


def _kind(request: InferRequest) -> Kind:
    inputs = tuple([(tensor.name, tensor.datatype, tensor.shape[1:]) for tensor in request.inputs])
    # Outputs that are wanted in a special way do not come here.
    return request.model_version, inputs, tuple([output.name for output in request.outputs])


def _begin(batch: list[_Waiting]) -> tracing.Span:
    """End the wait of those whose trace is kept, and have the running task be part of the first one's.

    A call for several has a span of its own, which is linked with all of them.
    """
    traced = [waiting for waiting in batch if waiting.trace and waiting.wait.recording]
    if not traced:
        return tracing.NOBODYS
    tracing.resume(traced[0].trace)
    links = [waiting.trace for waiting in traced if waiting.trace]
    span = tracing.span("batch", links=links) if len(batch) > 1 else tracing.NOBODYS
    for waiting in traced:
        if span.context:
            waiting.wait.link(span.context)
        waiting.wait.end()
    return span


def _take(queue: deque[_Waiting], most_rows: int, model: _Model) -> list[_Waiting]:
    """The next requests that fit one call together; those whose client is gone are dropped."""
    batch: list[_Waiting] = []
    rows = 0
    while queue and (not batch or rows + queue[0].rows <= most_rows):
        waiting = queue.popleft()
        model.waiting -= 1
        if not waiting.answer.done():
            batch.append(waiting)
            rows += waiting.rows
    return batch


def _expire(future: asyncio.Future[InferResponse]) -> None:
    _settle(future, DeadlineExceeded("Triton did not answer in time"))


def _settle(future: asyncio.Future[InferResponse], outcome: InferResponse | AdapterError) -> None:
    if future.done():
        return
    if isinstance(outcome, AdapterError):
        future.set_exception(outcome)
    else:
        future.set_result(outcome)
