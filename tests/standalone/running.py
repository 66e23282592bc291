"""A running `up` for the tests, in a process of its own."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil

from adapter.standalone.state import run_prefix


def command(state_dir: Path, repository: Path, *options: str) -> list[str]:
    return [
        *(sys.executable, "-m", "adapter", "up", "--port", "0", "--ops-port", "0"),
        *("--state-dir", str(state_dir), "--model-repository", str(repository), *options),
    ]


def environment() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if not name.startswith("ADAPTER_")}


class Up:
    """A running `up`."""

    def __init__(self, state_dir: Path, repository: Path, *options: str) -> None:
        self.state_dir = state_dir
        self.up_json = state_dir / "up.json"
        with (state_dir.parent / f"{state_dir.name}-up.log").open("w") as output:
            self.process = subprocess.Popen(
                command(state_dir, repository, *options),
                env=environment(),
                stdout=output,
                stderr=subprocess.STDOUT,
            )
        self.output = Path(output.name)
        self.info = self.wait_for(self._read)

    def _read(self) -> Any:
        info = json.loads(self.up_json.read_text()) if self.up_json.exists() else None
        return info if info and info["pids"]["supervisor"] == [self.process.pid] else None

    def wait_for(self, condition: Callable[[], Any]) -> Any:
        deadline = time.monotonic() + 60
        while not (value := condition()):
            assert self.process.poll() is None, self.output.read_text()
            assert time.monotonic() < deadline, self.output.read_text()
            time.sleep(0.02)
        return value

    def replaced(self, role: str) -> Any:
        """The pids once those of `role` are other ones."""
        old = self.info["pids"][role]

        def look() -> Any:
            pids = self._read()["pids"]
            return pids if pids[role] and not set(pids[role]) & set(old) else None

        return self.wait_for(look)

    def descendants(self) -> list[psutil.Process]:
        return list(psutil.Process(self.process.pid).children(recursive=True))

    def regions(self) -> set[str]:
        return {path.name for path in Path("/dev/shm").glob(f"{run_prefix(self.state_dir)}*")}

    def end(self) -> None:
        """End it whatever happened."""
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(15)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()


def running(processes: list[psutil.Process]) -> list[psutil.Process]:
    """Those that have not ended; an orphan that waits for its new parent to reap it has."""
    left = []
    for process in processes:
        try:
            if process.is_running() and process.status() != psutil.STATUS_ZOMBIE:
                left.append(process)
        except psutil.NoSuchProcess:
            pass
    return left
