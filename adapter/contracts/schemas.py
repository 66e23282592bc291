"""JSON Schemas of a model's `input_data` and `result`, in rows, in columns and by name.

What the codec takes, the input schema accepts. What the schema accepts, the codec takes, except where a
schema has no words for it:

- arrays must not be ragged, and all tensors of a batching model, as all features, must have as many rows;
- every row must have the same optional inputs;
- 1.0 is an integer to JSON Schema, and not to us.
"""

from collections.abc import Collection, Sequence
from typing import Any

import numpy as np

from adapter.core.codec import own_names
from adapter.core.datatypes import DATATYPES
from adapter.core.types import ModelMetadata, TensorMetadata

Schema = dict[str, Any]

_DIALECT = "https://json-schema.org/draft/2020-12/schema"
_B64 = {
    "type": "object",
    "properties": {
        "b64": {
            "type": "string",
            "contentEncoding": "base64",
            # Python's `$` stands before a last line break, too.
            "pattern": "^(?:[A-Za-z0-9+/]{4})*(?:[A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?$(?!\\n)",
        }
    },
    "required": ["b64"],
    "additionalProperties": False,
}
# The least number that rounds to infinity: half a unit in the last place over the greatest finite one.
_TOO_LARGE = {
    "FP16": 2.0**16 - 2.0**4,
    "BF16": 2.0**128 - 2.0**119,
    "FP32": 2.0**128 - 2.0**103,
}


def input_schema(metadata: ModelMetadata) -> Schema:
    """What `input_data` may be: V1's rows, V1's columns, or an object of the model's own names."""
    groups = [metadata.inputs]
    if metadata.feature_names:
        groups.append(_features(metadata.inputs[0], metadata.feature_names))
    named_columns = [_named_column(group, metadata.batched) for group in groups]
    named_rows = [rows for group in groups for rows in _named_rows(group)]
    bare_columns, bare_rows = [], []
    if len(metadata.inputs) == 1:
        tensor = metadata.inputs[0]
        bare_columns = [_column(tensor, metadata.batched)]
        bare_rows = [_rows(tensor.shape[0], _input(tensor, tensor.shape[1:]))] if tensor.shape else []
    forms = {
        "instances": _v1("instances", "inputs", [*named_rows, *bare_rows]),
        "inputs": _v1("inputs", "instances", [*named_columns, *bare_columns, *named_rows]),
    }
    # A model's own names win over V1's two.
    v1 = [form for member, form in forms.items() if member not in own_names(metadata)]
    return {"$schema": _DIALECT, "anyOf": [*v1, *named_columns]}


def output_schema(metadata: ModelMetadata) -> Schema:
    """What `result` may be: it mirrors the form of `input_data`; NaN and infinities come as null."""
    names = _object({tensor.name: _output(tensor, tensor.shape) for tensor in metadata.outputs})
    row = _object({tensor.name: _output(tensor, tensor.shape[1:]) for tensor in metadata.outputs})
    predictions, outputs = _array(row), names
    if len(metadata.outputs) == 1:
        tensor = metadata.outputs[0]
        predictions = outputs = _output(tensor, tensor.shape)
    forms = [_object({"predictions": predictions}), _object({"outputs": outputs}), names]
    return {"$schema": _DIALECT, "anyOf": forms}


def _features(tensor: TensorMetadata, names: Sequence[str]) -> tuple[TensorMetadata, ...]:
    return tuple(TensorMetadata(name, tensor.datatype, tensor.shape[:-1]) for name in names)


def _v1(member: str, other: str, forms: Sequence[Schema]) -> Schema:
    """A V1 body with the one member and without the other; members that V1 does not know are passed over."""
    return {
        "type": "object",
        "properties": {
            member: {"anyOf": forms} if forms else False,
            other: False,
            "signature_name": {"type": "string"},
        },
        "required": [member],
    }


def _named_column(group: Sequence[TensorMetadata], batched: bool) -> Schema:
    optional = {tensor.name for tensor in group if tensor.optional}
    return _object({tensor.name: _column(tensor, batched) for tensor in group}, optional)


def _named_rows(group: Sequence[TensorMetadata]) -> list[Schema]:
    """Rows as objects; none where a required tensor has no first axis, or they differ in its size."""
    required = [tensor for tensor in group if not tensor.optional]
    sizes = {tensor.shape[:1] for tensor in required} - {(-1,)}
    if () in sizes or len(sizes) > 1:
        return []
    optional = {tensor.name for tensor in group if tensor.optional}
    row = _object(
        {tensor.name: _input(tensor, tensor.shape[1:]) for tensor in group if tensor.shape}, optional
    )
    return [_rows(sizes.pop()[0] if sizes else -1, row)]


def _column(tensor: TensorMetadata, batched: bool) -> Schema:
    if batched:
        return _rows(-1, _input(tensor, tensor.shape[1:]))
    return _input(tensor, tensor.shape)


def _rows(size: int, row: Schema) -> Schema:
    """An array along the first axis; any size is at least one."""
    return _array(row, size) if size >= 0 else {**_array(row), "minItems": 1}


def _input(tensor: TensorMetadata, shape: Sequence[int]) -> Schema:
    schema = element = _element(tensor.datatype)
    for axis, size in enumerate(reversed(shape)):
        schema = _array(schema, size)
        if axis == 0 and size == 1:
            # A scalar stands for the one element of a last axis of size 1.
            schema = {"anyOf": [schema, element]}
    return schema


def _output(tensor: TensorMetadata, shape: Sequence[int]) -> Schema:
    is_number = DATATYPES[tensor.datatype].kind == "number"
    schema = {"type": ["number", "null"]} if is_number else _element(tensor.datatype)
    for size in reversed(shape):
        schema = _array(schema, size)
    return schema


def _element(datatype: str) -> Schema:
    row = DATATYPES[datatype]
    match row.kind:
        case "bool":
            return {"type": "boolean"}
        case "integer":
            limits = np.iinfo(row.dtype)
            return {"type": "integer", "minimum": int(limits.min), "maximum": int(limits.max)}
        case "number":
            limit = _TOO_LARGE.get(datatype)
            bounds = {} if limit is None else {"exclusiveMinimum": -limit, "exclusiveMaximum": limit}
            return {"type": "number", **bounds}
        case "bytes":
            return {"anyOf": [{"type": "string"}, _B64]}


def _array(items: Schema, size: int = -1) -> Schema:
    """An array of any size, or of the one that is declared."""
    bounds = {"minItems": size, "maxItems": size} if size >= 0 else {}
    return {"type": "array", "items": items, **bounds}


def _object(properties: dict[str, Schema], optional: Collection[str] = ()) -> Schema:
    """An object of these members and no others."""
    required = [name for name in properties if name not in optional]
    return {
        "type": "object",
        "properties": properties,
        "required": required,
        "additionalProperties": False,
    }
