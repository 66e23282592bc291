"""Servers that die, and a repository that changes, under a running adapter."""

import os
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import psutil
import pytest

from tests.integration.conftest import ROOT, Up, eventually, make_repository, start_up

IRIS = {"instances": [[5.1, 3.5, 1.4, 0.2]]}
SHARED_MEMORY = Path("/dev/shm")


@pytest.fixture
def own(tmp_path: Path) -> Iterator[Up]:
    """An `up` that may be harmed, with the iris model alone."""
    with start_up(tmp_path, make_repository(tmp_path, "sklearn-iris")) as running:
        yield running


def answer_with(status: int, ask: Callable[[], httpx.Response]) -> httpx.Response:
    """The first answer that has this status."""
    return eventually(lambda: answer if (answer := ask()).status_code == status else None)


def test_triton_dies_and_comes_back(own: Up) -> None:
    job = own.submit("sklearn-iris", IRIS).json()["request_id"]
    before = own.pids("triton")
    own.kill("triton")
    down = answer_with(503, lambda: own.predict("sklearn-iris", IRIS))
    assert down.json() == {"error": "Triton cannot be reached"}
    assert down.headers["Retry-After"] == "1"
    assert own.submit("sklearn-iris", IRIS).json()["error"]["code"] == "engine_unavailable"
    assert own.client.get("/health").status_code == 503

    eventually(lambda: own.predict("sklearn-iris", IRIS).status_code == 200)
    assert own.pids("triton") != before
    assert own.result(job)["status"] == "completed"
    assert own.client.get("/health").status_code == 200


def test_nats_dies_and_comes_back_with_every_job(own: Up) -> None:
    jobs = [own.submit("sklearn-iris", IRIS).json()["request_id"] for _ in range(20)]
    before = own.pids("nats")
    own.kill("nats")
    started = time.monotonic()
    down = answer_with(503, lambda: own.submit("sklearn-iris", IRIS))
    assert down.json()["error"]["code"] == "queue_unavailable"
    assert down.headers["Retry-After"] == "1"
    assert time.monotonic() - started < 5
    assert own.predict("sklearn-iris", IRIS).status_code == 200

    eventually(own.ready)
    assert own.pids("nats") != before
    assert {own.result(job)["status"] for job in jobs} == {"completed"}
    assert own.submit("sklearn-iris", IRIS).status_code == 202


def test_a_dead_worker_and_a_dead_api_are_replaced(own: Up) -> None:
    own.kill("worker", signal.SIGSTOP)
    job = own.submit("sklearn-iris", IRIS).json()["request_id"]
    assert own.client.get(f"/inference/{job}").json()["status"] == "processing"
    own.kill("worker")
    assert own.result(job, within_s=60)["status"] == "completed"

    before = own.pids("api")
    own.kill("api")
    eventually(lambda: own.pids("api") not in ([], before))

    def serves() -> bool:
        try:
            return own.predict("sklearn-iris", IRIS).status_code == 200
        except httpx.TransportError:
            return False

    eventually(serves)
    eventually(own.ready)
    assert own.client.get(f"/inference/{job}").json()["status"] == "completed"


def test_the_repository_is_followed_without_a_restart(own: Up) -> None:
    assert own.client.get("/v1/models/digits").status_code == 404
    shutil.copytree(ROOT / "model_repository" / "digits", own.repository / "digits")
    eventually(lambda: own.client.get("/v1/models/digits").status_code == 200)
    assert own.predict("digits", {"instances": [[0.0] * 64]}).status_code == 200

    shutil.rmtree(own.repository / "sklearn-iris" / "2")
    eventually(lambda: own.client.get("/v1/models/sklearn-iris").json()["versions"] == ["1"])

    shutil.rmtree(own.repository / "digits")
    eventually(lambda: own.client.get("/v1/models/digits").status_code == 404)
    assert own.predict("digits", {"instances": [[0.0] * 64]}).status_code == 404


def test_sigterm_leaves_nothing_behind(own: Up) -> None:
    children = psutil.Process(own.process.pid).children(recursive=True)
    assert len(children) >= 5
    own_regions = {path for path in SHARED_MEMORY.glob("miaas-*") if _opened_by(path, children)}
    assert own_regions
    started = time.monotonic()
    own.process.send_signal(signal.SIGTERM)
    assert own.process.wait(15) == 0
    assert time.monotonic() - started < 10
    assert [
        child for child in children if child.is_running() and child.status() != psutil.STATUS_ZOMBIE
    ] == []
    assert [path for path in own_regions if path.exists()] == []
    assert not (own.state_dir / "up.json").exists()


def _opened_by(path: Path, processes: list[psutil.Process]) -> bool:
    return any(str(path) in {m.path for m in process.memory_maps()} for process in processes)


def test_up_json_is_private(own: Up) -> None:
    assert os.stat(own.state_dir / "up.json").st_mode & 0o777 == 0o600
    assert own.facts.keys() == {
        "url",
        "ops_url",
        "api_key",
        "triton_http",
        "triton_grpc",
        "nats_url",
        "pids",
    }
    assert own.facts["pids"].keys() == {"supervisor", "api", "worker", "triton", "nats"}
    assert own.facts["pids"]["supervisor"] == [own.process.pid]
