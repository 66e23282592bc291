"""What is shown while a run goes on: how far it is, and the medians so far."""

from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table

from bench.results import Run
from bench.summary import connection_counts, draws, figure


class Screen:
    """A live table on a terminal; elsewhere lines, and the tables at the end."""

    def __init__(self, run: Run, steps: int) -> None:
        self._run = run
        self._console = Console()
        columns = (TextColumn("{task.description:<44}"), BarColumn(None), MofNCompleteColumn())
        self._progress = Progress(*columns, TimeElapsedColumn(), TimeRemainingColumn(), console=self._console)
        self._task = self._progress.add_task("starting the servers", total=steps)
        self._live: Live | None = None
        self._load = ""

    @contextmanager
    def open(self) -> Iterator[None]:
        """Show it, as long as the context lasts."""
        if not self._console.is_terminal:
            yield
        else:
            with Live(console=self._console, refresh_per_second=2) as self._live:
                self._live.update(self._view())
                yield
            self._live = None

    def say(self, text: str) -> None:
        """What is being done now."""
        self._progress.update(self._task, description=text)
        if self._live is None:
            self._console.print(text, style="dim", highlight=False)
        else:
            self._live.update(self._view())

    def step(self, text: str, load: str) -> None:
        """One draw is done, and the next begins."""
        self._load = load
        self._progress.update(self._task, description=text, advance=1)
        if self._live is not None:
            self._live.update(self._view())

    def tables(self) -> None:
        """Every table, at the end."""
        for load in self._run.loads:
            self._console.print(self._table(load))

    def _view(self) -> RenderableType:
        return Group(self._table(self._load), self._progress) if self._load else self._progress

    def _table(self, load: str) -> Table:
        table = Table(title=f"{load}: {self._run.loads[load]}", title_justify="left", header_style="bold")
        table.add_column("server")
        for name in (
            "connections",
            "requests/s",
            "p50 ms",
            "p90 ms",
            "p99 ms",
            "CPU µs",
            "Triton µs",
            "errors",
        ):
            table.add_column(name, justify="right")
        for connections in connection_counts(self._run, load):
            for server in self._run.servers:
                found = draws(self._run, server, load, connections)
                if not found:
                    continue
                cells = []
                for measure, digits in (
                    ("per_second", 0),
                    ("p50_ms", 2),
                    ("p90_ms", 2),
                    ("p99_ms", 2),
                    ("cpu_us", 0),
                    ("triton_cpu_us", 0),
                ):
                    value = figure(self._run, server, load, connections, measure)
                    cells.append(f"{value.median:,.{digits}f}" if value else "")
                errors = sum(draw.errors for draw in found)
                style = "bold green" if server.startswith("adapter") else ""
                shown = f"[red]{errors}[/red]" if errors else "0"
                table.add_row(server, str(connections), *cells, shown, style=style)
            table.add_section()
        return table
