"""Inputs by name, and features by name, in rows and in columns."""

import struct
from typing import Any

import pytest

from adapter.core.codec import decode_body, decode_input_data
from adapter.core.datatypes import pack_bytes
from adapter.core.types import Tensor
from tests.core.bodies import (
    FEATURES,
    IRIS,
    ONES,
    OPTIONAL,
    TWO,
    iris,
    refusal,
    uint8,
)
from tests.fakes import model, tensor

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
