"""Under load each request gets the answer of its own: concurrent requests, all different, all compared."""

import asyncio

import httpx
import numpy as np

from bench.loads import Floats, Load, Oracle
from bench.processes import BenchError
from bench.servers import Server


def check(server: Server, load: Load, oracle: Oracle, requests: int, connections: int) -> int:
    """Send so many different requests, compare every answer; returns how many there were.

    Raises BenchError with the first answer that is wrong.
    """
    values = [load.values(seed) for seed in range(requests)]
    expected = [oracle.answer(load, value) for value in values]
    bodies = [load.body(value, server.v2) for value in values]
    answers = asyncio.run(_post(server, load, bodies, connections))
    for number, (answer, right) in enumerate(zip(answers, expected, strict=True)):
        if answer.status_code != 200:
            raise BenchError(f"{server.key} answered {answer.status_code}: {answer.text[:200]}")
        if not _same(load.answer(answer.content, server.v2), right):
            raise BenchError(f"{server.key} gave request {number} of {load.name} a wrong answer")
    return requests


def _same(answer: Floats, right: Floats) -> bool:
    return bool(np.allclose(answer, right, rtol=1e-3, atol=1e-6))


async def _post(server: Server, load: Load, bodies: list[bytes], connections: int) -> list[httpx.Response]:
    limits = httpx.Limits(max_connections=connections)
    headers = {**server.headers, "Content-Type": "application/json"}
    async with httpx.AsyncClient(limits=limits, headers=headers, timeout=60) as client:
        url = server.url_of(load.name)
        return await asyncio.gather(*(client.post(url, content=body) for body in bodies))
