"""docs/performance.md, out of the JSON of a run: nothing in it is typed by hand.

`python -m bench.report bench/results/full.json` writes page and plots anew.
"""

import sys
from collections import Counter
from pathlib import Path
from statistics import median

from bench import plots
from bench.goals import GOALS, JOBS_GOAL, OURS
from bench.results import RESULTS, Run
from bench.summary import Figure, compared, connection_counts, draws, figure

_PAGE = Path(__file__).parents[1] / "docs" / "performance.md"

_HEAD = """\
<!-- Written by bench/report.py out of bench/results/{name}.json; `make bench` measures and writes it anew. -->
# Performance

The adapter beside its peers, all on the same Triton in one interleaved run: `make bench` sets everything up and
takes about half an hour; `make bench ARGS=--quick` takes five minutes and leaves this page alone. Debian's `wrk` is
the generator.{quick}

The adapter does all its work here: it asks for API keys, counts for its rate limit, keeps its metrics, validates
every number. Its settings are the defaults, but that the limit is never reached, and that the log has no line for
each request (`ADAPTER_ACCESS_LOG_SAMPLE=0`), as the peers' logs have none.

{build}

Servers take turns at every point, each time in another order and with fresh connections, so that a machine that
drifts drifts for all of them: compare ratios rather than figures of different runs. Everything runs on the same cores,
the generator too. A figure is the median of {draws} draws, and in parentheses stand {spread}. CPU is what the server's
processes used in user and kernel mode while the generator ran, for each request that was answered in that time.
Latency is the generator's, which waits for one answer on a connection before it asks again.

What made requests quicker, what did not, and what bounds the goals that are not met: [notes](performance-notes.md).
"""

_COMPILED = """\
The adapter, its worker too, is compiled here [as in the container image](decisions/compiled.md); goals are judged on
that. Only `adapter-source` runs from the sources, as `make up` runs them.\
"""
_NOT_COMPILED = """\
The adapter runs from its sources here, as `make up` runs them; it is not compiled
[as in the container image](decisions/compiled.md), where a request takes less CPU.\
"""

_LOADS = {"iris": "One row of iris", "iris64": "64 rows of iris", "img": "A picture as JSON numbers"}


def page(run: Run, images: Path) -> str:
    """The page, in Markdown; its pictures lie in `images`, as seen from the page."""
    count = max((draw.number for draw in run.draws), default=0) + 1
    spread = "the quartiles" if count >= 4 else "the lowest and the highest"
    quick = " **This page shows a quick run.**" if run.quick else ""
    build = _COMPILED if run.compiled else _NOT_COMPILED
    parts = [_HEAD.format(name=run.name, quick=quick, draws=count, spread=spread, build=build)]
    parts += ["## Where and when\n", _machine(run)]
    parts += ["## Who\n", _servers(run)]
    parts += ["## Goals\n", _goals(run)]
    shown = plots.files(run)
    for load in run.loads:
        if not connection_counts(run, load):
            continue
        parts += [f"## {_LOADS.get(load, load)}\n", f"{run.loads[load]}.\n"]
        parts += [f"![{title}]({images / name})\n" for name, title in shown if name.startswith(f"{load}-")]
        parts += [_table(run, load)]
    parts += ["## Triton's HTTP front end\n", _modes(run)]
    if run.jobs:
        parts += ["## Asynchronous jobs\n", _jobs(run)]
    parts += ["## Right answers under load\n", _checks(run)]
    return "\n".join(parts)


def _machine(run: Run) -> str:
    rows = ["| | |", "| --- | --- |", f"| Started | {run.started} |"]
    rows += [f"| {name} | {fact} |" for name, fact in run.machine.items()]
    return "\n".join(rows) + "\n"


def _servers(run: Run) -> str:
    lines = [f"- `{key}`: {title}" for key, title in run.servers.items()]
    lines += [f"- `{key}` is left out: {reason}" for key, reason in run.left_out.items()]
    return "\n".join(lines) + "\n"


def _goals(run: Run) -> str:
    rows = ["| | connections | goal | found | |", "| --- | ---: | ---: | ---: | --- |"]
    for goal in GOALS:
        found = goal.stands(run)
        sign = "≥" if goal.kind == "at least" else "≤"
        shown, verdict = _cell(found, 2), "" if found is None else _verdict(goal.met(found))
        rows.append(f"| {goal.title} | {goal.connections} | {sign} {goal.bound:g} | {shown} | {verdict} |")
    if run.jobs:
        ratio = Figure.of(
            ours / alone for ours, alone in zip(run.jobs["adapter"], run.jobs["nats"], strict=True)
        )
        verdict = _verdict(ratio is not None and ratio.median >= JOBS_GOAL)
        title = "asynchronous jobs/s ÷ NATS alone"
        rows.append(f"| {title} | 64 | ≥ {JOBS_GOAL:g} | {_cell(ratio, 2)} | {verdict} |")
    text = (
        "Ours against a peer's, draw by draw; one process of the adapter, on a Python backend of Triton.\n\n"
    )
    return text + "\n".join(rows) + "\n"


def _table(run: Run, load: str) -> str:
    rows = [
        "| connections | server | requests/s | ÷ adapter | p50 ms | p90 ms | p99 ms | CPU µs | Triton's µs | errors |",
        "| ---: | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for connections in connection_counts(run, load):
        for server in run.servers:
            found = draws(run, server, load, connections)
            if not found:
                continue
            cells = [str(connections), f"`{server}`"]
            cells += [_cell(figure(run, server, load, connections, "per_second"), 0)]
            ratio = compared(run, server, OURS, load, connections, "per_second")
            cells += ["" if ratio is None or server == OURS else f"{ratio.median:.2f}"]
            for measure in ("p50_ms", "p90_ms", "p99_ms"):
                cells.append(_median(figure(run, server, load, connections, measure), 2))
            cells.append(_cell(figure(run, server, load, connections, "cpu_us"), 0))
            behind = figure(run, server, load, connections, "triton_cpu_us")
            cells.append("" if server in ("triton", "bare") else _median(behind, 0))
            cells.append(str(sum(draw.errors for draw in found)))
            rows.append(f"| {' | '.join(cells)} |")
    return "\n".join(rows) + "\n"


def _modes(run: Run) -> str:
    """How its connections fell upon its threads, which no client can choose."""
    text = (
        "It has two modes, and which one a set of connections meets is chance: all on one of its threads, or"
        " spread. So its figures are those of several draws, of which this is how many of its threads were busy:\n"
    )
    rows = ["| load | connections | busy threads, draw by draw | requests/s at fewest | at most threads |"]
    rows += ["| --- | ---: | --- | ---: | ---: |"]
    for load in run.loads:
        for connections in connection_counts(run, load):
            known = [draw for draw in draws(run, "triton", load, connections) if draw.http_threads]
            counts = Counter(draw.http_threads or 0 for draw in known)
            if not counts:
                continue
            by_threads = {
                threads: median(draw.per_second for draw in known if draw.http_threads == threads)
                for threads in (min(counts), max(counts))
            }
            listed = ", ".join(str(draw.http_threads) for draw in known)
            fewest, most = by_threads[min(counts)], by_threads[max(counts)]
            rows.append(f"| {load} | {connections} | {listed} | {fewest:,.0f} | {most:,.0f} |")
    return text + "\n" + "\n".join(rows) + "\n"


def _jobs(run: Run) -> str:
    ours, alone = Figure.of(run.jobs["adapter"]), Figure.of(run.jobs["nats"])
    return (
        f"Submitted on 64 connections to one API process, run by one worker on Triton, results stored:"
        f" **{_cell(ours, 0)} jobs/s**, from the first submission to the last result. NATS alone, publish → fetch →"
        f" KV put → ack in one process with as many at a time, on the same server: {_cell(alone, 0)} jobs/s. Both with"
        " `sync_interval: always`: what is acknowledged is on the disk.\n"
    )


def _checks(run: Run) -> str:
    lines = [
        "Before the draws, 64 connections sent requests that were all different, and every answer was compared with",
        "what ONNX Runtime alone computes. None was wrong, none was another request's:\n",
    ]
    by_server: dict[str, list[str]] = {}
    for place, count in run.checked.items():
        server, _, load = place.partition(" ")
        by_server.setdefault(server, []).append(f"{load} {count:,}")
    lines += [f"- `{server}`: {', '.join(counts)}" for server, counts in by_server.items()]
    return "\n".join(lines) + "\n"


def _cell(found: Figure | None, digits: int) -> str:
    if found is None:
        return ""
    return f"{found.median:,.{digits}f} ({found.low:,.{digits}f}–{found.high:,.{digits}f})"


def _median(found: Figure | None, digits: int) -> str:
    return "" if found is None else f"{found.median:,.{digits}f}"


def _verdict(met: bool) -> str:
    return "met" if met else "**not met**"


def write(run: Run, target: Path) -> None:
    """Write the page to `target`, and its pictures into the folder of the same name beside it."""
    images = target.with_suffix("")
    plots.write(run, images)
    target.write_text(page(run, Path(images.name)))


def page_of(run: Run) -> Path:
    """Where a run's page belongs: that of a quick run beside its results."""
    return RESULTS / f"{run.name}.md" if run.quick else _PAGE


if __name__ == "__main__":
    stored = Run.load(Path(sys.argv[1]))
    write(stored, page_of(stored))
