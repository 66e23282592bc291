"""What a Triton, or a model, that is there says no to: it is nobody's being away."""

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest

from tests.integration.conftest import Up, eventually, start_up
from tests.models.generate import Tensor, write_model

POLICY = """\
dynamic_batching { default_queue_policy {
  timeout_action: REJECT default_timeout_microseconds: 200000 max_queue_size: 1
} }
"""


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Up]:
    folder = tmp_path_factory.mktemp("refusals")
    tensor = Tensor("seconds", "FP32", (1,))
    slept = tensor._replace(name="slept")
    write_model(folder / "models" / "sleepy", "sleepy.py", 1, [tensor], [slept], POLICY)
    with start_up(folder, folder / "models") as running:
        yield running


def test_a_timeout_in_tritons_queue_is_a_timeout(own: Up) -> None:
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(own.predict, "sleepy", {"instances": [[2.0]]})
        eventually(lambda: list(own.repository.rglob(".busy")))
        began = time.monotonic()
        late = own.predict("sleepy", {"instances": [[0.0]]})
        assert (late.status_code, late.json()) == (
            504,
            {"error": "the request's timeout passed in Triton's queue for this model"},
        )
        assert time.monotonic() - began > 0.2
        assert own.ready()
        assert first.result().status_code == 200


def test_a_model_may_be_unavailable(own: Up) -> None:
    refused = own.predict("sleepy", {"instances": [[-1.0]]})
    assert refused.status_code == 503
    assert refused.headers["retry-after"] == "1"
    assert "it is too early" in refused.json()["error"]
    refusal = httpx.post(
        f"http://{own.facts['triton_http']}/v2/models/sleepy/infer",
        json={"inputs": [{"name": "seconds", "datatype": "FP32", "shape": [1, 1], "data": [-1]}]},
    )
    assert refusal.status_code == 503
