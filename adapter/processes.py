"""The metrics of processes that share a port: each keeps its own in memory, and writes them down each second.

In memory an observation costs a tenth of a microsecond and may carry a trace; in prometheus_client's shared
files it costs twenty times as much and may not. A scrape adds up what is written, its own process's part too:
so a counter never falls from one scrape to the next, whichever process answers and whichever has died.
"""

import asyncio
import fcntl
import os
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Any

import orjson
import structlog

from adapter.core.metrics import Metrics
from adapter.turns import Turns

_log = structlog.get_logger()

WRITE_EVERY_S = 1.0
DEAD_AFTER_S = 5.0
"""A process that has written nothing for so long has died, or is stuck."""
_ENDED_WELL = 0
"""How a process that ends as it was asked to dates its file, in seconds since 1970."""


@dataclass(frozen=True, slots=True)
class _Written:
    """What one process wrote last; `living` says that it still runs."""

    metrics: dict[str, Any]
    living: bool


class MetricsFolderError(Exception):
    """The folder for metrics cannot be used; one line says why."""


class Processes:
    """This process among those of the folder; without a folder it is the only one.

    A process takes the first place of its role that nobody holds. Whoever takes a dead one's place goes on
    from what that one had counted, so that there are as many files as processes however often they die.
    Raises MetricsFolderError.
    """

    def __init__(self, metrics: Metrics, role: str, folder: Path | None) -> None:
        self._metrics = metrics
        self._folder = folder
        self._declared = _fingerprint(metrics)
        self._writing = asyncio.Lock()
        self._trouble = ""
        self._ending = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        if folder is not None:
            try:
                folder.mkdir(mode=0o700, parents=True, exist_ok=True)
                self._file, self._lock = _take_place(folder, role)
            except OSError as error:
                raise MetricsFolderError(f"cannot keep metrics in {folder}: {error.strerror}") from error
            if _has_died(self._file):
                metrics.process_restarts.labels(role).inc()
            if before := self._read(self._file):
                metrics.absorb(before.metrics, living=False)
            self._write(self._dumped())

    def open(self) -> None:
        """Begin to write once a second; needs a running event loop."""
        if self._folder is not None:
            self._task = asyncio.create_task(self._write_again())

    async def close(self) -> None:
        """Say that this process has ended, and give its place back."""
        if self._folder is None:
            return
        self._ending.set()
        if self._task is not None:
            await self._task
        await self.write()
        with suppress(OSError):
            os.utime(self._file, (_ENDED_WELL, _ENDED_WELL))
        os.close(self._lock)

    async def write(self) -> None:
        """Write down what this process's metrics are now."""
        # In turn: what is older must not be written over what is newer.
        async with self._writing:
            await asyncio.to_thread(self._write, self._dumped())

    async def total(self) -> Metrics:
        """The metrics of all processes."""
        if self._folder is None:
            return self._metrics
        async with self._writing:
            found = await asyncio.to_thread(self._exchange, self._folder, self._dumped())
        total, turns = Metrics(), Turns()
        for written in found:
            for family in total.families:
                for row in written.metrics[family.name]:
                    family.absorb([row], living=written.living)
                    await turns.give()
        return total

    def leads(self) -> bool:
        """Whether this is the first that lives: it asks for all of them what one has to ask."""
        if self._folder is None:
            return True
        files = sorted(self._folder.glob("*.json"))
        return next((file for file in files if _lives(file)), self._file) == self._file

    async def _write_again(self) -> None:
        while not self._ending.is_set():
            await self.write()
            with suppress(TimeoutError):
                await asyncio.wait_for(self._ending.wait(), WRITE_EVERY_S)

    def _dumped(self) -> bytes:
        return orjson.dumps({"declared": self._declared, "metrics": self._metrics.dump()})

    def _write(self, content: bytes) -> None:
        temporary = self._file.with_suffix(".new")
        try:
            temporary.write_bytes(content)
            temporary.replace(self._file)
            self._trouble = ""
        except OSError as error:
            if self._trouble != str(error):
                self._trouble = str(error)
                _log.warning("metrics not written", reason=self._trouble)

    def _exchange(self, folder: Path, content: bytes) -> Sequence[_Written]:
        """Write, and read what all have written. In one go: each step waits for the event loop to let it."""
        self._write(content)
        return [written for file in sorted(folder.glob("*.json")) if (written := self._read(file))]

    def _read(self, path: Path) -> _Written | None:
        """What a process wrote; None of one that had other metrics, another version's."""
        with suppress(OSError, ValueError), path.open("rb", buffering=0) as file:
            status = os.fstat(file.fileno())
            content = orjson.loads(file.read(status.st_size))
            if content["declared"] == self._declared:
                return _Written(content["metrics"], _is_new(status))
        return None


def _take_place(folder: Path, role: str) -> tuple[Path, int]:
    """The file of the first place that no process holds, and the lock that holds it while this one lives."""
    number = 0
    while True:
        number += 1
        place = folder / f"{role}-{number}"
        lock = os.open(place.with_suffix(".lock"), os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(lock)
        else:
            return place.with_suffix(".json"), lock


def _lives(file: Path) -> bool:
    """Whether the file's process does."""
    try:
        return _is_new(file.stat())
    except OSError:
        return False


def _has_died(file: Path) -> bool:
    """Whether the file's last process, which runs no more, ended without being asked to."""
    try:
        return file.stat().st_mtime != _ENDED_WELL
    except OSError:
        return False


def _is_new(status: os.stat_result) -> bool:
    """Whether a process wrote its file lately."""
    return time.time() - status.st_mtime < DEAD_AFTER_S


def _fingerprint(metrics: Metrics) -> str:
    """What differs when metrics are declared otherwise, and so cannot be added up."""
    declared = [
        (family.name, family.kind, list(family.label_values), getattr(family, "bounds", ()))
        for family in metrics.families
    ]
    return blake2b(orjson.dumps(declared), digest_size=8).hexdigest()
