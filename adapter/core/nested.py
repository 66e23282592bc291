"""One nested JSON list ↔ one tensor, exact and strict.

A list is flattened axis by axis at C speed; only an error walks the elements.
"""

import base64
import binascii
import struct
from collections.abc import Callable, Sequence
from contextlib import suppress
from itertools import chain
from math import ceil, prod
from typing import Any

import numpy as np

from adapter.core.datatypes import DATATYPES, Datatype, from_bf16, pack_bf16, pack_bytes, unpack_bytes
from adapter.core.errors import InferenceFailed, InvalidInput
from adapter.core.types import Tensor, TensorMetadata

Where = Callable[[Sequence[int]], str]
"""The JSON path of an element, from its indices in the tensor."""

_ALLOWED: dict[str, set[type]] = {"bool": {bool}, "integer": {int}, "number": {int, float}}
_EXPECTED = {
    "bool": "a boolean",
    "integer": "an integer",
    "number": "a number",
    "bytes": 'a string or {"b64": "…"}',
}


def decode_tensor(tensor: TensorMetadata, value: Any, where: Where) -> Tensor:
    """One nested list → one tensor of the declared datatype and shape.

    Raises InvalidInput that names the tensor, the path (by `where`) of the first offending element, what was
    expected there and what came.
    """
    flat, shape, singles = _flatten(tensor, value, where)
    datatype = DATATYPES[tensor.datatype]

    def fail(i: int, expected: str) -> InvalidInput:
        at = _unravel(i, shape)
        if singles and type(singles[i]) is not list:
            at = at[:-1]
        return invalid_input(tensor.name, where(at), expected, describe(flat[i]))

    if datatype.kind == "bytes":
        data = pack_bytes([_to_bytes(element, i, fail) for i, element in enumerate(flat)])
    else:
        data = _pack(datatype, flat, fail)
    return Tensor(tensor.name, tensor.datatype, shape, data)


def _flatten(
    tensor: TensorMetadata, value: Any, where: Where
) -> tuple[list[Any], tuple[int, ...], list[Any]]:
    """Unfold `value` axis by axis, holding each axis to its declared size and to one size throughout.

    Returns the elements, the shape, and, where the last axis is of size 1, the values along it: each is an
    array, or the bare element in its place.
    """
    level: list[Any] = [value]
    shape: tuple[int, ...] = ()
    singles: list[Any] = []
    for axis, declared in enumerate(tensor.shape):
        if not level:
            # Below an empty axis nothing shows the size.
            shape = (*shape, max(declared, 0))
            continue
        kinds = set(map(type, level))
        if declared == 1 and axis == len(tensor.shape) - 1:
            singles = level
            if list not in kinds:
                return level, (*shape, 1), singles
            if len(kinds) > 1:
                level = [element if type(element) is list else [element] for element in level]
        elif kinds != {list}:
            odd = next(i for i, element in enumerate(level) if type(element) is not list)
            rank = f"an array ({len(tensor.shape)} axes in all, shape {list(tensor.shape)})"
            raise invalid_input(tensor.name, where(_unravel(odd, shape)), rank, describe(level[odd]))
        size = declared if declared >= 0 else len(level[0])
        if set(map(len, level)) != {size}:
            odd = next(i for i, element in enumerate(level) if len(element) != size)
            path = where(_unravel(odd, shape))
            raise invalid_input(tensor.name, path, f"an array of {size}", describe(level[odd]))
        level = list(chain.from_iterable(level))
        shape = (*shape, size)
    return level, shape, singles


def _pack(datatype: Datatype, flat: list[Any], fail: Callable[[int, str], InvalidInput]) -> bytes:
    """Elements of one datatype → their binary form, strictly: nothing is cut, wrapped or made infinite."""
    allowed = _ALLOWED[datatype.kind]
    if not set(map(type, flat)) <= allowed:
        odd = next(i for i, element in enumerate(flat) if type(element) not in allowed)
        raise fail(odd, f"{_EXPECTED[datatype.kind]} ({datatype.name})")
    try:
        return (
            pack_bf16(flat) if datatype.name == "BF16" else struct.pack(f"<{len(flat)}{datatype.code}", *flat)
        )
    except (struct.error, OverflowError):
        odd = next(i for i, element in enumerate(flat) if not _fits(datatype, element))
        if datatype.kind == "integer":
            limits = np.iinfo(datatype.dtype)
            raise fail(odd, f"{datatype.name} from {limits.min} to {limits.max}") from None
        raise fail(odd, f"a number within {datatype.name}'s range") from None


def _fits(datatype: Datatype, element: int | float) -> bool:
    try:
        pack_bf16([element]) if datatype.name == "BF16" else struct.pack(f"<{datatype.code}", element)
    except (struct.error, OverflowError):
        return False
    return True


def _to_bytes(element: Any, i: int, fail: Callable[[int, str], InvalidInput]) -> bytes:
    """A BYTES element: a string as UTF-8, or `{"b64": "…"}` (TensorFlow Serving's form of binary values)."""
    if type(element) is str:
        return element.encode()
    if type(element) is dict and element.keys() == {"b64"} and type(element["b64"]) is str:
        text = element["b64"].encode()
        with suppress(binascii.Error):
            decoded = base64.b64decode(text, validate=True)
            # Before Python 3.13 padding may follow where none is due.
            if len(text) == 4 * ceil(len(decoded) / 3):
                return decoded
        raise fail(i, "b64 in the standard base64 alphabet, padded (RFC 4648)")
    raise fail(i, f"{_EXPECTED['bytes']} (BYTES)")


def _unravel(i: int, shape: Sequence[int]) -> tuple[int, ...]:
    indices: list[int] = []
    for axis in range(len(shape)):
        indices.append(i // prod(shape[axis + 1 :]) % shape[axis])
    return tuple(indices)


def indices(at: Sequence[int]) -> str:
    """Indices as the end of a JSON path."""
    return "".join(f"[{i}]" for i in at)


def invalid_input(name: str, path: str, expected: str, got: str) -> InvalidInput:
    """What every refusal of an input tells: the input's name, the JSON path, what was expected, what came."""
    return InvalidInput(
        f"input {name!r}: {path}: expected {expected}, got {got}",
        {"input": name, "path": path, "expected": expected, "got": got},
    )


def describe(value: Any) -> str:
    """A JSON value in a few words, for an error's message."""
    match value:
        case None:
            return "null"
        case bool():
            return str(value).lower()
        case int() | float():
            text = repr(value)
            return text if len(text) <= 40 else f"{text[:40]}…"
        case str():
            return f"the string {value[:40]!r}{'…' if len(value) > 40 else ''}"
        case list():
            return f"an array of {len(value)}"
        case _:
            names = ", ".join(repr(str(key)[:40]) for key in list(value)[:3])
            return f"an object with {names or 'no members'}"


def to_json(tensor: Tensor) -> Any:
    """A tensor → what a JSON writer prints for it: a numpy array of the tensor's shape, or nested lists.

    FP16 and BF16 widen to FP32, exactly. BYTES become strings; b64 objects where the name ends in `_bytes` or
    an element is not UTF-8 (TensorFlow Serving's rule). NaN and infinities stay for the writer to print.
    Raises InferenceFailed when the data does not fill the shape: a model's answer is not ours to trust.
    """
    try:
        return _to_values(tensor)
    except ValueError as error:
        shape = list(tensor.shape)
        raise InferenceFailed(f"output {tensor.name!r}: its data does not fit its shape {shape}") from error


def _to_values(tensor: Tensor) -> Any:
    datatype = DATATYPES[tensor.datatype]
    if datatype.kind == "bytes":
        return _to_strings(tensor)
    array = np.frombuffer(tensor.data, datatype.dtype)
    if not array.flags.aligned:
        # A view into a message may begin anywhere; JSON writers read whole elements.
        array = array.copy()
    if tensor.datatype == "BF16":
        array = from_bf16(array)
    elif tensor.datatype == "FP16":
        array = array.astype(np.float32)
    # The index makes a scalar of an array without axes, which no JSON writer takes.
    return array.reshape(tensor.shape)[()]


def _to_strings(tensor: Tensor) -> Any:
    elements = unpack_bytes(tensor.data)
    flat: list[Any]
    try:
        if tensor.name.endswith("_bytes"):
            flat = [_b64(element) for element in elements]
        else:
            flat = [element.decode() for element in elements]
    except UnicodeDecodeError:
        flat = [_b64(element) for element in elements]
    array = np.empty(len(flat), object)
    array[:] = flat
    return array.reshape(tensor.shape).tolist()


def _b64(element: bytes) -> dict[str, str]:
    return {"b64": base64.b64encode(element).decode()}
