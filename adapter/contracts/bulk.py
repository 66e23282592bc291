"""Large V1 bodies of numbers → tensors, without an object of Python's for each number.

It takes the plain cases alone: whole regular arrays of numbers that fit. Of everything else it says nothing:
then the strict decoder accepts it, or names the place of the mistake. So both answer alike.
"""

from collections.abc import Sequence
from math import prod
from typing import Any

import numpy as np
import simdjson
from numpy.typing import NDArray

from adapter.contracts.body import MAX_CONTAINERS, MAX_ELEMENTS
from adapter.core.datatypes import DATATYPES
from adapter.core.types import AnswerForm, ModelMetadata, Tensor, TensorMetadata

BULK = 8 << 10
"""Bytes of a body from which on it pays."""
_TYPES = {"FP32": "d", "FP64": "d", "UINT64": "u"} | dict.fromkeys(
    ("INT8", "INT16", "INT32", "INT64", "UINT8", "UINT16", "UINT32"), "i"
)
"""What simdjson reads the numbers of a datatype as: double, or 64 bits without or with a sign."""
_WIDE: dict[str, type[Any]] = {"d": np.float64, "u": np.uint64, "i": np.int64}


class _Unusual(Exception):
    """Something that the strict decoder has to look at."""


def decode_numbers(metadata: ModelMetadata, body: bytes) -> tuple[tuple[Tensor, ...], AnswerForm] | None:
    """What `parse_json` and `decode_body` make of the body; None where they have to say it."""
    try:
        document: Any = simdjson.Parser().parse(body)
        # Of two members of one name simdjson finds the first; here there is but one.
        (root,) = document.keys()
        value = document[root]
        if root not in ("instances", "inputs"):
            return None
        arrays: Sequence[tuple[TensorMetadata, Any]]
        if isinstance(value, simdjson.Array) and len(metadata.inputs) == 1:
            arrays = [(metadata.inputs[0], value)]
        else:
            arrays = _columns(metadata, value if root == "inputs" else {})
        tensors = tuple(_tensor(*each) for each in arrays)
    except (_Unusual, AttributeError, TypeError, ValueError, RuntimeError):
        # Not JSON, or not numbers, or not of this shape.
        return None
    rows = {tensor.shape[0] for tensor in tensors} if metadata.batched else {1}
    nested = 1 + sum(_arrays(tensor) for tensor in tensors)
    elements = sum(prod(tensor.shape) for tensor in tensors)
    if len(rows) != 1 or nested > MAX_CONTAINERS or 2 * nested + elements > MAX_ELEMENTS:
        return None
    if body.count(b"[") != nested - 1:
        return None  # an array in the place of a number, which simdjson looks through
    return tensors, "predictions" if root == "instances" else "outputs"


def _columns(metadata: ModelMetadata, value: Any) -> Sequence[tuple[TensorMetadata, Any]]:
    """Each input with its array."""
    given = list(value.keys())
    if len(set(given)) != len(given) or not set(given) <= {tensor.name for tensor in metadata.inputs}:
        raise _Unusual
    if any(tensor.name not in given and not tensor.optional for tensor in metadata.inputs):
        raise _Unusual
    return [(tensor, value[tensor.name]) for tensor in metadata.inputs if tensor.name in given]


def _tensor(metadata: TensorMetadata, array: Any) -> Tensor:
    shape = _shape(metadata, array)
    kind = _TYPES.get(metadata.datatype, "")
    if not kind:
        raise _Unusual
    wide = np.frombuffer(array.as_buffer(of_type=kind), _WIDE[kind])
    if len(wide) != prod(shape):
        raise _Unusual
    return Tensor(metadata.name, metadata.datatype, shape, _narrow(metadata, wide).data.cast("B"))


def _shape(metadata: TensorMetadata, array: Any) -> tuple[int, ...]:
    """The sizes of the axes, each the same throughout and as declared, none of them 0."""
    shape: list[int] = []
    level = [array]
    for axis, declared in enumerate(metadata.shape):
        if axis:
            level = [inner for outer in level for inner in outer]
        if not all(isinstance(inner, simdjson.Array) for inner in level):
            raise _Unusual
        sizes = set(map(len, level))
        if len(sizes) != 1 or 0 in sizes or (declared >= 0 and sizes != {declared}):
            raise _Unusual
        shape.append(*sizes)
    if not shape:
        raise _Unusual
    return tuple(shape)


def _narrow(metadata: TensorMetadata, wide: NDArray[Any]) -> NDArray[Any]:
    """The numbers in the model's own type, none of them changed but by rounding to it."""
    dtype = DATATYPES[metadata.datatype].dtype
    with np.errstate(over="ignore"):
        narrow = wide.astype(dtype)
    kept = np.isfinite(narrow).all() if dtype.kind == "f" else (narrow == wide).all()
    if not kept:
        raise _Unusual
    return narrow


def _arrays(tensor: Tensor) -> int:
    """How many arrays its JSON has."""
    return sum(prod(tensor.shape[:axis]) for axis in range(len(tensor.shape)))
