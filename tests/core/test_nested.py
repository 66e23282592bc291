"""One nested list ↔ one tensor: strict types and ranges, shapes, b64, and errors that tell the place."""

import struct
from math import prod
from typing import Any

import numpy as np
import pytest

from adapter.core.datatypes import DATATYPES, pack_bytes, to_bf16
from adapter.core.errors import InferenceFailed, InvalidInput
from adapter.core.nested import decode_tensor, describe, indices, to_json
from adapter.core.types import Tensor
from tests.fakes import tensor

NAN, INFINITY = float("nan"), float("inf")


def decode(datatype: str, value: Any, *shape: int) -> Tensor:
    return decode_tensor(tensor("x", datatype, *shape or (-1,)), value, lambda at: "inputs" + indices(at))


def refusal(datatype: str, value: Any, *shape: int) -> str:
    with pytest.raises(InvalidInput) as caught:
        decode(datatype, value, *shape)
    error = caught.value
    details = error.details or {}
    # The same in words and in fields.
    assert set(details) == {"input", "path", "expected", "got"}
    assert (
        error.message == f"input 'x': {details['path']}: expected {details['expected']}, got {details['got']}"
    )
    return error.message.removeprefix("input 'x': ")


LIMITS = {
    "INT8": (-(2**7), 2**7 - 1),
    "INT16": (-(2**15), 2**15 - 1),
    "INT32": (-(2**31), 2**31 - 1),
    "INT64": (-(2**63), 2**63 - 1),
    "UINT8": (0, 2**8 - 1),
    "UINT16": (0, 2**16 - 1),
    "UINT32": (0, 2**32 - 1),
    "UINT64": (0, 2**64 - 1),
}
FLOATS = ("FP16", "BF16", "FP32", "FP64")


@pytest.mark.parametrize(("datatype", "limits"), LIMITS.items())
def test_integers_pass_exactly_up_to_their_limits(datatype: str, limits: tuple[int, int]) -> None:
    values = [limits[0], limits[0] + 1, 0, limits[1] - 1, limits[1]]
    data = decode(datatype, values).data
    size = DATATYPES[datatype].itemsize
    signed = limits[0] < 0
    assert data == b"".join(value.to_bytes(size, "little", signed=signed) for value in values)


@pytest.mark.parametrize(("datatype", "limits"), LIMITS.items())
def test_integers_beyond_their_limits_are_refused(datatype: str, limits: tuple[int, int]) -> None:
    expected = f"{datatype} from {limits[0]} to {limits[1]}"
    for value in (limits[0] - 1, limits[1] + 1):
        assert refusal(datatype, [0, value]) == f"inputs[1]: expected {expected}, got {value}"


@pytest.mark.parametrize(
    ("datatype", "value"), [("UINT8", 300), ("UINT8", -1), ("UINT64", -1), ("UINT64", 2**64)]
)
def test_nothing_is_wrapped(datatype: str, value: int) -> None:
    assert f"got {value}" in refusal(datatype, [value])


@pytest.mark.parametrize("datatype", LIMITS)
@pytest.mark.parametrize(
    ("value", "got"),
    [
        (1.0, "1.0"),
        (1.5, "1.5"),
        (1e19, "1e+19"),
        (True, "true"),
        (None, "null"),
        ("1", "the string '1'"),
        (NAN, "nan"),
        ([1], "an array of 1"),
        ({"b64": "AQ=="}, "an object with 'b64'"),
    ],
)
def test_only_integers_are_integers(datatype: str, value: Any, got: str) -> None:
    assert refusal(datatype, [1, value]) == f"inputs[1]: expected an integer ({datatype}), got {got}"


@pytest.mark.parametrize("datatype", FLOATS)
@pytest.mark.parametrize(
    ("value", "got"),
    [
        (True, "true"),
        (False, "false"),
        (None, "null"),
        ("1.5", "the string '1.5'"),
        ("NaN", "the string 'NaN'"),
        ([], "an array of 0"),
        ({}, "an object with no members"),
    ],
)
def test_only_numbers_are_numbers(datatype: str, value: Any, got: str) -> None:
    assert refusal(datatype, [1.5, value]) == f"inputs[1]: expected a number ({datatype}), got {got}"


@pytest.mark.parametrize(
    ("value", "got"), [(0, "0"), (1, "1"), (1.0, "1.0"), ("true", "the string 'true'"), (None, "null")]
)
def test_only_booleans_are_booleans(value: Any, got: str) -> None:
    assert refusal("BOOL", [True, value]) == f"inputs[1]: expected a boolean (BOOL), got {got}"


def test_booleans_are_one_byte_each() -> None:
    assert decode("BOOL", [True, False, True]) == Tensor("x", "BOOL", (3,), b"\x01\x00\x01")


# The greatest finite number, and the least that would round to infinity.
RANGES = [
    ("FP16", 65504.0, 65520.0),
    ("BF16", 3.3895313892515355e38, 2.0**128 - 2.0**119),
    ("FP32", 3.4028234663852886e38, 2.0**128 - 2.0**103),
]


@pytest.mark.parametrize(("datatype", "greatest", "too_large"), RANGES)
def test_floats_never_become_infinite(datatype: str, greatest: float, too_large: float) -> None:
    last = float(np.nextafter(too_large, 0))
    assert decode(datatype, [last, -last]).data == decode(datatype, [greatest, -greatest]).data
    for value in (too_large, -too_large):
        expected = f"a number within {datatype}'s range"
        assert refusal(datatype, [0, value]) == f"inputs[1]: expected {expected}, got {value!r}"


@pytest.mark.parametrize(
    ("datatype", "value"), [("FP32", 1e39), ("FP32", -1e39), ("FP16", 1e5), ("BF16", 1e39), ("FP64", 10**309)]
)
def test_numbers_out_of_range_are_refused(datatype: str, value: float) -> None:
    assert refusal(datatype, [1.0, INFINITY, value]).startswith(
        f"inputs[2]: expected a number within {datatype}'s range, got {'-' if value < 0 else ''}1"
    )


@pytest.mark.parametrize(
    ("datatype", "data"),
    [
        ("FP16", struct.pack("<3e", NAN, INFINITY, -INFINITY)),
        ("BF16", b"\xc0\x7f\x80\x7f\x80\xff"),
        ("FP32", struct.pack("<3f", NAN, INFINITY, -INFINITY)),
        ("FP64", struct.pack("<3d", NAN, INFINITY, -INFINITY)),
    ],
)
def test_nan_and_the_infinities_are_taken_as_they_are(datatype: str, data: bytes) -> None:
    assert decode(datatype, [NAN, INFINITY, -INFINITY]).data == data


@pytest.mark.parametrize(
    ("datatype", "data"),
    [
        ("FP16", struct.pack("<4e", 1, 0.1, -0.0, 3)),
        ("BF16", b"\x80\x3f\xcd\x3d\x00\x80\x40\x40"),
        ("FP32", struct.pack("<4f", 1, 0.1, -0.0, 3)),
        ("FP64", struct.pack("<4d", 1, 0.1, -0.0, 3)),
    ],
)
def test_numbers_are_rounded_to_the_nearest(datatype: str, data: bytes) -> None:
    assert decode(datatype, [1, 0.1, -0.0, 3.0]).data == data


def test_large_integers_are_numbers() -> None:
    assert decode("FP64", [2**64 - 1, 10**300]).data == struct.pack("<2d", 2.0**64, 1e300)
    assert decode("FP32", [2**64 - 1]).data == struct.pack("<f", 2.0**64)


@pytest.mark.parametrize(
    ("value", "element"),
    [
        ("", b""),
        ("é€😀", "é€😀".encode()),
        ("a\0b", b"a\0b"),
        ({"b64": ""}, b""),
        ({"b64": "QQ=="}, b"A"),
        ({"b64": "QUI="}, b"AB"),
        ({"b64": "+/+/"}, b"\xfb\xff\xbf"),
    ],
)
def test_bytes_are_strings_or_b64(value: Any, element: bytes) -> None:
    assert decode("BYTES", [value]) == Tensor("x", "BYTES", (1,), pack_bytes([element]))


@pytest.mark.parametrize(
    "text",
    [
        *("Q", "QQ", "QQ=", "QUI", "QUJDR", "=", "====", "QQ==QQ==", "QQ===", "QUJD=", "QUJD====", "QQ=A"),
        *("Q Q=", "QQ==\n", "\nQQ==", "QUJ\n", "-_-_", "QQé=", "Q\0==", "QQ= ="),
    ],
)
def test_b64_is_held_to_alphabet_and_padding(text: str) -> None:
    expected = "b64 in the standard base64 alphabet, padded (RFC 4648)"
    assert (
        refusal("BYTES", ["ok", {"b64": text}]) == f"inputs[1]: expected {expected}, got an object with 'b64'"
    )


@pytest.mark.parametrize(
    ("value", "got"),
    [
        (1, "1"),
        (None, "null"),
        (True, "true"),
        ({"b64": 1}, "an object with 'b64'"),
        ({"b64": "QQ==", "x": 1}, "an object with 'b64', 'x'"),
        ({"B64": "QQ=="}, "an object with 'B64'"),
        ({}, "an object with no members"),
        (["a"], "an array of 1"),
    ],
)
def test_anything_else_is_no_bytes(value: Any, got: str) -> None:
    expected = 'a string or {"b64": "…"} (BYTES)'
    assert refusal("BYTES", ["a", value]) == f"inputs[1]: expected {expected}, got {got}"


@pytest.mark.parametrize(
    ("value", "declared", "shape"),
    [
        ([[1, 2], [3, 4]], (-1, 2), (2, 2)),
        ([[1, 2], [3, 4]], (-1, -1), (2, 2)),
        ([[[1]], [[2]]], (2, 1, 1), (2, 1, 1)),
        (1, (), ()),
        (1, (1,), (1,)),
        ([1], (1,), (1,)),
        ([1, 2, 3], (-1, 1), (3, 1)),
        ([[1], [2], [3]], (-1, 1), (3, 1)),
        ([[1], 2, [3]], (-1, 1), (3, 1)),
        ([[[1], 2], [3, [4]]], (2, -1, 1), (2, 2, 1)),
        ([], (-1,), (0,)),
        ([], (-1, 3), (0, 3)),
        ([], (-1, -1, 1), (0, 0, 1)),
        ([[], []], (-1, -1), (2, 0)),
        ([[[], []]], (-1, 2, -1), (1, 2, 0)),
    ],
)
def test_shapes(value: Any, declared: tuple[int, ...], shape: tuple[int, ...]) -> None:
    decoded = decode_tensor(tensor("x", "UINT8", *declared), value, str)
    assert decoded.shape == shape
    assert list(decoded.data) == list(range(1, prod(shape) + 1))


@pytest.mark.parametrize(
    ("value", "declared", "message"),
    [
        # Ragged.
        ([[1, 2], [3]], (-1, -1), "inputs[1]: expected an array of 2, got an array of 1"),
        ([[[1], [2]], [[3]]], (-1, -1, -1), "inputs[1]: expected an array of 2, got an array of 1"),
        ([[[1, 2], [3]]], (-1, -1, -1), "inputs[0][1]: expected an array of 2, got an array of 1"),
        ([[], [1]], (-1, -1), "inputs[1]: expected an array of 0, got an array of 1"),
        ([[1], 2], (-1, -1), "inputs[1]: expected an array (2 axes in all, shape [-1, -1]), got 2"),
        # Wrong size of an axis.
        ([[1, 2, 3]], (-1, 4), "inputs[0]: expected an array of 4, got an array of 3"),
        ([[1, 2], [3, 4]], (3, -1), "inputs: expected an array of 3, got an array of 2"),
        ([[[1]], [[2], [3]]], (2, 1, 1), "inputs[1]: expected an array of 1, got an array of 2"),
        ([[1], []], (-1, 1), "inputs[1]: expected an array of 1, got an array of 0"),
        ([1, [2, 3]], (-1, 1), "inputs[1]: expected an array of 1, got an array of 2"),
        # Wrong rank.
        (1, (-1,), "inputs: expected an array (1 axes in all, shape [-1]), got 1"),
        ([1, 2], (-1, 2), "inputs[0]: expected an array (2 axes in all, shape [-1, 2]), got 1"),
        ([[1]], (-1,), "inputs[0]: expected an integer (INT8), got an array of 1"),
        ([1], (), "inputs: expected an integer (INT8), got an array of 1"),
        (1, (1, 1), "inputs: expected an array (2 axes in all, shape [1, 1]), got 1"),
        ({"a": 1}, (-1,), "inputs: expected an array (1 axes in all, shape [-1]), got an object with 'a'"),
        # The path of an element that stands bare for its axis of size 1 ends where the element stands.
        ([1, "2"], (-1, 1), "inputs[1]: expected an integer (INT8), got the string '2'"),
        ([[1], ["2"]], (-1, 1), "inputs[1][0]: expected an integer (INT8), got the string '2'"),
        ([[1], "2"], (-1, 1), "inputs[1]: expected an integer (INT8), got the string '2'"),
        ([2, [1.5]], (-1, 1), "inputs[1][0]: expected an integer (INT8), got 1.5"),
        (200, (1,), "inputs: expected INT8 from -128 to 127, got 200"),
        # The first of several.
        ([[1, 2], [None, 2.5]], (-1, 2), "inputs[1][0]: expected an integer (INT8), got null"),
        ([[[0], [0]], [[999], [999]]], (2, 2, 1), "inputs[1][0][0]: expected INT8 from -128 to 127, got 999"),
    ],
)  # fmt: skip
def test_wrong_shapes_are_refused_with_their_place(
    value: Any, declared: tuple[int, ...], message: str
) -> None:
    with pytest.raises(InvalidInput) as caught:
        decode_tensor(tensor("x", "INT8", *declared), value, lambda at: "inputs" + indices(at))
    assert caught.value.message == f"input 'x': {message}"


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (None, "null"),
        (False, "false"),
        (-1.5, "-1.5"),
        (10**50, "1" + "0" * 39 + "…"),
        ("é", "the string 'é'"),
        ("a" * 41, f"the string {'a' * 40!r}…"),
        ([1, 2], "an array of 2"),
        ({"a": 1, "b" * 50: 2, "c": 3, "d": 4}, f"an object with 'a', {'b' * 40!r}, 'c'"),
    ],
)
def test_a_value_in_a_few_words(value: Any, words: str) -> None:
    assert describe(value) == words


def test_fp16_and_bf16_come_back_as_the_single_precision_numbers_they_are() -> None:
    assert to_json(Tensor("y", "FP16", (2,), struct.pack("<2e", 0.1, 65504))).tolist() == [
        0.0999755859375,
        65504.0,
    ]
    bits = to_bf16(np.array([0.1, -3.0])).tobytes()
    assert to_json(Tensor("y", "BF16", (2,), bits)).tolist() == [0.10009765625, -3.0]


def test_strings_come_back_as_strings_in_their_shape() -> None:
    elements = [text.encode() for text in ("a", "é", "", "d")]
    assert to_json(Tensor("y", "BYTES", (2, 2), pack_bytes(elements))) == [["a", "é"], ["", "d"]]


def test_outputs_that_end_in_bytes_come_back_as_b64() -> None:
    data = pack_bytes([b"A", b""])
    assert to_json(Tensor("image_bytes", "BYTES", (2,), data)) == [{"b64": "QQ=="}, {"b64": ""}]
    assert to_json(Tensor("bytes_image", "BYTES", (2,), data)) == ["A", ""]


def test_one_element_that_is_not_utf8_makes_the_whole_output_b64() -> None:
    data = pack_bytes([b"A", b"\xff", "é".encode()])
    assert to_json(Tensor("y", "BYTES", (3,), data)) == [{"b64": "QQ=="}, {"b64": "/w=="}, {"b64": "w6k="}]


def test_an_encoded_surrogate_is_not_utf8() -> None:
    assert to_json(Tensor("y", "BYTES", (1,), pack_bytes([b"\xed\xa0\x80"]))) == [{"b64": "7aCA"}]


@pytest.mark.parametrize(
    ("shape", "value"),
    [((0,), []), ((0, 3), []), ((2, 0), [[], []]), ((2, 0, 3), [[], []]), ((1, 2, 0), [[[], []]])],
)
def test_empty_axes_come_back(shape: tuple[int, ...], value: Any) -> None:
    assert to_json(Tensor("y", "BYTES", shape, b"")) == value
    assert to_json(Tensor("y", "FP32", shape, b"")).tolist() == value


def test_an_output_without_axes_is_a_scalar() -> None:
    assert to_json(Tensor("y", "BYTES", (), pack_bytes([b"a"]))) == "a"
    assert to_json(Tensor("y", "INT16", (), b"\x05\x00")) == 5


@pytest.mark.parametrize(
    "output",
    [
        Tensor("y", "FP32", (2,), bytes(4)),
        Tensor("y", "FP32", (1,), bytes(5)),
        Tensor("y", "FP32", (), b""),
        Tensor("y", "BYTES", (2,), pack_bytes([b"a"])),
        Tensor("y", "BYTES", (1,), b"\x05\0\0\0ab"),
        Tensor("y", "BYTES", (), b""),
    ],
)
def test_an_output_whose_data_does_not_fit_its_shape_is_the_models_fault(output: Tensor) -> None:
    with pytest.raises(InferenceFailed, match="output 'y': its data does not fit its shape"):
        to_json(output)
