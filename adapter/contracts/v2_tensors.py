"""The inputs of a V2 request → tensors: from JSON, or from the bytes behind it, which stay where they are."""

from collections.abc import Mapping, Sequence
from itertools import chain
from math import prod
from struct import unpack_from
from typing import Any

from adapter.core.datatypes import DATATYPES
from adapter.core.errors import InvalidInput
from adapter.core.nested import decode_tensor, describe, invalid_input
from adapter.core.types import OWN_REGIONS, ModelMetadata, Region, Tensor, TensorMetadata

_MOST_AXES = 64
_CARRIERS = "exactly one of `data`, `parameters.binary_data_size` and `parameters.shared_memory_region`"


def decode_inputs(
    metadata: ModelMetadata, given: Any, tail: memoryview, *, regions: bool
) -> tuple[Tensor, ...]:
    """The member `inputs`, with the bytes that follow the JSON, in the inputs' order → tensors.

    Raises InvalidInput that names the input and the JSON path.
    """
    if type(given) is not list:
        raise InvalidInput(f"inputs: expected an array, got {'none' if given is None else describe(given)}")
    if len(given) > len(metadata.inputs):
        most = len(metadata.inputs)
        raise InvalidInput(f"inputs: {metadata.name!r} has {most} inputs, the request {len(given)}")
    tensors = []
    for i, entry in enumerate(given):
        tensor, tail = _input(entry, f"inputs[{i}]", tail, regions=regions)
        tensors.append(tensor)
    if tail:
        raise InvalidInput(f"{len(tail)} bytes follow the last input's: the sizes do not add up to the body")
    return tuple(tensors)


def _input(entry: Any, path: str, tail: memoryview, *, regions: bool) -> tuple[Tensor, memoryview]:
    """One entry of `inputs` → its tensor, and what of `tail` is left to the entries after it."""
    if type(entry) is not dict:
        raise InvalidInput(f"{path}: expected an object, got {describe(entry)}")
    name, datatype = text_of(entry, "name", path), text_of(entry, "datatype", path)
    if datatype not in DATATYPES:
        raise invalid_input(name, f"{path}.datatype", "a datatype of the protocol", describe(datatype))
    shape = _shape(entry.get("shape"), name, path)
    parameters = parameters_of(entry, f"{path}.")
    region = region_of(parameters, f"{path}.parameters", allowed=regions)
    carriers = ("data" in entry) + ("binary_data_size" in parameters) + (region is not None)
    if carriers != 1:
        raise invalid_input(name, path, _CARRIERS, f"{carriers} of them")
    if region is not None:
        return Tensor(name, datatype, shape, b"", region), tail
    if "data" in entry:
        return _from_json(name, datatype, shape, entry["data"], f"{path}.data"), tail
    size = parameters["binary_data_size"]
    path += ".parameters.binary_data_size"
    if type(size) is not int or size < 0:
        raise invalid_input(name, path, "an integer from 0", describe(size))
    if size > len(tail):
        raise invalid_input(name, path, f"at most the {len(tail)} bytes that are left of the body", str(size))
    tensor = Tensor(name, datatype, shape, tail[:size])
    _check_size(tensor, path)
    return tensor, tail[size:]


def _shape(value: Any, name: str, path: str) -> tuple[int, ...]:
    path = f"{path}.shape"
    if type(value) is not list or len(value) > _MOST_AXES:
        got = "none" if value is None else describe(value)
        raise invalid_input(name, path, f"an array of at most {_MOST_AXES} sizes", got)
    for i, size in enumerate(value):
        if type(size) is not int or not 0 <= size < 1 << 63:
            raise invalid_input(name, f"{path}[{i}]", "an integer from 0", describe(size))
    if prod(size for size in value if size) >= 1 << 63:
        # Triton counts elements in 64 bits.
        raise invalid_input(name, path, "fewer than 2**63 elements", describe(value))
    return tuple(value)


def _from_json(name: str, datatype: str, shape: tuple[int, ...], data: Any, path: str) -> Tensor:
    """Elements in row-major order, nested in any way: the shape is said beside them (Triton's rule)."""
    if type(data) is not list:
        raise invalid_input(name, path, "an array", describe(data))
    flat = _flattened(data)
    count = prod(shape)
    if len(flat) != count:
        raise invalid_input(name, path, f"{count} elements for shape {list(shape)}", str(len(flat)))
    if datatype == "BYTES" and not set(map(type, flat)) <= {str}:
        i, odd = next((i, element) for i, element in enumerate(flat) if type(element) is not str)
        raise invalid_input(name, f"{path}[{i}]", "a string (BYTES)", describe(odd))

    def where(at: Sequence[int]) -> str:
        return f"{path}[{at[0]}]" if at else path

    return decode_tensor(TensorMetadata(name, datatype, (count,)), flat, where)._replace(shape=shape)


def _flattened(data: list[Any]) -> list[Any]:
    """Unfold arrays within arrays; the body's depth was limited when it was read."""
    while list in (kinds := set(map(type, data))):
        if kinds != {list}:
            data = [element if type(element) is list else [element] for element in data]
        data = list(chain.from_iterable(data))
    return data


def _check_size(tensor: Tensor, path: str) -> None:
    """Hold the bytes of a tensor to its shape. BYTES are walked: Triton must not meet a length that lies."""
    count, size = prod(tensor.shape), len(tensor.data)
    if tensor.datatype != "BYTES":
        expected = count * DATATYPES[tensor.datatype].itemsize
        if size != expected:
            raise invalid_input(
                tensor.name,
                path,
                f"{expected} for shape {list(tensor.shape)} of {tensor.datatype}",
                str(size),
            )
        return
    at = found = 0
    while at + 4 <= size and found < count:
        (length,) = unpack_from("<I", tensor.data, at)
        at += 4 + length
        found += 1
    if at > size:
        raise invalid_input(
            tensor.name,
            path,
            "elements behind their lengths",
            f"a length of {length} in element {found - 1} that runs {at - size} bytes over the end",
        )
    if found < count or at < size:
        raise invalid_input(
            tensor.name, path, f"{count} elements in {size} bytes", f"{found} elements in {at} bytes"
        )


def decode_raw_input(metadata: ModelMetadata, data: memoryview) -> Tensor:
    """A body without any JSON: the bytes of the model's only input, whose shape follows from their number.

    "Raw binary request" in extension_binary_data.md. Raises InvalidInput when the shape does not follow.
    """
    if len(metadata.inputs) != 1:
        raise InvalidInput(
            f"a body without JSON is for models with one input; {metadata.name!r} has {len(metadata.inputs)}"
        )
    tensor = metadata.inputs[0]
    shape = (1, *tensor.shape[1:]) if metadata.batched else tensor.shape
    if shape.count(-1) > 1:
        raise InvalidInput(f"input {tensor.name!r}: shape {list(shape)} does not follow from the body's size")
    if tensor.datatype == "BYTES":
        if any(size not in (1, -1) for size in shape):
            raise InvalidInput(f"input {tensor.name!r}: a body without JSON can hold one BYTES element alone")
        content = len(data).to_bytes(4, "little") + data
        return Tensor(tensor.name, "BYTES", (1,) * len(shape), content)
    each = DATATYPES[tensor.datatype].itemsize * prod(size for size in shape if size >= 0)
    if each == 0:
        raise InvalidInput(f"input {tensor.name!r}: shape {list(shape)} does not follow from the body's size")
    shape = tuple(len(data) // each if size < 0 else size for size in shape)
    expected = DATATYPES[tensor.datatype].itemsize * prod(shape)
    if expected != len(data):
        raise InvalidInput(
            f"input {tensor.name!r}: expected {expected} bytes for shape {list(shape)}, got {len(data)}"
        )
    return Tensor(tensor.name, tensor.datatype, shape, data)


def text_of(entry: Mapping[str, Any], member: str, path: str) -> str:
    """A member that must be a string. Raises InvalidInput."""
    value = entry.get(member)
    if type(value) is not str:
        got = "none" if value is None else describe(value)
        raise InvalidInput(f"{path}.{member}: expected a string, got {got}")
    return value


def parameters_of(holder: Mapping[str, Any], path: str) -> dict[str, Any]:
    """The member `parameters` of an object of the request. Raises InvalidInput when it is not an object."""
    parameters = holder.get("parameters", {})
    if type(parameters) is not dict:
        raise InvalidInput(f"{path}parameters: expected an object, got {describe(parameters)}")
    return parameters


def region_of(parameters: Mapping[str, Any], path: str, *, allowed: bool) -> Region | None:
    """Where a tensor lies, if its parameters say so. Raises InvalidInput, also where not `allowed`."""
    if "shared_memory_region" not in parameters:
        return None
    if not allowed:
        raise InvalidInput(f"{path}.shared_memory_region: shared memory is not offered to this client")
    numbers = []
    for member in ("shared_memory_byte_size", "shared_memory_offset"):
        value = parameters.get(member, 0)
        if type(value) is not int or not 0 <= value < 1 << 63:
            raise InvalidInput(f"{path}.{member}: expected an integer from 0, got {describe(value)}")
        numbers.append(value)
    name = text_of(parameters, "shared_memory_region", path)
    return Region(refuse_own(name, f"{path}.shared_memory_region"), *numbers)


def refuse_own(name: str, path: str) -> str:
    """The name of a region, which must not be one in which the adapter's own tensors lie."""
    if name.startswith(OWN_REGIONS):
        raise InvalidInput(f"{path}: names that begin with {OWN_REGIONS} are the adapter's own")
    return name
