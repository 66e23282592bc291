"""The bodies of V1 and MIaaS ↔ tensors: the rows 'V1 values' and 'MIaaS values' of docs/contracts.md."""

import struct
from typing import Any

import numpy as np
import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from adapter.core.codec import decode_body, decode_input_data, encode_answer
from adapter.core.datatypes import pack_bytes
from adapter.core.errors import InferenceFailed, InvalidInput
from adapter.core.types import AnswerForm, ModelMetadata, Tensor
from tests.fakes import model, tensor
from tests.strategies import outputs_and_their_model

FEATURES = ("sepal_length", "sepal_width", "petal_length", "petal_width")
ONES = {name: [1] for name in FEATURES}
IRIS = model(tensor("input", "FP32", -1, 4), max_batch_size=8, feature_names=FEATURES)
PHOTO = model(tensor("image_bytes", "BYTES", -1, 1), max_batch_size=8)
TWO = model(tensor("a", "FP32", -1, 2), tensor("b", "INT64", -1, 1), max_batch_size=4)
OPTIONAL = model(tensor("a", "UINT8", -1, 1), tensor("c", "UINT8", -1, 1, optional=True), max_batch_size=4)
UNBATCHED = model(tensor("a", "UINT8", -1, 2), tensor("b", "UINT8", 3))
VECTOR = model(tensor("x", "UINT8", -1))


def refusal(metadata: ModelMetadata, body: Any) -> str:
    with pytest.raises(InvalidInput) as caught:
        decode_body(metadata, body)
    return caught.value.message


def uint8(name: str, *elements: int, shape: tuple[int, ...] = ()) -> Tensor:
    return Tensor(name, "UINT8", shape or (len(elements),), bytes(elements))


def iris(*rows: tuple[float, ...]) -> tuple[Tensor, ...]:
    return (Tensor("input", "FP32", (len(rows), 4), np.array(rows, "<f4").tobytes()),)


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


# --- Named inputs ---


def test_named_rows_and_columns_of_several_inputs() -> None:
    expected = (
        Tensor("a", "FP32", (2, 2), struct.pack("<4f", 1, 2, 3, 4)),
        Tensor("b", "INT64", (2, 1), struct.pack("<2q", 2**63 - 1, -(2**63))),
    )
    rows = [{"b": [2**63 - 1], "a": [1, 2]}, {"a": [3, 4], "b": [-(2**63)]}]
    assert decode_body(TWO, {"instances": rows}) == (expected, "predictions")
    assert decode_body(TWO, {"inputs": rows}) == (expected, "predictions")
    columns = {"b": [2**63 - 1, -(2**63)], "a": [[1, 2], [3, 4]]}
    assert decode_body(TWO, {"inputs": columns}) == (expected, "outputs")
    assert decode_input_data(TWO, columns) == (expected, "names")
    assert decode_input_data(TWO, {"inputs": columns}) == (expected, "outputs")
    assert decode_input_data(TWO, {"instances": rows}) == (expected, "predictions")


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({"instances": [{"a": [1, 2]}]}, "input 'b': instances[0]: expected all of 'a', 'b', got 'a'"),
        ({"inputs": {"a": [[1, 2]]}}, "input 'b': inputs: expected all of 'a', 'b', got 'a'"),
        ({"inputs": {}}, "input 'a': inputs: expected all of 'a', 'b', got no names"),
        (
            {"inputs": {"a": [[1, 2]], "b": [1], "z": 1, "y": 1}},
            "input 'y': inputs: expected only 'a', 'b', got 'a', 'b', 'y', 'z'",
        ),
        (
            {"instances": [{"a": [1, 2], "b": 1}, {"a": [1, 2]}]},
            "input 'b': instances[1]: expected the inputs of instances[0] ('a', 'b'), got 'a'",
        ),
        (
            {"instances": [{"a": [1, 2], "b": 1}, {"a": [1, 2], "b": 1, "c": 1}]},
            "input 'c': instances[1]: expected the inputs of instances[0] ('a', 'b'), got 'a', 'b', 'c'",
        ),
        (
            {"instances": [{"a": [1, 2], "b": 1}, [[1, 2], 1]]},
            "instances[1]: expected an object as instances[0] is, got an array of 2",
        ),
        (
            {"instances": [[[1, 2], 1]]},
            "instances[0]: expected an object of the inputs 'a', 'b', got an array of 2",
        ),
        ({"inputs": 5}, "inputs: expected an object of the inputs 'a', 'b', got 5"),
        ({"inputs": []}, "inputs: expected an object of the inputs 'a', 'b', got an array of 0"),
        (
            {"inputs": {"a": [[1, 2]], "b": [1, 2]}},
            "input 'b': inputs.b: expected 1 rows as 'a' has, got 2",
        ),
        (
            {"inputs": {"a": [], "b": []}},
            "input 'a': inputs.a: expected at least one row, got an empty array",
        ),
        (
            {"inputs": {"a": [[1, 2]], "b": []}},
            "input 'b': inputs.b: expected at least one row, got an empty array",
        ),
        (
            {"inputs": {"a": [[1, 2]], "b": [1.0]}},
            "input 'b': inputs.b[0]: expected an integer (INT64), got 1.0",
        ),
        (
            {"inputs": {"a": [[1, 2]], "b": [2**63]}},
            f"input 'b': inputs.b[0]: expected INT64 from {-(2**63)} to {2**63 - 1}, got {2**63}",
        ),
    ],
)  # fmt: skip
def test_names_are_the_models_own(body: Any, message: str) -> None:
    assert refusal(TWO, body) == message


def test_optional_inputs_may_be_absent() -> None:
    both = (uint8("a", 1, 2, shape=(2, 1)), uint8("c", 3, 4, shape=(2, 1)))
    assert decode_body(OPTIONAL, {"instances": [{"a": 1, "c": 3}, {"a": 2, "c": 4}]})[0] == both
    assert decode_body(OPTIONAL, {"instances": [{"a": 1}, {"a": 2}]})[0] == both[:1]
    assert decode_body(OPTIONAL, {"inputs": {"a": [1, 2]}})[0] == both[:1]
    assert decode_input_data(OPTIONAL, {"a": [1, 2]}) == (both[:1], "names")
    assert refusal(OPTIONAL, {"inputs": {"c": [1]}}) == "input 'a': inputs: expected all of 'a', got 'c'"
    assert refusal(OPTIONAL, {"instances": [{"a": 1, "c": 3}, {"a": 2}]}) == (
        "input 'c': instances[1]: expected the inputs of instances[0] ('a', 'c'), got 'a'"
    )
    assert refusal(OPTIONAL, {"inputs": {"a": [1, 2], "c": [3]}}) == (
        "input 'c': inputs.c: expected 2 rows as 'a' has, got 1"
    )
    # The bare form is for a model with a single input.
    assert refusal(OPTIONAL, {"instances": [1]}).startswith(
        "instances[0]: expected an object of the inputs 'a', 'c'"
    )


# --- Feature names ---


def test_feature_names_fill_the_last_axis_in_their_declared_order() -> None:
    expected = iris((5.1, 3.5, 1.4, 0.2), (4.9, 3.0, 1.4, 0.2))
    rows = [
        {"petal_width": 0.2, "sepal_length": 5.1, "sepal_width": 3.5, "petal_length": 1.4},
        {"sepal_length": 4.9, "sepal_width": 3, "petal_length": 1.4, "petal_width": 0.2},
    ]
    columns = {name: [row[name] for row in rows] for name in reversed(FEATURES)}
    assert decode_body(IRIS, {"instances": rows}) == (expected, "predictions")
    assert decode_body(IRIS, {"inputs": rows}) == (expected, "predictions")
    assert decode_body(IRIS, {"inputs": columns}) == (expected, "outputs")
    assert decode_input_data(IRIS, columns) == (expected, "names")


@pytest.mark.parametrize(
    ("features", "message"),
    [
        (
            {"sepal_length": [1], "sepal_width": [1], "petal_length": [1]},
            "input 'petal_width': inputs: expected all of 'sepal_length', 'sepal_width', 'petal_length', "
            "'petal_width', got 'petal_length', 'sepal_length', 'sepal_width'",
        ),
        (
            {**ONES, "colour": [1]},
            "input 'colour': inputs: expected only 'sepal_length', 'sepal_width', 'petal_length', "
            "'petal_width', got 'colour', 'petal_length', 'petal_width', 'sepal_length', 'sepal_width'",
        ),
        (
            {**ONES, "input": [[1, 2, 3, 4]]},
            "input 'petal_length': inputs: expected only 'input', got 'input', 'petal_length', "
            "'petal_width', 'sepal_length', 'sepal_width'",
        ),
        (
            {**ONES, "petal_length": ["1"]},
            "input 'input': inputs.petal_length[0]: expected a number (FP32), got the string '1'",
        ),
        (
            {**ONES, "petal_length": [1, 2]},
            "input 'input': inputs.petal_length: expected shape [1] as 'sepal_length' has, got [2]",
        ),
        (
            {name: [] for name in FEATURES},
            "input 'input': inputs.sepal_length: expected at least one row, got an empty array",
        ),
    ],
)
def test_wrong_features_are_refused(features: Any, message: str) -> None:
    assert refusal(IRIS, {"inputs": features}) == message


def test_wrong_features_are_refused_in_rows() -> None:
    good = dict.fromkeys(FEATURES, 1)
    assert refusal(IRIS, {"instances": [good, {**good, "petal_length": None}]}) == (
        "input 'input': instances[1].petal_length: expected a number (FP32), got null"
    )
    assert refusal(IRIS, {"instances": [good, {"input": [1, 2, 3, 4]}]}).startswith(
        "input 'input': instances[1]: expected the inputs of instances[0] ('sepal_length', "
    )


def test_features_of_any_datatype_and_rank() -> None:
    words = model(tensor("words", "BYTES", -1, 2), max_batch_size=4, feature_names=("first", "last"))
    rows = [{"last": "B", "first": "A"}, {"first": {"b64": "/w=="}, "last": ""}]
    assert decode_body(words, {"instances": rows})[0] == (
        Tensor("words", "BYTES", (2, 2), pack_bytes([b"A", b"B", b"\xff", b""])),
    )
    flags = model(tensor("flags", "BOOL", -1, -1, 2), max_batch_size=4, feature_names=("p", "q"))
    assert decode_body(flags, {"inputs": {"p": [[True, True, False]], "q": [[False, True, True]]}})[0] == (
        Tensor("flags", "BOOL", (1, 3, 2), bytes([1, 0, 1, 1, 0, 1])),
    )
    halves = model(tensor("halves", "BF16", 2), feature_names=("p", "q"))
    assert decode_body(halves, {"inputs": {"p": 1, "q": 2}})[0] == (
        Tensor("halves", "BF16", (2,), b"\x80\x3f\x00\x40"),
    )


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


# --- Answers ---


def answer(*outputs: Tensor, form: AnswerForm, batched: bool = True) -> Any:
    text = orjson.dumps(encode_answer(outputs, form, batched=batched), option=orjson.OPT_SERIALIZE_NUMPY)
    return text.decode()


def test_one_output_comes_bare() -> None:
    output = Tensor("p", "FP32", (1, 3), struct.pack("<3f", 0, 0.1, 3))
    assert answer(output, form="predictions") == '{"predictions":[[0.0,0.1,3.0]]}'
    assert answer(output, form="outputs") == '{"outputs":[[0.0,0.1,3.0]]}'
    assert answer(output, form="names") == '{"p":[[0.0,0.1,3.0]]}'


def test_several_outputs_come_by_name() -> None:
    outputs = (
        Tensor("p", "FP32", (2, 2), struct.pack("<4f", 0.5, 0.25, 1, 2)),
        Tensor("n", "INT64", (2,), struct.pack("<2q", 2**63 - 1, -(2**63))),
        Tensor("label", "BYTES", (2, 1), pack_bytes([b"daisy", "é".encode()])),
        Tensor("raw_bytes", "BYTES", (2,), pack_bytes([b"A", b"B"])),
        Tensor("ok", "BOOL", (2,), b"\x01\x00"),
        Tensor("half", "FP16", (2,), struct.pack("<2e", 0.5, 3)),
    )
    assert answer(*outputs, form="predictions") == (
        '{"predictions":['
        '{"p":[0.5,0.25],"n":9223372036854775807,"label":["daisy"],"raw_bytes":{"b64":"QQ=="},"ok":true,"half":0.5},'
        '{"p":[1.0,2.0],"n":-9223372036854775808,"label":["é"],"raw_bytes":{"b64":"Qg=="},"ok":false,"half":3.0}]}'
    )
    columns = (
        '{"p":[[0.5,0.25],[1.0,2.0]],"n":[9223372036854775807,-9223372036854775808],"label":[["daisy"],["é"]],'
        '"raw_bytes":[{"b64":"QQ=="},{"b64":"Qg=="}],"ok":[true,false],"half":[0.5,3.0]}'
    )
    assert answer(*outputs, form="outputs") == f'{{"outputs":{columns}}}'
    assert answer(*outputs, form="names") == columns


def test_numbers_are_printed_as_what_they_are() -> None:
    floats = Tensor("y", "FP64", (5,), struct.pack("<5d", 3, -0.0, 0.1, 1e300, 5e-324))
    assert answer(floats, form="outputs") == '{"outputs":[3.0,-0.0,0.1,1e+300,5e-324]}'
    singles = Tensor("y", "FP32", (3,), struct.pack("<3f", 0.1, 16777216, 3.4028234663852886e38))
    assert answer(singles, form="outputs") == '{"outputs":[0.1,16777216.0,3.4028235e+38]}'
    integers = Tensor("y", "UINT64", (2,), struct.pack("<2Q", 3, 2**64 - 1))
    assert answer(integers, form="outputs") == '{"outputs":[3,18446744073709551615]}'


@pytest.mark.parametrize(("datatype", "code"), [("FP16", "e"), ("FP32", "f"), ("FP64", "d")])
def test_nan_and_the_infinities_come_as_null(datatype: str, code: str) -> None:
    data = struct.pack(f"<4{code}", float("nan"), float("inf"), float("-inf"), 1)
    assert (
        answer(Tensor("y", datatype, (4,), data), form="predictions")
        == '{"predictions":[null,null,null,1.0]}'
    )


@pytest.mark.parametrize("datatype", ["INT16", "BF16", "FP16", "FP32", "FP64", "UINT64"])
def test_an_output_may_begin_anywhere_in_its_message(datatype: str) -> None:
    aligned = Tensor(
        "y", datatype, (2,), bytes(range(2 * {"INT16": 2, "BF16": 2, "FP16": 2, "FP32": 4}.get(datatype, 8)))
    )
    moved = Tensor("y", datatype, (2,), memoryview(b"?" + bytes(aligned.data))[1:])
    assert answer(moved, form="outputs") == answer(aligned, form="outputs")


def test_a_single_output_without_axes_is_a_bare_scalar() -> None:
    output = Tensor("y", "FP32", (), struct.pack("<f", 0.1))
    assert answer(output, form="predictions", batched=False) == '{"predictions":0.1}'
    assert answer(output, form="names", batched=False) == '{"y":0.1}'


@pytest.mark.parametrize("shape", [(3,), ()])
def test_outputs_without_common_rows_are_asked_for_as_columns(shape: tuple[int, ...]) -> None:
    outputs = (uint8("a", 1, 2), Tensor("b", "UINT8", shape, bytes(shape[0] if shape else 1)))
    with pytest.raises(InvalidInput, match='send "inputs" for the columnar form'):
        encode_answer(outputs, "predictions", batched=False)
    with pytest.raises(InferenceFailed, match="differ in their number of rows"):
        encode_answer(outputs, "predictions", batched=True)
    assert set(encode_answer(outputs, "outputs", batched=False)["outputs"]) == {"a", "b"}


# --- There and back ---


def dumped(outputs: tuple[Tensor, ...], form: AnswerForm, metadata: ModelMetadata) -> Any:
    value = encode_answer(outputs, form, batched=metadata.batched)
    return orjson.loads(orjson.dumps(value, option=orjson.OPT_SERIALIZE_NUMPY))


def assert_same(decoded: tuple[Tensor, ...], outputs: tuple[Tensor, ...], metadata: ModelMetadata) -> None:
    assert [(t.name, t.datatype, t.data) for t in decoded] == [(t.name, t.datatype, t.data) for t in outputs]
    for tensor_, output in zip(decoded, outputs, strict=True):
        # Below an empty axis JSON does not show the sizes.
        known = output.shape.index(0) + 1 if 0 in output.shape else len(output.shape)
        assert tensor_.shape[:known] == output.shape[:known]
        assert len(tensor_.shape) == len(output.shape)


@given(outputs_and_their_model(rows=True))
@settings(max_examples=300)
def test_any_tensor_survives_rows(case: tuple[tuple[Tensor, ...], ModelMetadata]) -> None:
    outputs, metadata = case
    rows = dumped(outputs, "predictions", metadata)["predictions"]
    for decode in (decode_body, decode_input_data):
        decoded, form = decode(metadata, {"instances": rows})
        assert form == "predictions"
        assert_same(decoded, outputs, metadata)


@given(st.booleans().flatmap(lambda rows: outputs_and_their_model(rows=rows)))
@settings(max_examples=300)
def test_any_tensor_survives_columns_and_names(case: tuple[tuple[Tensor, ...], ModelMetadata]) -> None:
    outputs, metadata = case
    columns = dumped(outputs, "outputs", metadata)["outputs"]
    decoded, form = decode_body(metadata, {"inputs": columns})
    assert form == "outputs"
    assert_same(decoded, outputs, metadata)
    decoded, form = decode_input_data(metadata, dumped(outputs, "names", metadata))
    assert form == "names"
    assert_same(decoded, outputs, metadata)
