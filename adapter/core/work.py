"""The request or the job at hand, as far as its line in the log is concerned."""

from contextvars import ContextVar
from dataclasses import dataclass, field
from time import perf_counter
from types import TracebackType

from adapter.core.instruments import Distribution
from adapter.core.tracing import Span, span


@dataclass(slots=True)
class Work:
    """A request or a job: the id of the request, and the seconds that it spent in each stage so far."""

    request_id: str
    seconds: dict[str, float] = field(default_factory=dict)

    @property
    def timings(self) -> dict[str, float]:
        """The stages as a line of the log has them: `decode_ms` and so on."""
        return {f"{name}_ms": milliseconds(seconds) for name, seconds in self.seconds.items()}


_current: ContextVar[Work | None] = ContextVar("work", default=None)


def milliseconds(seconds: float) -> float:
    """Seconds as the log has them, to the microsecond."""
    return int(seconds * 1e6) / 1000


def begin(request_id: str) -> Work:
    """From here on the running task, with those that it starts, works for this request."""
    work = Work(request_id)
    _current.set(work)
    return work


def current() -> Work | None:
    """What the running task works for."""
    return _current.get()


class Stage:
    """A part of the way of a request or a job: timed for its line in the log, and a span of that name.

    What ends without an error is observed in `series` too, in seconds.
    """

    __slots__ = ("_began", "_name", "_series", "_span")

    def __init__(self, name: str, series: Distribution | None = None) -> None:
        self._name = name
        self._series = series

    def __enter__(self) -> Span:
        self._span = span(self._name).__enter__()
        self._began = perf_counter()
        return self._span

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        seconds = perf_counter() - self._began
        if self._series is not None and error is None:
            self._series.observe(seconds)
        work = _current.get()
        if work is not None:
            work.seconds[self._name] = work.seconds.get(self._name, 0.0) + seconds
        self._span.__exit__(kind, error, trace)
