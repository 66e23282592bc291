"""V2's part of the OpenAPI document: what is on by default."""

from typing import Any

from adapter.contracts.openapi import (
    ANY_VALUE,
    VERSION_HEADERS,
    Paths,
    Schema,
    answer,
    operation,
    path_parameter,
    record,
    ref,
)

_TAG = "V2"
_NAME = path_parameter("name", "The model's name.")
_PLACES = {
    "": ("", []),
    "/versions/{version}": ("Version", [path_parameter("version", "A version.", "^[0-9]{1,18}$")]),
}
_BYTES: Schema = {
    "description": "JSON as above, then the binary tensors; a header says how long the JSON is."
}
_HEADER_LENGTH = "Inference-Header-Content-Length"
_TEXT: Schema = {"type": "string"}
_COUNT: Schema = {"type": "integer", "minimum": 0}


def _list(items: Schema, **more: Any) -> Schema:
    return {"type": "array", "items": items, **more}


def _object(**more: Any) -> Schema:
    return {"type": "object", **more}


_INPUT = record(
    {
        "name": _TEXT,
        "datatype": {**_TEXT, "description": "FP32, INT64, BYTES, …"},
        "shape": _list(_COUNT),
        "data": _list(ANY_VALUE, description="Elements in row-major order, flat or nested."),
        "parameters": _object(properties={"binary_data_size": _COUNT}),
    },
    optional=["data", "parameters"],
)
_WANTED = record(
    {
        "name": _TEXT,
        "parameters": _object(properties={"binary_data": {"type": "boolean"}, "classification": _COUNT}),
    },
    optional=["parameters"],
)
_OUTPUT = record(
    {
        "name": _TEXT,
        "datatype": _TEXT,
        "shape": _list(_COUNT),
        "data": _list(ANY_VALUE, description="Flat, in row-major order."),
        "parameters": _object(properties={"binary_data_size": _COUNT}),
    },
    optional=["data", "parameters"],
)
_EXAMPLES = {
    "JSON": {
        "inputs": [{"name": "input", "datatype": "FP32", "shape": [1, 4], "data": [5.1, 3.5, 1.4, 0.2]}]
    },
    "classification": {
        "inputs": [{"name": "input", "datatype": "FP32", "shape": [1, 4], "data": [5.1, 3.5, 1.4, 0.2]}],
        "outputs": [{"name": "output", "parameters": {"classification": 1}}],
    },
}

SCHEMAS: dict[str, Schema] = {
    "V2Server": record({"name": _TEXT, "version": _TEXT, "extensions": _list(_TEXT)}),
    "V2Live": record({"live": {"const": True}}),
    "V2Ready": record({"ready": {"const": True}}),
    "V2ModelReady": record({"name": _TEXT, "ready": {"const": True}}),
    "V2Model": record(
        {
            "name": _TEXT,
            "versions": _list(_TEXT, minItems=1),
            "platform": _TEXT,
            "inputs": _list(ref("Tensor")),
            "outputs": _list(ref("Tensor")),
        }
    ),
    "V2Config": _object(description="Triton's ModelConfig."),
    "V2Statistics": record({"model_stats": _list(_object(description="Triton's counters of one version."))}),
    "V2IndexRequest": _object(properties={"ready": {"type": "boolean"}}),
    "V2Index": _list(
        record(
            {"name": _TEXT, "version": _TEXT, "state": _TEXT, "reason": _TEXT},
            optional=["version", "state", "reason"],
        )
    ),
    "V2InferRequest": record(
        {
            "id": _TEXT,
            "parameters": _object(properties={"binary_data_output": {"type": "boolean"}}),
            "inputs": _list(_INPUT),
            "outputs": _list(_WANTED),
        },
        optional=["id", "parameters", "outputs"],
    ),
    "V2InferResponse": record(
        {
            "id": _TEXT,
            "model_name": _TEXT,
            "model_version": _TEXT,
            "parameters": _object(),
            "outputs": _list(_OUTPUT),
        },
        optional=["id", "parameters"],
    ),
}


def paths() -> Paths:
    """V2's operations, for the server, a model and its versions."""
    found: Paths = {
        "/v2": _get("v2Server", "The server and its extensions", "V2Server", ()),
        "/v2/health/live": _get("v2Live", "Whether the process runs", "V2Live", ()),
        "/v2/health/ready": _get("v2Ready", "Whether Triton answers", "V2Ready", (503, 504)),
        "/v2/models/stats": _get("v2AllStatistics", "Statistics of all", "V2Statistics", (503, 504)),
        "/v2/repository/index": {
            "post": operation(
                _TAG,
                "v2RepositoryIndex",
                "Every model of the repository",
                {200: answer("Models, loaded or not.", ref("V2Index"))},
                errors=(400, 413, 415, 503, 504),
                body=ref("V2IndexRequest"),
                error="V1Error",
            )
        },
    }
    for place, (suffix, more) in _PLACES.items():
        path, parameters = "/v2/models/{name}" + place, [_NAME, *more]
        for end, name, summary, schema in (
            ("", "Model", "Describe a model", "V2Model"),
            ("/ready", "ModelReady", "Whether a model can answer", "V2ModelReady"),
            ("/config", "Config", "A model's configuration", "V2Config"),
            ("/stats", "Statistics", "What a model has done", "V2Statistics"),
        ):
            found[path + end] = _get(f"v2{name}{suffix}", summary, schema, (404, 503, 504), parameters)
        found[path + "/infer"] = {"post": _infer(suffix, parameters)}
    return found


def _get(
    identifier: str,
    summary: str,
    schema: str,
    errors: tuple[int, ...],
    parameters: list[Schema] | None = None,
) -> Schema:
    headers = VERSION_HEADERS if schema == "V2Model" else None
    described = operation(
        _TAG,
        identifier,
        summary,
        {200: answer(f"{summary}.", ref(schema), headers)},
        errors=errors,
        parameters=parameters or (),
        error="V1Error",
    )
    return {"get": described}


def _infer(suffix: str, parameters: list[Schema]) -> Schema:
    length = {
        "name": _HEADER_LENGTH,
        "in": "header",
        "required": False,
        "description": "How many bytes of the body are JSON, when binary tensors follow it.",
        "schema": _COUNT,
    }
    described = operation(
        _TAG,
        f"v2Infer{suffix}",
        "Run a model",
        {200: answer("What the model answered.", ref("V2InferResponse"), VERSION_HEADERS)},
        errors=(400, 404, 413, 415, 500, 503, 504),
        parameters=[*parameters, length],
        body=ref("V2InferRequest"),
        examples=_EXAMPLES,
        error="V1Error",
    )
    for message in (described["requestBody"], described["responses"]["200"]):
        message["content"]["application/octet-stream"] = {"schema": _BYTES}
    return described
