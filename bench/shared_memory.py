"""`python -m bench.shared_memory`: from which size on shared memory carries tensors better.

The identity of binary tensors over V2, in one interleaved run: two adapters on one Triton, one with shared
memory and one without, under the same load by turns.
"""

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import httpx
import numpy as np
import orjson
from rich.console import Console
from rich.table import Table

from bench import wrk
from bench.processes import BenchError, cpu_s, settle, tree
from bench.servers import Server, Site, start_site
from tests.models.generate import Tensor, write_model

_SIZES = {"16 KB": 16 << 10, "64 KB": 64 << 10, "256 KB": 256 << 10, "1 MB": 1 << 20, "16 MB": 16 << 20}
_LOADED_WITHIN_S = 60.0

Figures = tuple[float, float, float]
"""Requests a second, and CPU microseconds a request of the adapter and of Triton."""


def main() -> None:
    """Measure and show."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--connections", type=int, default=4)
    parser.add_argument("--seconds", type=int, default=2, help="of one draw")
    parser.add_argument("--draws", type=int, default=5, help="of each adapter and size")
    options = parser.parse_args()
    try:
        with tempfile.TemporaryDirectory(prefix="bench-") as folder, start_site(Path(folder)) as site:
            found = _measure(site, options.connections, options.seconds, options.draws)
    except BenchError as error:
        sys.exit(f"shared_memory: {error}")
    Console(width=110).print(_table(found))


def _measure(
    site: Site, connections: int, seconds: int, draws: int
) -> dict[str, list[tuple[Figures, Figures]]]:
    """Size → the figures without and with shared memory, draw by draw."""
    for title, size in _SIZES.items():
        inputs, outputs = ([Tensor(name, "FP32", (size // 4,))] for name in ("INPUT0", "OUTPUT0"))
        write_model(site.repository / _model(title), "echo.py", 0, inputs, outputs)
    pair = [
        site.adapter(key, key, ADAPTER_SHARED_MEMORY_MIN_BYTES=least)
        for key, least in (("bytes", "0"), ("shared", "1"))
    ]
    found: dict[str, list[tuple[Figures, Figures]]] = {}
    for title, size in _SIZES.items():
        body, headers = _request(site.folder, size)
        for server in pair:
            _wait_for(server, title, body, headers)
        found[title] = []
        for _ in range(draws):
            one, other = (_draw(site, server, title, body, headers, connections, seconds) for server in pair)
            found[title].append((one, other))
    return found


def _model(title: str) -> str:
    return f"identity-{title.replace(' ', '-').lower()}"


def _request(folder: Path, size: int) -> tuple[Path, dict[str, str]]:
    """The file that holds the body, and the headers that go with it."""
    data = np.random.default_rng(0).random(size // 4, np.float32).tobytes()
    one = {"name": "INPUT0", "datatype": "FP32", "shape": [size // 4]}
    head = orjson.dumps(
        {
            "inputs": [{**one, "parameters": {"binary_data_size": size}}],
            "parameters": {"binary_data_output": True},
        }
    )
    path = folder / f"body-{size}"
    path.write_bytes(head + data)
    return path, {"Inference-Header-Content-Length": str(len(head))}


def _url(server: Server, title: str) -> str:
    return f"{server.url}/v2/models/{_model(title)}/infer"


def _wait_for(server: Server, title: str, body: Path, headers: dict[str, str]) -> None:
    """Return once the model answers what it was asked."""
    content = body.read_bytes()
    deadline = time.monotonic() + _LOADED_WITHIN_S
    while True:
        answer = httpx.post(_url(server, title), content=content, headers={**server.headers, **headers})
        if answer.status_code == 200:
            break
        if time.monotonic() > deadline:
            raise BenchError(f"{_model(title)}: {answer.text[:200]}")
        time.sleep(0.2)
    if not answer.content.endswith(content[int(next(iter(headers.values()))) :]):
        raise BenchError(f"{_model(title)} answers something else")


def _draw(
    site: Site,
    server: Server,
    title: str,
    body: Path,
    headers: dict[str, str],
    connections: int,
    seconds: int,
) -> Figures:
    # The models' own processes came after Triton's.
    triton = tree(site.triton[0])
    before, triton_before = cpu_s(server.pids), cpu_s(triton)
    figures = wrk.run(_url(server, title), {**server.headers, **headers}, body, connections, seconds)
    after, triton_after = cpu_s(server.pids), cpu_s(triton)
    settle([*server.pids, *triton])
    if figures["errors"] or not figures["requests"]:
        raise BenchError(f"{title}: {figures}")
    requests = figures["requests"]
    return (
        requests / figures["seconds"],
        (after - before) / requests * 1e6,
        (triton_after - triton_before) / requests * 1e6,
    )


def _table(found: dict[str, list[tuple[Figures, Figures]]]) -> Table:
    table = Table(
        title="as bytes → through shared memory: medians, and the median ratio of draws taken together"
    )
    for name in ("tensor", "requests/s", "ratio", "adapter's CPU, µs", "ratio", "Triton's CPU, µs", "ratio"):
        table.add_column(name, justify="right")
    for title, pairs in found.items():
        cells = [title]
        for i in range(3):
            one, other = ([figures[which][i] for figures in pairs] for which in (0, 1))
            cells += [f"{statistics.median(one):,.0f} → {statistics.median(other):,.0f}", _ratio(one, other)]
        table.add_row(*cells)
    return table


def _ratio(one: Sequence[float], other: Sequence[float]) -> str:
    ratios = [after / before for before, after in zip(one, other, strict=True) if before]
    return f"{statistics.median(ratios):.2f}" if ratios else "-"


if __name__ == "__main__":
    main()
