"""The whole service as processes of its own: Triton, NATS, APIs and workers."""

import json
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from adapter.security.keys import KeyStore
from tests.integration.services import PROGRAM, Service, Stage, open_stage
from tests.models.generate import write_count_model


@dataclass
class Site:
    """As many of each as wanted; one of each unless more are asked for."""

    stage: Stage
    nats_servers: list[Service]
    tritons: list[Service]
    apis: list[Service]
    workers: list[Service]
    api_key: str
    env: dict[str, str]

    clients: list[httpx.Client]
    """One for each API process."""

    @property
    def services(self) -> list[Service]:
        return self.stage.services

    @property
    def nats(self) -> Service:
        return self.nats_servers[0]

    @property
    def triton(self) -> Service:
        return self.tritons[0]

    @property
    def urls(self) -> list[str]:
        return [api.address for api in self.apis]

    def executed(self) -> list[int]:
        """Each value that the model was asked for, as often as it was."""
        files = self.stage.folder.glob("executions-*")
        return [int(line) for file in files for line in file.read_text().split()]

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
def open_site(
    folder: Path, apis: int = 1, workers: int = 1, tritons: int = 1, nats_servers: int = 1, **settings: Any
) -> Iterator[Site]:
    """A site in `folder`, everything up; nothing of it is left afterwards."""
    with open_stage(folder) as stage:
        queues = stage.nats(nats_servers)
        engines = [stage.triton(f"triton-{n}", _repository(folder, n)) for n in range(tritons)]
        key = KeyStore(folder / "keys.json").create("test", ("infer", "read")).key
        defaults = {
            "triton_grpc_url": ",".join(each.address for each in engines),
            "nats_url": ",".join(each.address for each in queues),
            "queue_replicas": nats_servers,
            "keys_file": folder / "keys.json",
            "state_dir": folder,
            "ack_wait_s": 2,
            "metadata_ttl_s": 0.5,
            "rate_limit_per_minute": 0,
            "log_level": "debug",
        }
        ours = {f"ADAPTER_{name.upper()}": str(v) for name, v in {**defaults, **settings}.items()}
        api = [stage.api(f"api-{n}", ours) for n in range(apis)]
        worker = [stage.worker(f"worker-{n}", ours) for n in range(workers)]
        clients = [
            stage.stack.enter_context(
                httpx.Client(base_url=each.address, headers={"X-API-Key": key}, timeout=20)
            )
            for each in api
        ]
        stage.start()
        yield Site(stage, queues, engines, api, worker, key, {**stage.env, **ours}, clients)


def _repository(folder: Path, number: int) -> Path:
    """A model repository of a Triton's own, whose model writes its executions into a file of its own."""
    models = folder / f"models-{number}"
    write_count_model(models / "count", folder / f"executions-{number}")
    return models
