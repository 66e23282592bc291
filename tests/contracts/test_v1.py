"""KServe's V1 over HTTP: `:predict` and its errors."""

from typing import Any

import pytest

from adapter.contracts import bulk
from adapter.core.errors import (
    AdapterError,
    DeadlineExceeded,
    EngineUnavailable,
    InferenceFailed,
    InvalidInput,
    ModelCrashed,
    ModelNotFound,
)
from adapter.core.types import InferResponse, Tensor
from tests.contracts.running import NAMED, PATH, ROW, SUBMISSION, Api, assert_error, raising


@pytest.fixture(autouse=True, params=["objects", "numbers"])
def _decoder(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Everything here holds for the decoder of large bodies as well."""
    monkeypatch.setattr(bulk, "BULK", 0 if request.param == "numbers" else 1 << 30)


# --- Predict ---


@pytest.mark.parametrize(
    ("body", "answer"),
    [
        ({"instances": [ROW, ROW]}, {"predictions": [ROW, ROW]}),
        ({"instances": [NAMED]}, {"predictions": [ROW]}),
        ({"instances": [{"input": ROW}]}, {"predictions": [ROW]}),
        ({"inputs": [ROW]}, {"outputs": [ROW]}),
        ({"inputs": [NAMED]}, {"predictions": [ROW]}),
        ({"inputs": {"input": [ROW]}}, {"outputs": [ROW]}),
        ({"inputs": {name: [value] for name, value in NAMED.items()}}, {"outputs": [ROW]}),
        ({"instances": [ROW] * 20}, {"predictions": [ROW] * 20}),
    ],
)
def test_predict_answers_in_the_form_of_its_input(api: Api, body: Any, answer: Any) -> None:
    response = api.post(f"{PATH}:predict", body)
    assert response.status_code == 200
    assert response.headers["content-type"] == "application/json"
    assert response.json() == answer


def test_predict_answers_several_outputs_by_name(api: Api) -> None:
    rows = [{"a": [1.0, 2.0], "b": [3]}, {"a": [4.0, 5.0], "b": [6]}]
    columns = {"a": [[1.0, 2.0], [4.0, 5.0]], "b": [[3], [6]]}
    assert api.post("/v1/models/two:predict", {"instances": rows}).json() == {"predictions": rows}
    assert api.post("/v1/models/two:predict", {"inputs": columns}).json() == {"outputs": columns}


def test_predict_takes_an_image_as_the_text_prints_it(api: Api) -> None:
    body = {"instances": [{"image_bytes": {"b64": "iVBORw0KGgo="}}]}
    answer = api.post("/v1/models/photo:predict", body)
    assert answer.json() == {"predictions": [[{"b64": "iVBORw0KGgo="}]]}
    assert api.engine.requests[0].inputs[0].data == b"\x08\0\0\0\x89PNG\r\n\x1a\n"


@pytest.mark.parametrize(
    ("place", "version"),
    [
        ("", ""),
        ("/versions/1", "1"),
        ("/versions/2", "2"),
        ("/labels/stable", "1"),
    ],
)
def test_predict_runs_the_version_that_was_asked_for(api: Api, place: str, version: str) -> None:
    assert api.post(f"{PATH}{place}:predict", {"instances": [ROW]}).status_code == 200
    assert [(r.model_name, r.model_version) for r in api.engine.requests] == [("sklearn-iris", version)]


@pytest.mark.parametrize(
    "path",
    [
        "/v1/models/sklearn-iris%3Apredict",
        "/v1/models/sklearn-iris%3apredict",
        "/v1/models/sklearn%2Diris:predict",
        "/v1/models/sklearn-iris/versions/2%3Apredict",
        "/v1/models/sklearn-iris/versions/%32:predict",
        "/%76%31/models/sklearn-iris:predict",
        "/v1/models/sklearn-iris:predict?verbose=1",
    ],
)
def test_predict_may_be_written_in_percent_forms(api: Api, path: str) -> None:
    assert api.post(path, {"instances": [ROW]}).json() == {"predictions": [ROW]}


@pytest.mark.parametrize("content_type", ["text/plain", "application/x-www-form-urlencoded", "", "nonsense"])
def test_the_content_type_is_passed_over(api: Api, content_type: str) -> None:
    headers = {"Content-Type": content_type}
    response = api.post(
        f"{PATH}:predict", content=b'\xef\xbb\xbf{"instances": [[1, 2, 3, 4]]}', headers=headers
    )
    assert response.json() == {"predictions": [[1.0, 2.0, 3.0, 4.0]]}


def test_nan_comes_as_null(api: Api) -> None:
    response = api.post(f"{PATH}:predict", content=b'{"instances": [[NaN, Infinity, -Infinity, 1]]}')
    assert response.text == '{"predictions":[[null,null,null,1.0]]}'


# --- Errors ---


def test_an_unknown_model_is_404_as_the_text_prints_it(api: Api) -> None:
    response = api.post("/v1/models/invalid-model:predict", {"instances": [ROW]})
    assert response.status_code == 404
    assert response.text == '{"error":"Model not found: invalid-model"}'


@pytest.mark.parametrize(
    "path",
    [
        "/v1/models/none",
        "/v1/models/none:predict",
        f"{PATH}/versions/3",
        f"{PATH}/versions/v1",
        f"{PATH}/versions/3:predict",
        f"{PATH}/labels/canary",
        f"{PATH}/labels/canary:predict",
        "/v1/models/sklearn-iris@3",
        "/v1/models/sklearn-iris@",
        "/v1/models/a%20b",
        "/v1/models/a%20b:predict",
        "/v1/models/%F0%9F%98%80:predict",
        "/v1/models/a%00:predict",
        "/v1/models/*:predict",
        "/v1/models/...%0A:predict",
    ],
)
def test_unknown_models_versions_and_labels_are_404(api: Api, path: str) -> None:
    method = "POST" if path.endswith(":predict") else "GET"
    response = api.call(method, path, content=b'{"instances": [1]}')
    assert_error(response, 404, "model_not_found", "v1", "Model not found: ")
    known = {"sklearn-iris", "none"}
    assert {name for name, _ in api.engine.looked_up} <= known


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"", "the body is empty; expected a JSON object"),
        (b"{", "the body is not JSON: "),
        (b"[]", "the body must be a JSON object, got an array of 0"),
        (b"{}", 'the body must hold exactly one of "instances" and "inputs"'),
        (b'{"instances": []}', "instances: expected at least one instance, got an empty array"),
        (
            b'{"instances": [[1, 2, 3, 4], [1, 2, 3, "4"]]}',
            "input 'input': instances[1][3]: expected a number (FP32), got the string '4'",
        ),
        (
            b'{"instances": [[1, 2, 3]]}',
            "input 'input': instances[0]: expected an array of 4, got an array of 3",
        ),
        (b'{"instances": [{"sepal_length": 1}]}', "input 'sepal_width': instances[0]: expected all of "),
        (b"[" * 100_000, "the JSON is nested more than 64 levels deep"),
        (b'{"instances": [[1, 2, 3, "\\ud800"]]}', "the body is not JSON: "),
    ],
)
def test_a_bad_body_is_400_and_the_next_good_one_works(api: Api, body: bytes, message: str) -> None:
    assert_error(api.post(f"{PATH}:predict", content=body), 400, "invalid_input", "v1", message)
    assert api.engine.requests == []
    assert api.post(f"{PATH}:predict", {"instances": [ROW]}).status_code == 200


@pytest.mark.parametrize("verb", [":explain", ":classify", ":regress", ":PREDICT"])
@pytest.mark.parametrize("place", ["", "/versions/1", "/labels/stable"])
def test_other_verbs_are_501(api: Api, place: str, verb: str) -> None:
    response = api.post(f"{PATH}{place}{verb}", {"instances": [ROW]})
    assert_error(response, 501, "not_supported", "v1", f"'{verb[1:]}' is not supported; there is :predict")


@pytest.mark.parametrize(
    ("error", "status", "message"),
    [
        (InvalidInput("unexpected shape"), 400, "unexpected shape"),
        (ModelNotFound("gone"), 503, "Model sklearn-iris is not ready: gone"),
        (InferenceFailed("it broke"), 500, "it broke"),
        (EngineUnavailable("Triton cannot be reached"), 503, "Triton cannot be reached"),
        (ModelCrashed("it crashed"), 503, "it crashed"),
        (DeadlineExceeded("too late"), 504, "too late"),
    ],
)
def test_what_the_engine_says_is_told(api: Api, error: AdapterError, status: int, message: str) -> None:
    api.engine.run = raising(error)
    response = api.post(f"{PATH}:predict", {"instances": [ROW]})
    assert_error(response, status, error.code, "v1", message)
    assert response.headers.get("retry-after") == ("1" if status == 503 else None)


def test_an_answer_that_breaks_the_protocol_is_500(api: Api) -> None:
    api.engine.run = lambda _: InferResponse(
        "sklearn-iris", "2", (Tensor("output", "FP32", (1, 4), bytes(3)),)
    )
    response = api.post(f"{PATH}:predict", {"instances": [ROW]})
    assert_error(
        response, 500, "inference_failed", "v1", "output 'output': its data does not fit its shape [1, 4]"
    )


def test_a_model_that_is_not_ready_is_503(api: Api) -> None:
    for response in (
        api.get("/v1/models/loading"),
        api.post("/v1/models/loading:predict", {"instances": [1]}),
    ):
        assert_error(response, 503, "model_not_ready", "v1", "Model loading is not ready: it is being loaded")
        assert response.headers["retry-after"] == "1"


# --- Models, in one body with MIaaS ---


@pytest.mark.parametrize(
    ("path", "version"),
    [
        (PATH, "2"),
        (f"{PATH}/versions/1", "1"),
        (f"{PATH}/labels/stable", "1"),
        (f"{PATH}@1", "1"),
        (f"{PATH}%401", "1"),
        ("/models/sklearn-iris", "2"),
        ("/models/sklearn-iris@1", "1"),
    ],
)
def test_a_model_is_described_with_one_body_everywhere(api: Api, path: str, version: str) -> None:
    response = api.get(path)
    assert response.status_code == 200
    assert response.headers["content-type"] == "application/json"
    body = response.json()
    assert set(body) == {
        *("name", "versions", "platform", "inputs", "outputs", "ready", "id", "version", "status"),
        *("framework", "labels", "input_schema", "output_schema", "model_version_status"),
    }
    assert body["id"] == f"sklearn-iris@{version}"
    assert body["name"] == "sklearn-iris"
    assert body["version"] == version
    assert body["versions"] == ["1", "2"]
    assert body["inputs"] == [{"name": "input", "datatype": "FP32", "shape": [-1, 4]}]
    assert body["status"] == ("deprecated" if version == "1" else "active")
    deprecation = (response.headers.get("deprecation"), response.headers.get("sunset"))
    assert deprecation == (
        ("@1782777600", "Sun, 31 Jan 2027 00:00:00 GMT") if version == "1" else (None, None)
    )


@pytest.mark.parametrize(("place", "version"), [("", "2"), ("/versions/1", "1"), ("/labels/stable", "1")])
def test_the_signature_is_told_as_tensorflow_serving_does(api: Api, place: str, version: str) -> None:
    def signed(name: str) -> Any:
        dims = [{"size": "-1", "name": ""}, {"size": "4", "name": ""}]
        shape = {"dim": dims, "unknown_rank": False}
        return {name: {"dtype": "DT_FLOAT", "tensor_shape": shape, "name": f"{name}:0"}}

    assert api.get(f"{PATH}{place}/metadata").json() == {
        "model_spec": {"name": "sklearn-iris", "signature_name": "", "version": version},
        "metadata": {
            "signature_def": {
                "signature_def": {
                    "serving_default": {
                        "inputs": signed("input"),
                        "outputs": signed("output"),
                        "method_name": "tensorflow/serving/predict",
                        "defaults": {},
                    }
                }
            }
        },
    }


def test_answers_of_a_deprecated_version_say_so(api: Api) -> None:
    for place, deprecated in (
        ("/versions/1", True),
        ("/labels/stable", True),
        ("/versions/2", False),
        ("", False),
    ):
        headers = api.post(f"{PATH}{place}:predict", {"instances": [ROW]}).headers
        assert ("deprecation" in headers, "sunset" in headers) == (deprecated, deprecated)
    for model_id, deprecated in (("sklearn-iris@1", True), ("sklearn-iris", False)):
        headers = api.post("/inference", SUBMISSION | {"model_id": model_id}).headers
        assert ("deprecation" in headers, "sunset" in headers) == (deprecated, deprecated)


@pytest.mark.parametrize("path", ["/models", "/v1/models"])
def test_the_list_of_models(api: Api, path: str) -> None:
    response = api.get(path)
    assert response.json() == {
        "models": [
            {"id": "sklearn-iris@1", "name": "sklearn-iris", "version": "1", "status": "deprecated"},
            {"id": "sklearn-iris@2", "name": "sklearn-iris", "version": "2", "status": "active"},
            {"id": "photo@1", "name": "photo", "version": "1", "status": "active"},
            {"id": "two@1", "name": "two", "version": "1", "status": "active"},
        ]
    }
    # Each id leads to its model, below the list's own path.
    for entry in response.json()["models"]:
        assert api.get(f"{path}/{entry['id']}").json()["id"] == entry["id"]


def test_an_unknown_model_is_404_in_miaas_form(api: Api) -> None:
    for model_id in ("none", "sklearn-iris@3", "sklearn-iris@", "sklearn-iris@1@2", "@1"):
        assert_error(api.get(f"/models/{model_id}"), 404, "model_not_found", "miaas", "Model not found: ")
