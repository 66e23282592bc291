"""Clients of V2, unmodified: what they see of the adapter is what they see of Triton."""

import asyncio
import csv
import json
import os
import re
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import ml_dtypes
import numpy as np
import numpy.typing as npt
import pytest
import tritonclient.http as http
import tritonclient.http.aio as aio
from tritonclient.utils import InferenceServerException

from tests.integration.conftest import ROOT, Up, eventually
from tests.models.generate import DATATYPES

PERF_ANALYZER = ROOT / "build" / "perf_analyzer" / "perf_analyzer"
KSERVE = ROOT / ".venv-kserve" / "bin" / "python"
HALVES = ("FP16", "BF16")
FLOWER = np.array([[5.1, 3.5, 1.4, 0.2]], np.float32)
NUMPY: dict[str, Any] = {
    **{"BOOL": np.bool_, "FP16": np.float16, "FP32": np.float32, "FP64": np.float64, "BYTES": np.object_},
    **{f"{sign}INT{bits}": f"{sign.lower()}int{bits}" for sign in ("", "U") for bits in (8, 16, 32, 64)},
    "BF16": ml_dtypes.bfloat16,
}


@pytest.fixture(scope="module")
def clients(up: Up) -> Iterator[tuple[Any, Any, Mapping[str, str]]]:
    """Clients of the adapter and of Triton, and the header for the one."""
    facts = up.facts
    ours = http.InferenceServerClient(facts["url"].removeprefix("http://"), concurrency=8)
    triton = http.InferenceServerClient(facts["triton_http"])
    with ours, triton:
        # The client writes into a dictionary of headers that it is given.
        yield ours, triton, MappingProxyType({"X-API-Key": facts["api_key"]})


def tensor(module: Any, name: str, datatype: str, values: npt.NDArray[Any], *, binary: bool) -> Any:
    one = module.InferInput(name, list(values.shape), datatype)
    one.set_data_from_numpy(values, binary_data=binary)
    return one


def test_the_server_and_its_models(clients: Any) -> None:
    ours, triton, key = clients
    assert ours.is_server_live(dict(key))
    assert ours.is_server_ready(dict(key))
    assert ours.is_model_ready("sklearn-iris", headers=dict(key))
    assert ours.is_model_ready("sklearn-iris", "1", headers=dict(key))
    assert not ours.is_model_ready("sklearn-iris", "9", headers=dict(key))
    assert not ours.is_model_ready("nope", headers=dict(key))
    assert ours.get_server_metadata(dict(key))["extensions"] == [
        *("classification", "sequence", "schedule_policy", "model_configuration"),
        *("binary_tensor_data", "parameters", "statistics"),
    ]
    index = triton.get_model_repository_index()
    assert ours.get_model_repository_index(dict(key)) == index
    for model in {entry["name"] for entry in index if entry.get("state") == "READY"}:
        assert ours.get_model_metadata(model, headers=dict(key)) == triton.get_model_metadata(model)
        config = ours.get_model_config(model, headers=dict(key))
        # Later than this Triton: at its default it says nothing.
        assert config.get("ensemble_scheduling", {}).pop("max_inflight_requests", 0) == 0
        assert config == triton.get_model_config(model)
    for version in ("1", "2"):
        place = "sklearn-iris", version
        assert ours.get_model_metadata(*place, headers=dict(key)) == triton.get_model_metadata(*place)
        assert ours.get_model_config(*place, headers=dict(key)) == triton.get_model_config(*place)


def test_statistics(clients: Any) -> None:
    ours, triton, key = clients
    one = tensor(http, "input", "FP32", FLOWER, binary=True)
    ours.infer("sklearn-iris", [one], headers=dict(key))
    for place in ((), ("sklearn-iris",), ("sklearn-iris", "1")):

        def agree(place: tuple[str, ...] = place) -> bool:
            # Triton counts an inference after it has answered it.
            seen = ours.get_inference_statistics(*place, headers=dict(key))
            return bool(seen == triton.get_inference_statistics(*place))

        assert eventually(agree)
    counts = ours.get_inference_statistics("sklearn-iris", "2", headers=dict(key))["model_stats"][0]
    assert counts["inference_count"] >= 1
    assert counts["inference_stats"]["cache_hit"] == {"count": 0, "ns": 0}


@pytest.mark.parametrize("path", ["", "/versions/9", "/config", "/stats", "/infer", "/versions/x/ready"])
def test_what_does_not_exist_is_404(clients: Any, up: Up, path: str) -> None:
    name = "sklearn-iris" if path.startswith("/versions") else "nope"
    method = "POST" if path == "/infer" else "GET"
    answer = up.client.request(method, f"/v2/models/{name}{path}")
    assert answer.status_code == 404
    assert answer.json()["error"].startswith(f"Model not found: {name}")
    with pytest.raises(InferenceServerException, match=r"^\[404\] Model not found: nope$"):
        clients[0].get_model_metadata("nope", headers=dict(clients[2]))


@pytest.mark.parametrize("out_binary", [False, True])
@pytest.mark.parametrize(
    ("datatype", "in_binary"),
    # This client sends half floats in binary alone.
    [(name, binary) for name in DATATYPES for binary in (False, True) if binary or name not in HALVES],
)
def test_inference(clients: Any, datatype: str, in_binary: bool, out_binary: bool) -> None:
    ours, triton, key = clients
    values: npt.NDArray[Any] = np.array([[1, 0, 7], [100, 2, 3]], NUMPY[datatype])
    if datatype == "BYTES":
        values = np.array([["a", "", "é"], ["日本", "x" * 300, "0"]], np.object_)
    answers = []
    for client, headers in ((ours, dict(key)), (triton, None)):
        if client is triton and datatype in HALVES and not out_binary:
            # Triton refuses these, we answer.
            continue
        one = tensor(http, "INPUT0", datatype, values, binary=in_binary)
        wanted = http.InferRequestedOutput("OUTPUT0", binary_data=out_binary)
        model = f"identity-{datatype.lower()}"
        result = client.infer(model, [one], outputs=[wanted], request_id="r", headers=headers)
        assert result.get_response()["id"] == "r"
        answers.append(result.as_numpy("OUTPUT0"))
    expected = values
    if datatype == "BYTES" and out_binary:
        expected = np.array([[text.encode() for text in row] for row in values], np.object_)
    for seen in answers:
        np.testing.assert_array_equal(seen, expected)


def test_errors_are_read(clients: Any) -> None:
    ours, _, key = clients
    wrong = tensor(http, "input", "FP32", FLOWER[:, :2], binary=True)
    with pytest.raises(InferenceServerException, match=r"^\[400\] unexpected shape for input 'input'"):
        ours.infer("sklearn-iris", [wrong], headers=dict(key))


def test_many_requests_at_once(clients: Any) -> None:
    ours, _, key = clients

    def send(number: int) -> Any:
        values = np.full((1, 2), number, np.float32)
        one = tensor(http, "INPUT0", "FP32", values, binary=number % 2 == 0)
        return ours.async_infer("identity-fp32", [one], headers=dict(key))

    sent = [send(number) for number in range(200)]
    got = [float(one.get_result().as_numpy("OUTPUT0")[0, 1]) for one in sent]
    assert got == list(range(200))


def test_the_asynchronous_client(up: Up) -> None:
    async def main() -> None:
        key = {"X-API-Key": up.facts["api_key"]}
        async with aio.InferenceServerClient(up.facts["url"].removeprefix("http://")) as client:
            assert await client.is_server_ready(headers=dict(key))
            assert (await client.get_model_metadata("two-io", headers=dict(key)))["name"] == "two-io"
            assert (await client.get_model_config("two-io", headers=dict(key)))["max_batch_size"] == 4
            assert (await client.get_inference_statistics("two-io", headers=dict(key)))["model_stats"]

            async def ask(number: int) -> tuple[float, int]:
                binary = number % 2 == 0
                inputs = [
                    tensor(aio, "a", "FP32", np.full((1, 2), number, np.float32), binary=binary),
                    tensor(aio, "b", "INT64", np.full((1, 1), number), binary=not binary),
                ]
                outputs = [
                    aio.InferRequestedOutput("sum", binary_data=binary),
                    aio.InferRequestedOutput("echo", binary_data=not binary),
                ]
                result = await client.infer("two-io", inputs, outputs=outputs, headers=dict(key))
                return float(result.as_numpy("sum")[0, 0]), int(result.as_numpy("echo")[0, 0])

            seen = await asyncio.gather(*(ask(number) for number in range(100)))
            assert seen == [(2 * number, number) for number in range(100)]

    asyncio.run(main())


@pytest.mark.skipif(
    not PERF_ANALYZER.exists() and "CI" not in os.environ, reason="perf_analyzer is not to be had here"
)
@pytest.mark.parametrize("form", ["binary", "json"])
def test_perf_analyzer(up: Up, tmp_path: Path, form: str) -> None:
    table = tmp_path / "table.csv"
    command = [
        PERF_ANALYZER,
        "-m",
        "sklearn-iris",
        "-u",
        up.facts["url"].removeprefix("http://"),
        "-i",
        "http",
    ]
    command += ["-H", f"X-API-Key: {up.facts['api_key']}", "--request-count", "50", "-f", table]
    command += ["--input-tensor-format", form, "--output-tensor-format", form]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr
    (row,) = csv.DictReader(table.read_text().splitlines())
    assert float(row["Inferences/Second"]) > 0
    # It reads Triton's counters through us, a little before or after its first and last request.
    counted = re.search(r"Successful request count: (\d+)", done.stdout)
    assert counted is not None
    assert int(counted[1]) > 0


def test_kserve_client_in_v2_mode(up: Up) -> None:
    assert KSERVE.exists(), "run the tests by `make test`, which sets up KServe's client"
    script = str(ROOT / "tests" / "clients" / "kserve_v2.py")
    facts = up.facts
    ours, triton = (
        json.loads(subprocess.run([KSERVE, script, *to], capture_output=True, check=True, timeout=60).stdout)
        for to in ([facts["url"], facts["api_key"]], ["http://" + facts["triton_http"]])
    )
    assert ours.pop("live") is True
    assert ours.pop("ready") is True
    assert ours["infer"] == triton["infer"]
    assert ours["infer"][0][:2] == ["7", "sklearn-iris"]
    assert ours["infer"][0][4][0][0] == pytest.approx(1.0)
    assert (ours["model ready"], ours["unknown ready"]) == (True, False)
    assert (ours["wrong"], ours["unknown"]) == (400, 404)
