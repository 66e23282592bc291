"""A model whose process dies: once, and of one job every time. `up` brings the process back."""

import asyncio
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from adapter.core.errors import ModelNotReady
from adapter.core.metrics import Metrics
from adapter.settings import Settings
from adapter.standalone.repository import stubs
from adapter.triton.client import TritonEngine
from tests.integration.conftest import Up, eventually, start_up
from tests.integration.site import echoed, job
from tests.models.generate import write_count_model


@pytest.fixture
def own(tmp_path: Path) -> Iterator[Up]:
    repository = tmp_path / "models"
    write_count_model(repository / "count", tmp_path / "executions")
    (tmp_path / "executions").touch()
    with start_up(tmp_path, repository, ADAPTER_JOB_ATTEMPTS="3", ADAPTER_ACK_WAIT_S="3") as running:
        yield running


def test_a_stub_that_is_killed_costs_no_job(own: Up) -> None:
    [triton] = own.pids("triton")
    bodies = [job(value) for value in range(1, 201)]
    ids = [line["request_id"] for line in own.client.post("/inference/batch", json=bodies).json()]
    for entry in Path(f"/proc/{triton}/task/{triton}/children").read_text().split():
        if "triton_python_backend_stub" in Path(f"/proc/{entry}/cmdline").read_text():
            os.kill(int(entry), signal.SIGKILL)
    ids += [line["request_id"] for line in own.client.post("/inference/batch", json=bodies).json()]
    assert [echoed(own.result(job_id, 60)) for job_id in ids] == [*range(1, 201)] * 2
    assert stubs(triton)[0] == {"count": 1}


def test_a_job_that_kills_its_model_fails_and_the_others_do_not(own: Up) -> None:
    bodies = [job(value) for value in (1, 2, -1, 3, 4, 5)]
    ids = [line["request_id"] for line in own.client.post("/inference/batch", json=bodies).json()]
    began = time.monotonic()
    ended = [own.result(job_id, 100) for job_id in ids]
    assert time.monotonic() - began < 100
    assert ended[2]["status"] == "failed"
    assert ended[2]["error"]["code"] == "model_crashed"
    assert ended[2]["error"]["message"].startswith("given up after 3 attempts: ")
    del ended[2]
    assert [echoed(status) for status in ended] == [1, 2, 3, 4, 5]
    # It may have died a moment ago, and be loading.
    eventually(lambda: own.client.get("/v1/models/count").json().get("ready"))
    last = own.client.post("/inference", json=job(6)).json()["request_id"]
    assert echoed(own.result(last)) == 6
    executed = [int(line) for line in (own.repository.parent / "executions").read_text().split()]
    assert executed.count(-1) == 3
    assert eventually(own.ready)


def test_a_model_that_is_loaded_anew_is_no_fault_of_a_job(own: Up) -> None:
    async def ask() -> None:
        engine = TritonEngine(Settings(triton_grpc_url=own.facts["triton_grpc"]), Metrics())
        try:
            with pytest.raises(ModelNotReady, match="'count' is not available"):
                await engine.statistics("count")
        finally:
            await engine.close()

    # Between this and its loading jobs ask whether it has recovered.
    unload = httpx.post(f"http://{own.facts['triton_http']}/v2/repository/models/count/unload")
    assert unload.status_code == 200
    asyncio.run(ask())
