"""One HTTP/2 connection that carries unary gRPC calls, on asyncio, in plain text.

grpc.aio hands every call to a thread of its own and back. Here a call is one write, and its answer is read
where it is awaited. It does what such calls need of RFC 9113 and of gRPC's mapping onto it (flow control,
PING, GOAWAY, RST_STREAM, deadlines) and refuses the rest.
"""

import asyncio
import socket
from collections import deque
from typing import Any, cast

import grpc

from adapter.triton import frames
from adapter.triton.calls import Call, CallFailed, Metadata, NotSent, Parts
from adapter.triton.deadlines import Deadlines
from adapter.triton.frames import HeaderBlocks, ProtocolError, frame, frame_head, literal

_LARGE = 64 << 10
"""A message of so many bytes is not copied to be written in one piece."""
_OUR_SETTINGS = frames.settings_frame(
    {
        frames.HEADER_TABLE_SIZE: 0,
        frames.ENABLE_PUSH: 0,
        frames.INITIAL_WINDOW_SIZE: frames.LARGEST_WINDOW,
        frames.MAX_FRAME_SIZE: 1 << 20,
        frames.MAX_HEADER_LIST_SIZE: frames.MOST_HEADER_BYTES,
    }
)
_REPLENISH = 1 << 30
_LAST_STREAM = frames.LARGEST_WINDOW


class Connection(asyncio.Protocol):
    """An open connection; `closed` is called once, when no further call can be made on it."""

    def __init__(self, authority: str, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._transport = cast(asyncio.Transport, None)
        self._authority = authority.encode()
        self._blocks = HeaderBlocks()
        self._prepared: dict[str, bytes] = {}
        self._streams: dict[int, Call] = {}
        self._deadlines = Deadlines(loop, self._expire)
        self._next_id = 1
        self._window = frames.FIRST_WINDOW
        self._stream_window = frames.FIRST_WINDOW
        self._max_frame = frames.SMALLEST_MAX_FRAME
        self._max_streams = frames.LARGEST_WINDOW
        self._sending: deque[Call] = deque()
        self._turn: deque[asyncio.Future[None]] = deque()
        self._paused = False
        self._rest = b""
        self._receiving: Call | None = None
        self._left = 0
        """Of a DATA frame whose payload has not come whole."""
        self._ends = False
        """Whether that frame is its call's last."""
        self._received = 0
        self._fragments: tuple[int, int, bytes] | None = None
        self.open = True

    # The calls

    async def call(self, method: str, parts: Parts, timeout_s: float, metadata: Metadata = ()) -> memoryview:
        """A serialized message → the serialized answer.

        Raises CallFailed with the server's status; DEADLINE_EXCEEDED after `timeout_s`, and UNAVAILABLE when
        the connection breaks. A caller that is cancelled leaves its call to its deadline.
        """
        if len(self._streams) >= self._max_streams:
            await self._wait_for_turn(timeout_s)
        if not self.open:
            raise NotSent(grpc.StatusCode.UNAVAILABLE, "the connection is closed")
        stream = Call(self._next_id, self._loop.create_future(), self._stream_window)
        self._next_id += 2
        if self._next_id > _LAST_STREAM:
            self.open = False
        self._streams[stream.id] = stream
        self._deadlines.set(stream, self._loop.time() + timeout_s)
        self._send_request(stream, self._head(method, timeout_s, metadata), parts)
        return await stream.answer

    async def _wait_for_turn(self, timeout_s: float) -> None:
        turn = self._loop.create_future()
        self._turn.append(turn)
        try:
            await asyncio.wait_for(turn, timeout_s)
        except TimeoutError:
            raise CallFailed(grpc.StatusCode.DEADLINE_EXCEEDED, "too many calls are in flight") from None

    def _head(self, method: str, timeout_s: float, metadata: Metadata) -> bytes:
        """The header block of a call; what all calls of a method share is made once."""
        shared = self._prepared.get(method)
        if shared is None:
            fields = [
                (b":method", b"POST"),
                (b":scheme", b"http"),
                (b":path", method.encode()),
                (b":authority", self._authority),
                (b"te", b"trailers"),
                (b"content-type", b"application/grpc"),
                (b"user-agent", b"miaas-adapter"),
            ]
            shared = self._prepared[method] = b"".join(literal(*field) for field in fields)
        milliseconds = max(1, int(timeout_s * 1000))
        timeout = b"%dm" % milliseconds if milliseconds < 10**8 else b"%dS" % min(timeout_s, 10**8 - 1)
        head = shared + literal(b"grpc-timeout", timeout)
        for name, value in metadata:
            head += literal(name.encode(), value.encode())
        return head

    def _send_request(self, stream: Call, head: bytes, parts: Parts) -> None:
        size = sum(map(len, parts))
        prefix = b"\0" + size.to_bytes(4)
        size += len(prefix)
        begin = frame_head(len(head), frames.HEADERS, frames.END_HEADERS, stream.id) + head
        if size <= self._max_frame and size <= self._window and size <= stream.window and not self._paused:
            self._window -= size
            begin += frame_head(size, frames.DATA, frames.END_STREAM, stream.id)
            if size < _LARGE:
                self._transport.write(b"".join((begin, prefix, *parts)))
            else:
                self._transport.writelines((begin + prefix, *parts))
            return
        self._transport.write(begin)
        parts = (b"".join((prefix, *parts)),) if size < _LARGE else (prefix, *parts)
        stream.body += (memoryview(part) for part in parts if len(part))
        self._sending.append(stream)
        self._send_more()

    def _send_more(self) -> None:
        """What the windows allow, the calls by turns, a frame each."""
        if not self._sending or self._paused:
            return
        held: list[Call] = []
        parts: list[bytes | memoryview] = []
        while self._sending and self._window > 0:
            stream = self._sending.popleft()
            if not stream.body:
                continue
            piece = stream.body.popleft()
            size = min(len(piece), self._window, stream.window, self._max_frame)
            if size <= 0:
                stream.body.appendleft(piece)
                held.append(stream)
                continue
            self._window -= size
            stream.window -= size
            if size < len(piece):
                stream.body.appendleft(piece[size:])
            flags = 0 if stream.body else frames.END_STREAM
            parts += (frame_head(size, frames.DATA, flags, stream.id), piece[:size])
            if stream.body:
                self._sending.append(stream)
        self._sending.extendleft(reversed(held))
        if parts:
            self._transport.writelines(parts)

    def _expire(self, stream: Call) -> None:
        self._end(stream, CallFailed(grpc.StatusCode.DEADLINE_EXCEEDED, "Deadline Exceeded"), reset=True)

    def _end(self, stream: Call, outcome: memoryview | CallFailed, *, reset: bool = False) -> None:
        """Nothing more is expected of the call."""
        if self._streams.pop(stream.id, None) is None:
            return
        self._deadlines.strike(stream)
        if reset or stream.body:
            stream.body.clear()
            code = frames.CANCEL.to_bytes(4)
            self._transport.write(frame(frames.RST_STREAM, 0, stream.id, code))
        if not stream.answer.done():
            if isinstance(outcome, CallFailed):
                stream.answer.set_exception(outcome)
            else:
                stream.answer.set_result(outcome)
        while self._turn and len(self._streams) < self._max_streams:
            turn = self._turn.popleft()
            if not turn.done():
                turn.set_result(None)
                break
        if not self.open and not self._streams:
            self._transport.close()

    # The connection

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Say hello, and let the server send as much as it likes."""
        self._transport = cast(asyncio.Transport, transport)
        grow = (frames.LARGEST_WINDOW - frames.FIRST_WINDOW).to_bytes(4)
        hello = [frames.PREFACE, _OUR_SETTINGS, frame(frames.WINDOW_UPDATE, 0, 0, grow)]
        self._transport.write(b"".join(hello))
        _notice_a_lost_machine(transport.get_extra_info("socket"))

    def connection_lost(self, exc: Exception | None) -> None:
        """Every call on it fails."""
        self._fail("the connection was lost")

    def pause_writing(self) -> None:
        """The socket takes no more for now."""
        self._paused = True

    def resume_writing(self) -> None:
        """It does again."""
        self._paused = False
        self._send_more()

    def close(self) -> None:
        """End it now, and the calls on it."""
        self._fail("the connection to Triton is closed")

    def _fail(self, why: str) -> None:
        self.open = False
        for turn in self._turn:
            if not turn.done():
                turn.set_result(None)
        self._turn.clear()
        for stream in list(self._streams.values()):
            stream.body.clear()
            self._end(stream, CallFailed(grpc.StatusCode.UNAVAILABLE, why))
        self._transport.abort()

    def data_received(self, data: bytes) -> None:
        """Take in what came, frame by frame; a frame that breaks the protocol breaks the connection."""
        if self._rest:
            data = self._rest + data
            self._rest = b""
        try:
            at = self._read(data)
        except ProtocolError as error:
            self._fail(f"the server broke the protocol: {error}")
            return
        if at < len(data):
            self._rest = data[at:]

    def _read(self, data: bytes) -> int:
        """Read the frames of `data`; returns where the first one begins that is not there whole."""
        at, end = 0, len(data)
        view = memoryview(data)
        while True:
            if self._left:
                take = min(self._left, end - at)
                self._take_data(view[at : at + take])
                at += take
                if self._left:
                    return at
            if end - at < frames.FRAME_HEADER:
                return at
            size, kind, flags, number = frames.read_head(data, at)
            if self._fragments and (kind != frames.CONTINUATION or number != self._fragments[0]):
                raise ProtocolError("a header block was not continued")
            if kind == frames.DATA and size and not flags & frames.PADDED:
                if size > 1 << 20:
                    raise ProtocolError("a frame is larger than we allow")
                at += frames.FRAME_HEADER
                self._begin_data(number, size, bool(flags & frames.END_STREAM))
                continue
            if size > frames.MOST_HEADER_BYTES:
                raise ProtocolError("a frame is larger than we allow")
            if end - at < frames.FRAME_HEADER + size:
                return at
            at += frames.FRAME_HEADER
            self._on_frame(kind, flags, number, data[at : at + size])
            at += size

    def _begin_data(self, number: int, size: int, ends: bool) -> None:
        if not number:
            raise ProtocolError("DATA that belongs to no call")
        self._receiving = self._streams.get(number)
        self._left, self._ends = size, ends
        self._received += size
        if self._received >= _REPLENISH:
            self._transport.write(frame(frames.WINDOW_UPDATE, 0, 0, self._received.to_bytes(4)))
            self._received = 0

    def _take_data(self, piece: memoryview) -> None:
        self._left -= len(piece)
        stream = self._receiving
        if stream is None:
            return  # of a call that nobody waits for any more
        stream.pieces.append(piece)
        if not self._left:
            self._receiving = None
            if self._ends:
                self._end(stream, stream.outcome)

    def _on_frame(self, kind: int, flags: int, number: int, payload: bytes) -> None:
        """Any frame but DATA with a payload."""
        stream = self._streams.get(number)
        if kind == frames.HEADERS:
            self._on_headers(number, flags, frames.unpadded(payload, flags))
        elif kind == frames.DATA:
            if payload := frames.unpadded(payload, flags & frames.PADDED):
                self._begin_data(number, len(payload), bool(flags & frames.END_STREAM))
                self._take_data(memoryview(payload))
            elif stream and flags & frames.END_STREAM:
                self._end(stream, stream.outcome)
        elif kind == frames.WINDOW_UPDATE:
            self._on_window(number, stream, frames.read_number(payload))
        elif kind == frames.PING:
            if not flags & frames.ACK:
                self._transport.write(frame(frames.PING, frames.ACK, 0, payload))
        elif kind == frames.SETTINGS:
            if not flags & frames.ACK:
                self._on_settings(frames.read_settings(payload))
        elif kind == frames.RST_STREAM:
            if stream:
                self._on_reset(stream, frames.read_number(payload))
        elif kind == frames.GOAWAY:
            self._on_goaway(frames.read_number(payload))
        elif kind == frames.CONTINUATION:
            if self._fragments is None:
                raise ProtocolError("a header block continues that never began")
            _, first_flags, begun = self._fragments
            self._fragments = None
            self._on_headers(number, first_flags | flags, begun + payload)
        elif kind == frames.PUSH_PROMISE:
            raise ProtocolError("a push that nobody wants")

    def _on_headers(self, number: int, flags: int, block: bytes) -> None:
        if not flags & frames.END_HEADERS:
            if len(block) > frames.MOST_HEADER_BYTES:
                raise ProtocolError("a header block is larger than we allow")
            self._fragments = number, flags, block
            return
        fields = self._blocks.read(block)
        stream = self._streams.get(number)
        if stream is None:
            return
        stream.fields = {**stream.fields, **fields} if stream.fields else fields
        if flags & frames.END_STREAM:
            self._end(stream, stream.outcome)

    def _on_window(self, number: int, stream: Call | None, more: int) -> None:
        if not more:
            raise ProtocolError("a window that does not grow")
        if not number:
            self._window += more
        elif stream:
            stream.window += more
        self._send_more()

    def _on_settings(self, values: list[tuple[int, int]]) -> None:
        for name, value in values:
            if name == frames.INITIAL_WINDOW_SIZE:
                for stream in self._streams.values():
                    stream.window += value - self._stream_window
                self._stream_window = value
            elif name == frames.MAX_FRAME_SIZE:
                self._max_frame = max(value, frames.SMALLEST_MAX_FRAME)
            elif name == frames.MAX_CONCURRENT_STREAMS:
                self._max_streams = max(value, 1)
        self._transport.write(frame(frames.SETTINGS, frames.ACK, 0))
        self._send_more()

    def _on_reset(self, stream: Call, code: int) -> None:
        stream.body.clear()
        if code == frames.REFUSED_STREAM:
            self._end(stream, NotSent(grpc.StatusCode.UNAVAILABLE, "the server refused the call"))
        elif code == frames.ENHANCE_YOUR_CALM:
            self._end(stream, CallFailed(grpc.StatusCode.RESOURCE_EXHAUSTED, "the server wants fewer calls"))
        elif code in (frames.NO_ERROR, frames.CANCEL):
            self._end(stream, CallFailed(grpc.StatusCode.CANCELLED, "the server ended the call"))
        else:
            self._end(stream, CallFailed(grpc.StatusCode.INTERNAL, f"the server ended the call with {code}"))

    def _on_goaway(self, last: int) -> None:
        """No further calls here; those that the server has begun it will finish."""
        self.open = False
        for stream in [stream for number, stream in self._streams.items() if number > last]:
            stream.body.clear()
            self._end(stream, NotSent(grpc.StatusCode.UNAVAILABLE, "the server is going away"))
        if not self._streams:
            self._transport.close()


def _notice_a_lost_machine(connected: Any) -> None:
    """A machine that vanished without a word is noticed by the kernel, within 30 s."""
    if connected is None or connected.family == socket.AF_UNIX:
        return
    connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    connected.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 10)
    connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 5)
    connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 3)
    connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, 30_000)
