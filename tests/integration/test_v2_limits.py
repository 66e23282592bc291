"""V2 with settings of its own: tensors of 100 MB, model control; and what may not be reached at all."""

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import psutil
import pytest
import tritonclient.http as http
import tritonclient.utils.shared_memory as shm
from tritonclient.utils import InferenceServerException

from adapter.security.keys import KeyStore
from tests.integration.conftest import FOR_TESTS, Up, eventually, make_repository, start_up
from tests.integration.serving import Api, serving
from tests.integration.v2 import HEADER, message

MEGABYTE = 1 << 20
LARGE = 100 * MEGABYTE


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Up]:
    """An `up` with two models, which may be loaded and unloaded, that takes large bodies."""
    folder = tmp_path_factory.mktemp("v2")
    repository = make_repository(folder, "identity-fp32", "sklearn-iris")
    settings = {
        "ADAPTER_V2_MODEL_CONTROL": "1",
        "ADAPTER_V2_SHARED_MEMORY": "1",
        "ADAPTER_MAX_BODY_BYTES": str(2 * LARGE),
    }
    with start_up(folder, repository, **settings) as running:
        yield running


def infer(client: httpx.Client, body: bytes, headers: dict[str, str]) -> httpx.Response:
    return client.post("/v2/models/identity-fp32/infer", content=body, headers=headers)


def large_request(megabytes: int) -> tuple[bytes, dict[str, str], bytes]:
    data = np.random.default_rng(7).random((1, megabytes * MEGABYTE // 4), np.float32).tobytes()
    size = {"binary_data_size": len(data)}
    one = {"name": "INPUT0", "datatype": "FP32", "shape": [1, len(data) // 4], "parameters": size}
    body, headers = message({"inputs": [one], "parameters": {"binary_data_output": True}}, data)
    return body, headers, data


def peak_of(pid: int) -> int:
    """The most memory that a process ever held, in bytes."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:"))


@pytest.fixture
def untouched(own: Up) -> Iterator[Api]:
    """One more API process on the same Triton, which is spared what the first one goes through."""
    settings = {
        **{name.removeprefix("ADAPTER_"): value for name, value in FOR_TESTS.items()},
        "TRITON_GRPC_URL": own.facts["triton_grpc"],
        "NATS_URL": own.facts["nats_url"],
    }
    with serving(own.state_dir, **settings) as api:
        yield api


def small_requests_cost(first: httpx.Client, pid: int, other: Api) -> float:
    """How many times as much small requests cost the first process, on the processor, as the other one.

    They are asked in turn: what else the machine does costs one as much as the other.
    """
    one = {"name": "INPUT0", "datatype": "FP32", "shape": [1, 1], "data": [1]}
    body, headers = message({"inputs": [one]})

    def used_s() -> list[float]:
        times = [psutil.Process(each).cpu_times() for each in (pid, other.process.pid)]
        return [time.user + time.system for time in times]

    with httpx.Client(base_url=other.url, headers=first.headers, timeout=60) as second:

        def ask(count: int) -> None:
            for _ in range(count):
                for client in (first, second):
                    assert infer(client, body, headers).status_code == 200

        ask(1000)
        before = used_s()
        ask(2000)
        cost, usual = (later - sooner for sooner, later in zip(before, used_s(), strict=True))
    return cost / usual


def test_a_tensor_of_100_mb(own: Up, untouched: Api) -> None:
    (pid,) = own.pids("api")
    held = psutil.Process(pid).memory_info().rss
    Path(f"/proc/{pid}/clear_refs").write_text("5")
    body, headers, data = large_request(100)
    response = infer(own.client, body, headers)
    assert response.status_code == 200
    assert response.content[int(response.headers[HEADER]) :] == data
    assert peak_of(pid) - held <= 4 * LARGE
    assert small_requests_cost(own.client, pid, untouched) <= 1.5
    assert own.pids("api") == [pid]


def sized(size: Any) -> bytes:
    one = {"name": "INPUT0", "datatype": "FP32", "shape": [1, 2], "parameters": {"binary_data_size": size}}
    return json.dumps({"inputs": [one]}).encode()


TWO_THOUSAND = {
    "inputs": [{"name": f"x{i}", "datatype": "FP32", "shape": [1, 1], "data": [1]} for i in range(2000)]
}


@pytest.mark.parametrize(
    ("body", "length"),
    [
        (sized(8) + bytes(8), "100000"),
        (sized(8) + bytes(8), "20"),
        (sized(8) + bytes(8), "-1"),
        (sized(8) + bytes(8), "many"),
        (sized(8) + bytes(7), str(len(sized(8)))),
        (sized(8) + bytes(9), str(len(sized(8)))),
        (sized(2**62), str(len(sized(2**62)))),
        (json.dumps(TWO_THOUSAND).encode(), ""),
    ],
    ids=["too long", "too short", "negative", "no number", "too few", "too many", "huge", "two thousand"],
)
def test_malformed_binary_is_400_and_costs_nothing(own: Up, body: bytes, length: str) -> None:
    (pid,) = own.pids("api")
    held = psutil.Process(pid).memory_info().rss
    Path(f"/proc/{pid}/clear_refs").write_text("5")
    answer = infer(own.client, body, {HEADER: length} if length else {})
    assert answer.status_code == 400
    assert answer.headers["content-type"] == "application/json"
    assert answer.json().keys() == {"error"}
    assert peak_of(pid) - held < 8 * MEGABYTE
    assert own.pids("api") == [pid]


def test_strings_whose_lengths_lie(up: Up) -> None:
    one = {"name": "INPUT0", "datatype": "BYTES", "shape": [1, 1], "parameters": {"binary_data_size": 6}}
    body, headers = message({"inputs": [one]}, b"\xff\xff\xff\xffab")
    answer = up.client.post("/v2/models/identity-bytes/infer", content=body, headers=headers)
    assert answer.status_code == 400
    assert "a length of 4294967295 in element 0 that runs 4294967293 bytes over the end" in answer.text


@pytest.mark.parametrize("name", ["a%00b", "a%0d%0ab", "*", ">", "a.*", "x" * 129, "%F0%9F%98%80"])
@pytest.mark.parametrize("path", ["", "/ready", "/config", "/stats", "/infer", "/versions/1"])
def test_names_that_no_model_may_have(up: Up, name: str, path: str) -> None:
    method = "POST" if path == "/infer" else "GET"
    answer = up.client.request(method, f"/v2/models/{name}{path}")
    assert answer.status_code == 404
    assert answer.json()["error"].startswith("Model not found: ")


@pytest.mark.parametrize(
    "path",
    [
        *("/v2/repository/models/sklearn-iris/load", "/v2/repository/models/sklearn-iris/unload"),
        *("/v2/systemsharedmemory/status", "/v2/systemsharedmemory/region/r/register"),
        *("/v2/cudasharedmemory/status", "/v2/cudasharedmemory/region/r/register"),
        *("/v2/trace/setting", "/v2/logging", "/v2/models/sklearn-iris/trace/setting"),
        *("/v2/models/sklearn-iris/generate", "/v2/nothing"),
    ],
)
def test_what_is_not_offered_is_404(up: Up, path: str) -> None:
    for method in ("GET", "POST"):
        answer = up.client.request(method, path, content=b"{}" if method == "POST" else None)
        assert answer.status_code == 404
        assert answer.json() == {"error": f"no such path: {path}"}


def test_without_a_key_there_is_nothing(up: Up) -> None:
    for path in ("/v2", "/v2/health/live", "/v2/health/ready", "/v2/models/sklearn-iris", "/v2/nothing"):
        answer = httpx.get(up.facts["url"] + path)
        assert answer.status_code == 401
        assert answer.json().keys() == {"error"}


@pytest.fixture(scope="module")
def admin(own: Up) -> Iterator[httpx.Client]:
    """A client who may load and unload."""
    key = KeyStore(own.state_dir / "keys.json").create("root", ["admin", "infer", "read"]).key
    with httpx.Client(base_url=own.facts["url"], headers={"X-API-Key": key}, timeout=60) as client:
        # A new key is known to every process within seconds.
        eventually(lambda: client.get("/v2").status_code == 200)
        yield client


def test_models_are_loaded_and_unloaded_by_an_administrator(own: Up, admin: httpx.Client) -> None:
    place = "/v2/repository/models/sklearn-iris"
    assert admin.get("/v2").json()["extensions"][-4:] == [
        *("model_repository", "model_repository(unload_dependents)"),
        *("system_shared_memory", "cuda_shared_memory"),
    ]
    unloaded = admin.post(place + "/unload", json={"parameters": {"unload_dependents": False}})
    assert (unloaded.status_code, unloaded.content) == (200, b"")
    assert eventually(lambda: own.client.get("/v2/models/sklearn-iris/ready").status_code == 404)
    assert [line for line in admin.post("/v2/repository/index").json() if line["name"] == "sklearn-iris"] == [
        {"name": "sklearn-iris", "version": version, "state": "UNAVAILABLE", "reason": "unloaded"}
        for version in ("1", "2")
    ]
    ready = admin.post("/v2/repository/index", json={"ready": True}).json()
    assert {line["name"] for line in ready} == {"identity-fp32"}
    assert admin.post(place + "/load").status_code == 200
    assert own.client.get("/v2/models/sklearn-iris/ready").json() == {"name": "sklearn-iris", "ready": True}


@pytest.mark.parametrize("action", ["load", "unload"])
def test_only_an_administrator_may(own: Up, action: str) -> None:
    answer = own.client.post(f"/v2/repository/models/sklearn-iris/{action}")
    assert answer.status_code == 403
    assert answer.json() == {"error": "this needs the scope 'admin'"}
    assert own.client.get("/v2/models/sklearn-iris/ready").status_code == 200


@pytest.mark.parametrize(
    ("action", "parameters", "message"),
    [
        ("load", {"config": "{}"}, "parameters.config: a model is loaded as the repository has it"),
        ("load", {"file:1/model.py": "eA=="}, "parameters.file:1/model.py: a model is loaded as the repos"),
        ("unload", {"unload_dependents": 1}, "parameters.unload_dependents: expected a boolean, got 1"),
        ("unload", {"x": 1}, "parameters.x: only unload_dependents is known"),
        ("load", [], "parameters: expected an object, got an array of 0"),
    ],
)
def test_a_model_comes_from_the_repository_alone(
    admin: httpx.Client, action: str, parameters: Any, message: str
) -> None:
    answer = admin.post(f"/v2/repository/models/sklearn-iris/{action}", json={"parameters": parameters})
    assert answer.status_code == 400
    assert answer.json()["error"].startswith(message)


def test_loading_what_is_not_there(admin: httpx.Client) -> None:
    assert admin.post("/v2/repository/models/nope/load").status_code == 404
    assert admin.post("/v2/repository/models/a.*/load").status_code == 404


def test_the_index_takes_one_question(up: Up) -> None:
    bodies: dict[str, Any] = {
        "ready: expected a boolean, got 1": {"ready": 1},
        "the body must be a JSON object, got an array of 0": [],
    }
    for error, body in bodies.items():
        answer = up.client.post("/v2/repository/index", json=body)
        assert (answer.status_code, answer.json()) == (400, {"error": error})


@pytest.fixture
def region() -> Iterator[Any]:
    """A region of shared memory that holds eight numbers, and room for eight."""
    values = np.arange(8, dtype=np.float32)
    region = shm.create_shared_memory_region("numbers", f"/miaas-test-{os.getpid()}", 64)
    try:
        shm.set_shared_memory_region(region, [values])
        yield region
    finally:
        shm.destroy_shared_memory_region(region)


def tensors_in(module: Any) -> tuple[Any, Any]:
    """An input and an output that lie in the region `numbers`."""
    one, wanted = module.InferInput("INPUT0", [1, 8], "FP32"), module.InferRequestedOutput("OUTPUT0")
    one.set_shared_memory("numbers", 32)
    wanted.set_shared_memory("numbers", 32, offset=32)
    return one, wanted


def test_tensors_in_shared_memory(own: Up, admin: httpx.Client, region: Any) -> None:
    headers = {"X-API-Key": admin.headers["X-API-Key"]}
    with (
        http.InferenceServerClient(own.facts["url"].removeprefix("http://")) as client,
        http.InferenceServerClient(own.facts["triton_http"]) as triton,
    ):
        client.register_system_shared_memory(
            "numbers", f"/miaas-test-{os.getpid()}", 64, headers=dict(headers)
        )
        try:
            seen = client.get_system_shared_memory_status(headers=dict(headers))
            # The adapter's own regions are nobody else's business.
            every = triton.get_system_shared_memory_status()
            assert seen == [line for line in every if not line["name"].startswith("miaas-tensors-")]
            assert [line["name"] for line in seen] == ["numbers"]
            one, wanted = tensors_in(http)
            answer = client.infer("identity-fp32", [one], outputs=[wanted], headers=dict(headers))
            expected = triton.infer("identity-fp32", [one], outputs=[wanted]).get_response()
            assert answer.get_response() == expected
            written = shm.get_contents_as_numpy(region, np.float32, [1, 8], offset=32)
            np.testing.assert_array_equal(written, [range(8)])
            # Others may neither register nor look, nor read what an administrator registered.
            for path in ("/status", "/region/numbers/status"):
                assert own.client.get("/v2/systemsharedmemory" + path).status_code == 403
            for path in ("/region/x/register", "/unregister", "/region/numbers/unregister"):
                assert own.client.post("/v2/systemsharedmemory" + path).status_code == 403
            with pytest.raises(InferenceServerException, match="shared memory is not offered to this client"):
                client.infer("identity-fp32", [one], headers={"X-API-Key": own.facts["api_key"]})
        finally:
            client.unregister_system_shared_memory("numbers", headers=dict(headers))
        assert client.get_system_shared_memory_status(headers=dict(headers)) == []
        with pytest.raises(InferenceServerException, match="Unable to find shared memory region"):
            client.infer("identity-fp32", [one], headers=dict(headers))


@pytest.mark.parametrize(
    ("kind", "body", "message"),
    [
        ("system", {"key": "/x"}, "byte_size: expected an integer from 0, got none"),
        ("system", {"key": 1, "byte_size": 8}, "body.key: expected a string, got 1"),
        ("system", {"key": "/x", "byte_size": 8, "offset": -1}, "offset: expected an integer from 0, got -1"),
        ("system", {"key": "/miaas-tensors-1", "byte_size": 8}, "key: names that begin with miaas-tensors-"),
        ("system", {"key": "miaas-tensors-1", "byte_size": 8}, "key: names that begin with miaas-tensors-"),
        (
            "cuda",
            {"raw_handle": {"b64": "eA=="}, "device_id": 0, "byte_size": 8},
            "raw_handle.b64: expected 64",
        ),
        ("cuda", {"raw_handle": "x", "device_id": 0, "byte_size": 8}, "raw_handle.b64: expected a string"),
    ],
)
def test_regions_that_cannot_be(admin: httpx.Client, kind: str, body: Any, message: str) -> None:
    answer = admin.post(f"/v2/{kind}sharedmemory/region/r/register", json=body)
    assert answer.status_code == 400
    assert answer.json()["error"].startswith(message)


@pytest.mark.parametrize("action", ["register", "unregister"])
def test_the_adapters_own_regions_are_not_touched(admin: httpx.Client, action: str) -> None:
    place = f"/v2/systemsharedmemory/region/miaas-tensors-1/{action}"
    answer = admin.post(place, json={"key": "/x", "byte_size": 8})
    assert answer.status_code == 400
    assert answer.json()["error"] == "region: names that begin with miaas-tensors- are the adapter's own"


def test_no_request_reads_or_writes_the_adapters_own_regions(admin: httpx.Client) -> None:
    place = {"shared_memory_region": "miaas-tensors-1", "shared_memory_byte_size": 4}
    one = {"name": "INPUT0", "datatype": "FP32", "shape": [1, 1]}
    wanted = [{"name": "OUTPUT0", "parameters": place}]
    for path, document in (
        ("inputs[0]", {"inputs": [{**one, "parameters": place}]}),
        ("outputs[0]", {"inputs": [{**one, "data": [1]}], "outputs": wanted}),
    ):
        answer = admin.post("/v2/models/identity-fp32/infer", json=document)
        assert answer.status_code == 400
        told = f"{path}.parameters.shared_memory_region: names that begin with miaas-tensors-"
        assert answer.json()["error"].startswith(told)


def test_to_unregister_all_leaves_the_adapters_own(own: Up, admin: httpx.Client, region: Any) -> None:
    body, headers, _ = large_request(1)
    with http.InferenceServerClient(own.facts["triton_http"]) as triton:

        def ours() -> set[str]:
            assert infer(own.client, body, headers).status_code == 200
            return {line["name"] for line in triton.get_system_shared_memory_status()}

        before = eventually(ours)
        triton.register_system_shared_memory("numbers", f"/miaas-test-{os.getpid()}", 64)
        assert admin.post("/v2/systemsharedmemory/unregister").status_code == 200
        after = {line["name"] for line in triton.get_system_shared_memory_status()}
        assert "numbers" not in after
        assert before <= after


def test_a_region_that_is_not_there(admin: httpx.Client) -> None:
    body = {"key": "/nothing-here", "byte_size": 8}
    answer = admin.post("/v2/systemsharedmemory/region/r/register", json=body)
    assert answer.status_code == 500
    assert answer.json()["error"].startswith("Unable to open shared memory region")
