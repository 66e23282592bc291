"""What `up` shows: progress while models load, what happens to the children, and how to use it."""

import shlex
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TextColumn,
    TimeElapsedColumn,
)
from rich.text import Text

from adapter.standalone.triton import LoadLog

ShowLoading = Callable[[LoadLog], None]


class Display:
    """Writes to one console; without a terminal it writes plain lines."""

    def __init__(self, console: Console) -> None:
        self._console = console

    def line(self, text: str, style: str = "") -> None:
        """Show `text` as it is: no markup, and no line breaks that would spoil a command to paste."""
        with suppress(OSError):  # the terminal may be gone; the servers go on
            self._console.print(Text(text, style), soft_wrap=True)

    def warn(self, text: str) -> None:
        """Show something that went wrong."""
        self.line(text, "yellow")

    @contextmanager
    def loading(self, total: int) -> Iterator[ShowLoading]:
        """While inside, the function that it gives shows how far the loading of `total` models is."""
        if not self._console.is_terminal:
            yield self._lines(total)
            return
        columns = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
        with Progress(*columns, TimeElapsedColumn(), console=self._console, transient=True) as progress:
            task = progress.add_task("Loading models", total=total)
            yield lambda log: progress.update(task, completed=min(log.settled, total))

    def _lines(self, total: int) -> ShowLoading:
        self.line(f"models to load: {total}")
        shown: set[str] = set()

        def show(log: LoadLog) -> None:
            for name in sorted(log.loaded - shown):
                shown.add(name)
                self.line(f"loaded {name} ({len(shown)} of {total})")

        return show

    def ready(self, seconds: float, url: str, docs: bool, api_key: str, curl: str, logs: str) -> None:
        """Show that everything runs, and how to use it."""
        self.line(f"\nReady after {seconds:.1f} s. Ctrl-C stops everything.\n", "bold green")
        self.line(f"  URL      {url}")
        if docs:
            self.line(f"  Docs     {url}/docs")
        self.line(f"  API key  {api_key}")
        self.line(f"  Logs     {logs}\n")
        self.line(f"{curl}\n")


def curl_command(url: str, api_key: str, models: list[str], ca: Path | None = None) -> str:
    """A command to paste: a prediction by the iris model if it is there, else the list of models."""
    trust = f"--cacert {shlex.quote(str(ca))} " if ca else ""
    command = f"curl {trust}-H 'Authorization: Bearer {api_key}' {url}/v1/models"
    if "sklearn-iris" not in models:
        return command
    return f"""{command}/sklearn-iris:predict -d '{{"instances": [[5.1, 3.5, 1.4, 0.2]]}}'"""
