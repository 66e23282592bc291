"""uvicorn's cycle of a request and its answer, where an answer that says its size is written in one piece.

uvicorn writes head and body apart: two system calls, which are most of a short answer's price. What comes
without a size, or in pieces or large and goes over TLS, is left to it.
"""

import asyncio
from typing import Any, ClassVar

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
    """Keeps the head of an answer until its body has come."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self._head: Message | None = None
        self._parts: list[bytes] = []
        """Of an answer's body, until it is whole."""
        self._pieces: list[bytes] = []
        """Of a request's body, until they are received."""
        self._unread = 0
        self._place: memoryview | None = None
        self.ends_with_client: asyncio.Task[Any] | None = None
        """What is cancelled if the client hangs up before its answer begins."""

    _block: ClassVar[tuple[Headers, bytes]] = ([], b"")
    """uvicorn's own headers, new every second, and what they look like on the wire."""

    def put_into(self, place: memoryview) -> memoryview:
        """The next message that is received will hold the whole body, in `place`, which has its size.

        Returns what of the place is left for what has not come yet.
        """
        self._place = place
        for piece in self._unread_pieces():
            place[: len(piece)] = piece
            place = place[len(piece) :]
        if place:
            self.message_event.clear()
        return place

    def take(self, piece: bytes) -> int:
        """A piece of the body came; returns how many bytes of it wait to be received."""
        if self.response_complete:
            # Nobody will receive it, nor what came before.
            self._pieces, self._unread = [], 0
        else:
            self._pieces.append(piece)
            self._unread += len(piece)
            self.message_event.set()
        return self._unread

    async def receive(self) -> Message:  # type: ignore[override]
        """See ASGI. All that came since the last time, in one piece."""
        if self.waiting_for_100_continue and not self.transport.is_closing():
            self.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
            self.waiting_for_100_continue = False
        place, self._place = self._place, None
        while not self.disconnected and not self.response_complete:
            self.flow.resume_reading()
            await self.message_event.wait()
            self.message_event.clear()
            if place is None or not self.more_body:
                break
        if self.disconnected or self.response_complete:
            return {"type": "http.disconnect"}
        if place is not None:
            return {"type": "http.request", "body": place, "more_body": False}
        pieces = self._unread_pieces()
        body = pieces[0] if len(pieces) == 1 else b"".join(pieces)
        return {"type": "http.request", "body": body, "more_body": self.more_body}

    def _unread_pieces(self) -> list[bytes]:
        pieces, self._pieces, self._unread = self._pieces, [], 0
        return pieces

    async def send(self, message: Message) -> None:  # type: ignore[override]
        """See ASGI. Raises RuntimeError for a header with a line break in it."""
        if message["type"] == "http.response.start" and not self.response_started:
            self.response_started = True
            self._head = message
            return
        head, more = self._head, message.get("more_body", False)
        parts = [*self._parts, message.get("body", b"")]
        if head is not None:
            secure = self.scope["scheme"] == "https"
            if more and not secure and any(name == b"content-length" for name, _ in head["headers"]):
                self._parts = parts
                return
            # The connection keeps this for as long as no other request comes.
            self._head, self._parts = None, []
            size = sum(map(len, parts))
            whole = not more and self.scope["method"] != "HEAD" and not (secure and size > _PIECE)
            if whole and (b"content-length", b"%d" % size) in head["headers"]:
                if self.flow.write_paused and not self.disconnected:
                    await self.flow.drain()
                if not self.disconnected:
                    self._write(head["status"], head["headers"], parts, size)
                return
            self.response_started = False
            await super().send(head)  # type: ignore[arg-type]
        for part in parts[:-1]:
            await self._send_part(part, more=True)
        await self._send_part(parts[-1], more=more)

    async def _send_part(self, part: bytes, *, more: bool) -> None:
        rest = memoryview(part)
        most = _PIECE if self.scope["scheme"] == "https" else len(rest)
        while len(rest) > most:
            await super().send(_body(rest[:most], more=True))
            rest = rest[most:]
        await super().send(_body(rest, more=more))

    def _write(self, status: int, headers: Headers, body: list[bytes], size: int) -> None:
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
        if size < _SHORT:
            self.transport.write(b"".join((head, *body)))
        else:
            self.transport.writelines((head, *body))
        self.chunked_encoding = False
        self.response_complete = True
        self.message_event.set()
        if not (self.keep_alive or self.more_body):
            self.transport.close()
        self.on_response()

    def _defaults(self) -> bytes:
        known, block = Cycle._block
        if known is not self.default_headers:
            block = b"".join(b"%b: %b\r\n" % header for header in self.default_headers)
            Cycle._block = self.default_headers, block
        return block


def _body(piece: memoryview, *, more: bool) -> Any:
    return {"type": "http.response.body", "body": piece, "more_body": more}
