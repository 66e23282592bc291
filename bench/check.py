"""Under load each request gets the answer of its own: concurrent requests, all different, all compared."""

import asyncio

import numpy as np

from bench.client import Answer, Connection, post
from bench.loads import Floats, Load, Oracle
from bench.processes import BenchError
from bench.servers import Server

_PATIENCE_S = 120.0


def check(server: Server, load: Load, oracle: Oracle, requests: int, connections: int) -> int:
    """Send so many different requests, compare every answer; returns how many there were.

    Raises BenchError with the first answer that is wrong.
    """
    values = [load.values(seed) for seed in range(requests)]
    expected = [oracle.answer(load, value) for value in values]
    bodies = [load.body(value, server.v2) for value in values]
    answers = asyncio.run(_ask(server, load, bodies, connections))
    for number, (answer, right) in enumerate(zip(answers, expected, strict=True)):
        if answer.status != 200:
            raise BenchError(f"{server.key} answered {answer.status}: {answer.body.decode()[:200]}")
        if not _same(load.answer(answer.body, server.v2), right):
            raise BenchError(f"{server.key} gave request {number} of {load.name} a wrong answer")
    return requests


def _same(answer: Floats, right: Floats) -> bool:
    return bool(np.allclose(answer, right, rtol=1e-3, atol=1e-6))


async def _ask(server: Server, load: Load, bodies: list[bytes], connections: int) -> list[Answer]:
    """The answers in the order of the bodies; each connection sends the next body once it has its answer."""
    url = server.url_of(load.name)
    left = iter(enumerate(bodies))
    answers: dict[int, Answer] = {}

    async def client() -> None:
        connection = await Connection.open(url)
        for number, body in left:
            answers[number] = await connection.ask(post(url, server.headers, body))
        connection.abort()

    async with asyncio.timeout(_PATIENCE_S):
        await asyncio.gather(*(client() for _ in range(connections)))
    return [answers[number] for number in range(len(bodies))]
