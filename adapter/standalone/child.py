"""One child process that is kept running."""

import asyncio
import os
import re
import shutil
import signal
import time
from asyncio.subprocess import DEVNULL, STDOUT, Process
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from adapter.standalone.network import LOOPBACK, is_open

FIRST_DELAY_S = 0.2
LONGEST_DELAY_S = 5.0
STEADY_AFTER_S = 30.0
"""A child that lived for so long starts the back-off anew when it dies."""

TAIL_LINES = 5
TAIL_BYTES = 8192
LOG_BYTES = 32 << 20
"""A longer log is moved to `<name>.log.1`."""


@dataclass
class Child:
    """A program in a session and process group of its own, started again with back-off whenever it ends."""

    role: str
    """Key in `up.json`, and the name in messages."""
    command: Sequence[str]
    env: Mapping[str, str]
    log: Path
    """Its output is appended here."""
    report: Callable[[str], None]
    """Takes what the user is told when the child dies."""
    changed: Callable[[], None] = lambda: None
    """Called whenever `pid` has changed."""
    cleanup: Callable[[int], None] = lambda pid: None
    """Called with the pid once the child and its group are gone."""
    ports: Sequence[int] = ()
    """Loopback ports that it needs for itself."""
    fds: Sequence[int] = ()
    """File descriptors that it inherits."""
    cwd: Path | None = None

    pid: int | None = field(default=None, init=False)
    task: asyncio.Task[None] | None = field(default=None, init=False)
    """Ends after `stop`, and never otherwise."""
    _log_start: int = field(default=0, init=False)
    _process: Process | None = field(default=None, init=False)
    _stopping: asyncio.Event = field(default_factory=asyncio.Event, init=False)

    def start(self) -> None:
        """Start it, and keep it running, in a task of the current loop."""
        self.log.touch()
        self.task = asyncio.create_task(self._keep_running(), name=self.role)

    async def stop(self, grace_s: float) -> None:
        """Ask it to end, kill its group when it has not after `grace_s`; return when it is gone."""
        self._stopping.set()
        if self.task is None:
            return
        self._terminate()
        done, _ = await asyncio.wait({self.task}, timeout=grace_s)
        if not done:
            self.kill()
        await self.task

    def restart(self) -> None:
        """Ask it to end, upon which it is started again."""
        self._terminate()

    def kill(self) -> None:
        """Kill its group at once, for good."""
        self._stopping.set()
        if self.pid is not None:
            _kill_group(self.pid)

    def trim_log(self) -> None:
        """Move a log that has grown too long aside."""
        if self.log.stat().st_size > LOG_BYTES:
            # Copied, not renamed: the child goes on writing to the file that it has open.
            shutil.copyfile(self.log, self.log.with_suffix(".log.1"))
            os.truncate(self.log, 0)

    async def _keep_running(self) -> None:
        delay = FIRST_DELAY_S
        while not self._stopping.is_set():
            started = time.monotonic()
            ending = await self._run_once()
            if self._stopping.is_set():
                return
            lived = time.monotonic() - started
            if lived > STEADY_AFTER_S:
                delay = FIRST_DELAY_S
            self.report(self._obituary(ending, lived, delay))
            with suppress(TimeoutError):
                await asyncio.wait_for(self._stopping.wait(), delay)
            delay = min(delay * 2, LONGEST_DELAY_S)

    async def _run_once(self) -> str:
        """Start it and wait for its end; returns how it ended, in words."""
        try:
            with self.log.open("ab") as log:
                self._log_start = log.tell()
                self._process = await asyncio.create_subprocess_exec(
                    *self.command,
                    env=self.env,
                    cwd=self.cwd,
                    stdin=DEVNULL,
                    stdout=log,
                    stderr=STDOUT,
                    pass_fds=self.fds,
                    start_new_session=True,
                )
        except OSError as error:
            return f"could not be started ({error.strerror})"
        pid = self.pid = self._process.pid
        if self._stopping.is_set():  # stop() came while it was being started
            self._terminate()
        self.changed()
        code = await self._process.wait()
        self._process = self.pid = None
        _kill_group(pid)
        self.cleanup(pid)
        self.changed()
        return f"(pid {pid}) " + (
            f"was killed by {_signal_name(-code)}" if code < 0 else f"ended with code {code}"
        )

    def _terminate(self) -> None:
        if self._process is not None:
            with suppress(ProcessLookupError):
                self._process.terminate()

    def _obituary(self, ending: str, lived: float, delay: float) -> str:
        taken = [
            f"port {port} on {LOOPBACK} is taken by another program; " for port in self.ports if is_open(port)
        ]
        head = (
            f"{self.role} {ending} after {lived:.1f} s; {''.join(taken)}it is started again in {delay:.1f} s"
        )
        return "\n    ".join([head, *last_lines(self.log, self._log_start)])


def last_lines(log: Path, start: int) -> list[str]:
    """The last lines of what was written to `log` from the byte `start` on, fit for a terminal."""
    with suppress(OSError), log.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(start if start <= size else 0, size - TAIL_BYTES))
        text = re.sub(r"\x1b\[[0-9;]*m", "", file.read().decode(errors="replace"))
        lines = ["".join(filter(str.isprintable, line))[:200] for line in text.splitlines()]
        return [line for line in lines if line.strip()][-TAIL_LINES:]
    return []


def _kill_group(pid: int) -> None:
    with suppress(ProcessLookupError):
        os.killpg(pid, signal.SIGKILL)


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:  # a real-time signal
        return f"signal {number}"
