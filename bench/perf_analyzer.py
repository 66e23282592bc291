"""Runs perf_analyzer against the adapter and its Triton by turns, and prints both with their ratio.

bench/perf_analyzer.sh finds the program and calls this. The servers are started here, by `miaas-adapter up`;
where there is a C compiler the adapter is compiled, as in the container image.
"""

import argparse
import csv
import json
import os
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from adapter.security.keys import KeyStore
from bench.package import ROOT, SOURCES, Package, compiled_package
from bench.processes import BenchError
from tests.models.generate import build

CONCURRENCIES = (1, 4, 16)
PIECES = (
    *("Client Send", "Network+Server Send/Recv", "Server Queue", "Server Compute Input"),
    *("Server Compute Infer", "Server Compute Output", "Client Recv"),
)


@dataclass(frozen=True)
class Load:
    """What is sent: a model, the form of its tensors, more options of perf_analyzer.

    perf_analyzer keeps whatever it sends and receives in memory until it ends, so large tensors are sent
    `requests` times; small ones, 0, for three seconds.
    """

    name: str
    model: str
    form: str
    requests: int = 0
    more: tuple[str, ...] = ()


LOADS = (
    Load("iris, binary", "sklearn-iris", "binary"),
    Load("iris, JSON", "sklearn-iris", "json"),
    Load("digits, binary", "digits", "binary"),
    Load("identity 1 MB, binary", "identity-fp32", "binary", 500, ("--shape", "INPUT0:1,262144")),
    Load("identity 64 kB, JSON", "identity-fp32", "json", 500, ("--shape", "INPUT0:1,16384")),
)


@contextmanager
def servers(folder: Path, package: Package) -> Iterator[dict[str, Any]]:
    """`up` of this package with the models of the loads; yields what its `up.json` says."""
    everything, repository = folder / "all", folder / "models"
    shutil.copytree(ROOT / "model_repository", everything)
    build(everything)
    for model in {load.model for load in LOADS}:
        shutil.copytree(everything / model, repository / model)
    command = [sys.executable, "-m", "adapter", "up", "--port", "0", "--ops-port", "0"]
    command += ["--state-dir", str(folder / "state"), "--model-repository", str(repository)]
    # Triton's log has no line of a request, so ours has none.
    settings = {"RATE_LIMIT_PER_MINUTE": "0", "V2_SHARED_MEMORY": "1", "ACCESS_LOG_SAMPLE": "0"}
    environment = {**os.environ, **package.environment}
    environment |= {f"ADAPTER_{name}": value for name, value in settings.items()}
    with (folder / "up.log").open("w") as log:
        process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, env=environment)
    try:
        facts = folder / "state" / "up.json"
        while not facts.exists():
            if process.poll() is not None:
                sys.exit((folder / "up.log").read_text())
            time.sleep(0.2)
        told = json.loads(facts.read_text())
        for pid in told["pids"]["api"]:
            package.check(pid)
        # Shared memory is for administrators; a new key is known everywhere after a second.
        key = KeyStore(folder / "state" / "keys.json").create("bench", ["admin", "infer", "read"]).key
        time.sleep(2)
        yield told | {"api_key": key}
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(20)


def measure(
    analyzer: str, target: list[str], load: Load, concurrency: int, requests: int
) -> dict[str, float]:
    """One draw: requests a second, and the median and 99th percentile of the latency in microseconds."""
    with tempfile.NamedTemporaryFile(suffix=".csv") as table:
        command = [analyzer, "-m", load.model, "-i", "http", *target, *load.more]
        if requests:
            command += ["--request-count", str(requests)]
        else:
            # Three windows, however much they differ: the draws show that.
            command += [
                "--measurement-interval",
                "1000",
                "--stability-percentage",
                "999",
                "--max-trials",
                "3",
            ]
        command += ["--concurrency-range", str(concurrency), "-f", table.name]
        command += ["--input-tensor-format", load.form, "--output-tensor-format", load.form]
        done = subprocess.run(command, capture_output=True, text=True, timeout=300)
        if done.returncode:
            sys.exit(f"perf_analyzer failed with {done.returncode}: {done.stdout}{done.stderr}")
        (row,) = csv.DictReader(Path(table.name).read_text().splitlines())
    # Counted requests are timed in whole seconds; their latency, in pieces, is exact.
    latency = sum(float(row[piece]) for piece in PIECES)
    return {
        "rate": concurrency / latency * 1e6 if requests else float(row["Inferences/Second"]),
        "p50": float(row["p50 latency"]),
        "p99": float(row["p99 latency"]),
    }


def main() -> None:
    """Measure every load at every concurrency, by turns, and print the medians."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--analyzer", required=True, help="the command that runs perf_analyzer")
    parser.add_argument("--draws", type=int, default=5)
    parser.add_argument("--quick", action="store_true", help="one short draw of each")
    parser.add_argument("--only", default="", help="loads whose name holds this")
    parser.add_argument("--shared-memory", choices=["none", "system", "cuda"], default="none")
    parser.add_argument("--source", action="store_true", help="the adapter from its sources, not compiled")
    parser.add_argument("--json", type=Path, help="where to write every draw")
    options = parser.parse_args()
    draws, share = (1, 4) if options.quick else (options.draws, 1)
    memory = ["--shared-memory", options.shared_memory] if options.shared_memory != "none" else []
    # In shared memory there are bytes alone.
    loads = [load for load in LOADS if options.only in load.name and (load.form == "binary" or not memory)]
    points = [(load, c) for load in loads for c in CONCURRENCIES]
    rows: list[dict[str, Any]] = []
    try:
        package = SOURCES if options.source else compiled_package()
    except BenchError as error:
        sys.exit(f"perf_analyzer: {error}")
    with (
        tempfile.TemporaryDirectory() as folder,
        servers(Path(folder), package) as facts,
        Progress() as progress,
    ):
        targets = {
            "adapter": ["-u", facts["url"].removeprefix("http://"), "-H", f"X-API-Key: {facts['api_key']}"],
            "triton": ["-u", facts["triton_http"]],
        }
        task = progress.add_task("measuring", total=draws * len(points) * len(targets))
        for draw in range(draws):
            for load, concurrency in points:
                for target, arguments in targets.items():
                    seen = measure(
                        options.analyzer, [*arguments, *memory], load, concurrency, load.requests // share
                    )
                    rows.append(
                        {"load": load.name, "concurrency": concurrency, "target": target, "draw": draw} | seen
                    )
                    progress.advance(task)
    if options.json:
        options.json.write_text(json.dumps(rows, indent=1))
    Console().print(table_of(rows, f"V2 by perf_analyzer; adapter: {package.words}"))


def table_of(rows: list[dict[str, Any]], title: str) -> Table:
    """Medians over the draws, ours beside Triton's."""
    headers = ("load", "c", "adapter/s", "Triton/s", "ratio", "adapter p50/p99 µs", "Triton p50/p99 µs")
    table = Table(*headers, title=title, title_justify="left")
    for load, concurrency in dict.fromkeys((row["load"], row["concurrency"]) for row in rows):
        middle = {
            target: {
                figure: statistics.median(
                    row[figure]
                    for row in rows
                    if (row["load"], row["concurrency"], row["target"]) == (load, concurrency, target)
                )
                for figure in ("rate", "p50", "p99")
            }
            for target in ("adapter", "triton")
        }
        ours, triton = middle["adapter"], middle["triton"]
        table.add_row(
            load,
            str(concurrency),
            f"{ours['rate']:,.0f}",
            f"{triton['rate']:,.0f}",
            f"{ours['rate'] / triton['rate']:.2f}",
            f"{ours['p50']:,.0f} / {ours['p99']:,.0f}",
            f"{triton['p50']:,.0f} / {triton['p99']:,.0f}",
        )
    return table


if __name__ == "__main__":
    main()
