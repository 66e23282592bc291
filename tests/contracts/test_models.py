"""A model's body and the list of models."""

from datetime import date

import pytest

from adapter.contracts.models import list_body, model_body, split_id
from adapter.contracts.schemas import input_schema, output_schema
from adapter.core.errors import ModelNotFound
from adapter.core.types import ModelVersion
from tests.fakes import model, tensor

IRIS = model(
    tensor("input", "FP32", -1, 4),
    outputs=[tensor("probabilities", "FP32", -1, 3)],
    name="sklearn-iris",
    version="2",
    versions=("1", "2"),
    max_batch_size=8,
    feature_names=("sl", "sw", "pl", "pw"),
    labels={"stable": "2"},
    deprecated_since={"1": date(2026, 6, 30)},
    sunset={"1": date(2027, 1, 31)},
)


def test_the_body_of_a_model_is_the_union_of_both_contracts() -> None:
    body = model_body(IRIS)
    assert body.pop("input_schema") == input_schema(IRIS)
    assert body.pop("output_schema") == output_schema(IRIS)
    assert body == {
        "name": "sklearn-iris",
        "versions": ["1", "2"],
        "platform": "onnxruntime_onnx",
        "inputs": [{"name": "input", "datatype": "FP32", "shape": [-1, 4]}],
        "outputs": [{"name": "probabilities", "datatype": "FP32", "shape": [-1, 3]}],
        "ready": True,
        "id": "sklearn-iris@2",
        "version": "2",
        "status": "active",
        "framework": "onnx",
        "labels": {"stable": "2"},
        "model_version_status": [
            {"version": "1", "state": "AVAILABLE", "status": {"error_code": "OK", "error_message": ""}},
            {"version": "2", "state": "AVAILABLE", "status": {"error_code": "OK", "error_message": ""}},
        ],
    }


def test_the_list_holds_each_version_that_is_served() -> None:
    lines = [
        ModelVersion("sklearn-iris", "1", ready=True),
        ModelVersion("sklearn-iris", "2", ready=True),
        ModelVersion("old", "7", ready=True),
        ModelVersion("broken", "", ready=False, reason="failed to load"),
        ModelVersion("went-away", "1", ready=True),
    ]
    old = model(tensor("x", "FP32", -1), name="old", version="7", deprecated_since={"*": date(2026, 6, 30)})
    assert list_body(lines, {"sklearn-iris": IRIS, "old": old}) == {
        "models": [
            {"id": "sklearn-iris@1", "name": "sklearn-iris", "version": "1", "status": "deprecated"},
            {"id": "sklearn-iris@2", "name": "sklearn-iris", "version": "2", "status": "active"},
            {"id": "old@7", "name": "old", "version": "7", "status": "deprecated"},
        ]
    }


@pytest.mark.parametrize(
    ("model_id", "parts"), [("m", ("m", "")), ("m@3", ("m", "3")), ("m@3@4", ("m", "3@4")), ("", ("", ""))]
)
def test_an_id_is_a_name_and_perhaps_a_version(model_id: str, parts: tuple[str, str]) -> None:
    assert split_id(model_id) == parts


def test_an_id_that_ends_in_an_at_sign_is_none() -> None:
    with pytest.raises(ModelNotFound, match=r"^Model not found: m@$"):
        split_id("m@")
