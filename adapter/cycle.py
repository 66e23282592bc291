"""uvicorn's cycle of a request and its answer, where an answer that is one piece is written in one piece.

uvicorn writes head and body apart: two system calls, which are most of a short answer's price. What comes in
pieces or without a size, or is large and goes over TLS, is left to it.
"""

from typing import Any

from starlette.types import Message
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, RequestResponseCycle

_SHORT = 64 << 10
"""A body up to here is copied behind its head."""
_PIECE = 512 << 10
"""Over TLS a larger body goes out in pieces, each once the client has taken most of the one before.

TLS would else take all of it at once, and hang up on a client that then needs its time.
"""

Headers = list[tuple[bytes, bytes]]


class Cycle(RequestResponseCycle):
    """Keeps the head of an answer until its body comes."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self._head: Message | None = None
        self._pieces: list[bytes] = []
        self._unread = 0

    _block: tuple[Headers, bytes] = ([], b"")
    """uvicorn's own headers, new every second, and what they look like on the wire."""

    def take(self, piece: bytes) -> int:
        """A piece of the body came; returns how many bytes of it wait to be received."""
        if not self.response_complete:
            self._pieces.append(piece)
            self._unread += len(piece)
            self.message_event.set()
        return self._unread

    async def receive(self) -> Message:  # type: ignore[override]
        """See ASGI. All that came since the last time, in one piece."""
        if self.waiting_for_100_continue and not self.transport.is_closing():
            self.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
            self.waiting_for_100_continue = False
        if not self.disconnected and not self.response_complete:
            self.flow.resume_reading()
            await self.message_event.wait()
            self.message_event.clear()
        if self.disconnected or self.response_complete:
            return {"type": "http.disconnect"}
        pieces, self._pieces, self._unread = self._pieces, [], 0
        body = pieces[0] if len(pieces) == 1 else b"".join(pieces)
        return {"type": "http.request", "body": body, "more_body": self.more_body}

    async def send(self, message: Message) -> None:  # type: ignore[override]
        """See ASGI. Raises RuntimeError for a header with a line break in it."""
        if message["type"] == "http.response.start" and not self.response_started:
            self.response_started = True
            self._head = message
            return
        head, self._head = self._head, None
        body: bytes = message.get("body", b"")
        most = _PIECE if self.scope["scheme"] == "https" else len(body)
        if head is not None:
            whole = not message.get("more_body", False) and self.scope["method"] != "HEAD"
            if whole and len(body) <= most and (b"content-length", b"%d" % len(body)) in head["headers"]:
                if self.flow.write_paused and not self.disconnected:
                    await self.flow.drain()
                if not self.disconnected:
                    self._write(head["status"], head["headers"], body)
                return
            self.response_started = False
            await super().send(head)  # type: ignore[arg-type]
        rest = memoryview(body)
        while len(rest) > most:
            await super().send({**message, "body": rest[:most], "more_body": True})  # type: ignore[arg-type]
            rest = rest[most:]
        await super().send({**message, "body": rest})  # type: ignore[arg-type]

    def _write(self, status: int, headers: Headers, body: bytes) -> None:
        """All of an answer that says its size."""
        if (b"connection", b"close") in headers:
            self.keep_alive = False
        elif not self.keep_alive:
            headers = [*headers, (b"connection", b"close")]
        parts = [STATUS_LINE[status], self._defaults()]
        for name, value in headers:
            parts += (name, b": ", value, b"\r\n")
        parts.append(b"\r\n")
        head = b"".join(parts)
        lines = len(headers) + len(self.default_headers) + 2
        if head.count(b"\n") != lines or head.count(b"\r") != lines:
            raise RuntimeError("a header holds a line break")
        self.waiting_for_100_continue = False
        if len(body) < _SHORT:
            self.transport.write(head + body)
        else:
            self.transport.writelines((head, body))
        self.chunked_encoding = False
        self.response_complete = True
        self.message_event.set()
        if not self.keep_alive:
            self.transport.close()
        self.on_response()

    def _defaults(self) -> bytes:
        known, block = Cycle._block
        if known is not self.default_headers:
            block = b"".join(b"%b: %b\r\n" % header for header in self.default_headers)
            Cycle._block = self.default_headers, block
        return block
