"""One draw: wrk against one server, with connections of its own, and what it cost the processes."""

import json
import os
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from bench.processes import BenchError, cpu_s, settle, thread_ticks
from bench.results import Draw
from bench.servers import Server, Site

_SCRIPT = Path(__file__).with_name("load.lua")
_BUSY = 0.05
"""Share of the CPU time of Triton's HTTP threads from which on one of them counts as busy."""


def find() -> str:
    """wrk's path. Raises BenchError when it is not installed."""
    path = shutil.which("wrk")
    if path is None:
        raise BenchError("wrk is missing, the load generator: apt-get install wrk")
    return path


def run(url: str, headers: Mapping[str, str], body: Path, connections: int, seconds: int) -> dict[str, float]:
    """wrk's figures: `requests`, `seconds`, `errors`, `p50_ms`, `p90_ms`, `p99_ms`."""
    command = [find(), "-t1", f"-c{connections}", f"-d{seconds}s", "--timeout=20s"]
    command += [option for name, value in headers.items() for option in ("-H", f"{name}: {value}")]
    done = subprocess.run(
        [*command, "-s", str(_SCRIPT), url],
        env={**os.environ, "BENCH_BODY": str(body)},
        capture_output=True,
        text=True,
        timeout=seconds + 60,
        check=False,
    )
    for line in done.stdout.splitlines():
        if line.startswith("RESULT "):
            figures: dict[str, float] = json.loads(line.removeprefix("RESULT "))
            return figures
    raise BenchError(f"wrk failed: {done.stderr.strip() or done.stdout.strip()}")


def draw(
    site: Site, server: Server, load: str, body: Path, connections: int, seconds: int, number: int
) -> Draw:
    """One draw; afterwards nothing of it is left running."""
    everyone = [*server.pids, *site.triton]
    before, triton_before = cpu_s(server.pids), cpu_s(site.triton)
    threads_before = thread_ticks(site.triton[0])
    figures = run(server.url_of(load), server.headers, body, connections, seconds)
    after, triton_after = cpu_s(server.pids), cpu_s(site.triton)
    threads_after = thread_ticks(site.triton[0])
    settle(everyone)
    requests = max(int(figures["requests"]), 1)
    return Draw(
        server=server.key,
        load=load,
        connections=connections,
        number=number,
        requests=int(figures["requests"]),
        errors=int(figures["errors"]),
        per_second=figures["requests"] / figures["seconds"],
        p50_ms=figures["p50_ms"],
        p90_ms=figures["p90_ms"],
        p99_ms=figures["p99_ms"],
        cpu_us=(after - before) / requests * 1e6,
        triton_cpu_us=(triton_after - triton_before) / requests * 1e6,
        http_threads=_busy(site.http_threads, threads_before, threads_after) if server.is_triton else None,
    )


def _busy(threads: Sequence[int], before: Mapping[int, int], after: Mapping[int, int]) -> int | None:
    """How many of Triton's HTTP threads worked."""
    used = [after.get(thread, 0) - before.get(thread, 0) for thread in threads]
    return sum(ticks > _BUSY * sum(used) for ticks in used) if sum(used) else None
