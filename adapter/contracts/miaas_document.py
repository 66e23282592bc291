"""MIaaS's part of the OpenAPI document."""

from adapter.contracts.openapi import (
    VERSION_HEADERS,
    Paths,
    Schema,
    answer,
    operation,
    path_parameter,
    record,
    ref,
)

_TAG = "MIaaS"
_ID = r"^[A-Za-z0-9_-]{1,64}$"
_MODEL_ID = r"^[A-Za-z0-9._-]{1,128}(@[0-9]{1,18})?$"
_EXAMPLES = {
    "by name": {"model_id": "sklearn-iris", "input_data": {"input": [[5.1, 3.5, 1.4, 0.2]]}},
    "rows": {
        "model_id": "sklearn-iris@2",
        "input_data": {"instances": [[5.1, 3.5, 1.4, 0.2]]},
        "parameters": {"timeout_s": 60},
    },
}

_TEXT: Schema = {"type": "string"}
_TIME: Schema = {"type": "string", "format": "date-time"}
_ERROR = record(
    {"code": _TEXT, "message": {"type": "string", "maxLength": 2000}, "details": {"type": "object"}},
    optional=["details"],
)
_LOCATION = {"Location": {"description": "Where to poll.", "schema": _TEXT}}
_RETRY = {"Retry-After": {"description": "While processing: seconds.", "schema": {"type": "integer"}}}
_APPLIED = {"Preference-Applied": {"description": "The wait that was granted (RFC 7240).", "schema": _TEXT}}
_PREFER: Schema = {
    "name": "Prefer",
    "in": "header",
    "description": "`wait=N`: hold the answer for up to N seconds, at most 60, until there is a result.",
    "schema": {"type": "string"},
}
_KEY: Schema = {
    "name": "Idempotency-Key",
    "in": "header",
    "description": "The same key with the same body is the same request, however often it is sent.",
    "schema": {"type": "string", "pattern": r"^[\x21-\x7e][\x20-\x7e]{0,254}$"},
}
_LIMIT: Schema = {
    "name": "limit",
    "in": "query",
    "description": "Requests on a page.",
    "schema": {"type": "integer", "minimum": 1, "maximum": 100, "default": 20},
}
_CURSOR: Schema = {
    "name": "cursor",
    "in": "query",
    "description": "`next` of the page before.",
    "schema": {"type": "string", "pattern": "^([0-9a-f]{13}[0-2]{2}[0-9a-f]{25})?$"},
}

SCHEMAS: dict[str, Schema] = {
    "Error": record({"error": _ERROR}),
    "Health": record({"status": {"const": "healthy"}, "timestamp": _TIME}),
    "InferenceRequest": record(
        {
            "model_id": {**_TEXT, "description": "`name` or `name@version`."},
            "input_data": {
                "type": "object",
                "description": "A V1 body (`instances` or `inputs`), or the model's inputs by name.",
            },
            "parameters": {
                "type": ["object", "null"],
                "properties": {
                    "timeout_s": {"type": "number", "exclusiveMinimum": 0, "maximum": 604_800},
                    "priority": {"type": "integer", "minimum": 0},
                },
                "additionalProperties": {"type": ["boolean", "number", "string"]},
                "description": "`timeout_s` is the request's deadline; others are passed to Triton.",
            },
        },
        optional=["parameters"],
        additionalProperties=False,
    ),
    "Submitted": record({"request_id": _TEXT, "status": {"const": "queued"}}),
    "Inference": record(
        {
            "request_id": _TEXT,
            "status": {"enum": ["processing", "completed", "failed"]},
            "result": {"type": "object", "description": "Once completed: in the form of the input."},
            "error": {**_ERROR, "description": "Once failed."},
            "timestamp": _TIME,
        },
        optional=["result", "error"],
    ),
    "SubmittedMany": {
        "type": "array",
        "description": "One entry per request, in their order.",
        "items": {"anyOf": [ref("Submitted"), ref("Error")]},
    },
    "InferenceList": record(
        {
            "requests": {
                "type": "array",
                "items": record(
                    {
                        "request_id": _TEXT,
                        "model_id": _TEXT,
                        "status": {"enum": ["processing", "completed", "failed"]},
                        "submitted": _TIME,
                        "timestamp": _TIME,
                    }
                ),
            },
            "next": {"type": "string", "description": "The `cursor` of the next page; none on the last."},
        },
        optional=["next"],
    ),
    "ModelList": record(
        {
            "models": {
                "type": "array",
                "items": record(
                    {
                        "id": _TEXT,
                        "name": _TEXT,
                        "version": _TEXT,
                        "status": {"enum": ["active", "deprecated"]},
                    }
                ),
            }
        }
    ),
}


def paths() -> Paths:
    """MIaaS's operations, as the text prints them and below `/v1`."""
    found: Paths = {}
    submitted = {**_LOCATION, **_APPLIED, **VERSION_HEADERS}
    request_id = path_parameter("request_id", "As `POST /inference` answered.", _ID)
    for prefix, suffix in (("", ""), ("/v1", "V1")):
        found[f"{prefix}/health"] = {
            "get": operation(
                _TAG,
                f"health{suffix}",
                "Whether Triton and NATS answer",
                {200: answer("Both do.", ref("Health"))},
                error="Error",
                errors=(503, 504),
            )
        }
        found[f"{prefix}/models"] = {
            "get": operation(
                _TAG,
                f"listModels{suffix}",
                "List every served version of every model",
                {200: answer("The registry.", ref("ModelList"))},
                error="Error",
                errors=(503, 504),
            )
        }
        found[f"{prefix}/inference"] = {
            "post": operation(
                _TAG,
                f"submitInference{suffix}",
                "Queue an inference; an array is taken as `/inference/batch` takes it",
                {
                    200: answer("`Prefer: wait`: it has ended.", ref("Inference"), submitted),
                    202: answer("Durably queued.", ref("Submitted"), submitted),
                },
                error="Error",
                errors=(400, 404, 413, 415, 422, 503, 504),
                parameters=[_KEY, _PREFER],
                body=ref("InferenceRequest"),
                examples=_EXAMPLES,
            ),
            "get": operation(
                _TAG,
                f"listInferences{suffix}",
                "Your own requests, newest first",
                {200: answer("A page of them.", ref("InferenceList"))},
                error="Error",
                errors=(400, 503, 504),
                parameters=[_LIMIT, _CURSOR],
            ),
        }
        found[f"{prefix}/inference/batch"] = {
            "post": operation(
                _TAG,
                f"submitInferences{suffix}",
                "Queue up to 1,000 inferences",
                {202: answer("At least one is durably queued.", ref("SubmittedMany"))},
                error="Error",
                errors=(400, 404, 413, 415, 422, 503, 504),
                parameters=[_KEY],
                body={"type": "array", "items": ref("InferenceRequest"), "minItems": 1, "maxItems": 1000},
                examples={"two": [_EXAMPLES["by name"], _EXAMPLES["rows"]]},
            )
        }
        found[f"{prefix}/inference/{{request_id}}"] = {
            "get": operation(
                _TAG,
                f"getInference{suffix}",
                "Where a request stands, and its result",
                {200: answer("Known.", ref("Inference"), {**_RETRY, **_APPLIED})},
                error="Error",
                errors=(404, 503, 504),
                parameters=[request_id, _PREFER],
            ),
            "delete": operation(
                _TAG,
                f"cancelInference{suffix}",
                "Cancel a request that has not ended",
                {200: answer("Where it stands now.", ref("Inference"))},
                error="Error",
                errors=(404, 503, 504),
                parameters=[request_id],
            ),
        }
    found["/models/{model_id}"] = {
        "get": operation(
            _TAG,
            "getModel",
            "Describe a model",
            {200: answer("The model is ready.", ref("Model"), VERSION_HEADERS)},
            error="Error",
            errors=(404, 503, 504),
            parameters=[path_parameter("model_id", "`name` or `name@version`.", _MODEL_ID)],
        )
    }
    return found
