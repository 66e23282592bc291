"""OpenTelemetry's SDK with its spans kept here, for tests in one process."""

from collections.abc import Iterator
from contextlib import contextmanager

from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor

from adapter.core import tracing
from adapter.core.trace_context import TraceContext
from adapter.otlp import OpenTelemetryTracer

CLIENTS = TraceContext("0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331", 1, remote=True)


class Kept(SpanProcessor):
    """Every span that has ended."""

    def __init__(self) -> None:
        self.spans: list[ReadableSpan] = []

    def on_end(self, span: ReadableSpan) -> None:
        self.spans.append(span)

    def names(self) -> list[str]:
        return [span.name for span in self.spans]


@contextmanager
def recorded() -> Iterator[Kept]:
    """While inside, spans are recorded."""
    kept = Kept()
    tracing.use(OpenTelemetryTracer("test", kept))
    try:
        yield kept
    finally:
        tracing.use(None)
        tracing.resume(None)
