"""The body of a V2 infer request → an InferRequest: JSON, followed by the tensors that are not in it.

The JSON is the Open Inference Protocol's (https://github.com/kserve/open-inference-protocol), the bytes
behind it are Triton's binary tensor data extension (extension_binary_data.md in Triton's documentation).
Structure and sizes are checked here; whether the model takes such inputs is Triton's to say. docs/v2.md lists
where we are stricter than Triton's own front end.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from math import isfinite
from typing import Any, Literal

from adapter.contracts.body import parse_json
from adapter.contracts.v2_tensors import decode_inputs, decode_raw_input, parameters_of, region_of, text_of
from adapter.core.errors import InvalidInput
from adapter.core.nested import describe
from adapter.core.types import InferRequest, ModelMetadata, Parameter, RequestedOutput

HEADER_LENGTH = "Inference-Header-Content-Length"
_INT64 = range(-(1 << 63), 1 << 63)
_UNSIGNED = frozenset({"priority", "timeout"})
"""Parameters of the request that Triton takes as unsigned numbers alone."""


Form = Literal["json", "binary", "region"]
"""Elements in the JSON, bytes behind it, or neither: the tensor is in shared memory."""


@dataclass(frozen=True, slots=True)
class OutputForms:
    """How outputs are to come: as `named` says, or all in the `default` form when none is named."""

    default: Form = "json"
    named: Mapping[str, Form] | None = None

    def of(self, name: str) -> Form:
        """How the output is to come."""
        return self.default if self.named is None else self.named.get(name, "json")


def header_length(value: str | None, size: int) -> int:
    """The bytes of the body that are JSON, by the header of that name; all `size` of them without it.

    Raises InvalidInput when the header is no number, or more than there is.
    """
    if value is None:
        return size
    if not (value.isascii() and value.isdecimal() and len(value) <= 18 and int(value) <= size):
        raise InvalidInput(f"{HEADER_LENGTH}: expected a number from 0 to {size}, got {value[:40]!r}")
    return int(value)


def decode_request(
    metadata: ModelMetadata, version: str, body: bytes | memoryview, length: int, *, regions: bool = False
) -> tuple[InferRequest, OutputForms]:
    """A body whose first `length` bytes are JSON → the request for `version`, and how its answer is to look.

    Tensors may lie in shared memory if `regions`. Raises InvalidInput that names the place of the mistake.
    """
    if not length and body:
        tensor = decode_raw_input(metadata, memoryview(body))
        return InferRequest(metadata.name, version, (tensor,)), OutputForms("binary")
    document = parse_json(bytes(body[:length]))
    if type(document) is not dict:
        raise InvalidInput(f"the body must be a JSON object, got {describe(document)}")
    request_id = document.get("id", "")
    if type(request_id) is not str:
        raise InvalidInput(f"id: expected a string, got {describe(request_id)}")
    parameters = parameters_of(document, "")
    default = _flag(parameters.pop("binary_data_output", False), "parameters.binary_data_output")
    _check_parameters(parameters)
    for name in ("sequence_id", "timeout"):
        value = parameters.get(name)
        if type(value) is int and value not in _INT64:
            # Over gRPC Triton takes these signed, and reads the same bits as unsigned.
            parameters[name] = value - (1 << 64)
    tensors = decode_inputs(metadata, document.get("inputs"), memoryview(body)[length:], regions=regions)
    outputs, named = _outputs(document.get("outputs"), regions=regions)
    request = InferRequest(metadata.name, version, tensors, outputs, request_id, parameters)
    return request, OutputForms("binary" if default else "json", named if outputs else None)


def _flag(value: Any, path: str) -> bool:
    if type(value) is not bool:
        raise InvalidInput(f"{path}: expected a boolean, got {describe(value)}")
    return value


def _check_parameters(parameters: Mapping[str, Any]) -> None:
    """Hold the request's parameters to what Triton takes (extension_parameters.md)."""
    for name, value in parameters.items():
        path = f"parameters.{name[:64]}"
        if type(value) not in (bool, int, float, str) or (type(value) is float and not isfinite(value)):
            raise InvalidInput(f"{path}: expected a number, a boolean or a string, got {describe(value)}")
        if name.startswith("triton_"):
            raise InvalidInput(f"{path}: names that begin with triton_ are Triton's own")
        if name in ("sequence_start", "sequence_end"):
            _flag(value, path)
        if name in _UNSIGNED and (type(value) is not int or value < 0):
            raise InvalidInput(f"{path}: expected an integer from 0, got {describe(value)}")
        if name == "sequence_id" and not (type(value) is str or (type(value) is int and value >= 0)):
            raise InvalidInput(f"{path}: expected a string or an integer from 0, got {describe(value)}")
        if type(value) is int and value not in _INT64 and name != "sequence_id" and name not in _UNSIGNED:
            raise InvalidInput(f"{path}: expected a 64-bit integer, got {describe(value)}")


def _outputs(given: Any, *, regions: bool) -> tuple[tuple[RequestedOutput, ...], dict[str, Form]]:
    """`outputs` → what is asked of the engine, and how each is to come."""
    if given is None:
        return (), {}
    if type(given) is not list:
        raise InvalidInput(f"outputs: expected an array, got {describe(given)}")
    outputs: dict[str, RequestedOutput] = {}
    forms: dict[str, Form] = {}
    for i, entry in enumerate(given):
        path = f"outputs[{i}]"
        if type(entry) is not dict:
            raise InvalidInput(f"{path}: expected an object, got {describe(entry)}")
        name, parameters = text_of(entry, "name", path), parameters_of(entry, f"{path}.")
        classes = parameters.get("classification", 0)
        if type(classes) is not int or not 0 <= classes < 1 << 31:
            place = f"{path}.parameters.classification"
            raise InvalidInput(f"{place}: expected an integer from 0, got {describe(classes)}")
        wanted: dict[str, Parameter] = {"classification": classes} if classes else {}
        binary = _flag(parameters.get("binary_data", False), f"{path}.parameters.binary_data")
        region = region_of(parameters, f"{path}.parameters", allowed=regions)
        if region is not None:
            if binary or classes:
                raise InvalidInput(f"{path}.parameters: what goes to shared memory goes nowhere else")
            wanted = dict(region.parameters)
        outputs[name] = RequestedOutput(name, wanted)
        forms[name] = "region" if region else "binary" if binary else "json"
    return tuple(outputs.values()), forms
