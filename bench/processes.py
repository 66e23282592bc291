"""Starting programs and ending them, and what they cost: CPU time and memory from /proc."""

import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import httpx
import psutil

_TICK_S = 1 / os.sysconf("SC_CLK_TCK")
_SHORTEST_WAIT_S = 0.05


class BenchError(Exception):
    """The benchmark cannot go on; one line says why."""


@contextmanager
def program(
    command: Sequence[str],
    env: Mapping[str, str],
    log: Path,
    fds: Sequence[int] = (),
    cwd: Path | None = None,
) -> Iterator[subprocess.Popen[bytes]]:
    """A program that runs as long as the context; its output goes to `log`."""
    with log.open("ab") as output:
        process = subprocess.Popen(
            command, env=env, stdout=output, stderr=subprocess.STDOUT, pass_fds=fds, cwd=cwd
        )
    try:
        yield process
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def wait_for(ready: Callable[[], bool], process: subprocess.Popen[bytes], log: Path, within_s: float) -> None:
    """Wait until `ready`. Raises BenchError with the log's end when the program ends or time is up."""
    deadline = time.monotonic() + within_s
    while process.poll() is None and time.monotonic() < deadline:
        with suppress(httpx.TransportError):
            if ready():
                return
        time.sleep(0.05)
    tail = " | ".join(log.read_text(errors="replace").splitlines()[-4:])
    raise BenchError(f"{log.stem} did not start: {tail}")


def tree(pid: int) -> tuple[int, ...]:
    """A process and all below it."""
    return (pid, *(child.pid for child in psutil.Process(pid).children(recursive=True)))


def cpu_s(pids: Iterable[int]) -> float:
    """CPU time that the processes have used so far, in user and kernel mode."""
    return sum(_ticks(Path(f"/proc/{pid}/stat")) for pid in pids) * _TICK_S


def thread_ticks(pid: int) -> dict[int, int]:
    """Thread → the ticks of CPU time that it has used."""
    return {int(task.name): _ticks(task / "stat") for task in Path(f"/proc/{pid}/task").iterdir()}


def rss_mb(pids: Iterable[int]) -> float:
    """Resident memory of the processes."""
    return sum(psutil.Process(pid).memory_info().rss for pid in pids) / 1e6


def settle(pids: Sequence[int], at_most_s: float = 4.0) -> None:
    """Wait until the processes are idle: what clients that have gone left behind is worked off."""
    deadline = time.monotonic() + at_most_s
    used = cpu_s(pids)
    while time.monotonic() < deadline:
        time.sleep(_SHORTEST_WAIT_S)
        before, used = used, cpu_s(pids)
        if used - before <= _TICK_S:
            return


def _ticks(stat: Path) -> int:
    try:
        # The name, in parentheses, may hold anything; user and system time are fields 14 and 15.
        fields = stat.read_text().rpartition(")")[2].split()
    except OSError:  # it has ended
        return 0
    return int(fields[11]) + int(fields[12])
