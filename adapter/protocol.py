"""The HTTP connection of uvicorn, with limits for clients that mean no good.

uvicorn bounds neither the headers nor the time a client takes to send or to read. Here a connection has so
long for a request's headers, a body must come at a least pace, an answer must be taken, and one process
holds so many connections. What is refused is answered in the form of the path's contract, after all that was
asked before it, and closed.
"""

import asyncio
import re
from collections.abc import Callable
from http import HTTPStatus
from typing import Any, cast
from urllib.parse import unquote

import httptools
import structlog
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from adapter.contracts.body import BODY_INTO
from adapter.contracts.errors import error_body
from adapter.contracts.journal import REQUEST_ID, new_request_id, wanted
from adapter.cycle import Cycle
from adapter.intake import Intake
from adapter.settings import Settings

_UPGRADE = re.compile(rb"(\r\n)upgrade(?=[ \t]*:)", re.IGNORECASE)
_log = structlog.get_logger()

MOST_HEADER_BYTES = 32 << 10
LEAST_PACE = 1024
"""Bytes per second that a body must come at, on average, once the grace is over."""
GRACE_S = 10.0
_LOOK_EVERY_S = 2.0
MOST_UNREAD_BYTES = 256 << 10
"""Of a body, before no more of it is read from the connection."""
_TICK_S = 0.001
"""The event loop's clock counts milliseconds."""
READ_WITHIN_S = 60.0
"""How long a client may take nothing of an answer that waits for it."""


class HttpProtocol(HttpToolsProtocol):
    """One connection within the settings' limits; `refused` is told the code of a refusal.

    Everything else is what uvicorn makes a connection of.
    """

    cycle: Cycle | None  # type: ignore[assignment]

    def __init__(self, settings: Settings, refused: Callable[[str], None], **uvicorns: Any) -> None:
        super().__init__(**uvicorns)
        self.max_connections = settings.max_connections
        self.refused = refused
        self._header_timeout_s = settings.header_timeout_s
        self._max_body_bytes = settings.max_body_bytes
        self._access_log_sample = settings.access_log_sample
        self._answering: Cycle | None = None
        """`cycle`, or the one that it waits behind."""
        self._timer: asyncio.TimerHandle | None = None
        self._writing: asyncio.TimerHandle | None = None
        self._idling: asyncio.TimerHandle | None = None
        self._idle_since = 0.0
        self._in_headers = True
        """Between requests, or within one's headers."""
        self._in_message = False
        self._bytes = 0
        """Received of what is being waited for: the headers, or the body."""
        self._since = 0.0
        self._refused = False
        self._last_words = b""
        """What is answered to what was refused, once all that came before is answered."""
        self._extensions: dict[str, Any] = {}

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        if self.scheme == "http":
            self._extensions[BODY_INTO] = self._put_into
        self._wait()
        if len(self.connections) > self.max_connections:
            status, message = HTTPStatus.SERVICE_UNAVAILABLE, "too many connections"
            self._refuse(status, "unavailable", message, reason="too_many_connections")

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop(self._timer)
        self._stop(self._writing)
        self._stop(self._idling)
        self._extensions.clear()
        # This one is told of it; those that wait behind it never run.
        self.cycle = self._answering
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self._refused:
            return
        self._bytes += len(data)
        super().data_received(_without_upgrade(data) if self._in_headers else data)
        if self._in_headers and self._bytes > MOST_HEADER_BYTES and self.parser is not None:
            self._refuse_headers()
        elif self._in_message and self._timer is None and not self._refused:
            self._wait()

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._in_message = True

    def on_headers_complete(self) -> None:
        if self._refused:
            return
        # `_bytes` may count some of the body, so that only a sum that looks too large is made exactly.
        if self._bytes > MOST_HEADER_BYTES and self._header_bytes() > MOST_HEADER_BYTES:
            self._refuse_headers()
            return
        self._begin()
        self._next(in_headers=False)

    def _begin(self) -> None:
        """Start the request that the headers describe, or queue it behind the one that is being answered."""
        scope, version = self.scope, self.parser.get_http_version()
        # Its annotations do not know that there may be no query.
        url: Any = httptools.parse_url(self.url)
        path = url.path.decode("ascii")
        scope["method"] = self.parser.get_method().decode("ascii")
        scope["http_version"] = version
        scope["path"] = unquote(path) if "%" in path else path
        scope["raw_path"] = url.path
        scope["query_string"] = url.query or b""
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
            self.expect_100_continue,
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
        if cycle is None or self._refused:
            return
        if cycle.take(body) > MOST_UNREAD_BYTES:
            self.flow.pause_reading()
        elif cycle.response_complete and self._bytes > self._max_body_bytes:
            self._refuse(
                HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "payload_too_large", "more of the body is not waited for"
            )

    def _put_into(self, place: memoryview) -> bool:
        """Have the body of the request at hand lie there; returns False where another one came after it."""
        cycle = self._answering
        if cycle is None or cycle is not self.cycle or self.transport.is_closing():
            return False
        rest = cycle.put_into(place)
        if rest:
            self.transport.set_protocol(Intake(self, rest, self._took))
        return True

    def _took(self, size: int, last: bool) -> None:
        self._bytes += size
        if last:
            # The one before waits for this body's end, and for nothing else.
            self.parser = httptools.HttpRequestParser(self)
            self.parser.set_dangerous_leniencies(lenient_data_after_close=True)
            self.transport.set_protocol(self)
            self.on_message_complete()

    def on_message_complete(self) -> None:
        cycle = self.cycle
        if cycle is None or self._refused:
            return
        self._in_message = False
        self._next(in_headers=True)
        if cycle.response_complete:
            # It was answered before its body had come.
            self._idle()
        else:
            cycle.more_body = False
            cycle.message_event.set()

    def on_response_complete(self) -> None:
        """As uvicorn's, but for its timer for each answer: here one of the connection looks now and then."""
        self.server_state.total_requests += 1
        if self.transport.is_closing():
            return
        self.flow.resume_reading()
        if self.pipeline:
            cycle, app = self.pipeline.pop()
            self._answering = cast(Cycle, cycle)
            self._start_asgi_task(cycle, app)
        elif self._refused:
            self._say_last()
        else:
            self._idle()

    def _idle(self) -> None:
        """From now on nothing is asked of us, unless the answer came before the body's end."""
        self._idle_since = self.loop.time()
        if self._idling is None:
            self._idling = self.loop.call_later(self.timeout_keep_alive, self._look_whether_idle)

    def _look_whether_idle(self) -> None:
        """Close a connection on which nothing came for so long since the last answer."""
        self._idling = None
        cycle, left = self.cycle, self._idle_since + self.timeout_keep_alive - self.loop.time()
        if self._in_message or (cycle is not None and not cycle.response_complete):
            return
        if left > _TICK_S:
            self._idling = self.loop.call_later(left, self._look_whether_idle)
        elif not self.transport.is_closing():
            self.transport.close()

    def pause_writing(self) -> None:
        super().pause_writing()
        self._watch_reader()

    def resume_writing(self) -> None:
        self._stop(self._writing)
        super().resume_writing()

    def send_400_response(self, msg: str) -> None:
        self._refuse(HTTPStatus.BAD_REQUEST, "malformed_request", "the request is malformed HTTP")

    def _next(self, in_headers: bool) -> None:
        self._in_headers = in_headers
        self._bytes = 0
        self._stop(self._timer)
        self._timer = None

    def _wait(self) -> None:
        self._since = self.loop.time()
        if self._in_headers:
            self._look_at_headers()
        else:
            self._timer = self.loop.call_later(_LOOK_EVERY_S, self._look_at_body)

    def _header_bytes(self) -> int:
        return len(self.url) + sum(len(name) + len(value) for name, value in self.headers)

    def _look_at_headers(self) -> None:
        """Whether they are still in time, which begins anew while it is we who do not read."""
        now = self.loop.time()
        if self.flow.read_paused:
            self._since = now
        left = self._since + self._header_timeout_s - now
        if left > _TICK_S:
            self._timer = self.loop.call_later(min(left, _LOOK_EVERY_S), self._look_at_headers)
        elif self._in_message:
            self._too_slow()
        else:
            self.transport.close()

    def _look_at_body(self) -> None:
        """Whether the body comes fast enough; what time we do not read does not count."""
        if self.flow.read_paused:
            self._since += _LOOK_EVERY_S
        elapsed = self.loop.time() - self._since
        if self._bytes < (elapsed - GRACE_S) * LEAST_PACE:
            self._too_slow()
        else:
            self._timer = self.loop.call_later(_LOOK_EVERY_S, self._look_at_body)

    def _watch_reader(self) -> None:
        left = self.transport.get_write_buffer_size()
        self._writing = self.loop.call_later(READ_WITHIN_S, self._look_at_reader, left)

    def _look_at_reader(self, left: int) -> None:
        """Whether the client has taken something of what was left; a large answer may take it a while."""
        if self.transport.get_write_buffer_size() < left:
            self._watch_reader()
        else:
            self.transport.abort()

    def _too_slow(self) -> None:
        self._refuse(HTTPStatus.REQUEST_TIMEOUT, "request_timeout", "the request did not come in time")

    def _refuse_headers(self) -> None:
        status = HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE
        self._refuse(status, "headers_too_large", f"the headers are larger than {MOST_HEADER_BYTES} bytes")

    def _refuse(self, status: HTTPStatus, code: str, message: str, reason: str = "") -> None:
        """Answer in its turn, unless an answer has begun, and close; nothing more is read.

        `reason` is what is counted where not the code.
        """
        if self._refused or self.transport.is_closing():
            return
        self.refused(reason or code)
        self._refused = True
        self._stop(self._timer)
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
            cycle.disconnected = in_turn = True
            cycle.message_event.set()
        self._last_words = self._refusal(status, code, message)
        if in_turn:
            self._say_last()
        else:
            self.flow.pause_reading()

    def _refusal(self, status: HTTPStatus, code: str, message: str) -> bytes:
        """The whole answer, which is logged."""
        path = (getattr(self, "url", b"") or b"/").decode("latin-1").partition("?")[0]
        answer = error_body(path, status, code, message)
        request_id = new_request_id()
        headers = [*self.server_state.default_headers, *answer.raw_headers]
        headers += [(REQUEST_ID, request_id.encode()), (b"connection", b"close")]
        head = b"HTTP/1.1 %d %b\r\n" % (status.value, status.phrase.encode())
        if wanted(status, self._access_log_sample):
            address = self.client[0] if self.client else ""
            _log.info("refused", request_id=request_id, address=address, code=status.value, reason=code)
        return b"".join([head, *(b"%b: %b\r\n" % header for header in headers), b"\r\n", bytes(answer.body)])

    def _say_last(self) -> None:
        self.transport.write(self._last_words)
        self.transport.close()

    @staticmethod
    def _stop(timer: asyncio.TimerHandle | None) -> None:
        if timer is not None:
            timer.cancel()


def _without_upgrade(data: bytes) -> bytes:
    """Headers with the offer of another protocol taken out, as RFC 9110, section 7.8, allows.

    Java's client and `curl --http2` offer HTTP/2 with every request, and the parser would take the body that
    follows for that protocol's.
    """
    end = data.find(b"\r\n\r\n")
    # Of the body nothing is looked at: it may be large.
    head = data if end < 0 else data[:end]
    if b"pgrade" not in head and b"PGRADE" not in head:
        return data
    return _UPGRADE.sub(rb"\1X-Upgrade", head) + data[len(head) :]
