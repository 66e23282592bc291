"""A Triton for a moment: some models of a repository on a server of their own."""

import asyncio
import os
import secrets
import signal
import tempfile
from asyncio.subprocess import DEVNULL, STDOUT, Process
from collections.abc import AsyncIterator, Sequence
from contextlib import ExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from adapter.standalone import reaper, triton, wheels
from adapter.standalone.child import last_lines
from adapter.standalone.errors import StartError
from adapter.standalone.network import LOOPBACK, hold_port, http_status, port_of
from adapter.standalone.repository import link_all

GRACE_S = 5.0


@dataclass(frozen=True)
class Scratch:
    """A running server, which has loaded what it could."""

    grpc_url: str
    failed: dict[str, str]
    """Model → why it could not be loaded, one line."""


@asynccontextmanager
async def scratch_triton(repository: Path, models: Sequence[str]) -> AsyncIterator[Scratch]:
    """Serve these models, and those that they are made of, until the end of the block.

    `repository` is an absolute path. Raises `StartError` when no server runs here.
    """
    found = wheels.find()
    run = f"miaas-scratch-{secrets.token_hex(8)}"
    with tempfile.TemporaryDirectory(prefix=f"{run}-") as place, ExitStack() as stack:
        folder = Path(place)
        ports = triton.Ports(*(port_of(stack.enter_context(hold_port())) for _ in range(3)))
        links = folder / "models"
        link_all(repository, links)
        backends = wheels.build_backends(found, folder / "backends")
        python_bin = wheels.build_environment(folder / "python")
        environment = {**os.environ, reaper.RUN_VARIABLE: run}
        log = folder / "triton.log"
        output = stack.enter_context(log.open("wb"))
        async with reaper.standing_by(run):
            process = await asyncio.create_subprocess_exec(
                *triton.command(found, links, backends, ports, run, models=models),
                env=triton.environment(found, python_bin, environment),
                cwd=folder,
                stdin=DEVNULL,
                stdout=output,
                stderr=STDOUT,
                start_new_session=True,
            )
            try:
                await _serving(process, ports.http, log)
                loading = triton.LoadLog()
                loading.read(log.read_text(errors="replace"))
                yield Scratch(f"{LOOPBACK}:{ports.grpc}", loading.failed)
            finally:
                await _stop(process)


async def _serving(process: Process, port: int, log: Path) -> None:
    """Wait until every model was loaded or given up: the endpoint opens then, and not before."""
    ended = asyncio.create_task(process.wait())
    try:
        while await http_status(LOOPBACK, port, "/v2/health/live") != 200:
            done, _ = await asyncio.wait({ended}, timeout=0.1)
            if done:
                raise StartError("\n".join(["tritonserver ended while it was loading:", *last_lines(log, 0)]))
    finally:
        ended.cancel()


async def _stop(process: Process) -> None:
    with suppress(ProcessLookupError):
        process.terminate()
        with suppress(TimeoutError):
            await asyncio.wait_for(process.wait(), GRACE_S)
        os.killpg(process.pid, signal.SIGKILL)
    await process.wait()
