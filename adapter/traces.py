"""Whether and where spans are exported, by OpenTelemetry's own environment variables.

https://opentelemetry.io/docs/specs/otel/configuration/sdk-environment-variables/
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit

import structlog

from adapter.core import tracing

_log = structlog.get_logger()

_HTTP_PORT = 4318


def collector() -> str | None:
    """The OTLP endpoint that spans go to, or None when nobody wants any."""
    if _variable("OTEL_SDK_DISABLED").lower() == "true" or _variable("OTEL_TRACES_EXPORTER") == "none":
        return None
    return _variable("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT") or _variable("OTEL_EXPORTER_OTLP_ENDPOINT") or None


def collector_for_triton(url: str | None) -> str | None:
    """Where Triton, which knows OTLP over HTTP alone, is to send its spans; None when nobody wants any.

    That is `url`, or else the port that is registered for it on the collector's host.
    """
    endpoint = collector()
    if endpoint is None or url:
        return endpoint and url
    place = urlsplit(endpoint if "//" in endpoint else f"http://{endpoint}")
    host = f"[{place.hostname}]" if ":" in (place.hostname or "") else place.hostname
    return f"{place.scheme}://{host}:{_HTTP_PORT}/v1/traces"


@contextmanager
def exported_spans(service: str) -> Iterator[None]:
    """While inside, spans go to the collector, if there is one; `service` is their default `service.name`."""
    endpoint = collector()
    tracer = _tracer(service, endpoint) if endpoint else None
    tracing.use(tracer)
    try:
        yield
    finally:
        tracing.use(None)
        if tracer is not None:
            tracer.close()


def _tracer(service: str, endpoint: str) -> tracing.Tracer | None:
    """None when a variable is wrong: that is no reason to serve nobody."""
    # Who exports no spans imports nothing of this.
    from adapter.otlp import Batches, OpenTelemetryTracer

    protocol = _variable("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL") or _variable("OTEL_EXPORTER_OTLP_PROTOCOL")
    if protocol not in ("", "grpc"):
        _log.warning("spans are exported over gRPC alone", protocol=protocol)
    try:
        return OpenTelemetryTracer(service, Batches(endpoint))
    except Exception as error:
        _log.error("spans are not exported", reason=str(error))
        return None


def _variable(name: str) -> str:
    return os.environ.get(name, "").strip()
