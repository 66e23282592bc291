"""A model as both contracts describe it: one body, the union of V1's and MIaaS's, and its JSON Schemas."""

from collections.abc import Sequence
from typing import Any

from starlette.types import Scope

from adapter.contracts.schemas import input_schema, output_schema
from adapter.core.errors import ModelNotFound
from adapter.core.types import ModelMetadata, ModelVersion, TensorMetadata


def split_id(model_id: str) -> tuple[str, str]:
    """A model's id, `name` or `name@version`, → its name and version ("" is the latest ready one).

    Raises ModelNotFound for an `@` that no version follows.
    """
    name, at, version = model_id.partition("@")
    if at and not version:
        raise ModelNotFound(f"Model not found: {model_id[:128]}")
    return name, version


def name_model(scope: Scope, metadata: ModelMetadata) -> None:
    """Tell the journal, for metrics and logs, which model and version an inference or a job is for.

    Requests that only look at a model are none of its: they would make it look faster than it is.
    """
    scope["state"]["model"] = metadata.name
    scope["state"]["version"] = metadata.version


def model_body(metadata: ModelMetadata) -> dict[str, Any]:
    """Everything that is said of one served version."""
    return {
        "name": metadata.name,
        "versions": list(metadata.versions),
        "platform": metadata.platform,
        "inputs": [tensor_body(tensor) for tensor in metadata.inputs],
        "outputs": [tensor_body(tensor) for tensor in metadata.outputs],
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
                "status": _status(described[line.name].deprecates(line.version)),
            }
            for line in versions
            if line.ready and line.name in described
        ]
    }


def _status(deprecated: bool) -> str:
    return "deprecated" if deprecated else "active"


def tensor_body(tensor: TensorMetadata) -> dict[str, Any]:
    """An input or output as V1 and V2 describe it."""
    return {"name": tensor.name, "datatype": tensor.datatype, "shape": list(tensor.shape)}
