"""`make overload`: a thousand clients that never pause, for a minute.

Nobody may get a 5xx but 503 with Retry-After, memory stays flat, and latency is back to normal within two
seconds.
"""

import argparse
import asyncio
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

import uvloop

from bench.client import Connection, post
from bench.loads import IRIS
from bench.processes import BenchError, rss_mb
from bench.servers import start_site

_PROBES = 50
_CALM_S = 2.0
_PATIENCE_S = 30.0


@dataclass
class Overload:
    """What came of it."""

    statuses: Counter[int] = field(default_factory=Counter)
    without_retry_after: int = 0
    """Answers of 503 that do not say when to come back."""
    broken: int = 0
    """Connections that the server cut off."""
    before_ms: float = 0.0
    """Median latency of a lone client before."""
    after_ms: float = 0.0
    """The same, two seconds after the end."""
    memory_mb: list[float] = field(default_factory=list)
    """The server's resident memory, twice a second while it lasted."""

    @property
    def growth_mb(self) -> float:
        """By how much the last quarter's peak is above the second quarter's: the first one warms up."""
        quarter = len(self.memory_mb) // 4
        return max(self.memory_mb[-quarter:]) - max(self.memory_mb[quarter : 2 * quarter])

    def faults(self) -> list[str]:
        """What is not as it should be, a line each."""
        bad = {status: count for status, count in self.statuses.items() if status >= 500 and status != 503}
        allowed_mb = 8 + 0.1 * self.memory_mb[0]
        lines = {
            f"other errors than 503: {bad}": bool(bad),
            f"{self.without_retry_after} answers of 503 without Retry-After": self.without_retry_after > 0,
            f"{self.broken} connections were cut off": self.broken > 0,
            "no request was answered by 200": self.statuses[200] == 0,
            f"memory grew by {self.growth_mb:.0f} MB": self.growth_mb > allowed_mb,
        }
        return [line for line, wrong in lines.items() if wrong]

    def delays(self) -> list[str]:
        """The same of latency, of which only a machine that does nothing else can tell."""
        if self.after_ms <= 2 * self.before_ms + 5:
            return []
        return [f"a lone client waited {self.before_ms:.1f} ms before, and {self.after_ms:.1f} ms after"]


async def overload(
    url: str, headers: Mapping[str, str], pids: Sequence[int], connections: int, seconds: float
) -> Overload:
    """Load the server at `url`, whose processes are `pids`, with one row of iris again and again."""
    request = post(url, headers, IRIS.body(IRIS.values(0), v2=False))
    found = Overload(before_ms=await _lone_client(url, request))
    end = time.monotonic() + seconds
    open_now = asyncio.Semaphore(100)

    async def client() -> None:
        async with open_now:
            connection = await Connection.open(url)
        try:
            while time.monotonic() < end:
                answer = await connection.ask(request)
                found.statuses[answer.status] += 1
                found.without_retry_after += answer.status == 503 and not answer.has("Retry-After")
        except (OSError, asyncio.IncompleteReadError):
            found.broken += 1
        finally:
            connection.abort()

    async def watch() -> None:
        while time.monotonic() < end:
            found.memory_mb.append(rss_mb(pids))
            await asyncio.sleep(0.5)

    async with asyncio.timeout(seconds + _PATIENCE_S):
        await asyncio.gather(watch(), *(client() for _ in range(connections)))
    await asyncio.sleep(_CALM_S)
    found.after_ms = await _lone_client(url, request)
    return found


async def _lone_client(url: str, request: bytes) -> float:
    """The median latency of one client, in milliseconds."""
    connection = await Connection.open(url)
    times = []
    for _ in range(_PROBES):
        began = time.perf_counter()
        await connection.ask(request)
        times.append(time.perf_counter() - began)
    connection.abort()
    return median(times) * 1000


def main() -> None:
    """With the default settings, then with a queue so short that most clients are refused."""
    parser = argparse.ArgumentParser(prog="make overload ARGS=…", description=__doc__)
    parser.add_argument("--connections", type=int, default=1000)
    parser.add_argument("--seconds", type=float, default=60)
    options = parser.parse_args()
    faults = []
    try:
        with tempfile.TemporaryDirectory(prefix="bench-") as folder, start_site(Path(folder)) as site:
            for title, most_waiting in (("the default queue", "2048"), ("a queue of 64", "64")):
                server = site.adapter(f"adapter-{most_waiting}", title, ADAPTER_BATCH_QUEUE=most_waiting)
                load = overload(
                    server.url_of("iris"), site.headers, server.pids, options.connections, options.seconds
                )
                found = uvloop.run(load)
                print(
                    f"{title}: answers {dict(found.statuses)}, cut off {found.broken}; memory"
                    f" {found.memory_mb[0]:.0f} → {found.memory_mb[-1]:.0f} MB ({found.growth_mb:+.1f});"
                    f" a lone client's median {found.before_ms:.2f} ms before, {found.after_ms:.2f} ms after"
                )
                faults += [f"{title}: {fault}" for fault in found.faults() + found.delays()]
    except BenchError as error:
        sys.exit(f"overload: {error}")
    if faults:
        sys.exit("\n".join(["overload:", *faults]))


if __name__ == "__main__":
    main()
