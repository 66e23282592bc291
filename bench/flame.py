"""`make flame`: where the adapter's CPU time goes, as flame graphs in docs/performance, by py-spy."""

import argparse
import re
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path

from bench import wrk
from bench.loads import IMG, IRIS, LOADS, Load
from bench.package import ROOT
from bench.processes import BenchError
from bench.servers import Server, Site, start_site

_TITLE = re.compile(r'(<text id="title"[^>]*>)[^<]*')
_POINTS = ((IRIS, 64), (IMG, 4))
_RATE = 500
"""Samples a second."""


def main() -> None:
    """Load the adapter, watch it, write one graph for each load and print the dearest functions."""
    parser = argparse.ArgumentParser(prog="make flame ARGS=…", description=__doc__)
    parser.add_argument("--seconds", type=int, default=10)
    parser.add_argument("--folder", type=Path, default=ROOT / "docs" / "performance")
    parser.add_argument("--load", choices=[load.name for load in LOADS], help="only this one")
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    try:
        with tempfile.TemporaryDirectory(prefix="bench-") as folder, start_site(Path(folder)) as site:
            server = site.adapter("adapter", "this adapter")
            for load, connections in _POINTS:
                if options.load in (None, load.name):
                    graph = options.folder / f"flame-{load.name}-{connections}.svg"
                    _watch(site, server, load, connections, options.seconds, graph)
    except BenchError as error:
        sys.exit(f"flame: {error}")


def _watch(site: Site, server: Server, load: Load, connections: int, seconds: int, graph: Path) -> None:
    py_spy = shutil.which("py-spy", path=str(Path(sys.executable).parent)) or shutil.which("py-spy")
    if py_spy is None:
        raise BenchError("py-spy is missing: pip install py-spy")
    body = site.folder / f"{load.name}.json"
    body.write_bytes(load.body(load.values(0), v2=False))
    watched = f"{load.name}, {connections} connections"
    # Twice, as py-spy writes one form at a time; --gil leaves out threads that wait.
    for form, target in (("flamegraph", graph), ("raw", site.folder / f"{load.name}.raw")):
        command = [py_spy, "record", "--pid", str(server.pids[0]), "--rate", str(_RATE), "--nonblocking"]
        command += ["--duration", str(seconds), "--format", form, "--output", str(target)]
        spying = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
        )
        figures = wrk.run(server.url_of(load.name), server.headers, body, connections, seconds + 1)
        _, complaint = spying.communicate(timeout=60)
        if spying.returncode:
            raise BenchError(f"py-spy: {complaint.strip().splitlines()[-1]}")
    # py-spy's title is its command line.
    graph.write_text(_TITLE.sub(rf"\g<1>{watched}", graph.read_text()))
    print(f"\n{watched}: {figures['requests'] / figures['seconds']:,.0f} requests/s while watched; {graph}")
    _print_dearest(site.folder / f"{load.name}.raw")


def _print_dearest(raw: Path, most: int = 25) -> None:
    """Functions by the share of samples in which they run, and in which they are the innermost."""
    inner, anywhere = Counter[str](), Counter[str]()
    for line in raw.read_text().splitlines():
        stack, _, count = line.rpartition(" ")
        # Without the lines' numbers: a function is one place.
        frames = [frame.rpartition(":")[0] or frame for frame in stack.split(";")]
        inner[frames[-1]] += int(count)
        for frame in set(frames):
            anywhere[frame] += int(count)
    total = inner.total()
    print(f"{'inside':>8} {'itself':>8}")
    dearest = {frame for counter in (inner, anywhere) for frame, _ in counter.most_common(most)}
    for frame in sorted(dearest, key=lambda frame: -anywhere[frame]):
        print(f"{anywhere[frame] / total:8.1%} {inner[frame] / total:8.1%}  {frame}")


if __name__ == "__main__":
    main()
