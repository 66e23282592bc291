"""The hand-written wire format against tritonclient's generated classes, both ways."""

from collections.abc import Mapping
from contextlib import suppress
from itertools import product
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tritonclient.grpc import service_pb2 as pb

from adapter.core.types import InferRequest, InferResponse, Parameter, RequestedOutput, Tensor
from adapter.core.wire import decode_request, decode_response, encode_request, encode_response

INT64 = st.integers(-(2**63), 2**63 - 1)
NAMES = st.text(max_size=20)
PARAMETERS = st.dictionaries(
    NAMES,
    st.booleans() | INT64 | st.sampled_from([-(2**63), 2**63 - 1]) | NAMES | st.floats(allow_nan=False),
    max_size=4,
)
TENSORS = st.lists(
    st.builds(
        Tensor,
        name=NAMES,
        datatype=st.sampled_from(["BOOL", "INT64", "FP32", "BYTES"]),
        shape=st.lists(st.integers(0, 2**63 - 1), max_size=4).map(tuple),
        data=st.binary(max_size=300),
        region=st.none(),
    ),
    max_size=20,
).map(tuple)
REQUESTS = st.builds(
    InferRequest,
    model_name=NAMES,
    model_version=NAMES,
    inputs=TENSORS,
    outputs=st.lists(st.builds(RequestedOutput, name=NAMES, parameters=PARAMETERS), max_size=3).map(tuple),
    id=NAMES,
    parameters=PARAMETERS,
)
RESPONSES = st.builds(
    InferResponse,
    model_name=NAMES,
    model_version=NAMES,
    outputs=TENSORS,
    id=NAMES,
    parameters=PARAMETERS,
)


def read_parameter(parameter: Any) -> object:
    return getattr(parameter, parameter.WhichOneof("parameter_choice"))


def read_tensors(heads: Any, raws: Any) -> tuple[Tensor, ...]:
    return tuple(
        Tensor(head.name, head.datatype, tuple(head.shape), raw)
        for head, raw in zip(heads, raws, strict=True)
    )


def to_protobuf(request: InferRequest) -> Any:
    message = pb.ModelInferRequest(
        model_name=request.model_name, model_version=request.model_version, id=request.id
    )
    set_parameters(message, request.parameters)
    for tensor in request.inputs:
        message.inputs.add(name=tensor.name, datatype=tensor.datatype, shape=tensor.shape)
        message.raw_input_contents.append(bytes(tensor.data))
    for output in request.outputs:
        set_parameters(message.outputs.add(name=output.name), output.parameters)
    return message


def set_parameters(message: Any, parameters: Mapping[str, Parameter]) -> None:
    kinds = {bool: "bool_param", int: "int64_param", str: "string_param", float: "double_param"}
    for name, value in parameters.items():
        setattr(message.parameters[name], kinds[type(value)], value)


def get_parameters(message: Any) -> dict[str, object]:
    return {name: read_parameter(value) for name, value in message.parameters.items()}


@given(REQUESTS)
def test_a_request_is_read_by_the_generated_classes(request: InferRequest) -> None:
    message = pb.ModelInferRequest.FromString(encode_request(request))
    assert (message.model_name, message.model_version, message.id) == (
        request.model_name,
        request.model_version,
        request.id,
    )
    assert read_tensors(message.inputs, message.raw_input_contents) == request.inputs
    assert [(output.name, get_parameters(output)) for output in message.outputs] == [
        (output.name, output.parameters) for output in request.outputs
    ]
    parameters = get_parameters(message)
    assert parameters == request.parameters
    assert {name: type(value) for name, value in parameters.items()} == {
        name: type(value) for name, value in request.parameters.items()
    }


@given(REQUESTS)
def test_a_request_of_the_generated_classes_is_read(request: InferRequest) -> None:
    assert decode_request(to_protobuf(request).SerializeToString()) == request


@given(REQUESTS)
def test_a_request_survives_the_queue(request: InferRequest) -> None:
    assert decode_request(encode_request(request)) == request


@given(RESPONSES)
def test_a_response_goes_both_ways(response: InferResponse) -> None:
    message = pb.ModelInferResponse.FromString(encode_response(response))
    assert (message.model_name, message.model_version, message.id) == (
        response.model_name,
        response.model_version,
        response.id,
    )
    assert read_tensors(message.outputs, message.raw_output_contents) == response.outputs
    assert get_parameters(message) == response.parameters
    assert decode_response(message.SerializeToString()) == response


def test_a_response_with_parameters_and_unknown_fields_is_read() -> None:
    message = pb.ModelInferResponse(model_name="iris", model_version="2")
    message.parameters["sequence_id"].int64_param = 7
    message.outputs.add(name="p", datatype="UINT8", shape=[2]).parameters["binary_data_size"].int64_param = 2
    message.raw_output_contents.append(b"\x01\x02")
    # Field 100, one of each wire type that is in use: a later version of the protocol may have it.
    unknown = b"\xa0\x06\x01" + b"\xa1\x06" + bytes(8) + b"\xa2\x06\x01x" + b"\xa5\x06" + bytes(4)
    assert decode_response(unknown + message.SerializeToString() + unknown) == InferResponse(
        "iris", "2", (Tensor("p", "UINT8", (2,), b"\x01\x02"),), parameters={"sequence_id": 7}
    )


def test_raw_contents_belong_to_the_tensors_in_their_order() -> None:
    response = InferResponse(
        "m", "1", (Tensor("b", "UINT8", (1,), b"\x02"), Tensor("a", "UINT8", (1,), b"\x01"))
    )
    assert [(t.name, bytes(t.data)) for t in decode_response(encode_response(response)).outputs] == [
        ("b", b"\x02"),
        ("a", b"\x01"),
    ]


def test_an_unsigned_parameter_keeps_its_value() -> None:
    message = pb.ModelInferRequest()
    message.parameters["seed"].uint64_param = 2**64 - 1
    assert decode_request(message.SerializeToString()).parameters == {"seed": 2**64 - 1}
    request = InferRequest("m", "", (), parameters={"seed": 2**64 - 1})
    parsed = pb.ModelInferRequest.FromString(encode_request(request))
    assert parsed.parameters["seed"].uint64_param == 2**64 - 1


def test_a_tensor_without_raw_contents_is_refused() -> None:
    message = pb.ModelInferResponse(model_name="m")
    message.outputs.add(name="p", datatype="INT32", shape=[1]).contents.int_contents.append(1)
    with pytest.raises(ValueError, match="1 tensors with 0 raw contents"):
        decode_response(message.SerializeToString())


def attempt(data: bytes) -> None:
    for decode in (decode_request, decode_response):
        with suppress(ValueError, IndexError):
            decode(data)


@given(REQUESTS, st.data())
def test_a_truncated_message_is_refused_or_read_in_part(request: InferRequest, data: st.DataObject) -> None:
    encoded = encode_request(request)
    attempt(encoded[: data.draw(st.integers(0, len(encoded)))])


@given(REQUESTS, st.data())
def test_a_changed_byte_raises_nothing_unexpected(request: InferRequest, data: st.DataObject) -> None:
    encoded = bytearray(encode_request(request) or b"\0")
    encoded[data.draw(st.integers(0, len(encoded) - 1))] = data.draw(st.integers(0, 255))
    attempt(bytes(encoded))


@given(st.binary(max_size=200))
@settings(max_examples=300)
def test_garbage_raises_nothing_unexpected(data: bytes) -> None:
    attempt(data)


def test_every_field_with_every_wire_type_is_read_or_refused() -> None:
    bodies = (b"", b"\0", b"\x01\xff", b"\x08" + bytes(8), b"\xff" * 11, b"\x02\x08\x01", b"\x02\x12\0")
    for key, body in product(range(256), bodies):
        field = bytes((key,)) + body
        attempt(field)
        # The same inside a parameter, a tensor and an output.
        for parent in (0x22, 0x2A, 0x32):
            attempt(bytes((parent, len(field))) + field)


@pytest.mark.timeout(5)
def test_an_endless_number_is_refused_at_once() -> None:
    for data in (b"\x80" * 10_000_000, b"\x0a" + b"\xff" * 10_000_000):
        with pytest.raises(ValueError, match="more than ten bytes"):
            decode_response(data)


@pytest.mark.parametrize("size", [b"\x05", b"\xff\xff\xff\xff\xff\xff\xff\xff\x7f"])
def test_a_length_over_the_end_is_refused(size: bytes) -> None:
    with pytest.raises(ValueError, match="runs over the end"):
        decode_response(b"\x0a" + size + b"abcd")
