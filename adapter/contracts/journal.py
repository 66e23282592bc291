"""What is kept of a request: its id, its place in a trace, its metrics, and its line in the log."""

import asyncio
import re
from collections.abc import Iterable
from http import HTTPStatus
from random import getrandbits, random
from time import perf_counter
from typing import Any

import structlog
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from adapter.contracts.errors import contract_of
from adapter.core import tracing, work
from adapter.core.metrics import CONTRACTS, Metrics
from adapter.core.trace_context import TraceContext, read_trace_context
from adapter.core.tracing import Attribute, Span
from adapter.core.work import milliseconds

_log = structlog.get_logger()

REQUEST_ID = b"x-request-id"
_OURS = frozenset({REQUEST_ID, b"traceparent", b"tracestate"})
_WELL_FORMED = re.compile(rb"[\w.:/+=@-]{1,128}\Z")
_METHODS = frozenset(
    {"CONNECT", "DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT", "QUERY", "TRACE"}
)
_KNOWN_LATER = ("model", "version", "job")
"""What handlers find out, and leave in the scope's state."""
_LONGEST_PATH = 200
CLIENT_LEFT = 499
_REQUEST_ID, _GOT = "request_id", "got"
"""In a scope's state: the request's id, and the status that its client got instead of the application's."""


class _Traffic:
    """One contract's series that every request changes."""

    def __init__(self, metrics: Metrics, contract: str) -> None:
        self.in_flight = metrics.requests_in_flight.labels(contract)
        self.bytes_in = metrics.request_bytes.labels(contract)
        self.bytes_out = metrics.response_bytes.labels(contract)


class Journal:
    """ASGI middleware around all that answers.

    A well-formed `X-Request-ID` of the client is taken, otherwise one is made; every answer carries it. A
    trace that the client is in (`traceparent`) is gone on with; if it is kept, its id is the exemplar of the
    time that the request took.

    A handler that found its model names it in `scope["state"]["model"]` and `["version"]`, so that no made-up
    name ever becomes a metric's label; whoever answers an error leaves its code in `["error"]`.
    """

    def __init__(self, app: ASGIApp, sample: float, metrics: Metrics) -> None:
        self._app = app
        self._sample = sample
        self._metrics = metrics
        self._traffic = {contract: _Traffic(metrics, contract) for contract in CONTRACTS}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one HTTP request; everything else goes straight on."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began = perf_counter()
        state = scope.setdefault("state", {})
        request_id, parent = _given(scope["headers"])
        request_id = state.setdefault(_REQUEST_ID, request_id)
        at_hand = work.begin(request_id)
        tracing.resume(parent)
        status = bytes_in = bytes_out = 0
        contract, trace_id = contract_of(scope["path"]), None
        traffic = self._traffic[contract]
        traffic.in_flight.inc()

        async def counted_receive() -> Message:
            nonlocal bytes_in
            message = await receive()
            bytes_in += len(message.get("body", b""))
            return message

        async def counted_send(message: Message) -> None:
            nonlocal status, bytes_out
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message.get("headers", ()), (REQUEST_ID, request_id.encode())]
            else:
                bytes_out += len(message.get("body", b""))
            await send(message)

        with tracing.span(scope["method"], "server") as span:
            trace = tracing.current()
            if trace is not None and trace.sampled:
                trace_id = trace.trace_id
            try:
                await self._app(scope, counted_receive, counted_send)
                status = status or CLIENT_LEFT
            except BaseException as error:
                status = status or HTTPStatus.INTERNAL_SERVER_ERROR.value
                # Who left is answered no more: see `leaving`.
                if not (isinstance(error, asyncio.CancelledError) and state.get(_GOT) == CLIENT_LEFT):
                    raise
            finally:
                seconds = perf_counter() - began
                if _GOT in state:
                    status, bytes_out = state[_GOT], 0
                elif "error" in state:
                    self._metrics.refused(state["error"])
                traffic.in_flight.dec()
                traffic.bytes_in.inc(bytes_in)
                traffic.bytes_out.inc(bytes_out)
                labels = contract, state.get("model", ""), state.get("version", ""), str(status)
                self._metrics.request_seconds.labels(*labels).observe(seconds, trace_id=trace_id)
                if span.recording:
                    _describe(span, scope, status, request_id)
                if wanted(status, self._sample):
                    ms = milliseconds(seconds)
                    _tell(scope, status, ms=ms, bytes_in=bytes_in, bytes_out=bytes_out, **at_hand.timings)


def request_id_of(state: dict[str, Any], headers: Iterable[tuple[bytes, bytes]]) -> str:
    """The id that the answer to a request carries, whoever answers it; `state` is its scope's."""
    request_id: str = state.setdefault(_REQUEST_ID, _given(headers)[0])
    return request_id


def client_got(state: dict[str, Any], status: int) -> None:
    """The connection answered with this status, or was lost (CLIENT_LEFT), whatever the application says."""
    state.setdefault(_GOT, status)


def new_request_id() -> str:
    """An id that no other request has. It need not be hard to guess: it opens nothing."""
    return f"{getrandbits(128):032x}"  # nosec B311


def wanted(status: int, sample: float) -> bool:
    """Whether a request gets its line: this share of them do, and each that failed on our side."""
    return status >= HTTPStatus.INTERNAL_SERVER_ERROR or random() < sample  # noqa: S311 # nosec B311


def _tell(scope: Scope, status: int, **more: Any) -> None:
    """Write the request's line. Neither query nor headers nor bodies are in it."""
    state, path = scope["state"], scope["path"]
    line: dict[str, Any] = {
        "contract": contract_of(path),
        "method": scope["method"],
        "path": path[:_LONGEST_PATH],
    }
    if client := state.get("client"):
        line["client"] = client.id
    if address := scope.get("client"):
        line["address"] = address[0]
    for name in _KNOWN_LATER:
        if value := state.get(name):
            line[name] = value
    level = _log.error if status >= HTTPStatus.INTERNAL_SERVER_ERROR else _log.info
    level("request", **line, code=int(status), **more)


def _given(headers: Iterable[tuple[bytes, bytes]]) -> tuple[str, TraceContext | None]:
    """The request's id, and the trace that its client is in."""
    found: dict[bytes, list[str]] = {}
    for name, value in headers:
        if name in _OURS and (name != REQUEST_ID or _WELL_FORMED.match(value)):
            found.setdefault(name, []).append(value.decode("latin-1"))
    if not found:
        return new_request_id(), None
    request_id = found[REQUEST_ID][0] if REQUEST_ID in found else new_request_id()
    return request_id, read_trace_context(found.get(b"traceparent", ()), found.get(b"tracestate", ()))


def _describe(span: Span, scope: Scope, status: int, request_id: str) -> None:
    """In OpenTelemetry's words for HTTP: https://opentelemetry.io/docs/specs/semconv/http/http-spans/"""
    method = scope["method"] if scope["method"] in _METHODS else "_OTHER"
    route = getattr(scope.get("route"), "path_format", "")
    attributes: dict[str, Attribute] = {
        "http.request.method": method,
        "http.response.status_code": status,
        "url.path": scope["path"][:_LONGEST_PATH],
        "url.scheme": scope["scheme"],
        "network.protocol.version": scope["http_version"],
        "miaas.request_id": request_id,
    }
    if route:
        attributes["http.route"] = route
    if client := scope["state"].get("client"):
        attributes["miaas.client"] = client.id
    span.set(attributes)
    span.rename(" ".join(filter(None, ["HTTP" if method == "_OTHER" else method, route])))
    if status >= HTTPStatus.INTERNAL_SERVER_ERROR:
        span.fail(str(status))
