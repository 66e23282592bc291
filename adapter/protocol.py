"""The HTTP connection of uvicorn, with limits for clients that mean no good.

A client has only so much time, see `patience`; its headers are bounded, and so are the connections that one
process holds. What is refused is answered in the form of the path's contract, after all that was asked before
it, and closed.
"""

import asyncio
from collections.abc import Callable
from http import HTTPStatus
from typing import Any, cast
from urllib.parse import unquote

import httptools
import structlog

from adapter.contracts.body import BODY_INTO
from adapter.contracts.errors import error_body
from adapter.contracts.journal import (
    CLIENT_LEFT,
    REQUEST_ID,
    client_got,
    new_request_id,
    request_id_of,
    wanted,
)
from adapter.contracts.leaving import END_WITH_CLIENT
from adapter.cycle import Cycle
from adapter.heads import is_well_formed, without_offer
from adapter.intake import Intake
from adapter.patience import PatientProtocol
from adapter.settings import Settings

_log = structlog.get_logger()

MOST_HEADER_BYTES = 32 << 10
"""Of a request, and as many of what comes between the pieces of a body, or behind it."""
MOST_WAITING = 100
"""Requests behind the one that is being answered."""
MOST_UNREAD_BYTES = 256 << 10
"""Of a body, before no more of it is read from the connection."""
_LATER = HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.SERVICE_UNAVAILABLE


class HttpProtocol(PatientProtocol):
    """One connection within the settings' limits; `refused` is told the code of a refusal.

    Everything else is what uvicorn makes a connection of.
    """

    def __init__(self, settings: Settings, refused: Callable[[str], None], **uvicorns: Any) -> None:
        super().__init__(settings.header_timeout_s, **uvicorns)
        self.max_connections = settings.max_connections
        self.refused = refused
        self._max_body_bytes = settings.max_body_bytes
        self._access_log_sample = settings.access_log_sample
        self._answering: Cycle | None = None
        """`cycle`, or the one that it waits behind."""
        self._head_bytes = 0
        """Received since the last request, or the last piece of this one's body."""
        self._parting = False
        """Whatever comes now is dropped."""
        self._last_words = b""
        """What is answered to what was refused, once all that came before is answered."""
        self._extensions: dict[str, Any] = {}

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._extensions[END_WITH_CLIENT] = self._end_with_client
        if self.scheme == "http":
            self._extensions[BODY_INTO] = self._put_into
        self.wait()
        if len(self.connections) > self.max_connections:
            status, message = HTTPStatus.SERVICE_UNAVAILABLE, "too many connections"
            self._refuse(status, "unavailable", message, reason="too_many_connections")
            self.transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        self._extensions.clear()
        # This one is told of it; those that wait behind it never run.
        cycle = self.cycle = self._answering
        if cycle is not None and not cycle.response_started:
            client_got(cycle.scope["state"], CLIENT_LEFT)
            if cycle.ends_with_client is not None:
                cycle.ends_with_client.cancel()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self._parting:
            self._body_bytes += len(data)
            if self._body_bytes > self._max_body_bytes:
                self.transport.close()
            return
        self._head_bytes += len(data)
        try:
            self._parse(data)
        except httptools.HttpParserError:
            self._refuse_malformed()
        if self._head_bytes > MOST_HEADER_BYTES and not self._parting:
            self._refuse_headers()
        elif self._in_message and self._timer is None and not self._parting:
            self.wait()

    def _parse(self, data: bytes) -> None:
        """Raises HttpParserError for what is no HTTP."""
        rest: bytes | memoryview = data
        while not self._parting:
            try:
                self.parser.feed_data(rest)
            except httptools.HttpParserUpgrade as offer:
                # The parser takes the body that follows for the other protocol's, but Java's client and
                # `curl --http2` offer HTTP/2 with every request.
                rest = memoryview(rest)[offer.args[0] :]
                self._pass_over_offer()
            else:
                return

    def _pass_over_offer(self) -> None:
        method, version = self.parser.get_method(), self.parser.get_http_version()
        if method == b"CONNECT":
            self._refuse_malformed()
        elif not self._parting:
            self._renew_parser()
            self.parser.feed_data(without_offer(method, self.url, version, self.headers))

    def _renew_parser(self) -> None:
        self.parser = httptools.HttpRequestParser(self)
        self.parser.set_dangerous_leniencies(lenient_data_after_close=True)

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._in_message = True

    def on_headers_complete(self) -> None:
        if self._parting:
            return
        version = self.parser.get_http_version()
        # `_head_bytes` may count some of the body, so that only a sum that looks too large is made exactly.
        if self._head_bytes > MOST_HEADER_BYTES and self._header_bytes() > MOST_HEADER_BYTES:
            self._refuse_headers()
        elif not is_well_formed(version, self.headers):
            self._refuse_malformed()
        elif len(self.pipeline) >= MOST_WAITING:
            message = f"more than {MOST_WAITING} requests wait on this connection"
            self._refuse(HTTPStatus.TOO_MANY_REQUESTS, "rate_limited", message)
        elif not self.parser.should_upgrade():
            self._begin(version)
            self._next(in_headers=False)

    def _begin(self, version: str) -> None:
        """Start the request that the headers describe, or queue it behind the one that is being answered."""
        scope = self.scope
        # Its annotations do not know that there may be no query.
        url: Any = httptools.parse_url(self.url)
        raw_path = url.path or b"/"
        path = raw_path.decode("ascii")
        scope["method"] = self.parser.get_method().decode("ascii")
        scope["http_version"] = version
        scope["path"] = unquote(path) if "%" in path else path
        scope["raw_path"] = raw_path
        scope["query_string"] = url.query or b""
        # What comes behind the body is no header: nobody has looked at it who looks at headers.
        self.headers = []
        last = self.cycle
        cycle = self.cycle = Cycle(
            scope,
            self.transport,
            self.flow,
            self.logger,
            self.access_logger,
            False,
            self.server_state.default_headers,
            asyncio.Event(),
            self.expect_100_continue and version == "1.1",
            version != "1.0" and self.parser.should_keep_alive(),
            self.on_response_complete,
        )
        scope["extensions"] = self._extensions
        if last is None or last.response_complete:
            self._answering = cycle
            self._start_asgi_task(cycle, self.app)
        else:
            self.flow.pause_reading()
            self.pipeline.appendleft((cycle, self.app))

    def on_body(self, body: bytes) -> None:
        cycle = self.cycle
        if cycle is None or self._parting:
            return
        self._head_bytes = 0
        self._body_bytes += len(body)
        if cycle.take(body) > MOST_UNREAD_BYTES:
            self.flow.pause_reading()
        elif cycle.response_complete and self._body_bytes > self._max_body_bytes:
            self._refuse(
                HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "payload_too_large", "more of the body is not waited for"
            )

    def _put_into(self, place: memoryview) -> bool:
        """Have the body of the request at hand lie there; returns False if it is refused, or not the last."""
        cycle = self._answering
        if cycle is None or cycle is not self.cycle or self._parting or self.transport.is_closing():
            return False
        rest = cycle.put_into(place)
        if rest:
            self.transport.set_protocol(Intake(self, rest, self._took))
        return True

    def _end_with_client(self) -> None:
        if self._answering is not None:
            self._answering.ends_with_client = asyncio.current_task(self.loop)

    def _took(self, size: int, last: bool) -> None:
        self._body_bytes += size
        if last:
            # The one before waits for this body's end, and for nothing else.
            self._renew_parser()
            self.transport.set_protocol(self)
            self.on_message_complete()

    def on_message_complete(self) -> None:
        cycle = self.cycle
        if cycle is None or self._parting or self._in_headers:
            return
        self._in_message = False
        self._next(in_headers=True)
        if cycle.response_complete:
            # It was answered before its body had come.
            self.idle()
        else:
            cycle.more_body = False
            cycle.message_event.set()

    def on_response_complete(self) -> None:
        """As uvicorn's, but for its timer for each answer: here one of the connection looks now and then."""
        self.server_state.total_requests += 1
        if self.transport.is_closing():
            return
        self.flow.resume_reading()
        if not cast(Cycle, self._answering).keep_alive:
            self._part()
        elif self.pipeline:
            cycle, app = self.pipeline.pop()
            self._answering = cast(Cycle, cycle)
            self._start_asgi_task(cycle, app)
        elif self._parting:
            self._say_last()
        else:
            self.idle()

    def _refuse_malformed(self) -> None:
        self._refuse(HTTPStatus.BAD_REQUEST, "malformed_request", "the request is malformed HTTP")

    def _next(self, in_headers: bool) -> None:
        self._in_headers = in_headers
        self._head_bytes = self._body_bytes = 0
        self.waited()

    def _header_bytes(self) -> int:
        return len(self.url) + sum(len(name) + len(value) for name, value in self.headers)

    def too_slow(self) -> None:
        self._refuse(HTTPStatus.REQUEST_TIMEOUT, "request_timeout", "the request did not come in time")

    def _refuse_headers(self) -> None:
        status = HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE
        self._refuse(status, "headers_too_large", f"the headers are larger than {MOST_HEADER_BYTES} bytes")

    def _refuse(self, status: HTTPStatus, code: str, message: str, reason: str = "") -> None:
        """Answer in its turn, unless an answer has begun, and hang up; nothing more is taken.

        `reason` is what is counted where not the code.
        """
        if self._parting or self.transport.is_closing():
            return
        self.refused(reason or code)
        self._parting = True
        self.waited()
        cycle = self.cycle
        if cycle is None or self._in_headers:
            in_turn = cycle is None or cycle.response_complete
        elif self.pipeline:
            # What is refused is the last one that waits there, which now never runs.
            self.pipeline.popleft()
            in_turn = False
        elif cycle.response_started:
            self.transport.close()
            return
        else:
            # The application may be at it, but has lost its turn to answer.
            cycle.disconnected = cycle.response_complete = in_turn = True
            cycle.message_event.set()
        self._last_words = self._refusal(status, code, message)
        if in_turn:
            self._say_last()
        else:
            self.flow.pause_reading()

    def _refusal(self, status: HTTPStatus, code: str, message: str) -> bytes:
        """The whole answer. It is logged, by the journal where that has the request at hand."""
        path = (getattr(self, "url", b"") or b"/").decode("latin-1").partition("?")[0]
        again = {"Retry-After": "1"} if status in _LATER else {}
        answer = error_body(path, status, code, message, headers=again)
        cycle = None if self._in_headers else self.cycle
        if cycle is None:
            request_id = new_request_id()
        else:
            request_id = request_id_of(cycle.scope["state"], cycle.scope["headers"])
        headers = [*self.server_state.default_headers, *answer.raw_headers]
        headers += [(REQUEST_ID, request_id.encode()), (b"connection", b"close")]
        head = b"HTTP/1.1 %d %b\r\n" % (status.value, status.phrase.encode())
        if cycle is not None and cycle is self._answering:
            client_got(cycle.scope["state"], status.value)
        elif wanted(status, self._access_log_sample):
            address = self.client[0] if self.client else ""
            _log.info("refused", request_id=request_id, address=address, code=status.value, reason=code)
        return b"".join([head, *(b"%b: %b\r\n" % header for header in headers), b"\r\n", bytes(answer.body)])

    def _say_last(self) -> None:
        self.transport.write(self._last_words)
        self._part()

    def _part(self) -> None:
        """Hang up on a client that may still be sending: in stages, as RFC 9112, section 9.6, has it.

        Its connection would else be reset, and with it the answer lost. TLS does so of itself.
        """
        self._parting = True
        self._body_bytes = 0
        if self.transport.can_write_eof():
            # No more of a body is put where it was to lie.
            self.transport.set_protocol(self)
            self.transport.write_eof()
            self.flow.resume_reading()
            self.wait_for_end()
        else:
            self.transport.close()
