"""Every process of a service by itself, so that each can be killed, stopped and started again at will."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import httpx

from adapter.standalone import nats, reaper, triton, wheels
from adapter.standalone.certificates import Certificates
from adapter.standalone.network import LOOPBACK, hold_port, is_open, port_of
from tests.integration.nats import cluster_configurations

PROGRAM = (sys.executable, "-P", "-m", "adapter")


@dataclass
class Service:
    """One process that is started again only when the test says so."""

    name: str
    address: str
    """Where it is reached."""
    command: list[str]
    env: Mapping[str, str]
    log: Path
    up: Callable[[], bool]
    after: Callable[[], None] = lambda: None
    says: bytes = b""
    """What stands in the log once it is up."""
    ops_port: int = 0
    process: subprocess.Popen[bytes] | None = field(default=None)
    began: int = 0

    def start(self) -> "Service":
        self.began = self.log.stat().st_size if self.log.exists() else 0
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                self.command, env=self.env, stdout=log, stderr=log, start_new_session=True
            )
        return self

    def wait_up(self, within_s: float = 60) -> None:
        until = time.monotonic() + within_s
        while not (self.up() and self.says in self.log.read_bytes()[self.began :]):
            assert self.process is not None
            assert self.process.poll() is None, self.log.read_text()[-2000:]
            assert time.monotonic() < until, f"{self.name} does not come up"
            time.sleep(0.02)

    @property
    def pid(self) -> int:
        assert self.process is not None
        return self.process.pid

    def signal(self, number: signal.Signals) -> None:
        os.kill(self.pid, number)

    def kill(self) -> None:
        """kill -9, with all that it started."""
        if self.process is not None:
            with suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
            self.after()

    def stop(self) -> int:
        """SIGTERM, and wait for its end."""
        assert self.process is not None
        self.process.terminate()
        return self.process.wait(30)

    def restart(self) -> None:
        self.kill()
        self.start().wait_up()


@dataclass
class Stage:
    """A folder, ports that stay the test's own, and services of which nothing is left in the end."""

    folder: Path
    run: str
    stack: ExitStack
    services: list[Service] = field(default_factory=list)

    @cached_property
    def env(self) -> Mapping[str, str]:
        """Marks every process as one of this run."""
        return {**os.environ, reaper.RUN_VARIABLE: self.run}

    @cached_property
    def _wheels(self) -> wheels.Wheels:
        return wheels.find()

    @cached_property
    def _backends(self) -> Path:
        return wheels.build_backends(self._wheels, self.folder / "backends")

    @cached_property
    def _python_bin(self) -> Path:
        return wheels.build_environment(self.folder / "python")

    def port(self) -> int:
        return port_of(self.stack.enter_context(hold_port()))

    def add(
        self, name: str, address: str, command: list[str], up: Callable[[], bool], env: Mapping[str, str]
    ) -> Service:
        """A service that is not started yet."""
        service = Service(name, address, command, env, self.folder / f"{name}.log", up)
        self.services.append(service)
        return service

    def triton(
        self,
        name: str,
        models: Path,
        host: str = LOOPBACK,
        port: int = 0,
        tls: Certificates | None = None,
    ) -> Service:
        """A tritonserver; `host` may be any address of the loopback interface."""
        ports = triton.Ports(self.port(), port or self.port(), self.port())
        # Each server's shared memory has a name of its own: one that dies leaves the others'.
        run = f"{self.run}{name}-"
        command = triton.command(self._wheels, models, self._backends, ports, run, tls)
        command[command.index(f"--grpc-address={LOOPBACK}")] = f"--grpc-address={host}"
        env = triton.environment(self._wheels, self._python_bin, self.env)
        up = _listens(ports.grpc, host) if tls else _answers(f"http://{LOOPBACK}:{ports.http}/v2/health/live")
        service = self.add(name, f"{host}:{ports.grpc}", command, up, env)
        service.after = lambda: reaper.remove_shared_memory(run)
        return service

    def nats(self, count: int = 1) -> list[Service]:
        """A nats-server, or several that replicate."""
        ports = [self.port() for _ in range(count)]
        more = cluster_configurations([self.port() for _ in range(count)]) if count > 1 else [""]
        servers = []
        for n, port in enumerate(ports):
            name = f"nats-{n}"
            configuration = self.folder / f"{name}.conf"
            nats.write_configuration(configuration, port, self.folder / name)
            configuration.write_text(configuration.read_text() + more[n])
            command = nats.command(self._wheels.nats_server, configuration)
            servers.append(self.add(name, nats.url(port), command, _listens(port), self.env))
        return servers

    def api(self, name: str, settings: Mapping[str, str]) -> Service:
        """A `serve`; it counts as up once it is ready."""
        port, ops = self.port(), self.port()
        command = [*PROGRAM, "serve", "--port", str(port), "--ops-port", str(ops)]
        up = _answers(f"http://{LOOPBACK}:{ops}/readyz")
        service = self.add(name, f"http://{LOOPBACK}:{port}", command, up, {**self.env, **settings})
        service.ops_port = ops
        return service

    def worker(self, name: str, settings: Mapping[str, str]) -> Service:
        """A `worker`."""
        service = self.add(
            name, "", [*PROGRAM, "worker", "--ops-port", "0"], lambda: True, {**self.env, **settings}
        )
        service.says = b"worker started"
        return service

    def start(self) -> None:
        """Start every service, and return when all are up."""
        for service in self.services:
            self.stack.callback(service.kill)
            service.start()
        for service in self.services:
            service.wait_up()


@contextmanager
def open_stage(folder: Path) -> Iterator[Stage]:
    """A stage in `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        stage = Stage(folder, "", stack)
        stage.run = f"miaas-test-{os.getpid()}-{stage.port()}-"
        stack.callback(reaper.sweep, stage.run)
        yield stage


def _listens(port: int, host: str = LOOPBACK) -> Callable[[], bool]:
    return lambda: is_open(port, host)


def _answers(url: str) -> Callable[[], bool]:
    def answers() -> bool:
        try:
            return httpx.get(url, timeout=2).status_code == 200
        except httpx.HTTPError:
            return False

    return answers
