"""`make bench-guard`: the adapter's CPU time for each request, against bare ASGI's in the same run.

A ratio of CPU times that were taken next to each other hardly depends on the machine or on what else runs
there. The guard fails when one is more than a quarter above the one that is stored in bench/guard.json;
`--store` stores what it finds, after a change that makes the adapter quicker, or that is worth its price.
"""

import argparse
import json
import sys
import tempfile
from pathlib import Path

from rich.console import Console
from rich.table import Table

from bench import wrk
from bench.loads import IMG, IRIS
from bench.plan import Plan, Point
from bench.processes import BenchError
from bench.results import Run
from bench.servers import Server, Site, start_bare, start_site
from bench.summary import Figure, compared, figure

_STORED = Path(__file__).with_name("guard.json")
_TOLERANCE = 1.25
_POINTS = (Point(IRIS, 16, 1), Point(IMG, 4, 1))
_PLAN = Plan(points=_POINTS, draws=7, checks=0, job_draws=0, jobs=0)


def main() -> None:
    """Measure, show, compare; ends with 1 when the adapter has become dearer."""
    parser = argparse.ArgumentParser(prog="make bench-guard ARGS=…", description=__doc__)
    parser.add_argument("--store", action="store_true", help="store the ratios that are found")
    store = parser.parse_args().store
    stored: dict[str, float] = json.loads(_STORED.read_text()) if _STORED.exists() else {}
    run = Run("guard", "", True, {}, {}, {}, {})
    try:
        with tempfile.TemporaryDirectory(prefix="bench-") as folder, start_site(Path(folder)) as site:
            servers = [site.adapter("adapter", "this adapter"), start_bare(site)]
            _measure(run, site, servers, 0)
            if not store and _dearer(run, stored):
                # In doubt as much again, and all of it counts.
                _measure(run, site, servers, _PLAN.draws)
    except BenchError as error:
        sys.exit(f"bench-guard: {error}")
    _show(run, stored)
    if store:
        ratios = {point.load.name: round(_ratio(run, point).median, 2) for point in _POINTS}
        _STORED.write_text(json.dumps(ratios, indent=2) + "\n")
    elif dearer := _dearer(run, stored):
        sys.exit(f"bench-guard: CPU per request grew by more than a quarter: {', '.join(dearer)}")


def _measure(run: Run, site: Site, servers: list[Server], first: int) -> None:
    for number, point, server in _PLAN.steps(servers):
        load = point.load
        body = site.folder / f"{load.name}.json"
        if not body.exists():
            body.write_bytes(load.body(load.values(0), v2=False))
        run.draws.append(
            wrk.draw(site, server, load.name, body, point.connections, point.seconds, first + number)
        )
    if errors := sum(draw.errors for draw in run.draws):
        raise BenchError(f"{errors} requests failed")


def _ratio(run: Run, point: Point) -> Figure:
    found = compared(run, "adapter", "bare", point.load.name, point.connections, "cpu_us")
    assert found is not None
    return found


def _dearer(run: Run, stored: dict[str, float]) -> list[str]:
    """The loads whose ratio is too high; one that is not stored cannot be."""
    names = {point.load.name: _ratio(run, point).median for point in _POINTS}
    return [name for name, ratio in names.items() if ratio > stored.get(name, float("inf")) * _TOLERANCE]


def _show(run: Run, stored: dict[str, float]) -> None:
    table = Table(title="CPU µs per request", title_justify="left")
    for name in ("load", "connections", "adapter", "bare ASGI", "ratio", "quartiles", "stored", "at most"):
        table.add_column(name, justify="left" if name == "load" else "right")
    for point in _POINTS:
        place = (point.load.name, point.connections, "cpu_us")
        ours, bare = figure(run, "adapter", *place), figure(run, "bare", *place)
        ratio, known = _ratio(run, point), stored.get(point.load.name)
        table.add_row(
            point.load.name,
            str(point.connections),
            f"{ours.median:,.1f}" if ours else "",
            f"{bare.median:,.1f}" if bare else "",
            f"{ratio.median:.2f}",
            f"{ratio.low:.2f}–{ratio.high:.2f}",
            f"{known:.2f}" if known else "-",
            f"{known * _TOLERANCE:.2f}" if known else "-",
        )
    Console(width=100).print(table)


if __name__ == "__main__":
    main()
