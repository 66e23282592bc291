"""The real thing: `miaas-adapter up` with a real tritonserver and a real nats-server, on free ports."""

import json
import os
import shutil
import signal
import ssl
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import httpx
import pytest

from adapter.sockets import listen
from tests.integration.nats import Nats, server
from tests.models.generate import build

T = TypeVar("T")
ROOT = Path(__file__).parents[2]
START_S = 120.0
FOR_TESTS = {
    "ADAPTER_METADATA_TTL_S": "0.2",
    "ADAPTER_RATE_LIMIT_PER_MINUTE": "0",
    # All that is ever logged is searched for secrets in the end.
    "ADAPTER_LOG_LEVEL": "debug",
}


@dataclass
class Up:
    """A running `up`: how to reach it, and how to do it harm."""

    process: subprocess.Popen[str]
    state_dir: Path
    repository: Path
    client: httpx.Client
    ops: httpx.Client

    @property
    def facts(self) -> dict[str, Any]:
        """What `up.json` says now."""
        facts: dict[str, Any] = json.loads((self.state_dir / "up.json").read_text())
        return facts

    def pids(self, role: str) -> list[int]:
        """The processes of one role."""
        pids: list[int] = self.facts["pids"][role]
        return pids

    def kill(self, role: str, number: signal.Signals = signal.SIGKILL) -> None:
        """Send a signal to every process of a role."""
        for pid in self.pids(role):
            os.kill(pid, number)

    def predict(self, model: str, body: Any) -> httpx.Response:
        """POST to V1's `:predict`."""
        return self.client.post(f"/v1/models/{model}:predict", json=body)

    def submit(self, model: str, input_data: Any, **more: Any) -> httpx.Response:
        """POST to MIaaS's `/inference`."""
        return self.client.post("/inference", json={"model_id": model, "input_data": input_data, **more})

    def result(self, request_id: str, within_s: float = 30.0) -> dict[str, Any]:
        """Poll until the request has ended."""

        def ended() -> dict[str, Any] | None:
            response = self.client.get(f"/inference/{request_id}")
            if response.status_code == 503:
                return None
            assert response.status_code == 200, response.text
            status: dict[str, Any] = response.json()
            return status if status["status"] != "processing" else None

        return eventually(ended, within_s)

    def ready(self) -> bool:
        """Whether Triton and NATS answer."""
        return self.ops.get("/readyz").status_code == 200


def eventually(look: Callable[[], T | None], within_s: float = 30.0) -> T:
    """The first answer of `look` that is not None or False; fails when there is none in time."""
    deadline = time.monotonic() + within_s
    while time.monotonic() < deadline:
        if found := look():
            return found
        time.sleep(0.05)
    pytest.fail(f"nothing within {within_s} s")


@contextmanager
def start_up(folder: Path, repository: Path, *arguments: str, **environment: str) -> Iterator[Up]:
    """Start `up` with its state in `folder`, and end it as a user would."""
    state_dir = folder / "state"
    command = [sys.executable, "-m", "adapter", "up", "--port", "0", "--ops-port", "0"]
    command += ["--state-dir", str(state_dir), "--model-repository", str(repository), *arguments]
    environment = {**os.environ, **FOR_TESTS, **environment}
    with (folder / "up.log").open("w") as log:
        process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, text=True, env=environment)
    up_json = state_dir / "up.json"
    try:
        eventually(lambda: up_json.exists() or process.poll() is not None, START_S)
        assert process.poll() is None, (folder / "up.log").read_text()
        facts = json.loads(up_json.read_text())
        headers = {"X-API-Key": facts["api_key"]}
        trust = ssl.create_default_context(cafile=facts.get("ca_file"))
        with (
            httpx.Client(base_url=facts["url"], headers=headers, timeout=60, verify=trust) as client,
            httpx.Client(base_url=facts["ops_url"]) as ops,
        ):
            yield Up(process, state_dir, repository, client, ops)
    finally:
        process.terminate()
        try:
            process.wait(15)
        except subprocess.TimeoutExpired:
            process.kill()
            raise


@contextmanager
def start_serve(up: Up, folder: Path, **environment: str) -> Iterator[httpx.Client]:
    """One more API process beside an `up`, on the same servers and keys, with settings of its own."""
    with listen("127.0.0.1", 0, "") as api, listen("127.0.0.1", 0, "") as ops:
        command = [sys.executable, "-m", "adapter", "serve"]
        command += ["--fd", str(api.fileno()), "--ops-fd", str(ops.fileno())]
        servers = {
            "ADAPTER_TRITON_GRPC_URL": up.facts["triton_grpc"],
            "ADAPTER_NATS_URL": up.facts["nats_url"],
            "ADAPTER_STATE_DIR": str(up.state_dir),
        }
        with (folder / "serve.log").open("w") as log:
            process = subprocess.Popen(
                command,
                stdout=log,
                stderr=subprocess.STDOUT,
                env={**os.environ, **FOR_TESTS, **servers, **environment},
                pass_fds=[api.fileno(), ops.fileno()],
            )
        try:
            base_url = f"http://127.0.0.1:{api.getsockname()[1]}"
            with httpx.Client(base_url=base_url, headers=up.client.headers, timeout=60) as client:
                eventually(lambda: client.get("/health").status_code == 200)
                yield client
        finally:
            process.terminate()
            process.wait(15)


def make_repository(folder: Path, *names: str) -> Path:
    """A repository with copies of the demo models and the models for tests: those named, or all of them."""
    everything, repository = folder / "all", folder / "models"
    shutil.copytree(ROOT / "model_repository", everything)
    build(everything)
    repository.mkdir()
    for model in everything.iterdir():
        if model.name in names or not names:
            model.rename(repository / model.name)
    return repository


@pytest.fixture(scope="session")
def up(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Up]:
    """One `up` for all tests that leave it as it was."""
    folder = tmp_path_factory.mktemp("up")
    with start_up(folder, make_repository(folder)) as running:
        yield running


@pytest.fixture(scope="session")
def shared_nats(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nats]:
    """A nats-server for tests that use clients of their own and leave no job behind."""
    with server(tmp_path_factory.mktemp("nats")) as nats:
        yield nats


@pytest.fixture
def own_nats(tmp_path: Path) -> Iterator[Nats]:
    """A nats-server that may be harmed."""
    with server(tmp_path) as nats:
        yield nats
