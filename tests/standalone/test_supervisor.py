"""`up` on the real servers, with one small model: what it writes, says, restarts and leaves behind."""

import json
import os
import re
import signal
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from importlib import metadata
from pathlib import Path

import httpx
import psutil
import pytest

from adapter.standalone import wheels
from adapter.standalone.children import FRONT_GRACE_S
from adapter.standalone.network import is_open
from adapter.standalone.supervisor import BACK_GRACE_S
from tests.standalone.running import Up, command, environment, running

pytestmark = pytest.mark.skipif(
    sys.version_info[:2] not in wheels.PYTHONS or metadata.version("numpy")[0] != "1",
    reason="the servers' wheels need Python 3.11 or 3.12 and numpy 1",
)

CONFIG = """
backend: "python"
input [{ name: "x" data_type: TYPE_FP32 dims: [-1] }]
output [{ name: "y" data_type: TYPE_FP32 dims: [-1] }]
"""
ECHO = """
import triton_python_backend_utils as pb
class TritonPythonModel:
    def execute(self, requests):
        inputs = [pb.get_input_tensor_by_name(request, "x").as_numpy() for request in requests]
        return [pb.InferenceResponse([pb.Tensor("y", x)]) for x in inputs]
"""
BROKEN = "raise RuntimeError('broken on purpose')"


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    for name, code in (("echo", ECHO), ("broken", BROKEN)):
        (folder / name / "1").mkdir(parents=True)
        (folder / name / "1" / "model.py").write_text(code)
        (folder / name / "config.pbtxt").write_text(CONFIG)
    return folder


@pytest.fixture(scope="module")
def up(tmp_path_factory: pytest.TempPathFactory, repository: Path) -> Iterator[Up]:
    running_up = Up(tmp_path_factory.mktemp("up") / "state", repository)
    yield running_up
    running_up.end()


def test_up_json(up: Up) -> None:
    info = up.info
    triton = {"triton_http", "triton_grpc", "triton_metrics"}
    assert set(info) == {"url", "ops_url", "api_key", *triton, "nats_url", "pids"}
    assert stat.S_IMODE(up.up_json.stat().st_mode) == 0o600
    assert re.fullmatch(r"http://127\.0\.0\.1:\d+", info["url"])
    assert re.fullmatch(r"http://127\.0\.0\.1:\d+", info["ops_url"])
    assert re.fullmatch(r"127\.0\.0\.1:\d+", info["triton_http"])
    assert re.fullmatch(r"127\.0\.0\.1:\d+", info["triton_grpc"])
    assert re.fullmatch(r"nats://127\.0\.0\.1:\d+", info["nats_url"])
    assert re.fullmatch(r"miaas_[0-9a-f]{16}_[0-9A-Za-z_-]{43}", info["api_key"])
    assert {role: len(pids) for role, pids in info["pids"].items()} == {
        "supervisor": 1,
        "api": 1,
        "worker": 1,
        "triton": 1,
        "nats": 1,
    }
    names = {role: psutil.Process(pids[0]).name() for role, pids in info["pids"].items()}
    assert (names["triton"], names["nats"]) == ("tritonserver", "nats-server")


def test_the_state_directory_is_its_users_alone(up: Up) -> None:
    assert stat.S_IMODE(up.state_dir.stat().st_mode) == 0o700
    assert stat.S_IMODE((up.state_dir / "up.key").stat().st_mode) == 0o600
    assert (up.state_dir / "up.key").read_text() == up.info["api_key"] + "\n"


def addresses(up: Up) -> list[str]:
    """Where the processes of `up` listen."""
    found = []
    for process in [psutil.Process(up.process.pid), *up.descendants()]:
        # What is only there to start another one is gone before it is looked at.
        with suppress(psutil.NoSuchProcess):
            found += [c for c in process.net_connections("inet") if c.status == psutil.CONN_LISTEN]
    return [connection.laddr.ip.removeprefix("::ffff:") for connection in found]


def test_everything_listens_on_the_loopback_interface_alone(up: Up) -> None:
    # The API's two sockets in two processes, Triton's three, nats-server's two, and soon the worker's.
    up.wait_for(lambda: len(addresses(up)) >= 10)
    assert addresses(up) == ["127.0.0.1"] * 10


def test_what_it_says(up: Up) -> None:
    url, key = up.info["url"], up.info["api_key"]
    said = up.wait_for(lambda: up.output.read_text() if "curl" in up.output.read_text() else None)
    said = re.sub(r"after \d+\.\d s", "after N s", said)
    assert said == (
        "models to load: 2\n"
        "loaded echo (1 of 2)\n"
        "model broken failed to load: RuntimeError: broken on purpose\n"
        "\nReady after N s. Ctrl-C stops everything.\n\n"
        f"  URL      {url}\n"
        f"  Docs     {url}/docs\n"
        f"  API key  {key}\n"
        f"  Logs     {up.state_dir}/logs\n\n"
        f"curl -H 'Authorization: Bearer {key}' {url}/v1/models\n\n"
    )


def test_the_line_to_paste_works(up: Up) -> None:
    answer = httpx.get(
        f"{up.info['url']}/v1/models", headers={"Authorization": f"Bearer {up.info['api_key']}"}
    )
    assert answer.status_code == 200
    assert httpx.get(f"{up.info['url']}/v1/models").status_code == 401


def test_a_model_that_only_loads_is_not_taken_for_a_changed_one(up: Up, repository: Path) -> None:
    """Triton polls; bytecode that its stub writes into the model's folder would look like a change."""
    assert list(repository.rglob("__pycache__")) == []


def test_a_second_up_on_the_state_directory_is_refused(up: Up, repository: Path) -> None:
    second = subprocess.run(
        command(up.state_dir, repository), env=environment(), capture_output=True, text=True, timeout=60
    )
    assert (second.returncode, second.stdout) == (1, "")
    assert second.stderr == (
        f"another `up` (pid {up.process.pid}) runs on {up.state_dir}; "
        "choose another directory with --state-dir\n"
    )
    assert up.up_json.exists()


@pytest.mark.parametrize("option", ["--port", "--ops-port"])
def test_a_port_in_use_is_said_in_one_line(tmp_path: Path, repository: Path, option: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        refused = subprocess.run(
            command(tmp_path / "state", repository, option, str(port)),
            env=environment(),
            capture_output=True,
            text=True,
            timeout=60,
        )
    assert (refused.returncode, refused.stdout) == (1, "")
    assert refused.stderr == f"port {port} on 127.0.0.1 is in use; choose another with {option}\n"


def test_a_killed_server_comes_back_on_its_port(up: Up) -> None:
    nats_port = int(up.info["nats_url"].rpartition(":")[2])
    os.kill(up.info["pids"]["nats"][0], signal.SIGKILL)
    pids = up.replaced("nats")
    assert {role: pids[role] for role in pids if role != "nats"} == {
        role: up.info["pids"][role] for role in pids if role != "nats"
    }
    up.wait_for(lambda: is_open(nats_port))


def test_a_killed_triton_leaves_no_stub_and_no_region_and_comes_back_on_its_ports(up: Up) -> None:
    triton = psutil.Process(up.info["pids"]["triton"][0])
    stubs, regions = triton.children(recursive=True), up.regions()
    assert stubs
    assert regions
    triton.kill()
    up.replaced("triton")
    up.wait_for(lambda: not running(stubs))
    url = f"http://{up.info['triton_http']}/v2/models/echo/ready"

    def loaded() -> bool:
        try:
            return httpx.get(url).status_code == 200
        except httpx.TransportError:
            return False

    up.wait_for(loaded)
    assert not regions & up.regions()
    assert stat.S_IMODE(up.up_json.stat().st_mode) == 0o600
    said = up.output.read_text()
    assert re.search(rf"\ntriton \(pid {triton.pid}\) was killed by SIGKILL after \d+\.\d s; ", said)


def test_sigterm_ends_even_what_hangs_within_ten_seconds(up: Up) -> None:
    """The last test on this `up`. Its API and Triton do not even take notice of signals."""
    # So long it waits for them; how fast a machine does the rest is not its own to promise.
    assert FRONT_GRACE_S + BACK_GRACE_S < 10
    processes = up.descendants()
    pids = json.loads(up.up_json.read_text())["pids"]
    for role in ("api", "triton"):
        os.kill(pids[role][0], signal.SIGSTOP)
    up.process.terminate()
    assert up.process.wait(15) == 0
    assert running(processes) == []
    assert up.regions() == set()
    assert not up.up_json.exists()


def test_the_key_stays_and_kill_nine_leaves_nothing_behind(up: Up, repository: Path) -> None:
    again = Up(up.state_dir, repository, "--workers", "2")
    try:
        assert again.info["api_key"] == up.info["api_key"]
        assert len(again.info["pids"]["api"]) == 2
        processes = again.descendants()
        assert again.regions()
        again.process.kill()
        again.process.wait()
        deadline = time.monotonic() + 5
        while (running(processes) or again.regions()) and time.monotonic() < deadline:
            time.sleep(0.02)
        assert running(processes) == []
        assert again.regions() == set()
    finally:
        again.end()
