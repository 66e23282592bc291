"""A supervised child: restart with back-off, its whole group ended, its death told."""

import asyncio
import os
import re
import signal
import socket
import sys
import time
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import psutil
import pytest

from adapter.standalone import child as child_module
from adapter.standalone.child import Child, last_lines

SLEEP = ["sleep", "600"]


class Watched:
    """A child whose reports and pids the test waits for."""

    def __init__(self, folder: Path, command: Sequence[str], ports: Sequence[int] = ()) -> None:
        self.reports: asyncio.Queue[str] = asyncio.Queue()
        self.pids: asyncio.Queue[int | None] = asyncio.Queue()
        self.cleaned: list[int] = []
        self.child = Child(
            "worker",
            command,
            dict(os.environ),
            folder / "worker.log",
            self.reports.put_nowait,
            lambda: self.pids.put_nowait(self.child.pid),
            self.cleaned.append,
            ports=ports,
        )

    async def pid(self) -> int:
        """The pid of the next start."""
        while (pid := await self.pids.get()) is None:
            pass
        return pid


def gone(pid: int) -> bool:
    try:
        return bool(psutil.Process(pid).status() == psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return True


async def printed(log: Path, count: int) -> list[str]:
    """The lines of the log as soon as there are `count`."""

    def lines() -> list[str]:
        return log.read_text().splitlines()

    while len(lines()) < count:  # noqa: ASYNC110 - another process sets no Event
        await asyncio.sleep(0.01)
    return lines()


async def is_gone(pid: int) -> None:
    while not gone(pid):  # noqa: ASYNC110
        await asyncio.sleep(0.01)


def test_a_child_that_ends_is_started_again_with_back_off(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(child_module, "LONGEST_DELAY_S", 0.5)

    async def scenario() -> tuple[list[str], list[float]]:
        watched = Watched(tmp_path, ["sh", "-c", "echo bye; exit 3"])
        watched.child.start()
        reports, times = [], []
        for _ in range(4):
            reports.append(await watched.reports.get())
            times.append(time.monotonic())
        await watched.child.stop(1)
        assert len(set(watched.cleaned)) == 4
        return reports, times

    reports, times = asyncio.run(scenario())
    form = re.compile(
        r"worker \(pid \d+\) ended with code 3 after \d+\.\d s; it is started again in (0\.\d) s\n    bye\Z"
    )
    matches = [form.match(report) for report in reports]
    assert [match and match[1] for match in matches] == ["0.2", "0.4", "0.5", "0.5"]
    gaps = [later - sooner for sooner, later in pairwise(times)]
    assert [gap >= delay for gap, delay in zip(gaps, (0.2, 0.4, 0.5), strict=True)] == [True] * 3


def test_the_back_off_starts_anew_after_a_steady_life(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(child_module, "STEADY_AFTER_S", 0)

    async def scenario() -> list[str]:
        watched = Watched(tmp_path, ["false"])
        watched.child.start()
        reports = [await watched.reports.get() for _ in range(3)]
        await watched.child.stop(1)
        return reports

    assert [report.rpartition(" in ")[2] for report in asyncio.run(scenario())] == ["0.2 s"] * 3


def test_a_killed_child_takes_its_group_along_and_is_replaced(tmp_path: Path) -> None:
    async def scenario() -> None:
        watched = Watched(tmp_path, ["sh", "-c", "sleep 600 & echo $!; wait"])
        watched.child.start()
        first = await watched.pid()
        grandchild = int((await printed(watched.child.log, 1))[0])
        assert os.getsid(first) == os.getpgid(grandchild) == first
        os.kill(first, signal.SIGKILL)
        report = await watched.reports.get()
        assert f"worker (pid {first}) was killed by SIGKILL after " in report
        assert watched.cleaned == [first]
        await is_gone(grandchild)
        second = await watched.pid()
        assert second not in (first, grandchild)
        await watched.child.stop(5)
        assert gone(second)
        assert watched.child.pid is None

    asyncio.run(scenario())


def test_stop_asks_first(tmp_path: Path) -> None:
    async def scenario() -> None:
        code = (
            "import signal\n"
            "signal.signal(15, lambda *_: exit(print('asked')))\n"
            "print('up', flush=True)\n"
            "signal.pause()"
        )
        watched = Watched(tmp_path, [sys.executable, "-c", code])
        watched.child.start()
        await printed(watched.child.log, 1)
        await watched.child.stop(60)
        assert watched.child.log.read_text() == "up\nasked\n"
        assert watched.reports.empty()

    asyncio.run(scenario())


def test_stop_kills_the_group_of_one_that_does_not_listen(tmp_path: Path) -> None:
    async def scenario() -> None:
        watched = Watched(tmp_path, ["sh", "-c", "trap '' TERM; sleep 600 & echo $!; wait; wait"])
        watched.child.start()
        pid = await watched.pid()
        grandchild = int((await printed(watched.child.log, 1))[0])
        began = time.monotonic()
        await watched.child.stop(0.3)
        assert 0.3 <= time.monotonic() - began < 5
        assert gone(pid)
        await is_gone(grandchild)

    asyncio.run(scenario())


def test_stop_does_not_wait_for_the_back_off(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(child_module, "FIRST_DELAY_S", 600)

    async def scenario() -> None:
        watched = Watched(tmp_path, ["false"])
        watched.child.start()
        await watched.reports.get()
        await asyncio.wait_for(watched.child.stop(60), 5)

    asyncio.run(scenario())


def test_stop_while_it_is_being_started(tmp_path: Path) -> None:
    async def scenario() -> None:
        watched = Watched(tmp_path, SLEEP)
        watched.child.start()
        await asyncio.sleep(0)  # the task has begun, the process is not there yet
        assert watched.child.pid is None
        await asyncio.wait_for(watched.child.stop(60), 5)
        assert watched.child.pid is None
        assert watched.reports.empty()

    asyncio.run(scenario())


def test_kill_is_for_good(tmp_path: Path) -> None:
    async def scenario() -> None:
        watched = Watched(tmp_path, SLEEP)
        watched.child.start()
        pid = await watched.pid()
        watched.child.kill()
        assert watched.child.task is not None
        await asyncio.wait_for(watched.child.task, 5)
        assert gone(pid)
        assert watched.reports.empty()

    asyncio.run(scenario())


def test_a_program_that_cannot_be_started_is_reported_and_tried_again(tmp_path: Path) -> None:
    async def scenario() -> list[str]:
        watched = Watched(tmp_path, [str(tmp_path / "missing")])
        watched.child.start()
        reports = [await watched.reports.get() for _ in range(2)]
        await watched.child.stop(1)
        return reports

    form = re.compile(
        r"worker could not be started \(No such file or directory\) after \d+\.\d s;"
        r" it is started again in (0\.\d) s\Z"
    )
    matches = [form.match(report) for report in asyncio.run(scenario())]
    assert [match and match[1] for match in matches] == ["0.2", "0.4"]


def test_a_port_that_another_program_has_taken_is_named(tmp_path: Path) -> None:
    async def scenario(taken: int, free: int) -> str:
        watched = Watched(tmp_path, ["false"], ports=[free, taken])
        watched.child.start()
        report = await watched.reports.get()
        await watched.child.stop(1)
        return report

    with socket.create_server(("127.0.0.1", 0)) as other, socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        port = other.getsockname()[1]
        report = asyncio.run(scenario(port, held.getsockname()[1]))
    assert f" s; port {port} on 127.0.0.1 is taken by another program; it is started again in 0.2 s" in report
    assert report.count("is taken") == 1


def test_last_lines_are_those_of_this_run_and_fit_for_a_terminal(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_bytes(b"before\n")
    start = log.stat().st_size
    written = b"one\ntwo\n\nthree\nfour\n\x1b[31mfive\x1b[0m\x07\nsix\xff\n" + b"x" * 300 + b"\n"
    with log.open("ab") as file:
        file.write(written)
    assert last_lines(log, start) == ["three", "four", "five", "six\N{REPLACEMENT CHARACTER}", "x" * 200]
    assert last_lines(log, log.stat().st_size) == []
    assert last_lines(tmp_path / "missing", 0) == []


def test_a_long_log_is_moved_aside_while_the_child_writes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(child_module, "LOG_BYTES", 3)

    async def scenario() -> None:
        watched = Watched(tmp_path, ["sh", "-c", "echo first; kill -STOP $$; echo second; sleep 600"])
        watched.child.start()
        pid = await watched.pid()
        await printed(watched.child.log, 1)
        while psutil.Process(pid).status() != psutil.STATUS_STOPPED:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        watched.child.trim_log()
        os.kill(pid, signal.SIGCONT)
        assert await printed(watched.child.log, 1) == ["second"]
        assert (tmp_path / "worker.log.1").read_text() == "first\n"
        await watched.child.stop(5)

    asyncio.run(scenario())
