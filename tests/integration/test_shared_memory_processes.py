"""What processes leave of shared memory when they end or are killed; and every contract through it."""

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from adapter.security.keys import KeyStore
from tests.integration.blocks import (
    BYTES,
    ELEMENTS,
    files,
    registered,
    write_models,
)
from tests.integration.conftest import Up, eventually, start_serve
from tests.integration.services import Service, Stage, open_stage
from tests.integration.serving import wait_for
from tests.integration.v2 import HEADER, message


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    with open_stage(tmp_path_factory.mktemp("memory")) as stage:
        stage.triton("triton", write_models(stage.folder / "models"))
        stage.nats()
        stage.start()
        yield stage


@pytest.fixture
def triton(stage: Stage) -> Iterator[Service]:
    """Every test leaves it up, with no region of the adapter's."""
    yield stage.services[0]
    assert registered(stage.services[0]) == set()


@pytest.fixture
def api(stage: Stage, triton: Service, tmp_path: Path) -> Iterator[Service]:
    """An API process that is not started yet, on the same Triton."""
    key = KeyStore(tmp_path / "keys.json").create("test", ("infer", "read")).key
    settings = {
        "TRITON_GRPC_URL": triton.address,
        "NATS_URL": stage.services[1].address,
        "STATE_DIR": str(tmp_path),
        "LOG_LEVEL": "debug",
    }
    named = {f"ADAPTER_{name}": value for name, value in settings.items()}
    service = stage.api("api", {**named, "KEY": key})
    yield service
    service.kill()


def post(api: Service, seconds: float, model: str = "block", timeout_s: float = 20) -> tuple[bytes, bytes]:
    """A block by V2, in binary, and what came back."""
    block = np.full(ELEMENTS, 7, np.float32)
    block[0] = seconds
    size = {"binary_data_size": BYTES}
    one = {"name": "block", "datatype": "FP32", "shape": [ELEMENTS], "parameters": size}
    body, headers = message({"inputs": [one], "parameters": {"binary_data_output": True}}, block.tobytes())
    headers["X-API-Key"] = api.env["KEY"]
    url = f"{api.address}/v2/models/{model}/infer"
    answer = httpx.post(url, content=body, headers=headers, timeout=timeout_s)
    assert answer.status_code == 200
    return block.tobytes(), answer.content[-BYTES:]


def post_blocks(api: Service, triton: Service) -> None:
    """Some blocks, after which Triton knows the regions: they are made in the background, first the file."""
    for _ in range(5):
        sent, came = post(api, 0.02)
        assert sent == came
    wait_for(lambda: set() != files(api.pid) <= registered(triton))


def test_nothing_is_left_of_a_process_that_ends(api: Service, triton: Service) -> None:
    api.start().wait_up()
    post_blocks(api, triton)
    wait_for(lambda: files(api.pid) == registered(triton))
    pid = api.pid
    api.stop()
    assert files(pid) == registered(triton) == set()


def test_what_a_killed_process_leaves_goes_when_the_next_one_starts(api: Service, triton: Service) -> None:
    api.start().wait_up()
    post_blocks(api, triton)
    first = api.pid
    api.kill()
    # A region may just have been made that Triton does not know of yet.
    left = registered(triton)
    assert set() != left <= files(first)
    api.start().wait_up()
    wait_for(lambda: registered(triton).isdisjoint(left) and not files(first))
    post_blocks(api, triton)
    wait_for(lambda: files(api.pid) == registered(triton))
    api.stop()


def test_a_process_that_is_killed_while_triton_works_for_it(api: Service, triton: Service) -> None:
    """Its regions stay registered until Triton, which would write into them, is done."""
    api.start().wait_up()
    post_blocks(api, triton)
    left = registered(triton)
    began = time.monotonic()
    with pytest.raises(httpx.ReadTimeout):
        post(api, 4.0, "slow", timeout_s=0.5)
    api.kill()
    api.start().wait_up()
    post_blocks(api, triton)
    wait_for(lambda: not left & registered(triton))
    assert time.monotonic() - began > 4.0
    assert triton.process is not None
    assert triton.process.poll() is None
    post_blocks(api, triton)
    api.stop()


def test_every_contract_has_large_tensors_in_shared_memory(up: Up, tmp_path: Path) -> None:
    row = np.random.default_rng(3).random(1 << 17, np.float32)
    rows = [row.tolist()]
    size = {"binary_data_size": row.nbytes}
    one = {"name": "INPUT0", "datatype": "FP32", "shape": [1, row.size], "parameters": size}
    body, headers = message({"inputs": [one], "parameters": {"binary_data_output": True}}, row.tobytes())

    def calls() -> float:
        lines = up.ops.get("/metrics").text.splitlines()
        return next(
            float(line.split()[1]) for line in lines if line.startswith("adapter_shared_memory_calls_total ")
        )

    def v1(client: httpx.Client) -> Any:
        return client.post("/v1/models/identity-batch:predict", json={"instances": rows}).json()

    def v2(client: httpx.Client) -> Any:
        answer = client.post("/v2/models/identity-batch/infer", content=body, headers=headers)
        return answer.content[int(answer.headers[HEADER]) :]

    def job() -> Any:
        return up.result(up.submit("identity-batch", {"INPUT0": rows}).json()["request_id"])["result"]

    def through_memory(ask: Callable[[], Any]) -> Any:
        """What is answered once a call went that way."""
        before = calls()

        def answered() -> Any:
            answer = ask()
            return answer if calls() > before else None

        return eventually(answered)

    with start_serve(up, tmp_path, ADAPTER_SHARED_MEMORY_MIN_BYTES="0") as plain:
        shared = through_memory(lambda: v1(up.client))
        assert shared == v1(plain)
        assert np.array_equal(np.array(shared["predictions"], np.float32), [row])
        assert through_memory(lambda: v2(up.client)) == v2(plain) == row.tobytes()
    result = through_memory(job)
    assert np.array_equal(np.array(result["OUTPUT0"], np.float32), [row])
