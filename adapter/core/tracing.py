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


class Recording(Protocol):
    """What somebody keeps of a span, and its place in a trace."""

    @property
    def context(self) -> TraceContext:
        """Its place, and whether it is kept."""

    def set(self, attributes: Mapping[str, Attribute]) -> None:
        """See `Span.set`."""

    def rename(self, name: str) -> None:
        """See `Span.rename`."""

    def link(self, other: TraceContext) -> None:
        """See `Span.link`."""

    def fail(self, error: str) -> None:
        """See `Span.fail`."""

    def end(self) -> None:
        """See `Span.end`."""


class Tracer(Protocol):
    """Records spans."""

    def start(
        self,
        name: str,
        kind: Kind,
        parent: TraceContext | None,
        links: Sequence[TraceContext],
        since: float | None,
    ) -> Recording:
        """Begin a span, now or at the epoch second `since`; without a parent it begins a trace."""

    def close(self) -> None:
        """Record nothing more."""


class Span:
    """A piece of work: what begins inside a `with` on it belongs to it. Without a recording it is nobody's.

    Of what goes through the adapter a span tells sizes, names and codes: never a payload, a credential, or an
    error's message, which may quote either.
    """

    __slots__ = ("_recording", "_token")

    def __init__(self, recording: Recording | None) -> None:
        self._recording = recording
        self._token: Token[TraceContext | None] | None = None

    @property
    def context(self) -> TraceContext | None:
        """Its place in a trace."""
        return None if self._recording is None else self._recording.context

    @property
    def recording(self) -> bool:
        """Whether it is of any use to say more of it."""
        return self._recording is not None and self._recording.context.sampled

    def set(self, attributes: Mapping[str, Attribute]) -> None:
        """Say more about it, in the words of OpenTelemetry's semantic conventions."""
        if self._recording is not None:
            self._recording.set(attributes)

    def rename(self, name: str) -> None:
        """Give it a better name than could be known at its start."""
        if self._recording is not None:
            self._recording.rename(name)

    def link(self, other: TraceContext) -> None:
        """Point to a span of which this one is no part."""
        if self._recording is not None:
            self._recording.link(other)

    def fail(self, error: str) -> None:
        """It went wrong: a code, or the name of an exception."""
        if self._recording is not None:
            self._recording.fail(error)

    def end(self) -> None:
        """It is over, unless it was already; a `with` says so itself."""
        if self._recording is not None:
            self._recording.end()

    def __enter__(self) -> Self:
        if self._recording is not None:
            self._token = _current.set(self._recording.context)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._recording is None:
            return
        if self._token is not None:
            _current.reset(self._token)
        if error is not None:
            self.fail(error.code if isinstance(error, AdapterError) else type(error).__name__)
        self.end()


NOBODYS = Span(None)
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
        return Span(_tracer.start(name, kind, parent, links, since))
    return NOBODYS
