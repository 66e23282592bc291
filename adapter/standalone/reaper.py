"""Ends whatever a killed `up` left behind: `python -I -S reaper.py RUN`. Standard library only.

`up` starts one of these in a session of its own and holds the other end of its standard input. That end
closes when `up` is gone, be it by `kill -9`: then every process of the run is killed and its shared
memory removed. PR_SET_PDEATHSIG would reach the direct children alone: Triton's stubs and the regions
that they leave in /dev/shm would stay. A process belongs to a run by a variable in its environment,
which its own children inherit.
"""

import os
import signal
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

RUN_VARIABLE = "MIAAS_ADAPTER_RUN"
# Not a temporary file of ours, but where POSIX regions show.
SHARED_MEMORY = Path("/dev/shm")  # noqa: S108 # nosec B108
PATIENCE_S = 5.0


def processes(run: str) -> list[int]:
    """The processes of the runs whose name starts with `run`; ended ones that wait to be reaped are not."""
    mark = f"\0{RUN_VARIABLE}={run}".encode()
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal() and int(entry.name) != os.getpid():
            with suppress(OSError):  # it has ended meanwhile, or is another user's
                if mark in b"\0" + (entry / "environ").read_bytes():
                    found.append(int(entry.name))
    return found


def remove_shared_memory(run: str) -> None:
    """Unlink the shared memory regions whose name starts with `run`."""
    for region in SHARED_MEMORY.glob(f"{run}*"):
        region.unlink(missing_ok=True)


def sweep(run: str) -> None:
    """Kill the processes of the runs whose name starts with `run`, then remove their shared memory."""
    deadline = time.monotonic() + PATIENCE_S
    # Again until none is left: one that was just being forked escapes the first look.
    while (pids := processes(run)) and time.monotonic() < deadline:
        for pid in pids:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.01)
    remove_shared_memory(run)


@asynccontextmanager
async def standing_by(run: str) -> AsyncIterator[None]:
    """Have one stand by as long as this process is inside; on the way out it sweeps, too."""
    from asyncio import subprocess  # which the reaper itself does without

    process = await subprocess.create_subprocess_exec(
        *(sys.executable, "-I", "-S", __file__, run),
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        yield
    finally:
        await process.communicate(b"")  # closes its input


if __name__ == "__main__":
    sys.stdin.buffer.read()
    sweep(sys.argv[1])
