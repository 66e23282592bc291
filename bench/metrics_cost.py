"""`python -m bench.metrics_cost`: what metrics cost a request, and what a scrape does to requests under load.

Ends with 1 when the observations of a request cost more than 5 microseconds, or one of twenty scrapes under
load takes 50 milliseconds or more.
"""

import asyncio
import statistics
import sys
import tempfile
import threading
import time
from pathlib import Path
from unittest.mock import patch

import httpx
from rich.console import Console
from rich.table import Table

from adapter.settings import Settings
from bench import wrk
from bench.hangups import adapter_here
from bench.loads import IRIS
from bench.observations import Recording, ours_us, theirs_us
from bench.processes import BenchError
from bench.results import Draw
from bench.servers import Server, Site, start_site

MOST_US = 5.0
MOST_MS = 50.0
_CONNECTIONS, _SECONDS, _DRAWS = 64, 4, 5
_SCRAPE_EVERY_S = 0.25
_ACCEPT = {"Accept": "application/openmetrics-text"}


def main() -> None:
    """Measure and show."""
    console = Console(width=100)
    try:
        with tempfile.TemporaryDirectory(prefix="bench-") as folder, start_site(Path(folder)) as site:
            cost_us = _observations(site, console)
            scrape_ms = _scrapes(site, console)
    except BenchError as error:
        sys.exit(f"metrics_cost: {error}")
    if cost_us > MOST_US or scrape_ms >= MOST_MS:
        sys.exit(f"metrics_cost: {cost_us:.1f} µs a request, {scrape_ms:.0f} ms a scrape")


def _observations(site: Site, console: Console) -> float:
    """Record one request of V1, and make its observations again and again."""
    with patch("adapter.app.Metrics", Recording):
        recorded = asyncio.run(_record(site))
    ours, theirs = ours_us(recorded.lines), theirs_us(recorded.observations)
    for line in recorded.lines:
        console.print(f"  {line}", highlight=False, markup=False)
    console.print(
        f"{len(recorded.observations)} observations of a request: {ours:.1f} CPU µs with all look-ups; "
        f"by prometheus_client {theirs:.1f} without any\n"
    )
    return ours


async def _record(site: Site) -> Recording:
    settings = Settings(
        triton_grpc_url=site.facts["triton_grpc"],
        nats_url=site.facts["nats_url"],
        state_dir=site.folder / "state",
        rate_limit_per_minute=10**9,
    )
    async with (
        adapter_here(settings) as (url, _, services),
        httpx.AsyncClient(headers=site.headers) as client,
    ):
        metrics = services.metrics
        assert isinstance(metrics, Recording)
        body = IRIS.body(IRIS.values(0), v2=False)
        for _ in range(2):  # the first one opens connections and looks models up
            metrics.forget()
            answer = await client.post(f"{url}/v1/models/{IRIS.model}:predict", content=body)
            if answer.status_code != 200:
                raise BenchError(f"the adapter answers {answer.status_code}: {answer.text[:200]}")
            while metrics.requests_in_flight.series["v1",].value:  # noqa: ASYNC110 - counted once it is sent
                await asyncio.sleep(0.001)
        return metrics


class _Scraper(threading.Thread):
    """Scrapes again and again, sixty times as often as Prometheus by default."""

    def __init__(self, url: str) -> None:
        super().__init__()
        self.seconds: list[float] = []
        self.bytes = 0
        self._url = f"{url}/metrics"
        self._over = threading.Event()

    def run(self) -> None:
        with httpx.Client(headers=_ACCEPT) as client:
            while not self._over.wait(_SCRAPE_EVERY_S):
                started = time.perf_counter()
                self.bytes = len(client.get(self._url).content)
                self.seconds.append(time.perf_counter() - started)

    def stop(self) -> None:
        """End it, and wait for its end."""
        self._over.set()
        self.join()


def _scrapes(site: Site, console: Console) -> float:
    """Full load with and without scrapes, in turns; what 19 of 20 scrapes took at most, in milliseconds."""
    server = site.adapter("adapter", "two processes", processes=2)
    body = site.folder / "iris.json"
    body.write_bytes(IRIS.body(IRIS.values(0), v2=False))
    table = Table(title=f"iris, {_CONNECTIONS} connections, two processes", title_justify="left")
    for name in ("", "requests/s", "p50 ms", "p99 ms", "CPU µs", "errors"):
        table.add_column(name, justify="right" if name else "left")
    took: list[float] = []
    draws: dict[str, list[Draw]] = {"without scrapes": [], "with scrapes": []}
    for number in range(_DRAWS):
        for name, found in draws.items():
            scraper = _Scraper(server.ops) if name == "with scrapes" else None
            if scraper:
                scraper.start()
            found.append(wrk.draw(site, server, "iris", body, _CONNECTIONS, _SECONDS, number))
            if scraper:
                scraper.stop()
                took += scraper.seconds
    for name, found in draws.items():
        figures = [
            statistics.median(getattr(draw, figure) for draw in found)
            for figure in ("per_second", "p50_ms", "p99_ms", "cpu_us")
        ]
        errors = sum(draw.errors for draw in found)
        table.add_row(name, f"{figures[0]:,.0f}", *(f"{figure:.1f}" for figure in figures[1:]), str(errors))
    console.print(table)
    series = _series(server)
    took_ms = [seconds * 1e3 for seconds in took]
    median, most, worst = statistics.median(took_ms), statistics.quantiles(took_ms, n=20)[-1], max(took_ms)
    console.print(
        f"{len(took)} scrapes of {series} lines under load: median {median:.1f} ms, "
        f"95th percentile {most:.1f} ms, worst {worst:.1f} ms"
    )
    return most


def _series(server: Server) -> int:
    return httpx.get(f"{server.ops}/metrics", headers=_ACCEPT).text.count("\n")


if __name__ == "__main__":
    main()
