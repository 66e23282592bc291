"""Both ways to Triton against a real gRPC server: the same answers, the same errors, the same faults."""

import asyncio
import socket
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any

import grpc
import pytest

from adapter.core.errors import (
    AdapterError,
    DeadlineExceeded,
    EngineUnavailable,
    InferenceFailed,
    InvalidInput,
    ModelNotFound,
    ModelNotReady,
    Unavailable,
)
from adapter.triton.transport import GrpcTransport

STATUSES = [
    (grpc.StatusCode.INVALID_ARGUMENT, InvalidInput),
    (grpc.StatusCode.NOT_FOUND, ModelNotFound),
    (grpc.StatusCode.DEADLINE_EXCEEDED, DeadlineExceeded),
    (grpc.StatusCode.RESOURCE_EXHAUSTED, Unavailable),
    (grpc.StatusCode.INTERNAL, InferenceFailed),
    (grpc.StatusCode.UNKNOWN, InferenceFailed),
]
Answer = Callable[[bytes, grpc.aio.ServicerContext[bytes, bytes]], Coroutine[Any, Any, bytes]]


async def echo(request: bytes, _: object) -> bytes:
    return request


class Triton:
    """A gRPC server with one method, which can be stopped and started again on its port."""

    def __init__(self, answer: Answer) -> None:
        self.answer = answer
        self.calls = 0
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.address = f"127.0.0.1:{free.getsockname()[1]}"
        self.server: grpc.aio.Server

    async def start(self) -> None:
        async def infer(request: bytes, context: Any) -> bytes:
            self.calls += 1
            return await self.answer(request, context)

        handler = grpc.unary_unary_rpc_method_handler(infer)
        service = grpc.method_handlers_generic_handler(
            "inference.GRPCInferenceService", {"ModelInfer": handler}
        )
        unlimited = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]
        self.server = grpc.aio.server(options=[*unlimited, ("grpc.so_reuseport", 0)])
        self.server.add_generic_rpc_handlers((service,))
        self.server.add_insecure_port(self.address)
        await self.server.start()


@pytest.fixture(params=["http2", "grpc"])
def lean(request: pytest.FixtureRequest) -> bool:
    return bool(request.param == "http2")


@asynccontextmanager
async def connected(lean: bool, answer: Answer = echo) -> AsyncIterator[tuple[Triton, GrpcTransport]]:
    triton = Triton(answer)
    await triton.start()
    transport = GrpcTransport(triton.address, lean=lean)
    try:
        yield triton, transport
    finally:
        await transport.close()
        await triton.server.stop(0)


@pytest.mark.parametrize("size", [0, 1, 16_379, 16_380, 65_530, 65_536, 1_000_003, 40_000_000])
def test_messages_of_every_size_come_back_as_they_went(lean: bool, size: int) -> None:
    async def scenario() -> None:
        async with connected(lean) as (_, transport):
            message = bytes(range(256)) * (size // 256) + b"x" * (size % 256)
            for _ in range(2):
                assert bytes(await transport.infer([message], 30)) == message

    asyncio.run(scenario())


def test_each_of_many_calls_at_once_gets_its_own_answer(lean: bool) -> None:
    async def answer(request: bytes, _: object) -> bytes:
        await asyncio.sleep(request[0] / 10_000)
        return request

    async def scenario() -> None:
        async with connected(lean, answer) as (_, transport):
            sizes = [1 + i * 37 % 90_000 for i in range(400)]
            messages = [bytes([i % 256]) * size for i, size in enumerate(sizes)]
            answers = await asyncio.gather(*(transport.infer([message], 30) for message in messages))
            assert [bytes(answer) for answer in answers] == messages

    asyncio.run(scenario())


@pytest.mark.parametrize(("status", "expected"), STATUSES)
def test_a_status_becomes_an_error_of_ours_with_its_message(
    lean: bool, status: grpc.StatusCode, expected: type[AdapterError]
) -> None:
    async def answer(_: bytes, context: Any) -> bytes:
        await context.abort(status, "ungültig: 100 % of “it”")
        raise AssertionError

    async def scenario() -> None:
        async with connected(lean, answer) as (_, transport):
            with pytest.raises(expected) as caught:
                await transport.infer([b"x"], 30)
            assert type(caught.value) is expected
            if expected in (InvalidInput, ModelNotFound, InferenceFailed):
                assert caught.value.message == "ungültig: 100 % of “it”"

    asyncio.run(scenario())


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ("Request timeout expired", DeadlineExceeded),
        ("Exceeds maximum queue size", Unavailable),
        ("Server not ready", ModelNotReady),
        ("model 'm', version 1 is not at ready state", ModelNotReady),
        (
            "Server is stopping, scheduler for model has stopped accepting new inference requests",
            ModelNotReady,
        ),
        ("Cancelling all calls", EngineUnavailable),
    ],
)
def test_a_triton_that_says_unavailable_is_not_away(
    lean: bool, said: str, expected: type[AdapterError]
) -> None:
    assert refusal(lean, said) is expected


def test_a_model_may_say_that_it_is_unavailable() -> None:
    assert refusal(True, "the database is being restored") is Unavailable
    # Of grpc.aio's errors nobody can tell whether they are the server's or its own.
    assert refusal(False, "the database is being restored") is EngineUnavailable


def refusal(lean: bool, said: str) -> type[AdapterError]:
    """What becomes of UNAVAILABLE with these words of the server's."""

    async def answer(_: bytes, context: Any) -> bytes:
        await context.abort(grpc.StatusCode.UNAVAILABLE, said)
        raise AssertionError

    async def scenario() -> type[AdapterError]:
        async with connected(lean, answer) as (_, transport):
            with pytest.raises(AdapterError) as caught:
                await transport.infer([b"x"], 30)
            return caught.type

    return asyncio.run(scenario())


def test_a_call_ends_at_its_deadline_and_the_next_one_does_not_notice(lean: bool) -> None:
    async def answer(request: bytes, _: object) -> bytes:
        if request == b"slow":
            await asyncio.sleep(30)
        return request

    async def scenario() -> None:
        async with connected(lean, answer) as (_, transport):
            assert bytes(await transport.infer([b"first"], 30)) == b"first"
            started = time.monotonic()
            with pytest.raises(DeadlineExceeded):
                await transport.infer([b"slow"], 0.2)
            assert 0.19 <= time.monotonic() - started < 5
            assert bytes(await transport.infer([b"next"], 30)) == b"next"

    asyncio.run(scenario())


def test_a_server_that_never_was_there_is_unavailable_at_once(lean: bool) -> None:
    async def scenario() -> None:
        with socket.create_server(("127.0.0.1", 0)) as free:
            address = f"127.0.0.1:{free.getsockname()[1]}"
        transport = GrpcTransport(address, lean=lean)
        started = time.monotonic()
        with pytest.raises(EngineUnavailable):
            await transport.infer([b"x"], 30)
        assert time.monotonic() - started < 5
        await transport.close()

    asyncio.run(scenario())


def test_a_server_that_ends_lets_its_calls_end_and_is_found_again(lean: bool) -> None:
    release = asyncio.Event()
    begun = asyncio.Event()

    async def answer(request: bytes, _: object) -> bytes:
        if request == b"held":
            begun.set()
            await release.wait()
        return request

    async def scenario() -> None:
        async with connected(lean, answer) as (triton, transport):
            held = asyncio.create_task(transport.infer([b"held"], 30))
            await begun.wait()
            stopped = asyncio.create_task(triton.server.stop(20))
            release.set()
            assert bytes(await held) == b"held"
            await stopped
            with pytest.raises(EngineUnavailable):
                await transport.infer([b"away"], 5)
            await triton.start()
            async with asyncio.timeout(20):
                while True:
                    try:
                        assert bytes(await transport.infer([b"back"], 5)) == b"back"
                        break
                    except EngineUnavailable:
                        await asyncio.sleep(0.05)

    asyncio.run(scenario())


def test_calls_in_flight_fail_when_the_server_ends_without_them(lean: bool) -> None:
    begun = asyncio.Event()

    async def answer(_: bytes, __: object) -> bytes:
        begun.set()
        await asyncio.sleep(30)
        return b""

    async def scenario() -> None:
        async with connected(lean, answer) as (triton, transport):
            held = [asyncio.create_task(transport.infer([b"held"], 30)) for _ in range(5)]
            await begun.wait()
            await triton.server.stop(0)
            for outcome in await asyncio.gather(*held, return_exceptions=True):
                assert isinstance(outcome, EngineUnavailable)

    asyncio.run(scenario())


def test_a_transport_that_is_closed_says_so(lean: bool) -> None:
    async def scenario() -> None:
        async with connected(lean) as (_, transport):
            await transport.infer([b"x"], 30)
            await transport.close()
            with pytest.raises(EngineUnavailable):
                await transport.infer([b"x"], 30)

    asyncio.run(scenario())
