"""The bodies of V1 and MIaaS → tensors: the rows 'V1 values' and 'MIaaS values' of docs/contracts.md."""

from typing import Any

import pytest

from adapter.core.codec import decode_body, decode_input_data
from adapter.core.datatypes import pack_bytes
from adapter.core.errors import InvalidInput
from adapter.core.types import ModelMetadata, Tensor
from tests.core.bodies import (
    IRIS,
    PHOTO,
    TWO,
    UNBATCHED,
    VECTOR,
    iris,
    refusal,
    uint8,
)
from tests.fakes import model, tensor

# --- The top level ---


@pytest.mark.parametrize(
    "body", [{}, {"instances": [[1]], "inputs": [[1]]}, {"predictions": [1]}, {"Instances": []}]
)
def test_a_body_holds_exactly_one_of_instances_and_inputs(body: Any) -> None:
    assert refusal(VECTOR, body) == 'the body must hold exactly one of "instances" and "inputs"'


@pytest.mark.parametrize(
    ("body", "got"),
    [(None, "null"), ([], "an array of 0"), ("x", "the string 'x'"), (1, "1"), (True, "true")],
)
def test_a_body_is_an_object(body: Any, got: str) -> None:
    assert refusal(VECTOR, body) == f"the body must be a JSON object, got {got}"


def test_signature_name_and_unknown_members_are_passed_over() -> None:
    body = {"signature_name": "serving_default", "parameters": {"x": 1}, "id": None, "instances": [1, 2]}
    assert decode_body(VECTOR, body) == ((uint8("x", 1, 2),), "predictions")


@pytest.mark.parametrize(
    ("value", "got"), [(1, "1"), (None, "null"), (["x"], "an array of 1"), (False, "false")]
)
def test_a_signature_name_is_a_string(value: Any, got: str) -> None:
    body = {"signature_name": value, "instances": [1]}
    assert refusal(VECTOR, body) == f"signature_name: expected a string, got {got}"


@pytest.mark.parametrize(
    ("value", "got"), [({"a": 1}, "an object with 'a'"), (1, "1"), (None, "null"), ("x", "the string 'x'")]
)
def test_instances_are_an_array(value: Any, got: str) -> None:
    assert refusal(VECTOR, {"instances": value}) == f"instances: expected an array of instances, got {got}"


@pytest.mark.parametrize("metadata", [IRIS, PHOTO, TWO, UNBATCHED, VECTOR])
def test_there_is_at_least_one_instance(metadata: ModelMetadata) -> None:
    assert (
        refusal(metadata, {"instances": []})
        == "instances: expected at least one instance, got an empty array"
    )


# --- Rows and columns of one tensor ---


def test_the_tensor_form_of_the_text() -> None:
    rows = [[5.1, 3.5, 1.4, 0.2], [4.9, 3.0, 1.4, 0.2]]
    expected = iris((5.1, 3.5, 1.4, 0.2), (4.9, 3.0, 1.4, 0.2))
    assert decode_body(IRIS, {"instances": rows}) == (expected, "predictions")
    assert decode_body(IRIS, {"inputs": rows}) == (expected, "outputs")
    assert decode_body(IRIS, {"instances": [{"input": row} for row in rows]}) == (expected, "predictions")
    assert decode_body(IRIS, {"inputs": {"input": rows}}) == (expected, "outputs")
    assert decode_body(IRIS, {"inputs": [{"input": row} for row in rows]}) == (expected, "predictions")
    assert decode_input_data(IRIS, {"instances": rows}) == (expected, "predictions")
    assert decode_input_data(IRIS, {"inputs": {"input": rows}}) == (expected, "outputs")
    assert decode_input_data(IRIS, {"input": rows}) == (expected, "names")


@pytest.mark.parametrize(
    ("body", "path"),
    [
        ({"instances": [[1, 2, 3, 4], [5, 6, 7, "8"]]}, "instances[1][3]"),
        ({"inputs": [[1, 2, 3, 4], [5, 6, 7, "8"]]}, "inputs[1][3]"),
        ({"instances": [{"input": [1, 2, 3, 4]}, {"input": [5, 6, 7, "8"]}]}, "instances[1].input[3]"),
        ({"inputs": [{"input": [1, 2, 3, 4]}, {"input": [5, 6, 7, "8"]}]}, "inputs[1].input[3]"),
        ({"inputs": {"input": [[1, 2, 3, 4], [5, 6, 7, "8"]]}}, "inputs.input[1][3]"),
    ],
)
def test_an_error_tells_tensor_path_expected_and_got(body: Any, path: str) -> None:
    assert refusal(IRIS, body) == f"input 'input': {path}: expected a number (FP32), got the string '8'"


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({"instances": [[1, 2, 3]]}, "instances[0]: expected an array of 4, got an array of 3"),
        ({"instances": [1]}, "instances[0]: expected an array (2 axes in all, shape [-1, 4]), got 1"),
        ({"instances": [[[1, 2, 3, 4]]]}, "instances[0]: expected an array of 4, got an array of 1"),
        ({"inputs": [1, 2, 3, 4]}, "inputs[0]: expected an array (2 axes in all, shape [-1, 4]), got 1"),
        ({"inputs": None}, "inputs: expected an array (2 axes in all, shape [-1, 4]), got null"),
        ({"inputs": []}, "inputs: expected at least one row, got an empty array"),
        ({"inputs": {"input": []}}, "inputs.input: expected at least one row, got an empty array"),
        (
            {"instances": [{"input": 1}]},
            "instances[0].input: expected an array (2 axes in all, shape [-1, 4]), got 1",
        ),
        (
            {"instances": [[1, 2, 3, 1e39]]},
            "instances[0][3]: expected a number within FP32's range, got 1e+39",
        ),
    ],
)
def test_a_wrong_shape_or_value_is_refused(body: Any, message: str) -> None:
    assert refusal(IRIS, body) == f"input 'input': {message}"


def test_a_scalar_stands_for_an_axis_of_size_one() -> None:
    metadata = model(tensor("x", "UINT8", -1, 1), max_batch_size=4)
    expected = (uint8("x", 1, 2, shape=(2, 1)),)
    for rows in ([1, 2], [[1], [2]], [{"x": 1}, {"x": 2}], [{"x": [1]}, {"x": [2]}]):
        assert decode_body(metadata, {"instances": rows})[0] == expected
    assert decode_body(metadata, {"inputs": {"x": [1, 2]}})[0] == expected
    assert refusal(metadata, {"instances": [{"x": 1}, {"x": "2"}]}) == (
        "input 'x': instances[1].x: expected an integer (UINT8), got the string '2'"
    )


def test_the_image_form_of_the_text() -> None:
    image = Tensor("image_bytes", "BYTES", (2, 1), pack_bytes([b"A", b"\xff\x00"]))
    rows = [{"b64": "QQ=="}, {"b64": "/wA="}]
    for body in (
        {"instances": [{"image_bytes": row} for row in rows]},
        {"instances": rows},
        {"instances": [[row] for row in rows]},
        {"inputs": rows},
        {"inputs": {"image_bytes": rows}},
    ):
        assert decode_body(PHOTO, body)[0] == (image,)
    assert refusal(PHOTO, {"instances": [{"image_bytes": {"b64": "QQ"}}]}) == (
        "input 'image_bytes': instances[0].image_bytes: "
        "expected b64 in the standard base64 alphabet, padded (RFC 4648), got an object with 'b64'"
    )


def test_a_lone_b64_object_is_a_value_where_a_value_may_stand() -> None:
    one = model(tensor("text", "BYTES", 1))
    assert decode_body(one, {"inputs": {"b64": "QQ=="}})[0] == (
        Tensor("text", "BYTES", (1,), pack_bytes([b"A"])),
    )
    # MIaaS's input_data is an object of names.
    with pytest.raises(InvalidInput, match=r"input 'text': input_data: expected all of 'text', got 'b64'"):
        decode_input_data(one, {"b64": "QQ=="})


def test_an_input_may_be_named_b64() -> None:
    metadata = model(tensor("b64", "BYTES", -1, 1), max_batch_size=4)
    expected = (Tensor("b64", "BYTES", (1, 1), pack_bytes([b"plain"])),)
    assert decode_body(metadata, {"instances": [{"b64": "plain"}]})[0] == expected


# --- Models without batching ---


def test_without_batching_each_tensor_has_its_own_first_axis() -> None:
    expected = (uint8("a", 1, 2, shape=(1, 2)), uint8("b", 3, 4, 5))
    assert decode_body(UNBATCHED, {"inputs": {"a": [[1, 2]], "b": [3, 4, 5]}})[0] == expected
    assert decode_input_data(UNBATCHED, {"a": [[1, 2]], "b": [3, 4, 5]})[0] == expected


def test_without_batching_rows_run_along_the_first_axis() -> None:
    rows = [{"a": [1, 2], "b": 7}, {"a": [3, 4], "b": 8}, {"a": [5, 6], "b": 9}]
    assert decode_body(UNBATCHED, {"instances": rows})[0] == (
        uint8("a", 1, 2, 3, 4, 5, 6, shape=(3, 2)),
        uint8("b", 7, 8, 9),
    )
    assert refusal(UNBATCHED, {"instances": rows[:2]}) == (
        "input 'b': instances[*].b: expected an array of 3, got an array of 2"
    )


def test_without_batching_an_axis_may_be_empty() -> None:
    assert decode_body(UNBATCHED, {"inputs": {"a": [], "b": [3, 4, 5]}})[0][0] == uint8("a", shape=(0, 2))
    assert decode_body(VECTOR, {"inputs": []})[0] == (uint8("x", shape=(0,)),)


def test_a_tensor_without_axes_is_a_scalar() -> None:
    metadata = model(tensor("x", "UINT8"))
    assert decode_body(metadata, {"inputs": 7})[0] == (Tensor("x", "UINT8", (), b"\x07"),)
    assert refusal(metadata, {"instances": [7]}) == (
        "input 'x': instances: expected an integer (UINT8), got an array of 1"
    )


# --- MIaaS ---


@pytest.mark.parametrize(
    ("value", "got"), [([1], "an array of 1"), (None, "null"), (1, "1"), ("x", "the string 'x'")]
)
def test_input_data_is_an_object(value: Any, got: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        decode_input_data(VECTOR, value)
    assert caught.value.message == f"input_data: expected an object, got {got}"


def test_an_error_in_input_data_tells_its_path() -> None:
    with pytest.raises(InvalidInput) as caught:
        decode_input_data(TWO, {"a": [[1, 2]], "b": ["1"]})
    assert caught.value.message == (
        "input 'b': input_data.b[0]: expected an integer (INT64), got the string '1'"
    )


@pytest.mark.parametrize("name", ["instances", "inputs"])
def test_the_models_own_names_win_over_v1s(name: str) -> None:
    metadata = model(tensor(name, "UINT8", -1))
    assert decode_input_data(metadata, {name: [1]}) == ((uint8(name, 1),), "names")
    features = model(tensor("x", "UINT8", -1, 2), feature_names=(name, "other"))
    assert decode_input_data(features, {name: [1], "other": [2]}) == (
        (uint8("x", 1, 2, shape=(1, 2)),),
        "names",
    )
    # V1's own door is another matter.
    assert decode_body(metadata, {name: [1]})[0] == (uint8(name, 1),)
