"""InferRequest and InferResponse ↔ the bytes of KServe's `ModelInferRequest` and `ModelInferResponse`.

The field numbers are those of the Open Inference Protocol's `grpc_service.proto`. Written out by hand because
these bytes are the hot path and what the queue carries: nothing is built in between. Tensors travel in the
raw forms (`raw_input_contents`, `raw_output_contents`) alone. Protocol Buffers encoding:
https://protobuf.dev/programming-guides/encoding/
"""

import struct
from collections.abc import Iterator, Mapping
from typing import Any

from adapter.core.types import InferRequest, InferResponse, Parameter, RequestedOutput, Tensor

_VARINT, _I64, _LEN, _I32 = 0, 1, 2, 5
_INT64_MASK = (1 << 64) - 1


def _key(number: int, wire_type: int) -> int:
    return number << 3 | wire_type


# The keys that are read. A known number with another wire type is an unknown field, and passed over.
_L1, _L2, _L3, _L4, _L5, _L6, _L7 = (_key(number, _LEN) for number in range(1, 8))
_V1, _V2, _V3, _V5 = (_key(number, _VARINT) for number in (1, 2, 3, 5))
_D4 = _key(4, _I64)
_TEXTS = {_L1, _L2, _L3}


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
    return b"%c%b%b" % (_key(number, _LEN), _varint(len(payload)), payload)


def _text(number: int, value: str) -> bytes:
    return _field(number, value.encode()) if value else b""


def _parameter(value: Parameter) -> bytes:
    """An `InferParameter`: a bool is field 1, int64 2, string 3, double 4, uint64 5."""
    match value:
        case bool():
            return b"\x08" + _varint(value)
        case int() if value >> 63 == 1:
            return b"\x28" + _varint(value)
        case int():
            return b"\x10" + _varint(value & _INT64_MASK)
        case float():
            return b"\x21" + struct.pack("<d", value)
        case str():
            return _field(3, value.encode())


def _parameters(number: int, parameters: Mapping[str, Parameter]) -> Iterator[bytes]:
    """The entries of a `map<string, InferParameter>`."""
    for name, value in parameters.items():
        yield _field(number, _text(1, name) + _field(2, _parameter(value)))


def _tensor(number: int, tensor: Tensor) -> bytes:
    shape = b"".join(map(_varint, tensor.shape))
    head = _text(1, tensor.name) + _text(2, tensor.datatype) + (_field(3, shape) if shape else b"")
    if tensor.region is not None:
        head += b"".join(_parameters(4, tensor.region.parameters))
    return _field(number, head)


def encode_request(request: InferRequest) -> bytes:
    """The serialized `ModelInferRequest`."""
    return b"".join(request_parts(request))


def request_parts(request: InferRequest) -> list[bytes | memoryview]:
    """The same in parts, one behind the other; the tensors' data are not copied."""
    head = [_text(1, request.model_name), _text(2, request.model_version), _text(3, request.id)]
    head.extend(_parameters(4, request.parameters))
    head.extend(_tensor(5, tensor) for tensor in request.inputs)
    for output in request.outputs:
        head.append(_field(6, _text(1, output.name) + b"".join(_parameters(2, output.parameters))))
    parts: list[bytes | memoryview] = [b"".join(head)]
    for tensor in request.inputs:
        if tensor.region is None:
            parts += (b"\x3a" + _varint(len(tensor.data)), tensor.data)
    return parts


def encode_response(response: InferResponse) -> bytes:
    """The serialized `ModelInferResponse`."""
    parts: list[bytes | memoryview] = [
        _text(1, response.model_name),
        _text(2, response.model_version),
        _text(3, response.id),
        *_parameters(4, response.parameters),
    ]
    parts.extend(_tensor(5, tensor) for tensor in response.outputs)
    for tensor in response.outputs:
        parts += (b"\x32", _varint(len(tensor.data)), tensor.data)
    return b"".join(parts)


def _read_varint(data: memoryview, at: int) -> tuple[int, int]:
    value = data[at]
    if value < 0x80:
        return value, at + 1
    value &= 0x7F
    for shift in range(7, 70, 7):
        at += 1
        byte = data[at]
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value & _INT64_MASK, at + 1
    raise ValueError("a number of more than ten bytes")


def _fields(data: memoryview) -> Iterator[tuple[int, Any]]:
    """Each field's key (number and wire type) with its value: an int, or a view of its bytes."""
    at, end = 0, len(data)
    while at < end:
        key, at = _read_varint(data, at)
        wire_type = key & 7
        if wire_type == _VARINT:
            value, at = _read_varint(data, at)
            yield key, value
            continue
        if wire_type == _LEN:
            size, at = _read_varint(data, at)
        elif wire_type in (_I64, _I32):
            size = 8 if wire_type == _I64 else 4
        else:
            raise ValueError(f"wire type {wire_type} is not in use")
        if at + size > end:
            raise ValueError("a field runs over the end of its message")
        yield key, data[at : at + size]
        at += size


def _signed(value: int) -> int:
    return value - (1 << 64) if value >> 63 else value


def _read_parameter(data: memoryview) -> Parameter:
    parameter: Parameter = False
    for key, value in _fields(data):
        if key == _V1:
            parameter = bool(value)
        elif key == _V2:
            parameter = _signed(value)
        elif key == _L3:
            parameter = str(value, "utf-8")
        elif key == _D4:
            (parameter,) = struct.unpack("<d", value)
        elif key == _V5:
            parameter = int(value)
    return parameter


def _read_tensor(data: memoryview) -> tuple[str, str, tuple[int, ...]]:
    name = datatype = ""
    shape: list[int] = []
    for key, value in _fields(data):
        if key == _L1:
            name = str(value, "utf-8")
        elif key == _L2:
            datatype = str(value, "utf-8")
        elif key == _V3:
            shape.append(_signed(value))
        elif key == _L3:
            at = 0
            while at < len(value):
                size, at = _read_varint(value, at)
                shape.append(_signed(size))
    return name, datatype, tuple(shape)


def _read_entry(data: memoryview) -> tuple[str, Parameter]:
    """An entry of a `map<string, InferParameter>`; Protocol Buffers leave an empty name out."""
    fields = dict(_fields(data))
    return str(fields.get(_L1, b""), "utf-8"), _read_parameter(fields.get(_L2, memoryview(b"")))


def _read_output(data: memoryview) -> RequestedOutput:
    name, parameters = "", {}
    for key, value in _fields(data):
        if key == _L1:
            name = str(value, "utf-8")
        elif key == _L2:
            entry, parameter = _read_entry(value)
            parameters[entry] = parameter
    return RequestedOutput(name, parameters)


def _read_message(
    data: bytes | memoryview, raw_key: int
) -> tuple[dict[int, str], dict[str, Parameter], list[RequestedOutput], tuple[Tensor, ...]]:
    texts: dict[int, str] = {}
    parameters: dict[str, Parameter] = {}
    outputs: list[RequestedOutput] = []
    heads: list[tuple[str, str, tuple[int, ...]]] = []
    raws: list[memoryview] = []
    for key, value in _fields(memoryview(data)):
        if key == raw_key:
            raws.append(value)
        elif key == _L5:
            heads.append(_read_tensor(value))
        elif key in _TEXTS:
            texts[key >> 3] = str(value, "utf-8")
        elif key == _L4:
            name, parameter = _read_entry(value)
            parameters[name] = parameter
        elif key == _L6:
            outputs.append(_read_output(value))
    if len(heads) != len(raws):
        raise ValueError(f"{len(heads)} tensors with {len(raws)} raw contents")
    tensors = tuple(Tensor(*head, raw) for head, raw in zip(heads, raws, strict=True))
    return texts, parameters, outputs, tensors


def decode_request(data: bytes) -> InferRequest:
    """The opposite of `encode_request`. Raises ValueError or IndexError on bytes that are not one."""
    texts, parameters, outputs, tensors = _read_message(data, raw_key=_L7)
    return InferRequest(
        texts.get(1, ""), texts.get(2, ""), tensors, tuple(outputs), texts.get(3, ""), parameters
    )


def decode_response(data: bytes | memoryview) -> InferResponse:
    """The opposite of `encode_response`; tensors are views into `data`. Raises as `decode_request` does."""
    texts, parameters, _, tensors = _read_message(data, raw_key=_L6)
    return InferResponse(texts.get(1, ""), texts.get(2, ""), tensors, texts.get(3, ""), parameters)
