"""Spans: what a request or a job spends its time on, for whoever traces it.

The adapter says here where something begins and where it ends. Whether anybody listens is settled once, when
the process starts, by `use`; until then a span is nothing, and costs next to nothing. What is current belongs
to the task, as context variables do: tasks that are started inside a span are part of it.
"""

from collections.abc import Mapping, Sequence
from contextvars import ContextVar, Token
from types import TracebackType
from typing import Literal, Protocol, Self

from adapter.core.errors import AdapterError
from adapter.core.trace_context import TraceContext

Kind = Literal["internal", "server", "client", "producer", "consumer"]
"""OpenTelemetry's kinds of spans. With a `server` or a `consumer` begins this process's part of a trace."""
Attribute = str | int | float | bool

_current: ContextVar[TraceContext | None] = ContextVar("trace", default=None)


class Span:
    """A piece of work: what begins inside a `with` on it belongs to it. This one is recorded by nobody.

    Of what goes through the adapter a span tells sizes, names and codes: never a payload, a credential, or an
    error's message, which may quote either.
    """

    __slots__ = ()

    @property
    def context(self) -> TraceContext | None:
        """Its place in a trace."""
        return None

    @property
    def recording(self) -> bool:
        """Whether it is of any use to say more of it."""
        return False

    def set(self, attributes: Mapping[str, Attribute]) -> None:
        """Say more about it, in the words of OpenTelemetry's semantic conventions."""

    def rename(self, name: str) -> None:
        """Give it a better name than could be known at its start."""

    def link(self, other: TraceContext) -> None:
        """Point to a span of which this one is no part."""

    def fail(self, error: str) -> None:
        """It went wrong: a code, or the name of an exception."""

    def end(self) -> None:
        """It is over, unless it was already; a `with` says so itself."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.end()


class RecordedSpan(Span):
    """A span with a place in a trace; a Tracer's own class says what becomes of it."""

    __slots__ = ("_context", "_token")

    def __init__(self, context: TraceContext) -> None:
        self._context = context
        self._token: Token[TraceContext | None] | None = None

    @property
    def context(self) -> TraceContext:
        return self._context

    @property
    def recording(self) -> bool:
        return self._context.sampled

    def __enter__(self) -> Self:
        self._token = _current.set(self._context)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._token is not None:
            _current.reset(self._token)
        if error is not None:
            self.fail(error.code if isinstance(error, AdapterError) else type(error).__name__)
        self.end()


class Tracer(Protocol):
    """Records spans."""

    def start(
        self,
        name: str,
        kind: Kind,
        parent: TraceContext | None,
        links: Sequence[TraceContext],
        since: float | None,
    ) -> RecordedSpan:
        """Begin a span, now or at the epoch second `since`; without a parent it begins a trace."""

    def close(self) -> None:
        """Record nothing more."""


NOBODYS = Span()
_tracer: Tracer | None = None


def use(tracer: Tracer | None) -> None:
    """Have spans recorded by this tracer from now on, or by none."""
    global _tracer
    _tracer = tracer


def current() -> TraceContext | None:
    """The span that the running task is in, or what the caller of this process said of its own."""
    return _current.get()


def recorded() -> TraceContext | None:
    """The span that the running task is in, if somebody records it."""
    context = _current.get() if _tracer is not None else None
    return context if context is not None and context.sampled else None


def resume(context: TraceContext | None) -> None:
    """From here on the running task is part of this."""
    _current.set(context)


def span(
    name: str, kind: Kind = "internal", links: Sequence[TraceContext] = (), since: float | None = None
) -> Span:
    """Begin a span below the current one. Nobody records it where nobody records that one."""
    if _tracer is None:
        return NOBODYS
    parent = _current.get()
    if kind in ("server", "consumer") or (parent is not None and parent.sampled):
        return _tracer.start(name, kind, parent, links, since)
    return NOBODYS
