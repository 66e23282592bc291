"""The decoder of large bodies of numbers: it says what the strict one says, or nothing."""

import json
from math import prod
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from adapter.contracts import body as bodies
from adapter.contracts.body import parse_json
from adapter.contracts.bulk import decode_numbers
from adapter.core.codec import decode_body
from adapter.core.errors import AdapterError
from adapter.core.types import ModelMetadata, TensorMetadata
from tests.fakes import model, tensor

NUMBERS = ["FP32", "FP64", "INT8", "INT16", "INT32", "INT64", "UINT8", "UINT16", "UINT32", "UINT64"]
TWO = model(tensor("a", "FP32", -1, 2), tensor("b", "INT64", -1, 1, optional=True), max_batch_size=4)
ONE_TWO = np.array([1, 2], "<f4").tobytes()
LOOSE = model(tensor("a", "FP64", -1, -1))


def strict(metadata: ModelMetadata, text: bytes) -> Any:
    try:
        tensors, form = decode_body(metadata, parse_json(text))
    except AdapterError as error:
        return error.code, error.message
    return [(t.name, t.datatype, t.shape, bytes(t.data)) for t in tensors], form


def bulk(metadata: ModelMetadata, text: bytes) -> Any:
    found = decode_numbers(metadata, text)
    if found is None:
        return None
    tensors, form = found
    return [(t.name, t.datatype, t.shape, bytes(t.data)) for t in tensors], form


@pytest.mark.parametrize("datatype", NUMBERS)
@pytest.mark.parametrize("root", ["instances", "inputs"])
def test_plain_numbers_are_taken(datatype: str, root: str) -> None:
    metadata = model(tensor("x", datatype, -1, 2, 2), max_batch_size=8)
    text = json.dumps({root: [[[1, 2], [3, 4]], [[5, 6], [7, 127]]]}).encode()
    found = bulk(metadata, text)
    assert found == strict(metadata, text)
    ((name, kind, shape, data),), form = found
    assert (name, kind, shape, form) == (
        "x",
        datatype,
        (2, 2, 2),
        "predictions" if root == "instances" else "outputs",
    )
    assert len(data) == 8 * int(datatype.lstrip("FPUINT")) // 8


def test_whole_columns_are_taken() -> None:
    text = b'{"inputs": {"b": [[-5], [6]], "a": [[0.5, 1], [2, 3e38]]}}'
    assert bulk(TWO, text) == strict(TWO, text)
    assert bulk(TWO, text) is not None
    for text in (b'{"inputs": {"a": [[1, 2]]}}', b'\xef\xbb\xbf {"inputs":{"a":[[1,2]]}}\n'):
        assert bulk(TWO, text) == strict(TWO, text) == ([("a", "FP32", (1, 2), ONE_TWO)], "outputs")


UNUSUAL = [
    b'{"instances": [[1, 2]], "signature_name": "x"}',
    b'{"instances": [[1, 2]], "instances": [[3, 4]]}',
    b'{"inputs": {"a": [[1, 2]], "a": [[3, 4]]}}',
    b'{"instances": [[1, 2], [3]]}',
    b'{"instances": [[[1], 2]]}',
    b'{"instances": [[1, [2]]]}',
    b'{"instances": [[[1, 2]]]}',
    b'{"instances": [1, 2]}',
    b'{"instances": []}',
    b'{"instances": [[]]}',
    b'{"instances": [[1, true]]}',
    b'{"instances": [[1, null]]}',
    b'{"instances": [[1, "2"]]}',
    b'{"instances": [[1, {"a": 2}]]}',
    b'{"instances": [[1, NaN]]}',
    b'{"instances": [[1, 1e39]]}',
    b'{"instances": [[1, 1e400]]}',
    b'{"instances": [[1, 123456789012345678901234567890]]}',
    b'{"instances": [{"a": [1, 2]}]}',
    b'{"instances": [[1, 2]]',
    b'{"instances": [[1, 2]]} ]',
    b'{"instances": "[[1, 2]]"}',
    b"[[1, 2]]",
    b"7",
    b"",
    b"\xff",
]


@pytest.mark.parametrize("text", UNUSUAL)
def test_what_is_unusual_is_left_to_the_strict_decoder(text: bytes) -> None:
    single = model(tensor("a", "FP32", -1, 2), max_batch_size=4)
    assert bulk(single, text) is None


@pytest.mark.parametrize("datatype", ["BOOL", "FP16", "BF16", "BYTES"])
def test_other_datatypes_are_left_to_the_strict_decoder(datatype: str) -> None:
    assert bulk(model(tensor("a", datatype, -1, 2)), b'{"instances": [[1, 2]]}') is None


@pytest.mark.parametrize(
    ("datatype", "number"),
    [
        ("UINT8", "256"),
        ("INT8", "-129"),
        ("UINT64", "-1"),
        ("INT64", "9223372036854775808"),
        ("INT32", "1.0"),
    ],
)
def test_a_number_that_does_not_fit_is_left_to_the_strict_decoder(datatype: str, number: str) -> None:
    text = b'{"instances": [[1, %b]]}' % number.encode()
    metadata = model(tensor("a", datatype, -1, 2))
    assert bulk(metadata, text) is None
    assert strict(metadata, text)[0] == "invalid_input"


def test_rows_that_differ_in_number_are_left_to_the_strict_decoder() -> None:
    assert bulk(TWO, b'{"inputs": {"b": [[5]], "a": [[1, 2], [3, 4]]}}') is None


def test_limits_hold_for_both(monkeypatch: pytest.MonkeyPatch) -> None:
    text = json.dumps({"instances": [[1.0] * 20] * 20}).encode()
    assert bulk(LOOSE, text) is not None
    for name, most in (("MAX_CONTAINERS", 21), ("MAX_ELEMENTS", 420)):
        monkeypatch.setattr(bodies, name, most)
        monkeypatch.setattr("adapter.contracts.bulk." + name, most)
        assert bulk(LOOSE, text) is None
        assert strict(LOOSE, text)[0] == "payload_too_large"
        monkeypatch.undo()


ODD = st.sampled_from(
    [True, None, "1", "NaN", [1], [], {}, {"b64": "AA=="}, 2**53 + 1, 2**63, 2**64, -0.0, 1e39]
)
ELEMENTS = st.one_of(
    st.integers(-130, 260), st.integers(-(2**65), 2**65), st.floats(allow_nan=True), st.floats(width=32), ODD
)


DECLARED = st.builds(
    tensor,
    st.sampled_from("ab"),
    st.sampled_from([*NUMBERS, "BOOL"]),
    *[st.sampled_from([-1, -1, 1, 2, 0])] * 2,
)


@st.composite
def nested(draw: st.DrawFn, declared: TensorMetadata, rows: int) -> Any:
    """Mostly a regular array of numbers that the input takes; now and then something in it is not."""
    shape = [rows, *(size if size >= 0 else draw(st.integers(0, 3)) for size in declared.shape[1:])]
    if draw(st.integers(0, 9)) == 0:
        shape = draw(st.lists(st.integers(0, 3), min_size=1, max_size=3))
    count = prod(shape)
    small, floats = st.integers(0, 127), st.floats(-100, 100, width=32)
    fitting = st.one_of(small, floats) if declared.datatype.startswith("FP") else small
    flat: list[Any] = draw(st.lists(fitting, min_size=count, max_size=count))
    if flat and draw(st.integers(0, 3)) == 0:
        flat[draw(st.integers(0, count - 1))] = draw(ELEMENTS)
    values = flat
    for size in reversed(shape[1:]):
        values = [values[i : i + size] for i in range(0, len(values), size)] if size else [[]] * rows
    if values and draw(st.integers(0, 9)) == 0:
        values[0] = draw(ELEMENTS)
    return values


@st.composite
def cases(draw: st.DrawFn) -> tuple[bytes, ModelMetadata]:
    """A document and a model, which mostly takes it."""
    inputs = draw(st.lists(DECLARED, min_size=1, max_size=2, unique_by=lambda declared: declared.name))
    batched = draw(st.booleans())
    if batched:
        inputs = [tensor(each.name, each.datatype, -1, *each.shape[1:]) for each in inputs]
    rows = draw(st.integers(1, 3))
    root = draw(st.sampled_from(["instances", "inputs"]))
    value: Any = draw(nested(inputs[0], rows))
    if len(inputs) > 1 or draw(st.integers(0, 4)) == 0:
        value = {each.name: draw(nested(each, rows)) for each in inputs}
        root = "inputs"
    text = json.dumps({root: value}, separators=draw(st.sampled_from([(",", ":"), (", ", ": ")])))
    if draw(st.integers(0, 9)) == 0:
        cut = draw(st.integers(0, len(text)))
        text = (
            text[:cut] + draw(st.sampled_from(["", "]", ",", "1", "e", '"', " ", "\x00"])) + text[cut + 1 :]
        )
    return text.encode(), model(*inputs, max_batch_size=4 if batched else 0)


@given(cases())
@example((b'{"instances": [[[1], 2]]}', model(tensor("a", "FP32", -1, 2))))
def test_no_document_is_decoded_differently(case: tuple[bytes, ModelMetadata]) -> None:
    text, metadata = case
    found = bulk(metadata, text)
    assert found is None or found == strict(metadata, text)
