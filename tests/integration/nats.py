"""A real nats-server, alone or three as a cluster, and the queue on it in this process."""

import asyncio
import os
import signal
import socket
import subprocess
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any

from adapter.core.metrics import Metrics
from adapter.core.types import (
    IdempotencyKey,
    InferRequest,
    InferResponse,
    Job,
    JobResult,
    Submission,
    Tensor,
)
from adapter.jobs.delivery import JetStreamDelivery
from adapter.jobs.jetstream import JetStreamQueue
from adapter.nats import NatsConnection
from adapter.settings import Settings
from adapter.standalone.nats import url, write_configuration
from adapter.standalone.network import hold_port, is_open, port_of
from adapter.standalone.wheels import find


@dataclass
class Nats:
    """One nats-server on a port of its own, which can be killed and started again."""

    folder: Path
    port: int
    more: str = ""
    process: subprocess.Popen[bytes] | None = field(default=None)

    @property
    def url(self) -> str:
        return url(self.port)

    def start(self) -> None:
        self.folder.mkdir(exist_ok=True, parents=True)
        configuration = self.folder / "nats.conf"
        write_configuration(configuration, self.port, self.folder / "store")
        configuration.write_text(configuration.read_text() + self.more)
        command = [str(find().nats_server), "--config", str(configuration)]
        with (self.folder / "nats.log").open("ab") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=log)
        until = time.monotonic() + 10
        while not is_open(self.port):
            assert time.monotonic() < until
            time.sleep(0.01)

    def kill(self) -> None:
        assert self.process is not None
        self.process.kill()
        self.process.wait()

    def signal(self, number: signal.Signals) -> None:
        assert self.process is not None
        os.kill(self.process.pid, number)
        if number == signal.SIGSTOP:
            # Each thread stops when it is its turn; until then it may answer.
            while any(state != "T" for state in self._states()):
                time.sleep(0.001)

    def _states(self) -> list[str]:
        assert self.process is not None
        threads = Path(f"/proc/{self.process.pid}/task").iterdir()
        return [(thread / "stat").read_text().rpartition(")")[2].split()[0] for thread in threads]


@contextmanager
def server(folder: Path, more: str = "") -> Iterator[Nats]:
    """A server, killed in the end."""
    with hold_port() as holder:
        nats = Nats(folder, port_of(holder), more)
        nats.start()
        try:
            yield nats
        finally:
            nats.kill()


def cluster_configurations(ports: list[int]) -> list[str]:
    """What the configurations of servers must hold that replicate; `ports` are those for each other."""
    routes = ", ".join(f"nats://127.0.0.1:{port}" for port in ports)
    return [
        f'server_name: "n{n}"\ncluster {{\n  name: "c"\n  listen: "127.0.0.1:{port}"\n'
        f"  routes: [{routes}]\n}}\n"
        for n, port in enumerate(ports)
    ]


@contextmanager
def cluster(folder: Path) -> Iterator[list[Nats]]:
    """Three servers that replicate."""
    holders: list[socket.socket] = [hold_port() for _ in range(6)]
    ports = [port_of(holder) for holder in holders]
    more = cluster_configurations(ports[3:])
    nodes = [Nats(folder / f"n{n}", ports[n], more[n]) for n in range(3)]
    try:
        for node in nodes:
            node.start()
        yield nodes
    finally:
        for node in nodes:
            node.kill()
        for holder in holders:
            holder.close()


@asynccontextmanager
async def queue(urls: str, **settings: Any) -> AsyncIterator[JetStreamQueue]:
    """A queue that is ready."""
    given = Settings(nats_url=urls, **settings)
    connection = NatsConnection(given)
    found = JetStreamQueue(given, connection, Metrics())
    found.open()
    connection.open()
    try:
        await ready(found)
        yield found
    finally:
        await found.close()
        await connection.close()


async def ready(found: JetStreamQueue, within_s: float = 30) -> None:
    """Return when the queue answers."""
    async with asyncio.timeout(within_s):
        while True:
            try:
                return await found.ping()
            except Exception:
                await asyncio.sleep(0.02)


async def lend(found: JetStreamQueue, most: int, wait_s: float) -> list[JetStreamDelivery]:
    """Jobs that were read, as a worker reads them."""
    deliveries = list(await found.fetch(most, wait_s))
    await asyncio.gather(*(delivery.read() for delivery in deliveries))
    return deliveries


def submission(value: bytes = b"\0\0\0\0", client: str = "alice", key: str = "", **more: Any) -> Submission:
    """A job for a model that nobody runs here."""
    request = InferRequest("m", "", (Tensor("x", "UINT8", (len(value),), value),))
    idempotency = IdempotencyKey(key, sha256(value).hexdigest()) if key else None
    return Submission(
        client, request, "names", False, more.pop("timeout_s", 60.0), **more, idempotency=idempotency
    )


def answer(job: Job, value: bytes = b"done") -> JobResult:
    """What the model would have said."""
    response = InferResponse("m", "1", (Tensor("y", "UINT8", (len(value),), value),))
    return JobResult(response, job.form, job.batched)


def output(result: JobResult | None) -> bytes:
    """The only output of a completed job."""
    assert result is not None
    assert isinstance(result.outcome, InferResponse)
    return bytes(result.outcome.outputs[0].data)
