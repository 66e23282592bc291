"""The lean HTTP/2 client against servers that do what HTTP/2 allows, and what it does not."""

import asyncio
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import grpc
import hpack
import pytest

from adapter.triton import frames
from adapter.triton.calls import CallFailed
from adapter.triton.frames import frame
from adapter.triton.unary import UnaryClient

METHOD = "/service/Method"
OK = (b":status", b"200"), (b"content-type", b"application/grpc")
DONE = ((b"grpc-status", b"0"),)


def block(*fields: tuple[bytes, bytes]) -> bytes:
    encoder = hpack.Encoder()
    encoder.header_table_size = 0
    return bytes(encoder.encode(list(fields)))


def message(content: bytes) -> bytes:
    return b"\0" + len(content).to_bytes(4) + content


def headers(stream: int, *fields: tuple[bytes, bytes], flags: int = 0) -> bytes:
    return frame(frames.HEADERS, frames.END_HEADERS | flags, stream, block(*fields))


def answer(stream: int, content: bytes) -> bytes:
    data = frame(frames.DATA, 0, stream, message(content))
    return headers(stream, *OK) + data + headers(stream, *DONE, flags=frames.END_STREAM)


class Peer:
    """One connection as its server sees it."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._decoder = hpack.Decoder()
        self.fields: dict[bytes, bytes] = {}

    async def greet(self) -> None:
        assert await self._reader.readexactly(len(frames.PREFACE)) == frames.PREFACE
        await self.send(frames.settings_frame({}))

    async def send(self, *parts: bytes) -> None:
        self._writer.write(b"".join(parts))
        await self._writer.drain()

    async def next(self) -> tuple[int, int, int, bytes]:
        """Kind, flags, stream and payload of the next frame."""
        size, kind, flags, stream = frames.read_head(await self._reader.readexactly(9), 0)
        payload = await self._reader.readexactly(size)
        if kind == frames.HEADERS:
            self.fields = dict(self._decoder.decode(payload, raw=True))
        return kind, flags, stream, payload

    async def until(self, wanted: int) -> tuple[int, int, int, bytes]:
        while True:
            found = await self.next()
            if found[0] == wanted:
                return found

    async def request(self) -> tuple[int, bytes]:
        """The next call, whole: its stream and its message."""
        content = b""
        while True:
            kind, flags, stream, payload = await self.next()
            if kind == frames.DATA:
                content += payload
                if flags & frames.END_STREAM:
                    assert content[0] == 0
                    assert int.from_bytes(content[1:5]) == len(content) - 5
                    return stream, content[5:]


async def serve(peer: Peer) -> None:
    """Echo, for as long as the connection lasts."""
    while True:
        stream, content = await peer.request()
        await peer.send(answer(stream, content))


Script = Callable[[Peer], Awaitable[None]]


@asynccontextmanager
async def served(*scripts: Script) -> AsyncIterator[UnaryClient]:
    """A client whose connections are answered by the scripts, the last of them by all further ones."""
    waiting, done = list(scripts), []
    failures: list[BaseException] = []

    async def on_connection(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        script = waiting.pop(0) if len(waiting) > 1 else waiting[0]
        try:
            await script(Peer(reader, writer))
        except (asyncio.IncompleteReadError, ConnectionError):
            pass  # the client has closed the connection
        except BaseException as error:
            failures.append(error)
        finally:
            done.append(script)
            writer.close()

    server = await asyncio.start_server(on_connection, "127.0.0.1", 0)
    client = UnaryClient(f"127.0.0.1:{server.sockets[0].getsockname()[1]}")
    try:
        yield client
    finally:
        await client.close()
        server.close()
    assert not failures, failures


def run(scenario: Callable[[], Any]) -> None:
    async def limited() -> None:
        async with asyncio.timeout(30):
            await scenario()

    asyncio.run(limited())


def fails(script: Script, code: grpc.StatusCode, details: str = "") -> None:
    """A call that is answered like this fails like that, and the next one does not."""

    async def again(peer: Peer) -> None:
        await peer.greet()
        await serve(peer)

    async def scenario() -> None:
        async with served(script, again) as client:
            with pytest.raises(CallFailed) as caught:
                await client.call(METHOD, [b"x"], 5)
            assert (caught.value.code, details in caught.value.details) == (code, True), caught.value
            assert bytes(await client.call(METHOD, [b"next"], 5)) == b"next"

    run(scenario)


def replies(*parts: Callable[[int], bytes]) -> Script:
    """A script that answers the first call with these bytes."""

    async def script(peer: Peer) -> None:
        await peer.greet()
        stream, _ = await peer.request()
        await peer.send(*(part(stream) for part in parts))
        await serve(peer)

    return script


def test_a_call_says_what_grpc_wants_to_know() -> None:
    seen: dict[bytes, bytes] = {}

    async def script(peer: Peer) -> None:
        await peer.greet()
        stream, content = await peer.request()
        seen.update(peer.fields)
        await peer.send(answer(stream, content))

    async def scenario() -> None:
        async with served(script) as client:
            assert bytes(await client.call(METHOD, [b"hello"], 1.5)) == b"hello"

    run(scenario)
    assert seen.pop(b":authority").startswith(b"127.0.0.1:")
    assert seen == {
        b":method": b"POST",
        b":scheme": b"http",
        b":path": METHOD.encode(),
        b"te": b"trailers",
        b"content-type": b"application/grpc",
        b"user-agent": b"miaas-adapter",
        b"grpc-timeout": b"1500m",
    }


def test_an_answer_may_come_byte_by_byte_padded_continued_and_in_pieces() -> None:
    async def script(peer: Peer) -> None:
        await peer.greet()
        stream, content = await peer.request()
        head = block(*OK)
        padding = bytes(7)
        whole = message(content)
        parts = [
            frame(
                frames.HEADERS, frames.PADDED | frames.PRIORITY, stream, b"\7" + bytes(5) + head[:3] + padding
            ),
            frame(frames.CONTINUATION, 0, stream, head[3:9]),
            frame(frames.CONTINUATION, frames.END_HEADERS, stream, head[9:]),
            frame(frames.DATA, 0, stream, whole[:2]),
            frame(frames.DATA, frames.PADDED, stream, b"\7" + whole[2:6] + padding),
            frame(0xEE, 0xFF, stream, b"of a kind that nobody knows"),
            frame(frames.DATA, 0, stream),
            frame(frames.DATA, 0, stream, whole[6:]),
            headers(stream, *DONE, flags=frames.END_STREAM),
        ]
        for byte in b"".join(parts):
            await peer.send(bytes([byte]))

    async def scenario() -> None:
        async with served(script) as client:
            assert bytes(await client.call(METHOD, [b"hello, world"], 20)) == b"hello, world"

    run(scenario)


def test_a_message_keeps_to_the_windows_and_frames_that_the_server_allows() -> None:
    content = bytes(range(256)) * 1000

    async def script(peer: Peer) -> None:
        await peer.greet()
        await peer.send(
            frames.settings_frame({frames.INITIAL_WINDOW_SIZE: 1000, frames.MAX_FRAME_SIZE: 16_384})
        )
        stream, first = await peer.request()
        await peer.send(answer(stream, first))
        received, window = b"", 1000
        while len(received) < len(content) + 5:
            _, _, stream, payload = await peer.until(frames.DATA)
            received += payload
            window -= len(payload)
            assert len(payload) <= 16_384
            assert window >= 0
            if window == 0:
                window = 7000
                more = window.to_bytes(4)
                await peer.send(frame(frames.WINDOW_UPDATE, 0, stream, more))
                await peer.send(frame(frames.WINDOW_UPDATE, 0, 0, more))
        await peer.send(answer(stream, received[5:]))

    async def scenario() -> None:
        async with served(script) as client:
            await client.call(METHOD, [b"the settings are known now"], 20)
            assert bytes(await client.call(METHOD, [content], 20)) == content

    run(scenario)


def test_no_more_calls_are_in_flight_than_the_server_allows() -> None:
    async def script(peer: Peer) -> None:
        await peer.greet()
        await peer.send(frames.settings_frame({frames.MAX_CONCURRENT_STREAMS: 2}))
        stream, content = await peer.request()
        await peer.send(answer(stream, content))
        open_streams: list[tuple[int, bytes]] = []
        for _ in range(6):
            open_streams.append(await peer.request())
            assert len(open_streams) <= 2
            if len(open_streams) == 2:
                await peer.send(*(answer(*each) for each in open_streams))
                open_streams.clear()

    async def scenario() -> None:
        async with served(script) as client:
            await client.call(METHOD, [b"the settings are known now"], 20)
            messages = [b"%d" % i for i in range(6)]
            answers = await asyncio.gather(*(client.call(METHOD, [each], 20) for each in messages))
            assert [bytes(each) for each in answers] == messages

    run(scenario)


def test_a_ping_is_answered() -> None:
    pong = []

    async def script(peer: Peer) -> None:
        await peer.greet()
        await peer.send(frame(frames.PING, 0, 0, b"12345678"))
        pong.append(await peer.until(frames.PING))
        await peer.send(answer(1, b""))

    async def scenario() -> None:
        async with served(script) as client:
            await client.call(METHOD, [b"x"], 20)

    run(scenario)
    assert pong == [(frames.PING, frames.ACK, 0, b"12345678")]


@pytest.mark.parametrize(
    "refusal",
    [
        lambda stream: frame(frames.GOAWAY, 0, 0, struct.pack(">LL", stream - 1, 0)),
        lambda stream: frame(frames.RST_STREAM, 0, stream, frames.REFUSED_STREAM.to_bytes(4)),
    ],
    ids=["goaway", "refused"],
)
def test_a_call_that_the_server_did_not_look_at_is_made_again(refusal: Callable[[int], bytes]) -> None:
    async def first(peer: Peer) -> None:
        await peer.greet()
        stream, content = await peer.request()
        await peer.send(refusal(stream))
        stream, content = await peer.request()
        await peer.send(answer(stream, content))

    async def second(peer: Peer) -> None:
        await peer.greet()
        stream, content = await peer.request()
        await peer.send(answer(stream, content))

    async def scenario() -> None:
        async with served(first, second) as client:
            assert bytes(await client.call(METHOD, [b"once more"], 20)) == b"once more"

    run(scenario)


def test_a_call_that_the_server_has_begun_is_finished_when_it_goes_away() -> None:
    async def script(peer: Peer) -> None:
        await peer.greet()
        stream, content = await peer.request()
        await peer.send(frame(frames.GOAWAY, 0, 0, struct.pack(">LL", stream, 0)), answer(stream, content))
        with pytest.raises(asyncio.IncompleteReadError):
            await peer.until(frames.PING)

    async def scenario() -> None:
        async with served(script) as client:
            assert bytes(await client.call(METHOD, [b"begun"], 20)) == b"begun"

    run(scenario)


def test_a_deadline_passes_and_the_server_is_told() -> None:
    told: list[tuple[int, int, int, bytes]] = []

    async def script(peer: Peer) -> None:
        await peer.greet()
        await peer.request()
        told.append(await peer.until(frames.RST_STREAM))
        stream, content = await peer.request()
        # What comes late for the first call belongs to nobody.
        await peer.send(answer(1, b"late"), answer(stream, content))

    async def scenario() -> None:
        async with served(script) as client:
            with pytest.raises(CallFailed) as caught:
                await client.call(METHOD, [b"x"], 0.1)
            assert caught.value.code is grpc.StatusCode.DEADLINE_EXCEEDED
            assert bytes(await client.call(METHOD, [b"next"], 20)) == b"next"

    run(scenario)
    assert told == [(frames.RST_STREAM, 0, 1, frames.CANCEL.to_bytes(4))]


def test_a_caller_that_gives_up_leaves_the_call_to_its_deadline() -> None:
    received = asyncio.Event()

    async def script(peer: Peer) -> None:
        await peer.greet()
        first, _ = await peer.request()
        received.set()
        second, content = await peer.request()
        await peer.send(answer(first, b"nobody reads this"), answer(second, content))

    async def scenario() -> None:
        async with served(script) as client:
            given_up = asyncio.create_task(client.call(METHOD, [b"x"], 20))
            await received.wait()
            given_up.cancel()
            with pytest.raises(asyncio.CancelledError):
                await given_up
            assert bytes(await client.call(METHOD, [b"next"], 20)) == b"next"

    run(scenario)


def test_an_error_while_the_message_is_being_sent_ends_the_call() -> None:
    async def script(peer: Peer) -> None:
        await peer.greet()
        _, _, stream, _ = await peer.until(frames.HEADERS)
        refused = (*OK, (b"grpc-status", b"3"), (b"grpc-message", b"too%20large"))
        await peer.send(headers(stream, *refused, flags=frames.END_STREAM))
        # The rest is not sent.
        await peer.until(frames.RST_STREAM)

    async def scenario() -> None:
        async with served(script) as client:
            with pytest.raises(CallFailed) as caught:
                await client.call(METHOD, [bytes(10_000_000)], 20)
            assert (caught.value.code, caught.value.details) == (
                grpc.StatusCode.INVALID_ARGUMENT,
                "too large",
            )

    run(scenario)


def test_a_server_that_speaks_something_else_is_unavailable() -> None:
    async def script(peer: Peer) -> None:
        await peer.send(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")
        await asyncio.sleep(5)

    async def scenario() -> None:
        async with served(script) as client:
            with pytest.raises(CallFailed) as caught:
                await client.call(METHOD, [b"x"], 5)
            assert caught.value.code is grpc.StatusCode.UNAVAILABLE

    run(scenario)


def test_a_server_that_hangs_up_is_unavailable() -> None:
    async def script(peer: Peer) -> None:
        await peer.greet()
        await peer.request()

    fails(script, grpc.StatusCode.UNAVAILABLE, "lost")


def test_a_server_that_takes_connections_and_says_nothing_ends_at_the_deadline() -> None:
    async def script(_: Peer) -> None:
        await asyncio.sleep(20)

    async def scenario() -> None:
        async with served(script) as client:
            with pytest.raises(CallFailed) as caught:
                await client.call(METHOD, [b"x"], 0.2)
            assert caught.value.code is grpc.StatusCode.DEADLINE_EXCEEDED

    run(scenario)


BROKEN: dict[str, Callable[[int], bytes]] = {
    "a frame too large": lambda stream: frames.frame_head((1 << 24) - 1, frames.HEADERS, 4, stream),
    "data too large": lambda stream: frames.frame_head((1 << 24) - 1, frames.DATA, 0, stream),
    "data of no call": lambda _: frame(frames.DATA, 0, 0, b"x"),
    "a header block that is none": lambda stream: frame(frames.HEADERS, 4, stream, b"\xff" * 40),
    "an entry of a table that is not kept": lambda stream: frame(frames.HEADERS, 4, stream, b"\xbe"),
    "more padding than frame": lambda stream: frame(frames.DATA, frames.PADDED, stream, b"\x09abc"),
    "padding without a size": lambda stream: frame(frames.HEADERS, 4 | frames.PADDED, stream),
    "a block that is not continued": lambda stream: (
        frame(frames.HEADERS, 0, stream) + frame(6, 0, 0, bytes(8))
    ),
    "a continuation of nothing": lambda stream: frame(frames.CONTINUATION, 4, stream),
    "a block without an end": lambda stream: (
        frame(frames.HEADERS, 0, stream) + frame(frames.CONTINUATION, 0, stream, bytes(60_000)) * 3
    ),
    "a push": lambda stream: frame(frames.PUSH_PROMISE, 4, stream, bytes(4)),
    "a window of nothing": lambda _: frame(frames.WINDOW_UPDATE, 0, 0, bytes(4)),
    "a window cut short": lambda _: frame(frames.WINDOW_UPDATE, 0, 0, b"\0"),
    "settings cut short": lambda _: frame(frames.SETTINGS, 0, 0, b"\0"),
    "a reset cut short": lambda stream: frame(frames.RST_STREAM, 0, stream, b"\0"),
    "a goodbye cut short": lambda _: frame(frames.GOAWAY, 0, 0),
}


@pytest.mark.parametrize("broken", BROKEN)
def test_a_broken_frame_breaks_the_connection_and_nothing_else(broken: str) -> None:
    fails(replies(BROKEN[broken]), grpc.StatusCode.UNAVAILABLE, "broke the protocol")


@pytest.mark.parametrize(
    ("parts", "code"),
    [
        ([lambda s: frame(frames.DATA, 0, s, b"\1\0\0\0\1x")], grpc.StatusCode.INTERNAL),
        ([lambda s: frame(frames.DATA, 0, s, message(b"a") + message(b"b"))], grpc.StatusCode.INTERNAL),
        ([lambda s: frame(frames.DATA, 0, s, b"\0\0\0\0\7x")], grpc.StatusCode.INTERNAL),
        ([], grpc.StatusCode.INTERNAL),
    ],
    ids=["compressed", "two", "cut short", "none"],
)
def test_an_answer_that_is_not_one_message_fails(
    parts: list[Callable[[int], bytes]], code: grpc.StatusCode
) -> None:
    end = lambda s: headers(s, *DONE, flags=frames.END_STREAM)  # noqa: E731
    fails(replies(lambda s: headers(s, *OK), *parts, end), code, "not one message")


@pytest.mark.parametrize(
    ("reset", "code"),
    [
        (frames.CANCEL, grpc.StatusCode.CANCELLED),
        (frames.NO_ERROR, grpc.StatusCode.CANCELLED),
        (frames.ENHANCE_YOUR_CALM, grpc.StatusCode.RESOURCE_EXHAUSTED),
        (2, grpc.StatusCode.INTERNAL),
    ],
)
def test_a_reset_is_a_status(reset: int, code: grpc.StatusCode) -> None:
    fails(replies(lambda s: frame(frames.RST_STREAM, 0, s, reset.to_bytes(4))), code)


def test_an_answer_of_http_alone_is_unavailable() -> None:
    fails(
        replies(lambda s: headers(s, (b":status", b"502"), flags=frames.END_STREAM)),
        grpc.StatusCode.UNAVAILABLE,
        "HTTP status 502",
    )


def test_the_windows_of_the_client_never_close() -> None:
    piece = bytes(1 << 20)
    total = 1200

    async def script(peer: Peer) -> None:
        """More than a gigabyte goes to a call that nobody waits for any more; then the next is answered."""
        await peer.greet()
        stream, _ = await peer.request()
        await peer.until(frames.RST_STREAM)
        data = frame(frames.DATA, 0, stream, piece)
        for _ in range(total):
            await peer.send(data)
        kind, _, number, payload = await peer.until(frames.WINDOW_UPDATE)
        assert (kind, number, int.from_bytes(payload)) == (frames.WINDOW_UPDATE, 0, 1 << 30)
        await peer.send(answer(3, b"next"))

    async def scenario() -> None:
        async with served(script) as client:
            with pytest.raises(CallFailed):
                await client.call(METHOD, [b"x"], 0.1)
            assert bytes(await client.call(METHOD, [b"x"], 20)) == b"next"

    run(scenario)
