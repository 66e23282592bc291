"""Asynchronous jobs a second, beside what JetStream alone does on the same server."""

import asyncio
import time

import nats
import uvloop

from adapter.jobs.streams import RESULTS
from bench.async_queue import IN_FLIGHT, floor
from bench.client import Connection, post
from bench.loads import IRIS
from bench.processes import BenchError
from bench.servers import Site

_FLOOR_S = 3.0
_PATIENCE_S = 120.0


def measure(site: Site, jobs: int) -> dict[str, float]:
    """Jobs a second of both, one after the other on the same NATS: `adapter` and `nats`."""
    alone = uvloop.run(floor(site.facts["nats_url"], _FLOOR_S))
    return {"nats": alone, "adapter": uvloop.run(_adapter(site, jobs))}


async def _adapter(site: Site, jobs: int) -> float:
    """From the first submission until each job has its result."""
    body = b'{"model_id":"sklearn-iris","input_data":' + IRIS.body(IRIS.values(0), v2=False) + b"}"
    url = site.facts["url"] + "/inference"
    request = post(url, site.headers, body)
    left = iter(range(jobs))

    async def submit() -> None:
        connection = await Connection.open(url)
        for _ in left:
            answer = await connection.ask(request)
            if answer.status != 202:
                raise BenchError(f"a job was refused: {answer.status} {answer.body.decode()[:200]}")
        connection.abort()

    client = await nats.connect(site.facts["nats_url"])

    async def results() -> int:
        return (await client.jetstream().stream_info(RESULTS)).state.messages

    try:
        expected = await results() + jobs
        started = time.perf_counter()
        async with asyncio.timeout(_PATIENCE_S):
            await asyncio.gather(*(submit() for _ in range(IN_FLIGHT)))
            while await results() < expected:  # noqa: ASYNC110 - NATS tells when it is asked
                await asyncio.sleep(0.01)
        return jobs / (time.perf_counter() - started)
    finally:
        await client.close()
