"""A model as both contracts describe it: one body, the union of V1's and MIaaS's, and its JSON Schemas."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from adapter.core.datatypes import DATATYPES
from adapter.core.types import ModelMetadata, ModelVersion, TensorMetadata

_DIALECT = "https://json-schema.org/draft/2020-12/schema"
_B64 = {
    "type": "object",
    "properties": {"b64": {"type": "string", "contentEncoding": "base64"}},
    "required": ["b64"],
    "additionalProperties": False,
}

Schema = dict[str, Any]


def model_body(metadata: ModelMetadata) -> dict[str, Any]:
    """Everything that is said of one served version."""
    return {
        "name": metadata.name,
        "versions": list(metadata.versions),
        "platform": metadata.platform,
        "inputs": [_tensor_body(tensor) for tensor in metadata.inputs],
        "outputs": [_tensor_body(tensor) for tensor in metadata.outputs],
        "ready": True,
        "id": f"{metadata.name}@{metadata.version}",
        "version": metadata.version,
        "status": _status(metadata.deprecated),
        "framework": metadata.framework,
        "labels": dict(metadata.labels),
        "input_schema": input_schema(metadata),
        "output_schema": output_schema(metadata),
        "model_version_status": [
            {"version": version, "state": "AVAILABLE", "status": {"error_code": "OK", "error_message": ""}}
            for version in metadata.versions
        ],
    }


def list_body(versions: Sequence[ModelVersion], described: dict[str, ModelMetadata]) -> dict[str, Any]:
    """MIaaS's list: an entry for each version that is served."""
    return {
        "models": [
            {
                "id": f"{line.name}@{line.version}",
                "name": line.name,
                "version": line.version,
                "status": _status(line.version in described[line.name].deprecated_versions),
            }
            for line in versions
            if line.ready and line.name in described
        ]
    }


def _status(deprecated: bool) -> str:
    return "deprecated" if deprecated else "active"


def _tensor_body(tensor: TensorMetadata) -> dict[str, Any]:
    return {"name": tensor.name, "datatype": tensor.datatype, "shape": list(tensor.shape)}


def input_schema(metadata: ModelMetadata) -> Schema:
    """A JSON Schema of `input_data`, in rows, in columns and by name."""
    rows = [_object(metadata, "row")]
    columns = [_object(metadata, "column")]
    if metadata.feature_names:
        rows.append(_features(metadata, 1))
        columns.append(_features(metadata, 0))
    if len(metadata.inputs) == 1:
        tensor = metadata.inputs[0]
        rows.append(_nested(tensor, tensor.shape[1:]))
        columns.append(_nested(tensor, tensor.shape))
    instances = {"type": "array", "items": {"anyOf": rows}, "minItems": 1}
    return {
        "$schema": _DIALECT,
        "anyOf": [
            {"type": "object", "properties": {"instances": instances}, "required": ["instances"]},
            {"type": "object", "properties": {"inputs": {"anyOf": columns}}, "required": ["inputs"]},
            *[column for column in columns if column.get("type") == "object"],
        ],
    }


def output_schema(metadata: ModelMetadata) -> Schema:
    """A JSON Schema of `result`, in rows, in columns and by name."""
    names = _members({tensor.name: _nested(tensor, tensor.shape) for tensor in metadata.outputs})
    row = _members({tensor.name: _nested(tensor, tensor.shape[1:]) for tensor in metadata.outputs})
    bare_row, bare = row, names
    if len(metadata.outputs) == 1:
        tensor = metadata.outputs[0]
        bare_row, bare = _nested(tensor, tensor.shape[1:]), _nested(tensor, tensor.shape)
    predictions = {"type": "array", "items": bare_row}
    return {
        "$schema": _DIALECT,
        "anyOf": [
            {"type": "object", "properties": {"predictions": predictions}, "required": ["predictions"]},
            {"type": "object", "properties": {"outputs": bare}, "required": ["outputs"]},
            names,
        ],
    }


def _object(metadata: ModelMetadata, form: str) -> Schema:
    axis = 1 if form == "row" else 0
    optional = {tensor.name for tensor in metadata.inputs if tensor.optional}
    return _members(
        {tensor.name: _nested(tensor, tensor.shape[axis:]) for tensor in metadata.inputs}, optional
    )


def _features(metadata: ModelMetadata, axis: int) -> Schema:
    tensor = metadata.inputs[0]
    return _members({name: _nested(tensor, tensor.shape[axis:-1]) for name in metadata.feature_names})


def _members(properties: dict[str, Schema], optional: set[str] | frozenset[str] = frozenset()) -> Schema:
    required = [name for name in properties if name not in optional]
    return {
        "type": "object",
        "properties": properties,
        "required": required,
        "additionalProperties": False,
    }


def _nested(tensor: TensorMetadata, shape: Sequence[int]) -> Schema:
    element = _element(tensor.datatype)
    schema = element
    for axis, size in enumerate(reversed(shape)):
        schema = {"type": "array", "items": schema}
        if size >= 0:
            schema |= {"minItems": size, "maxItems": size}
        if axis == 0 and size == 1:
            # A scalar stands for the one element of a last axis of size 1.
            schema = {"anyOf": [schema, element]}
    return schema


def _element(datatype: str) -> Schema:
    kind = DATATYPES[datatype]
    match kind.kind:
        case "bool":
            return {"type": "boolean"}
        case "integer":
            limits = np.iinfo(kind.dtype)
            return {"type": "integer", "minimum": int(limits.min), "maximum": int(limits.max)}
        case "number":
            return {"type": "number"}
        case "bytes":
            return {"anyOf": [{"type": "string"}, _B64]}
