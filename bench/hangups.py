"""`make hangups`: clients that hang up whenever they like, ten thousand requests of them.

Afterwards nothing of theirs may be left: no task, no connection, no request that waits, no shared memory.
"""

import argparse
import asyncio
import os
import random
import sys
import tempfile
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import uvicorn
import uvloop

from adapter import listener
from adapter.app import Services, create_app
from adapter.core.types import OWN_REGIONS
from adapter.settings import Settings
from adapter.sockets import BACKLOG, listen
from adapter.standalone.state import run_prefix
from adapter.triton.client import TritonEngine
from bench.client import Connection, post
from bench.loads import IMG, IRIS, Load
from bench.processes import BenchError
from bench.servers import start_site

_HOST = "127.0.0.1"
_PICTURES = 0.02
"""Share of the requests that carry a picture: those that are cut in the middle of their body."""
_CALM_S = 10.0
_PATIENCE_S = 300.0


@dataclass
class Hangups:
    """What came of it, and what was left."""

    ways: Counter[str] = field(default_factory=Counter)
    """How many requests ended in which way."""
    statuses: Counter[int] = field(default_factory=Counter)
    left: dict[str, int] = field(default_factory=dict)
    """Kind → how many more there are than before."""


@asynccontextmanager
async def adapter_here(
    settings: Settings,
) -> AsyncIterator[tuple[str, uvicorn.Server, Services]]:
    """The adapter as `serve` runs it, but in this loop, where its tasks can be counted; gives its URL."""
    services = Services(settings)
    app = create_app(settings, services)
    server = uvicorn.Server(listener.config(app, settings, None, services.metrics.refused))
    with listen(_HOST, 0, "") as listening:
        listening.listen(BACKLOG)
        serving = asyncio.create_task(server.serve(sockets=[listening]))
        while not server.started:  # noqa: ASYNC110 - uvicorn has no Event for it
            await asyncio.sleep(0.02)
        try:
            yield f"http://{_HOST}:{listening.getsockname()[1]}", server, services
        finally:
            server.should_exit = True
            await serving


async def hang_up(settings: Settings, key: str, requests: int, connections: int, seed: int = 0) -> Hangups:
    """Send requests and hang up at random, then count what is left after at most ten seconds."""
    chance = random.Random(seed)
    async with adapter_here(settings) as (url, server, services):
        engine = services.engine
        assert isinstance(engine, TritonEngine)
        bodies = {load: _request(url, key, load) for load in (IRIS, IMG)}
        await _expect_200(url, bodies[IRIS])
        await asyncio.sleep(0.2)
        before = _census(server, engine, settings)
        found = Hangups()
        left = iter(range(requests))
        async with asyncio.timeout(_PATIENCE_S):
            await asyncio.gather(*(_client(url, bodies, left, chance, found) for _ in range(connections)))
            await _expect_200(url, bodies[IRIS])
        deadline = asyncio.get_running_loop().time() + _CALM_S
        while asyncio.get_running_loop().time() < deadline:
            after = _census(server, engine, settings)
            found.left = {kind: count - before[kind] for kind, count in after.items() if count > before[kind]}
            if not found.left:
                break
            await asyncio.sleep(0.1)
        return found


def _census(server: uvicorn.Server, engine: TritonEngine, settings: Settings) -> Counter[str]:
    """What there is of everything that must not pile up."""
    return Counter(
        {
            "tasks": len(asyncio.all_tasks()),
            "requests in the server": len(server.server_state.tasks),
            "connections": len(server.server_state.connections),
            "file descriptors": _descriptors(),
            "batches": int(not engine.idle),
            "shared memory regions": len(list(Path("/dev/shm").glob(run_prefix(settings.state_dir) + "*"))),
        }
    )


def _descriptors() -> int:
    """Open files, but for the regions that are kept for the next large tensors."""
    links = Path("/proc/self/fd").iterdir()
    return sum(f"/{OWN_REGIONS}" not in os.readlink(link) for link in links if link.is_symlink())


def _request(url: str, key: str, load: Load) -> bytes:
    path = f"{url}/v1/models/{load.model}:predict"
    return post(path, {"X-API-Key": key}, load.body(load.values(0), v2=False))


async def _expect_200(url: str, request: bytes) -> None:
    connection = await Connection.open(url)
    answer = await connection.ask(request)
    connection.abort()
    if answer.status != 200:
        raise BenchError(f"the adapter answers {answer.status}: {answer.body.decode()[:200]}")


async def _client(
    url: str, bodies: dict[Load, bytes], left: Iterator[int], chance: random.Random, found: Hangups
) -> None:
    """One connection after another, each for as long as its client has patience."""
    connection: Connection | None = None
    for _ in left:
        request = bodies[IMG if chance.random() < _PICTURES else IRIS]
        way = chance.choice(_WAYS)
        found.ways[way] += 1
        connection = connection or await Connection.open(url)
        if way == "waits for the answer":
            answer = await connection.ask(request)
            found.statuses[answer.status] += 1
            continue
        await _leave(connection, request, way, chance)
        connection = None
    if connection:
        connection.abort()


_WAYS = (
    "waits for the answer",
    "leaves in the head",
    "leaves in the body",
    "leaves at once",
    "leaves a moment later",
    "closes in order",
    "leaves in the answer",
)


async def _leave(connection: Connection, request: bytes, way: str, chance: random.Random) -> None:
    """Send all or a part of a request, and go."""
    head = request.index(b"\r\n\r\n") + 4
    part = {
        "leaves in the head": request[: chance.randrange(1, head)],
        "leaves in the body": request[: chance.randrange(head, len(request))],
    }.get(way, request)
    connection.writer.write(part)
    try:
        await connection.writer.drain()
        if way in ("leaves in the head", "leaves in the body", "leaves a moment later"):
            await asyncio.sleep(chance.uniform(0, 0.01))
        elif way == "leaves in the answer":
            await connection.reader.read(20)
        elif way == "closes in order":
            connection.writer.close()
            await connection.writer.wait_closed()
    except OSError:
        pass  # the server was quicker
    connection.abort()


def main() -> None:
    """Run it on an `up` of its own."""
    parser = argparse.ArgumentParser(prog="make hangups ARGS=…", description=__doc__)
    parser.add_argument("--connections", type=int, default=64)
    parser.add_argument("--requests", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="bench-") as folder, start_site(Path(folder)) as site:
        settings = Settings(
            triton_grpc_url=site.facts["triton_grpc"],
            nats_url=site.facts["nats_url"],
            state_dir=Path(folder) / "state",
            rate_limit_per_minute=10**9,
        )
        key = site.facts["api_key"]
        found = uvloop.run(hang_up(settings, key, options.requests, options.connections, options.seed))
    for way, count in sorted(found.ways.items()):
        print(f"{count:6} × {way}")
    print(f"answers: {dict(found.statuses)}; left behind: {found.left or 'nothing'}")
    if found.left or set(found.statuses) != {200}:
        sys.exit("hangups: something was left behind, or not every client that waited got its answer")


if __name__ == "__main__":
    main()
