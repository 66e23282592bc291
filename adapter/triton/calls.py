"""A unary gRPC call on an HTTP/2 stream: what came of it, and what that means."""

import asyncio
from collections import deque
from collections.abc import Sequence
from urllib.parse import unquote

import grpc

Parts = Sequence[bytes | memoryview]
"""A message, in parts that follow each other."""
Metadata = Sequence[tuple[str, str]]
"""Fields that go along with a call: ASCII names in small letters, and their values."""

_CODES: dict[int, grpc.StatusCode] = {code.value[0]: code for code in grpc.StatusCode}


class CallFailed(Exception):
    """A call's status other than OK, or what became of its connection, as a status of gRPC's."""

    def __init__(self, code: grpc.StatusCode, details: str) -> None:
        super().__init__(f"{code.name}: {details}")
        self.code = code
        self.details = details


class NotSent(CallFailed):
    """The call did not get there, or the server says that it has not looked at it: it may be made again."""


class Answered(CallFailed):
    """The status is the server's own."""


class Call:
    """One call."""

    __slots__ = ("answer", "body", "fields", "id", "pieces", "window")

    def __init__(self, number: int, answer: asyncio.Future[memoryview], window: int) -> None:
        self.id = number
        self.answer = answer
        self.window = window
        """Bytes that the server takes of this call."""
        self.body: deque[memoryview] = deque()
        """What is still to be sent, in pieces."""
        self.fields: dict[bytes, bytes] = {}
        self.pieces: list[memoryview] = []

    @property
    def outcome(self) -> memoryview | CallFailed:
        """The answer, or the status that took its place, once the server has said all (as gRPC has it)."""
        status = self.fields.get(b"grpc-status", b"")
        if status == b"0":
            return self._message()
        if not status.isdigit():
            http = self.fields.get(b":status", b"none").decode("latin-1")
            details = f"an answer without a status of gRPC's, HTTP status {http}"
            return CallFailed(grpc.StatusCode.UNAVAILABLE, details)
        code = _CODES.get(int(status[:4]), grpc.StatusCode.UNKNOWN)
        return Answered(code, unquote(self.fields.get(b"grpc-message", b"").decode("latin-1")))

    def _message(self) -> memoryview | CallFailed:
        """The one message behind its prefix: a byte that says whether it is compressed, and its size."""
        whole = self.pieces[0] if len(self.pieces) == 1 else memoryview(b"".join(self.pieces))
        if len(whole) < 5 or whole[0] or len(whole) != 5 + int.from_bytes(whole[1:5]):
            return CallFailed(grpc.StatusCode.INTERNAL, "the answer is not one message as it is")
        return whole[5:]
