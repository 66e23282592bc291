"""V2 with settings of its own: tensors of 100 MB, model control; and what may not be reached at all."""

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import psutil
import pytest

from adapter.security.keys import KeyStore
from tests.integration.conftest import Up, eventually, make_repository, start_serve, start_up
from tests.integration.v2 import HEADER, binary, message

MEGABYTE = 1 << 20
LARGE = 100 * MEGABYTE


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Up]:
    """An `up` with two models, which may be loaded and unloaded, that takes large bodies."""
    folder = tmp_path_factory.mktemp("v2")
    repository = make_repository(folder, "identity-fp32", "sklearn-iris")
    settings = {"ADAPTER_V2_MODEL_CONTROL": "1", "ADAPTER_MAX_BODY_BYTES": str(2 * LARGE)}
    with start_up(folder, repository, **settings) as running:
        yield running


def infer(client: httpx.Client, body: bytes, headers: dict[str, str]) -> httpx.Response:
    return client.post("/v2/models/identity-fp32/infer", content=body, headers=headers)


def large_request(megabytes: int) -> tuple[bytes, dict[str, str], bytes]:
    data = np.random.default_rng(7).random((1, megabytes * MEGABYTE // 4), np.float32).tobytes()
    one = {"name": "INPUT0", "datatype": "FP32", "shape": [1, len(data) // 4]}
    one["parameters"] = {"binary_data_size": len(data)}
    body, headers = message({"inputs": [one], "parameters": {"binary_data_output": True}}, data)
    return body, headers, data


def peak_of(pid: int) -> int:
    """The most memory that a process ever held, in bytes."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:"))


def test_a_tensor_of_100_mb(own: Up) -> None:
    small, small_headers, _ = large_request(0)
    small = json.dumps(
        {"inputs": [{"name": "INPUT0", "datatype": "FP32", "shape": [1, 1], "data": [1]}]}
    ).encode()

    def thousand() -> float:
        started = time.process_time()
        cpu = psutil.Process(own.pids("api")[0]).cpu_times()
        for _ in range(1000):
            assert infer(own.client, small, {}).status_code == 200
        after = psutil.Process(own.pids("api")[0]).cpu_times()
        assert time.process_time() >= started
        return (after.user + after.system) - (cpu.user + cpu.system)

    thousand()
    before = min(thousand() for _ in range(2))
    (pid,) = own.pids("api")
    held = psutil.Process(pid).memory_info().rss
    Path(f"/proc/{pid}/clear_refs").write_text("5")
    body, headers, data = large_request(100)
    response = infer(own.client, body, headers)
    assert response.status_code == 200
    assert response.content[int(response.headers[HEADER]) :] == data
    assert peak_of(pid) - held <= 4 * LARGE
    assert own.pids("api") == [pid]
    # Its time on the processor per request, which other loads of the machine do not change.
    assert min(thousand() for _ in range(2)) <= 1.5 * before
