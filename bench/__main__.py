"""`python -m bench`: the whole comparison in one interleaved run; see docs/performance.md."""

import argparse
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path

from bench import jobs, machine, report, wrk
from bench.check import check
from bench.live import Screen
from bench.loads import LOADS, Oracle
from bench.package import ROOT, SOURCES, compiled_package
from bench.plan import FULL, QUICK, Plan
from bench.processes import BenchError
from bench.results import RESULTS, Run
from bench.servers import Server, Site, start_bare, start_kserve, start_mlserver, start_naive, start_site


def main() -> None:
    """Measure, then write the JSON, the plots and the page."""
    options = _options()
    plan = QUICK if options.quick else FULL
    name = options.name or ("quick" if options.quick else "full")
    path = RESULTS / f"{name}.json"
    try:
        facts = machine.describe(options.kserve_python, options.mlserver_python)
        # Before the compiler runs.
        facts["Load before"] = f"{machine.load_average():.1f} programs running, the minute's mean"
        package = compiled_package()
        facts["Adapter"] += f", {package.words}"
        run = Run(
            name=name,
            started=datetime.now(UTC).isoformat(timespec="seconds"),
            quick=options.quick,
            machine=facts,
            servers={},
            left_out={},
            loads={load.name: load.title for load in LOADS},
            compiled=package.is_compiled,
        )
        with (
            tempfile.TemporaryDirectory(prefix="bench-") as folder,
            start_site(Path(folder), package) as site,
        ):
            began = time.monotonic()
            _measure(run, plan, site, options.kserve_python, options.mlserver_python)
            run.machine["Duration"] = f"{(time.monotonic() - began) / 60:.0f} minutes"
    except BenchError as error:
        sys.exit(f"bench: {error}")
    run.save(path)
    page = report.page_of(run)
    report.write(run, page)
    print(f"results: {path}\npage: {page}")


def _measure(run: Run, plan: Plan, site: Site, kserve: Path, mlserver: Path) -> None:
    servers = [*_start_adapters(site), site.triton_http()]
    for key, start, python in (("kserve", start_kserve, kserve), ("mlserver", start_mlserver, mlserver)):
        try:
            servers.append(start(site, python))
        except BenchError as error:
            run.left_out[key] = str(error)
    servers += [start_naive(site), start_bare(site)]
    run.servers.update({server.key: server.title for server in servers})
    steps = list(plan.steps(servers))
    screen = Screen(run, len(steps))
    screen.say(f"adapter: {site.package.words}")
    for key, reason in run.left_out.items():
        screen.say(f"left out: {key}: {reason}")
    with screen.open():
        oracle = Oracle(site.repository)
        for load in LOADS:
            for server in servers:
                if server.answers:
                    screen.say(f"checking answers: {server.key}, {load.name}")
                    count = plan.checks_of[load.name]
                    run.checked[f"{server.key} {load.name}"] = check(server, load, oracle, count, 64)
        bodies = _write_bodies(site.folder)
        shown = -1
        for number, point, server in steps:
            if number > shown:
                shown = number
                screen.say(f"draw {number + 1}/{plan.draws}")
            name = point.load.name
            screen.step(f"draw {number + 1}/{plan.draws}: {name} ×{point.connections} {server.key}", name)
            body = bodies[name, server.v2]
            run.draws.append(wrk.draw(site, server, name, body, point.connections, point.seconds, number))
        for number in range(plan.job_draws):
            screen.say(f"asynchronous jobs, draw {number + 1}/{plan.job_draws}")
            for key, rate in jobs.measure(site, plan.jobs).items():
                run.jobs.setdefault(key, []).append(rate)
    screen.tables()


def _start_adapters(site: Site) -> list[Server]:
    """Ours; where they are compiled, with one from the sources for what compiling gives."""
    servers = [
        site.adapter("adapter", "this adapter, one process"),
        site.adapter("adapter-2", "this adapter, two processes", processes=2),
        site.adapter("adapter-single", "this adapter, requests not joined", ADAPTER_BATCH_CALLS="0"),
    ]
    if site.package.is_compiled:
        title = "this adapter, not compiled, as `make up` runs it"
        servers.append(site.adapter("adapter-source", title, package=SOURCES))
    return servers


def _write_bodies(folder: Path) -> dict[tuple[str, bool], Path]:
    """Load and whether it is V2's → the file with the body that wrk sends."""
    bodies = {}
    for load in LOADS:
        for v2 in (False, True):
            bodies[load.name, v2] = folder / f"{load.name}-{v2}.json"
            bodies[load.name, v2].write_bytes(load.body(load.values(0), v2))
    return bodies


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="make bench ARGS=…", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="5 minutes in place of 30, into bench/results")
    parser.add_argument("--name", help="name of the results' file")
    venv = ROOT / ".venv-kserve" / "bin" / "python"
    parser.add_argument("--kserve-python", type=Path, default=venv, help="Python that has kserve")
    venv = ROOT / ".venv-mlserver" / "bin" / "python"
    parser.add_argument("--mlserver-python", type=Path, default=venv, help="Python that has mlserver")
    return parser.parse_args()


if __name__ == "__main__":
    main()
