"""Every process of a service by itself, so that each can be killed, stopped and started again at will."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from adapter.security.keys import KeyStore
from adapter.standalone import nats, reaper, triton, wheels
from adapter.standalone.network import LOOPBACK, hold_port, is_open, port_of
from tests.models.generate import write_count_model

PROGRAM = (sys.executable, "-P", "-m", "adapter")


@dataclass
class Service:
    """One process that is started again only when the test says so."""

    name: str
    command: list[str]
    env: dict[str, str]
    log: Path
    up: Callable[[], bool]
    after: Callable[[], None] = lambda: None
    says: bytes = b""
    """What stands in the log once it is up."""
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
class Site:
    """One Triton, one NATS, and as many APIs and workers as wanted."""

    folder: Path
    executions: Path
    nats: Service
    triton: Service
    apis: list[Service]
    workers: list[Service]
    urls: list[str]
    nats_url: str
    triton_url: str
    api_key: str
    env: dict[str, str]

    clients: list[httpx.Client]
    """One for each API process."""

    @property
    def services(self) -> list[Service]:
        return [self.nats, self.triton, *self.apis, *self.workers]

    def executed(self) -> list[int]:
        """Each value that the model was asked for, as often as it was."""
        return [int(line) for line in self.executions.read_text().split()]

    def cli(self, *arguments: str) -> Any:
        """Run `miaas-adapter … --json`."""
        command = [*PROGRAM, *arguments, "--json"]
        done = subprocess.run(command, env=self.env, capture_output=True, text=True, check=True, timeout=30)
        return json.loads(done.stdout)


def job(value: int, **parameters: Any) -> dict[str, Any]:
    """A request whose result is its value."""
    body: dict[str, Any] = {"model_id": "count", "input_data": {"value": [[value]]}}
    return {**body, "parameters": parameters} if parameters else body


def echoed(status: dict[str, Any]) -> int:
    """The value that came back."""
    assert status["status"] == "completed", status
    value: int = status["result"]["echo"][0][0]
    return value


@contextmanager
def open_site(folder: Path, apis: int = 1, workers: int = 1, **settings: Any) -> Iterator[Site]:
    """A site in `folder`, everything up; nothing of it is left afterwards."""
    folder.mkdir(parents=True, exist_ok=True)
    models, executions = folder / "models", folder / "executions"
    executions.touch()
    write_count_model(models / "count", executions)
    found = wheels.find()
    with ExitStack() as stack:
        ports = [port_of(stack.enter_context(hold_port())) for _ in range(4 + 2 * apis)]
        triton_ports = triton.Ports(*ports[:3])
        run = f"miaas-test-{os.getpid()}-{ports[0]}-"
        key = KeyStore(folder / "keys.json").create("test", ("infer", "read")).key
        env = {**os.environ, reaper.RUN_VARIABLE: run}
        defaults = {
            "triton_grpc_url": f"{LOOPBACK}:{triton_ports.grpc}",
            "nats_url": nats.url(ports[3]),
            "keys_file": folder / "keys.json",
            "state_dir": folder,
            "ack_wait_s": 2,
            "metadata_ttl_s": 0.5,
            "rate_limit_per_minute": 0,
        }
        ours = {**env, **{f"ADAPTER_{name.upper()}": str(v) for name, v in {**defaults, **settings}.items()}}

        def service(name: str, command: list[str], env: dict[str, str], port: int) -> Service:
            up = (lambda: is_open(port)) if port else (lambda: True)
            return Service(name, command, env, folder / f"{name}.log", up)

        nats.write_configuration(folder / "nats.conf", ports[3], folder / "nats")
        nats_server = service("nats", nats.command(found.nats_server, folder / "nats.conf"), env, ports[3])
        backends = wheels.build_backends(found, folder / "backends")
        python_bin = wheels.build_environment(folder / "python")
        command = triton.command(found, models, backends, triton_ports, run, None)
        server = service("triton", command, triton.environment(found, python_bin, env), triton_ports.grpc)
        server.after = lambda: reaper.remove_shared_memory(run)
        api, urls = [], []
        for n in range(apis):
            port, ops = ports[4 + 2 * n], ports[5 + 2 * n]
            command = [*PROGRAM, "serve", "--port", str(port), "--ops-port", str(ops)]
            api.append(service(f"api-{n}", command, ours, port))
            api[-1].up = _ready(ops)
            urls.append(f"http://{LOOPBACK}:{port}")
        worker = [
            service(f"worker-{n}", [*PROGRAM, "worker", "--ops-port", "0"], ours, 0) for n in range(workers)
        ]
        for each in worker:
            each.says = b"worker started"
        site = Site(
            folder, executions, nats_server, server, api, worker, urls, nats.url(ports[3]),
            f"{LOOPBACK}:{triton_ports.grpc}", key, ours, [],
        )  # fmt: skip
        for url in urls:
            headers = {"X-API-Key": key}
            site.clients.append(stack.enter_context(httpx.Client(base_url=url, headers=headers, timeout=20)))
        stack.callback(reaper.sweep, run)
        for each in site.services:
            stack.callback(each.kill)
            each.start()
        for each in site.services:
            each.wait_up()
        yield site


def _ready(port: int) -> Callable[[], bool]:
    def ready() -> bool:
        try:
            return httpx.get(f"http://{LOOPBACK}:{port}/readyz", timeout=2).status_code == 200
        except httpx.HTTPError:
            return False

    return ready
