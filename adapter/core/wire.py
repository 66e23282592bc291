"""InferRequest and InferResponse ↔ the bytes of KServe's `ModelInferRequest` and `ModelInferResponse`.

The field numbers are those of the Open Inference Protocol's `grpc_service.proto`. Written out by hand because
these bytes are the hot path and what the queue carries: nothing is built in between. Tensors travel in the
raw forms (`raw_input_contents`, `raw_output_contents`) alone. Protocol Buffers encoding:
https://protobuf.dev/programming-guides/encoding/
"""

import struct
from collections.abc import Iterator
from typing import Any

from adapter.core.types import InferRequest, InferResponse, Parameter, Tensor

_VARINT, _I64, _LEN, _I32 = 0, 1, 2, 5
_INT64_MASK = (1 << 64) - 1


def _varint(value: int) -> bytes:
    if value < 0x80:
        return bytes((value,))
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def _field(number: int, payload: bytes) -> bytes:
    return b"%c%b%b" % (number << 3 | _LEN, _varint(len(payload)), payload)


def _text(number: int, value: str) -> bytes:
    return _field(number, value.encode()) if value else b""


def _parameter(value: Parameter) -> bytes:
    """An `InferParameter`: bool_param = 1, int64_param = 2, string_param = 3, double_param = 4."""
    match value:
        case bool():
            return b"\x08" + _varint(value)
        case int():
            return b"\x10" + _varint(value & _INT64_MASK)
        case float():
            return b"\x21" + struct.pack("<d", value)
        case str():
            return _field(3, value.encode())


def _tensor(number: int, tensor: Tensor) -> bytes:
    shape = b"".join(map(_varint, tensor.shape))
    head = _text(1, tensor.name) + _text(2, tensor.datatype)
    return _field(number, head + (_field(3, shape) if shape else b""))


def encode_request(request: InferRequest) -> bytes:
    """The serialized `ModelInferRequest`."""
    parts: list[bytes | memoryview] = [
        _text(1, request.model_name),
        _text(2, request.model_version),
        _text(3, request.id),
    ]
    for name, value in request.parameters.items():
        parts.append(_field(4, _text(1, name) + _field(2, _parameter(value))))
    parts.extend(_tensor(5, tensor) for tensor in request.inputs)
    parts.extend(_field(6, _text(1, name)) for name in request.outputs)
    for tensor in request.inputs:
        parts += (b"\x3a", _varint(len(tensor.data)), tensor.data)
    return b"".join(parts)


def encode_response(response: InferResponse) -> bytes:
    """The serialized `ModelInferResponse`."""
    parts: list[bytes | memoryview] = [
        _text(1, response.model_name),
        _text(2, response.model_version),
        _text(3, response.id),
    ]
    parts.extend(_tensor(5, tensor) for tensor in response.outputs)
    for tensor in response.outputs:
        parts += (b"\x32", _varint(len(tensor.data)), tensor.data)
    return b"".join(parts)


def _read_varint(data: memoryview, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7


def _fields(data: memoryview) -> Iterator[tuple[int, Any]]:
    """Each field's number with its value: an int, or a view of its bytes."""
    at, end = 0, len(data)
    while at < end:
        tag, at = _read_varint(data, at)
        wire_type = tag & 7
        if wire_type == _VARINT:
            value, at = _read_varint(data, at)
            yield tag >> 3, value
            continue
        if wire_type == _LEN:
            size, at = _read_varint(data, at)
        elif wire_type in (_I64, _I32):
            size = 8 if wire_type == _I64 else 4
        else:
            raise ValueError(f"wire type {wire_type} is not in use")
        if at + size > end:
            raise ValueError("a field runs over the end of its message")
        yield tag >> 3, data[at : at + size]
        at += size


def _signed(value: int) -> int:
    return value - (1 << 64) if value >> 63 else value


def _read_parameter(data: memoryview) -> Parameter:
    for number, value in _fields(data):
        match number:
            case 1:
                return bool(value)
            case 2:
                return _signed(value)
            case 3:
                return str(value, "utf-8")
            case 4:
                return float(struct.unpack("<d", value)[0])
            case 5:
                return int(value)
    return False


def _read_tensor(data: memoryview) -> tuple[str, str, tuple[int, ...]]:
    name = datatype = ""
    shape: list[int] = []
    for number, value in _fields(data):
        if number == 1:
            name = str(value, "utf-8")
        elif number == 2:
            datatype = str(value, "utf-8")
        elif number == 3 and isinstance(value, int):
            shape.append(_signed(value))
        elif number == 3:
            at = 0
            while at < len(value):
                size, at = _read_varint(value, at)
                shape.append(_signed(size))
    return name, datatype, tuple(shape)


def _read_message(
    data: bytes, tensor_field: int, raw_field: int
) -> tuple[dict[int, str], dict[str, Parameter], list[str], tuple[Tensor, ...]]:
    texts: dict[int, str] = {}
    parameters: dict[str, Parameter] = {}
    outputs: list[str] = []
    heads: list[tuple[str, str, tuple[int, ...]]] = []
    raws: list[memoryview] = []
    for number, value in _fields(memoryview(data)):
        if number <= 3:
            texts[number] = str(value, "utf-8")
        elif number == tensor_field:
            heads.append(_read_tensor(value))
        elif number == raw_field:
            raws.append(value)
        elif number == 4:
            entry = dict(_fields(value))
            parameters[str(entry[1], "utf-8")] = _read_parameter(entry.get(2, memoryview(b"")))
        elif number == 6:
            outputs.append(str(dict(_fields(value))[1], "utf-8"))
    if len(heads) != len(raws):
        raise ValueError(f"{len(heads)} tensors with {len(raws)} raw contents")
    tensors = tuple(Tensor(*head, raw) for head, raw in zip(heads, raws, strict=True))
    return texts, parameters, outputs, tensors


def decode_request(data: bytes) -> InferRequest:
    """The opposite of `encode_request`. Raises ValueError or IndexError on bytes that are not one."""
    texts, parameters, outputs, tensors = _read_message(data, 5, 7)
    return InferRequest(
        texts.get(1, ""), texts.get(2, ""), tensors, tuple(outputs), texts.get(3, ""), parameters
    )


def decode_response(data: bytes) -> InferResponse:
    """The opposite of `encode_response`; tensors are views into `data`. Raises as `decode_request` does."""
    texts, _, _, tensors = _read_message(data, 5, 6)
    return InferResponse(texts.get(1, ""), texts.get(2, ""), tensors, texts.get(3, ""))
