"""A real OTLP receiver: spans come from the adapter over gRPC and from Triton over HTTP."""

import json
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import grpc
from google.protobuf.json_format import MessageToDict
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2 as service
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2_grpc as rpc

from tests.integration.conftest import eventually

_KINDS = ("", "internal", "server", "client", "producer", "consumer")


@dataclass(frozen=True)
class Span:
    """One span as it was received; `service` is who sent it."""

    service: str
    name: str
    kind: str
    trace: str
    id: str
    parent: str
    start: int
    end: int
    attributes: dict[str, Any] = field(hash=False)
    links: frozenset[tuple[str, str]]
    """Traces and spans."""
    failed: bool


class Receiver(rpc.TraceServiceServicer):
    """Keeps every span that was sent to it."""

    def __init__(self) -> None:
        self.spans: list[Span] = []
        self.raw: list[bytes] = []
        """Whatever came, as it came."""

    def Export(self, request: Any, _: Any) -> Any:  # noqa: N802 - the service's name
        """Take in one batch."""
        self.raw.append(request.SerializeToString())
        for resource in request.resource_spans:
            # Bytes as hex, as in OTLP's own JSON.
            for scope in resource.scope_spans:
                for span in scope.spans:
                    self.spans.append(_span(_attributes(MessageToDict(resource.resource)), _as_json(span)))
        return service.ExportTraceServiceResponse()

    def take_json(self, body: bytes) -> None:
        """The same over HTTP, in JSON, as Triton sends it."""
        self.raw.append(body)
        for resource in json.loads(body)["resourceSpans"]:
            for scope in resource["scopeSpans"]:
                self.spans += [_span(_attributes(resource["resource"]), span) for span in scope["spans"]]

    def of(self, trace: str) -> list[Span]:
        """The spans of a trace, so far, in the order of their beginning."""
        return sorted((span for span in self.spans if span.trace == trace), key=lambda span: span.start)

    def named(self, trace: str) -> dict[str, Span]:
        """The spans of a trace, so far, by their names; the last of each."""
        return {span.name: span for span in self.of(trace)}

    def wait(self, trace: str, *names: str) -> dict[str, Span]:
        """The spans of a trace by their names, once it has one of each of these."""

        def look() -> dict[str, Span] | None:
            found = self.named(trace)
            return found if found.keys() >= set(names) else None

        return eventually(look)


@contextmanager
def grpc_server(receiver: Receiver, port: int = 0) -> Iterator[int]:
    """Receive over gRPC on this port, or any; gives the port."""
    server = grpc.server(ThreadPoolExecutor(2), options=[("grpc.so_reuseport", 0)])
    rpc.add_TraceServiceServicer_to_server(receiver, server)
    port = server.add_insecure_port(f"127.0.0.1:{port}")
    server.start()
    try:
        yield port
    finally:
        server.stop(0).wait()


@contextmanager
def http_server(receiver: Receiver) -> Iterator[str]:
    """Receive over HTTP; gives the URL."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            assert self.path == "/v1/traces"
            receiver.take_json(self.rfile.read(int(self.headers["Content-Length"])))
            self.send_response(200)
            self.send_header("Content-Length", "2")
            self.end_headers()
            self.wfile.write(b"{}")

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/v1/traces"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def _as_json(span: Any) -> dict[str, Any]:
    """A span's message as OTLP's JSON has it: protobuf's own would write ids in base64, enums as names."""
    found: dict[str, Any] = MessageToDict(span, use_integers_for_enums=True)
    found |= {"traceId": span.trace_id.hex(), "spanId": span.span_id.hex()}
    found["parentSpanId"] = span.parent_span_id.hex()
    found["links"] = [{"traceId": li.trace_id.hex(), "spanId": li.span_id.hex()} for li in span.links]
    return found


def _span(resource: dict[str, Any], span: dict[str, Any]) -> Span:
    return Span(
        service=resource["service.name"],
        name=span["name"],
        kind=_KINDS[span["kind"]],
        trace=span["traceId"],
        id=span["spanId"],
        parent=span.get("parentSpanId", ""),
        start=int(span["startTimeUnixNano"]),
        end=int(span["endTimeUnixNano"]),
        attributes=_attributes(span),
        links=frozenset((link["traceId"], link["spanId"]) for link in span.get("links", ())),
        failed=span.get("status", {}).get("code") == 2,
    )


def _attributes(of: dict[str, Any]) -> dict[str, Any]:
    return {each["key"]: _plain(each["value"]) for each in of.get("attributes", ())}


def _plain(value: dict[str, Any]) -> Any:
    [(kind, content)] = value.items()
    return int(content) if kind == "intValue" else content
