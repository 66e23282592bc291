"""Spans by OpenTelemetry's SDK, exported over OTLP (gRPC); imported by a process that exports spans alone.

Sampling, batching, the resource, headers and certificates are as the `OTEL_*` variables say, which the SDK
reads by itself. Spans are encoded and sent by a thread of the SDK's; what its queue cannot hold is dropped.
"""

import logging
import threading
from collections.abc import Mapping, Sequence
from urllib.parse import urlsplit

import structlog
from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import SERVICE_NAME, SERVICE_VERSION, Resource
from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.trace import (
    Link,
    NonRecordingSpan,
    SpanContext,
    SpanKind,
    StatusCode,
    TraceFlags,
    TraceState,
    set_span_in_context,
)
from opentelemetry.trace import Span as SdkSpan

from adapter import __version__
from adapter.core.trace_context import TraceContext
from adapter.core.tracing import Attribute, Kind

_log = structlog.get_logger()

_KINDS: dict[Kind, SpanKind] = {
    "internal": SpanKind.INTERNAL,
    "server": SpanKind.SERVER,
    "client": SpanKind.CLIENT,
    "producer": SpanKind.PRODUCER,
    "consumer": SpanKind.CONSUMER,
}
_LAST_EXPORT_S = 0.5
"""How long what is left may take when the process ends."""
_NANOSECONDS = 1_000_000_000


class OpenTelemetryTracer:
    """`adapter.core.tracing.Tracer`, which gives spans to `processor`.

    `service` is their `service.name`, unless the environment names one.
    """

    def __init__(self, service: str, processor: SpanProcessor) -> None:
        self._processor = processor
        provider = TracerProvider(resource=_resource(service), shutdown_on_exit=False)
        provider.add_span_processor(processor)
        self._tracer = provider.get_tracer("miaas-adapter", __version__)

    def start(
        self,
        name: str,
        kind: Kind,
        parent: TraceContext | None,
        links: Sequence[TraceContext],
        since: float | None,
    ) -> "_Recording":
        """See `Tracer.start`."""
        context = Context()
        if parent is not None:
            context = set_span_in_context(NonRecordingSpan(_theirs(parent)), context)
        start_time = None if since is None else int(since * _NANOSECONDS)
        linked = [Link(_theirs(other)) for other in links]
        return _Recording(
            self._tracer.start_span(name, context, _KINDS[kind], links=linked, start_time=start_time)
        )

    def close(self) -> None:
        """See `Tracer.close`."""
        self._processor.shutdown()


class _Recording:
    """`adapter.core.tracing.Recording` by the SDK's span."""

    __slots__ = ("_span", "context")

    def __init__(self, span: SdkSpan) -> None:
        self.context = _ours(span.get_span_context())
        self._span = span

    def set(self, attributes: Mapping[str, Attribute]) -> None:
        self._span.set_attributes(attributes)

    def rename(self, name: str) -> None:
        self._span.update_name(name)

    def link(self, other: TraceContext) -> None:
        self._span.add_link(_theirs(other))

    def fail(self, error: str) -> None:
        self._span.set_attribute("error.type", error)
        self._span.set_status(StatusCode.ERROR)

    def end(self) -> None:
        if self._span.is_recording():
            self._span.end()


class Batches(BatchSpanProcessor):
    """Sends spans to the collector at `endpoint`, many at a time."""

    def __init__(self, endpoint: str) -> None:
        self._to = _Exporter(endpoint)
        super().__init__(self._to)

    def shutdown(self) -> None:
        """Export what is left, unless that takes too long."""
        last = threading.Thread(target=super().shutdown, daemon=True)
        last.start()
        last.join(_LAST_EXPORT_S)
        # This ends an export that hangs.
        self._to.shutdown()
        last.join(_LAST_EXPORT_S)


class _Exporter(SpanExporter):
    """Says once that the collector is away, and once that it is back, however many batches go by."""

    def __init__(self, endpoint: str) -> None:
        self._exporter = OTLPSpanExporter()
        self._endpoint = urlsplit(endpoint).netloc.rpartition("@")[2] or endpoint
        self._lost = 0
        self._closed = False
        # The SDK has something to say of each batch, and of each span that its queue cannot hold.
        _hear("opentelemetry.exporter", logging.NullHandler())
        _hear("opentelemetry.sdk._shared_internal", _Overflow())

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        result = self._exporter.export(spans)
        if result is not SpanExportResult.SUCCESS:
            if not self._lost:
                _log.warning("spans cannot be exported, and are dropped", collector=self._endpoint)
            self._lost += len(spans)
        elif self._lost:
            _log.info("spans are exported again", collector=self._endpoint, lost=self._lost)
            self._lost = 0
        return result

    def shutdown(self) -> None:
        if not self._closed:
            self._closed = True
            self._exporter.shutdown()


class _Overflow(logging.Handler):
    """Says once that spans end faster than the collector takes them."""

    _said = False

    def emit(self, record: logging.LogRecord) -> None:
        if not self._said and "Queue full" in record.msg:
            self._said = True
            _log.warning("some spans are dropped: the collector is too slow for all of them")


def _hear(name: str, handler: logging.Handler) -> None:
    """Have what this part of the SDK logs handled here alone."""
    logger = logging.getLogger(name)
    logger.propagate = False
    logger.handlers = [handler]


def _resource(service: str) -> Resource:
    """What the environment says of this process, with our name and version where it says nothing."""
    told = Resource.create()
    if not str(told.attributes[SERVICE_NAME]).startswith("unknown_service"):
        service = str(told.attributes[SERVICE_NAME])
    return told.merge(Resource({SERVICE_NAME: service, SERVICE_VERSION: __version__}))


def _ours(context: SpanContext) -> TraceContext:
    return TraceContext(
        f"{context.trace_id:032x}",
        f"{context.span_id:016x}",
        int(context.trace_flags),
        context.trace_state.to_header(),
    )


def _theirs(context: TraceContext) -> SpanContext:
    return SpanContext(
        int(context.trace_id, 16),
        int(context.span_id, 16),
        context.remote,
        TraceFlags(context.flags),
        TraceState.from_header([context.state]) if context.state else TraceState(),
    )
