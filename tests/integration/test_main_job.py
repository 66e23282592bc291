"""The main job, end to end: both contracts on the demo models."""

import base64
import io
import re
from typing import Any

import httpx
import numpy as np
import pytest
import skimage.data
from PIL import Image
from sklearn.datasets import load_iris

from tests.integration.conftest import Up

IRIS_NAMES = ("sepal_length", "sepal_width", "petal_length", "petal_width")


@pytest.fixture(scope="module")
def espresso() -> dict[str, str]:
    """A photograph of a cup of coffee, as V1 sends images."""
    file = io.BytesIO()
    Image.fromarray(skimage.data.coffee()).save(file, "JPEG")
    return {"b64": base64.b64encode(file.getvalue()).decode()}


def iris_rows(form: str) -> list[Any]:
    """Scikit-learn's 150 flowers as V1's instances."""
    rows: list[list[float]] = load_iris().data.tolist()
    if form == "tensor":
        return rows
    return [dict(zip(IRIS_NAMES, row, strict=True)) for row in rows]


@pytest.mark.parametrize("form", ["tensor", "named"])
@pytest.mark.parametrize(("version", "accuracy"), [("", 0.98), ("/versions/1", 0.96)])
def test_iris_is_right_within_the_models_accuracy(up: Up, form: str, version: str, accuracy: float) -> None:
    # 150 rows are more than the model's 64 at a time.
    answer = up.client.post(f"/v1/models/sklearn-iris{version}:predict", json={"instances": iris_rows(form)})
    assert answer.status_code == 200
    predictions = np.array(answer.json()["predictions"])
    assert predictions.shape == (150, 3)
    assert np.allclose(predictions.sum(axis=1), 1)
    assert (predictions.argmax(axis=1) == load_iris().target).mean() == pytest.approx(accuracy)


def test_a_photograph_gets_its_label_first(up: Up, espresso: dict[str, str]) -> None:
    answer = up.predict("imagenet", {"instances": [{"image_bytes": espresso}]})
    assert answer.status_code == 200
    [prediction] = answer.json()["predictions"]
    assert prediction["labels"][0] == "espresso"
    assert prediction["probabilities"] == sorted(prediction["probabilities"], reverse=True)


def test_the_same_photograph_submitted_gives_the_same_answer(up: Up, espresso: dict[str, str]) -> None:
    body = {"instances": [{"image_bytes": espresso}]}
    submitted = up.submit("imagenet", body)
    assert submitted.status_code == 202
    assert submitted.json()["status"] == "queued"
    result = up.result(submitted.json()["request_id"])
    assert result["status"] == "completed"
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", result["timestamp"])
    assert result["result"] == up.predict("imagenet", body).json()


@pytest.mark.parametrize(
    ("input_data", "key"),
    [
        ({"instances": [[5.1, 3.5, 1.4, 0.2]]}, "predictions"),
        ({"inputs": [[5.1, 3.5, 1.4, 0.2]]}, "outputs"),
        ({"input": [[5.1, 3.5, 1.4, 0.2]]}, "output"),
    ],
)
def test_a_result_mirrors_its_input(up: Up, input_data: dict[str, Any], key: str) -> None:
    submitted = up.submit("sklearn-iris", input_data, parameters={"timeout_s": 30, "priority": 1})
    result = up.result(submitted.json()["request_id"])["result"]
    assert list(result) == [key]
    assert np.argmax(result[key][0]) == 0


def test_a_model_is_described_for_both_contracts(up: Up) -> None:
    body = up.client.get("/v1/models/sklearn-iris").json()
    assert body == up.client.get("/models/sklearn-iris").json()
    assert body["name"] == "sklearn-iris"
    assert body["id"] == "sklearn-iris@2"
    assert body["versions"] == ["1", "2"]
    assert body["framework"] == "onnx"
    assert body["inputs"] == [{"name": "input", "datatype": "FP32", "shape": [-1, 4]}]
    assert body["outputs"] == [{"name": "output", "datatype": "FP32", "shape": [-1, 3]}]


def test_the_registry_lists_every_version(up: Up) -> None:
    models = {model["id"]: model for model in up.client.get("/v1/models").json()["models"]}
    assert models["sklearn-iris@2"] == {
        "id": "sklearn-iris@2",
        "name": "sklearn-iris",
        "version": "2",
        "status": "active",
    }
    assert models["sklearn-iris@1"]["status"] == "deprecated"
    assert {"digits@1", "imagenet@1"} <= models.keys()


def test_a_deprecated_version_says_so_in_its_headers(up: Up) -> None:
    answer = up.client.get("/v1/models/sklearn-iris/versions/1")
    assert answer.headers["Deprecation"] == "@1782777600"  # 2026-06-30
    assert answer.headers["Sunset"] == "Wed, 30 Jun 2027 00:00:00 GMT"
    assert "Deprecation" not in up.client.get("/v1/models/sklearn-iris").headers


def test_health(up: Up) -> None:
    health = up.client.get("/health")
    assert health.status_code == 200
    assert health.json()["status"] == "healthy"
    assert health.json()["timestamp"].endswith("Z")


def test_bad_input_is_said_in_the_form_of_its_contract(up: Up) -> None:
    no_image = {"instances": [{"image_bytes": {"b64": base64.b64encode(b"hello").decode()}}]}
    answer = up.predict("imagenet", no_image)
    assert answer.status_code == 400
    assert "image_bytes[0]: not a readable image" in answer.json()["error"]

    answer = up.predict("sklearn-iris", {"instances": [[1, 2, 3, 4], [1, 2, 3]]})
    assert answer.status_code == 400
    assert answer.json() == {
        "error": "input 'input': instances[1]: expected an array of 4, got an array of 3"
    }

    answer = up.predict("nope", {"instances": [1]})
    assert answer.status_code == 404
    assert answer.json() == {"error": "Model not found: nope"}

    answer = up.submit("nope", {"x": [1]})
    assert answer.status_code == 404
    assert answer.json() == {"error": {"code": "model_not_found", "message": "Model not found: nope"}}

    answer = up.submit("sklearn-iris", {"input": [[1, 2, 3]]})
    assert answer.status_code == 400
    assert answer.json()["error"]["code"] == "invalid_input"
    assert (
        answer.json()["error"]["message"]
        == "input 'input': input_data.input[0]: expected an array of 4, got an array of 3"
    )


@pytest.mark.parametrize("path", ["/health", "/v1/models", "/inference/x", "/", "/no/such/path"])
def test_no_key_no_answer(up: Up, path: str) -> None:
    answer = httpx.get(up.facts["url"] + path)
    assert answer.status_code == 401
    assert answer.headers["WWW-Authenticate"].startswith("Bearer")
    assert answer.json()["error"]["code"] == "unauthenticated"
    answer = httpx.get(up.facts["url"] + "/v1/models/x", headers={"Authorization": "Bearer miaas_no_key"})
    assert answer.status_code == 401
    assert answer.json() == {"error": "the API key is not known, or not valid any more"}


def test_a_failed_result_says_why(up: Up) -> None:
    no_image = {"image_bytes": [[{"b64": base64.b64encode(b"hello").decode()}]]}
    status = up.result(up.submit("imagenet", no_image).json()["request_id"])
    assert status["status"] == "failed"
    assert status["error"]["code"] == "invalid_input"
    assert "not a readable image" in status["error"]["message"]
