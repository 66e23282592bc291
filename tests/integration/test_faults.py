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

from adapter.jobs.connection import TIMEOUT_S
from adapter.security.counters import _TIMEOUT_S as COUNTER_TIMEOUT_S
from adapter.security.keys import KeyStore
from tests.integration.conftest import ROOT, Up, eventually, make_repository, start_serve, start_up
from tests.integration.proxy import Proxy

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


def test_nats_falls_silent_without_a_word(up: Up, tmp_path: Path) -> None:
    """Connections neither break nor bring anything; the rate limit asks NATS as well."""
    stranger = KeyStore(up.state_dir / "keys.json").create("stranger", ["infer", "read"])
    body = {"model_id": "sklearn-iris", "input_data": IRIS}
    port = int(up.facts["nats_url"].rpartition(":")[2])
    with Proxy(("127.0.0.1", port)).running() as proxy:
        settings = {"ADAPTER_NATS_URL": f"nats://{proxy.address}", "ADAPTER_RATE_LIMIT_PER_MINUTE": "1000"}
        with start_serve(up, tmp_path, **settings) as client:
            assert client.post("/inference", json=body).status_code == 202
            with proxy.frozen():
                for headers in ({"X-API-Key": stranger.key}, {}, {}):
                    started = time.monotonic()
                    refused = client.post("/inference", json=body, headers=headers)
                    # Whoever waited for the rate limit's answer does not wait for the queue's as well.
                    assert time.monotonic() - started < COUNTER_TIMEOUT_S + TIMEOUT_S
                    assert refused.status_code == 503
                    assert refused.json()["error"]["code"] == "queue_unavailable"
                predicted = client.post("/v1/models/sklearn-iris:predict", json=IRIS)
                assert predicted.status_code == 200
            answer_with(202, lambda: client.post("/inference", json=body))


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
    eventually(lambda: own.client.get("/v1/models/sklearn-iris").json().get("versions") == ["1"])

    shutil.rmtree(own.repository / "digits")
    eventually(lambda: own.client.get("/v1/models/digits").status_code == 404)
    assert own.predict("digits", {"instances": [[0.0] * 64]}).status_code == 404


def test_sigterm_leaves_nothing_behind(own: Up) -> None:
    children = psutil.Process(own.process.pid).children(recursive=True)
    assert len(children) >= 5
    own_regions = {path for path in SHARED_MEMORY.glob("miaas-*") if _opened_by(path, children)}
    assert own_regions
    own.process.send_signal(signal.SIGTERM)
    assert own.process.wait(15) == 0
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
        "triton_metrics",
        "nats_url",
        "pids",
    }
    assert own.facts["pids"].keys() == {"supervisor", "api", "worker", "triton", "nats"}
    assert own.facts["pids"]["supervisor"] == [own.process.pid]


def test_a_triton_that_pauses_costs_no_job_and_no_worker(own: Up) -> None:
    own.kill("triton", signal.SIGSTOP)
    worker = own.pids("worker")
    job = own.client.post("/inference", json={"model_id": "sklearn-iris", "input_data": IRIS})
    # Metadata may be known still; if not, the answer says that Triton is away.
    assert job.status_code in (202, 503), job.text
    away = answer_with(503, lambda: own.client.get("/health"))
    assert away.headers["Retry-After"] == "1"
    own.kill("triton", signal.SIGCONT)
    eventually(own.ready)
    if job.status_code == 202:
        assert own.result(job.json()["request_id"])["status"] == "completed"
    assert own.pids("worker") == worker


def test_the_repository_may_go_away_for_a_moment(own: Up) -> None:
    away = own.repository.with_name("moved")
    own.repository.rename(away)
    eventually(lambda: "the model repository cannot be read" in (own.state_dir.parent / "up.log").read_text())
    away.rename(own.repository)
    assert own.predict("sklearn-iris", IRIS).status_code == 200
    assert own.process.poll() is None


def test_folders_that_cannot_be_models_are_left_out(tmp_path: Path) -> None:
    repository = make_repository(tmp_path, "sklearn-iris")
    (repository / "my model" / "1").mkdir(parents=True)
    (repository / "junk" / "1").mkdir(parents=True)
    (repository / "junk" / "1" / "model.onnx").write_bytes(b"junk")
    blank = tmp_path / "a folder"
    repository.rename(blank)
    with start_up(tmp_path, blank) as own:
        assert own.predict("sklearn-iris", IRIS).status_code == 200
        told = (tmp_path / "up.log").read_text()
        assert "model folder 'my model' left out" in told
        junk = own.client.get("/v1/models/junk")
        assert junk.status_code == 503
        expected = "Model junk is not ready: it failed to load, and the server's log says why"
        assert junk.json() == {"error": expected}
