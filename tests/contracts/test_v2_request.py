"""Bodies of V2 that no Triton should see: each is refused with the place of its mistake."""

import json
import tracemalloc
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adapter.contracts.v2_request import decode_request, header_length
from adapter.core.errors import InvalidInput
from adapter.core.types import ModelMetadata, TensorMetadata


def model(*inputs: TensorMetadata, batch: int = 0) -> ModelMetadata:
    return ModelMetadata("m", "1", ("1",), "python", "python", batch, inputs, ())


FP32 = model(TensorMetadata("x", "FP32", (-1,)))
BYTES = model(TensorMetadata("x", "BYTES", (-1,)))


def decode(metadata: ModelMetadata, document: Any, tail: bytes = b"") -> Any:
    head = document if isinstance(document, bytes) else json.dumps(document).encode()
    return decode_request(metadata, "", head + tail, len(head))


def of(datatype: str, count: int, size: Any) -> dict[str, Any]:
    one = {"name": "x", "datatype": datatype, "shape": [count], "parameters": {"binary_data_size": size}}
    return {"inputs": [one]}


@pytest.mark.parametrize("value", ["-1", "101", "abc", "", "1e2", "0x10", "٣", "9" * 400, " 5", "5.0", "+5"])
def test_a_header_length_that_is_none(value: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        header_length(value, 100)
    assert caught.value.message == (
        f"Inference-Header-Content-Length: expected a number from 0 to 100, got {value[:40]!r}"
    )


def test_a_header_length() -> None:
    assert header_length(None, 100) == 100
    assert header_length("7", 100) == 7
    assert header_length("100", 100) == 100


def test_a_header_length_that_cuts_the_json() -> None:
    body = json.dumps(of("FP32", 1, 4)).encode() + bytes(4)
    with pytest.raises(InvalidInput, match=r"^the body is not JSON: "):
        decode_request(FP32, "", body, 20)
    with pytest.raises(InvalidInput, match=r"^the body is not JSON: "):
        decode_request(FP32, "", body, len(body))


SIZE = "input 'x': inputs[0].parameters.binary_data_size: "


@pytest.mark.parametrize(
    ("document", "tail", "expected"),
    [
        (of("FP32", 2, 8), 4, SIZE + "expected at most the 4 bytes that are left of the body, got 8"),
        (of("FP32", 2, 4), 4, SIZE + "expected 8 for shape [2] of FP32, got 4"),
        (of("FP32", 2, 8), 9, "1 bytes follow the last input's: the sizes do not add up to the body"),
        (of("FP32", 2, -8), 8, SIZE + "expected an integer from 0, got -8"),
        (of("FP32", 2, 8.0), 8, SIZE + "expected an integer from 0, got 8.0"),
        (of("FP32", 2, True), 8, SIZE + "expected an integer from 0, got true"),
        (of("FP32", 2, 2**70), 8, SIZE + "expected an integer from 0, got 1.1805916207174113e+21"),
    ],
)
def test_sizes_that_do_not_add_up(document: Any, tail: int, expected: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        decode(FP32, document, bytes(tail))
    assert caught.value.message == expected


@pytest.mark.parametrize(
    ("count", "tail", "expected"),
    [
        (1, b"\xff\xff\xff\xffab", "elements behind their lengths, got a length of 4294967295 in element 0"),
        (2, b"\1\0\0\0a\3\0\0\0b", "elements behind their lengths, got a length of 3 in element 1"),
        (1, b"\1\0\0", "1 elements in 3 bytes, got 0 elements in 0 bytes"),
        (1, b"\1\0\0\0a\0", "1 elements in 6 bytes, got 1 elements in 5 bytes"),
        (3, b"\1\0\0\0a\0\0\0\0", "3 elements in 9 bytes, got 2 elements in 9 bytes"),
        (0, b"\0\0\0\0", "0 elements in 4 bytes, got 0 elements in 0 bytes"),
        (2**62, b"\0\0\0\0", f"{2**62} elements in 4 bytes, got 1 elements in 4 bytes"),
    ],
)
def test_length_prefixes_that_lie(count: int, tail: bytes, expected: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        decode(BYTES, of("BYTES", count, len(tail)), tail)
    assert caught.value.message.startswith(SIZE + "expected " + expected)


def test_two_thousand_inputs() -> None:
    inputs = [{"name": f"x{i}", "datatype": "FP32", "shape": [1], "data": [1]} for i in range(2000)]
    with pytest.raises(InvalidInput) as caught:
        decode(FP32, {"inputs": inputs})
    assert caught.value.message == "inputs: 'm' has 1 inputs, the request 2000"


def test_a_shape_that_no_64_bits_count() -> None:
    document = {"inputs": [{"name": "x", "datatype": "FP32", "shape": [2**62, 0, 2**62], "data": []}]}
    with pytest.raises(InvalidInput, match=r"^input 'x': inputs\[0\]\.shape: expected fewer than 2\*\*63 "):
        decode(FP32, document)


def test_elements_for_an_empty_shape() -> None:
    document = {"inputs": [{"name": "x", "datatype": "FP32", "shape": [0], "data": [1]}]}
    with pytest.raises(InvalidInput, match=r"expected 0 elements for shape \[0\], got 1$"):
        decode(FP32, document)


def test_a_shape_costs_no_memory() -> None:
    document = {"inputs": [{"name": "x", "datatype": "FP64", "shape": [2**40], "data": [1]}]}
    tracemalloc.start()
    with pytest.raises(InvalidInput, match="expected 1099511627776 elements"):
        decode(FP32, document)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 100_000


def test_binary_data_is_not_copied() -> None:
    head = json.dumps(of("FP32", 2, 8)).encode()
    body = head + bytes(8)
    request, _ = decode_request(FP32, "3", body, len(head))
    data = request.inputs[0].data
    assert isinstance(data, memoryview)
    assert data.obj is body
    assert (request.model_name, request.model_version) == ("m", "3")


@pytest.mark.parametrize(
    ("metadata", "body", "expected"),
    [
        (model(TensorMetadata("x", "FP32", (-1, -1))), bytes(8), "shape [-1, -1] does not follow"),
        (model(TensorMetadata("x", "FP32", (0, -1))), bytes(8), "shape [0, -1] does not follow"),
        (model(TensorMetadata("x", "FP32", (4,))), bytes(8), "expected 16 bytes for shape [4], got 8"),
        (model(TensorMetadata("x", "FP32", (-1, 3)), batch=4), bytes(8), "expected 12 bytes for shape [1,"),
        (model(TensorMetadata("x", "BYTES", (2,))), b"ab", "a body without JSON can hold one BYTES element"),
    ],
)  # fmt: skip
def test_a_body_without_json_of_no_known_shape(metadata: ModelMetadata, body: bytes, expected: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        decode_request(metadata, "", body, 0)
    assert caught.value.message.startswith(f"input 'x': {expected}")


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
ENTRY = st.fixed_dictionaries(
    {},
    optional={
        "name": st.sampled_from(["x", "y"]) | JSON,
        "datatype": st.sampled_from(["FP32", "BYTES", "BF16"]) | JSON,
        "shape": st.lists(st.integers(-1, 4), max_size=3) | JSON,
        "data": st.lists(st.integers(), max_size=4) | JSON,
        "parameters": JSON
        | st.fixed_dictionaries({}, optional={"binary_data_size": st.integers(-1, 20) | JSON}),
    },
)
DOCUMENT = st.fixed_dictionaries(
    {},
    optional={
        "id": JSON,
        "inputs": st.lists(ENTRY | JSON, max_size=3) | JSON,
        "outputs": st.lists(ENTRY | JSON, max_size=3) | JSON,
        "parameters": JSON,
    },
)


@given(DOCUMENT | JSON, st.binary(max_size=20), st.booleans())
def test_any_document_is_read_or_refused(document: Any, tail: bytes, strings: bool) -> None:
    with suppress(InvalidInput):
        request, _ = decode(BYTES if strings else FP32, json.dumps(document).encode(), tail)
        assert len(request.inputs) <= 1


@given(st.binary(max_size=60), st.integers(0, 60))
def test_any_bytes_are_read_or_refused(body: bytes, length: int) -> None:
    with suppress(InvalidInput):
        decode_request(BYTES, "", body, min(length, len(body)))
