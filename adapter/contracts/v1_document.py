"""V1's part of the OpenAPI document."""

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

_TAG = "V1"
_NAME = path_parameter("name", "The model's name.")
_PLACES = {
    "": ("", []),
    "/versions/{version}": ("Version", [path_parameter("version", "A version.", "^[0-9]{1,18}$")]),
    "/labels/{label}": ("Label", [path_parameter("label", "A label of the model's config.", "^[^/:]+$")]),
}
_EXAMPLES = {
    "rows": {"instances": [[5.1, 3.5, 1.4, 0.2]]},
    "named features": {
        "instances": [{"sepal_length": 5.1, "sepal_width": 3.5, "petal_length": 1.4, "petal_width": 0.2}]
    },
    "columns": {"inputs": {"input": [[5.1, 3.5, 1.4, 0.2]]}},
    "image": {"instances": [{"image_bytes": {"b64": "iVBORw0KGgoAAAANSUhEUgAA…"}}]},
}


def _string(**more: object) -> Schema:
    return {"type": "string", **more}


def _list(items: Schema, **more: object) -> Schema:
    return {"type": "array", "items": items, **more}


_STATUS = record({"error_code": _string(), "error_message": _string()})

SCHEMAS: dict[str, Schema] = {
    "V1Error": record({"error": _string(maxLength=2000)}, example={"error": "Model not found: nope"}),
    "Alive": record({"status": _string(const="alive")}),
    "PredictRequest": {
        "description": "Exactly one of `instances` (rows) and `inputs` (columns).",
        "type": "object",
        "properties": {
            "instances": _list(ANY_VALUE, minItems=1, description="One element per instance."),
            "inputs": {"description": "A tensor per input name, or one bare tensor."},
            "signature_name": _string(description="Ignored."),
        },
        "oneOf": [{"required": ["instances"]}, {"required": ["inputs"]}],
    },
    "PredictResponse": {
        "description": "`predictions` for rows, `outputs` for columns.",
        "type": "object",
        "properties": {"predictions": _list(ANY_VALUE), "outputs": ANY_VALUE},
        "oneOf": [{"required": ["predictions"]}, {"required": ["outputs"]}],
    },
    "Tensor": record(
        {
            "name": _string(),
            "datatype": _string(description="Of the Open Inference Protocol: FP32, INT64, BYTES, …"),
            "shape": _list({"type": "integer", "minimum": -1}, description="-1 is any size."),
        }
    ),
    "Model": record(
        {
            "name": _string(),
            "versions": _list(_string(), minItems=1, description="Every version served, ascending."),
            "platform": _string(),
            "inputs": _list(ref("Tensor")),
            "outputs": _list(ref("Tensor")),
            "ready": {"const": True},
            "id": _string(description="`name@version`."),
            "version": _string(description="The version that this describes."),
            "status": _string(enum=["active", "deprecated"]),
            "framework": _string(),
            "labels": {"type": "object", "additionalProperties": _string()},
            "input_schema": {"type": "object", "description": "JSON Schema 2020-12 of `input_data`."},
            "output_schema": {"type": "object", "description": "JSON Schema 2020-12 of `result`."},
            "model_version_status": _list(
                record({"version": _string(), "state": _string(), "status": _STATUS})
            ),
        }
    ),
    "ModelMetadata": record(
        {
            "model_spec": record({"name": _string(), "signature_name": _string(), "version": _string()}),
            "metadata": record({"signature_def": {"type": "object"}}),
        }
    ),
}


def paths() -> Paths:
    """V1's operations, for a model, its versions and its labels."""
    alive = answer("The server answers.", ref("Alive"), example={"status": "alive"})
    found: Paths = {
        "/": {"get": operation(_TAG, "alive", "KServe's liveness", {200: alive}, error="Error", errors=())}
    }
    for place, (suffix, more) in _PLACES.items():
        path, parameters = "/v1/models/{name}" + place, [_NAME, *more]
        found[path] = {
            "get": operation(
                _TAG,
                f"describeModel{suffix}",
                "Describe a model",
                {200: answer("The model is ready.", ref("Model"), VERSION_HEADERS)},
                errors=(404, 405, 503, 504),
                parameters=parameters,
                error="V1Error",
            )
        }
        found[path + "/metadata"] = {
            "get": operation(
                _TAG,
                f"modelMetadata{suffix}",
                "Describe a model as TensorFlow Serving does",
                {200: answer("Its signature.", ref("ModelMetadata"), VERSION_HEADERS)},
                errors=(404, 405, 503, 504),
                parameters=parameters,
                error="V1Error",
            )
        }
        found[path + ":predict"] = {
            "post": operation(
                _TAG,
                f"predict{suffix}",
                "Run a model",
                {200: answer("What the model answered.", ref("PredictResponse"), VERSION_HEADERS)},
                errors=(400, 404, 405, 413, 415, 500, 503, 504),
                body=ref("PredictRequest"),
                examples=_EXAMPLES,
                parameters=parameters,
                error="V1Error",
            )
        }
    return found
