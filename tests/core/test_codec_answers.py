"""Tensors → the answers of V1 and MIaaS, and back again."""

import struct
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from adapter.core.codec import decode_body, decode_input_data, encode_answer
from adapter.core.datatypes import pack_bytes
from adapter.core.errors import InferenceFailed, InvalidInput
from adapter.core.types import AnswerForm, ModelMetadata, Tensor
from tests.core.bodies import (
    uint8,
)
from tests.strategies import outputs_and_their_model

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
