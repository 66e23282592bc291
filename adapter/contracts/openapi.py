"""The OpenAPI document: how an operation is written down, and the parts that the contracts share.

The routes read bodies themselves, so nothing could be derived from them; each contract writes its operations
beside its routes, and a test holds document and routes to each other, and answers to the document.
"""

from collections.abc import Iterable, Mapping
from http import HTTPStatus
from typing import Any

from adapter import __version__

Schema = dict[str, Any]
Paths = dict[str, dict[str, Any]]

_ERROR_STATUSES = {
    400: "The request is wrong; the message says where.",
    401: "No credentials, or none that are known.",
    403: "The credentials do not allow this.",
    404: "No such model, version, label or request.",
    405: "What follows a colon in the path is a verb, and verbs take POST.",
    413: "The body is over the limit.",
    422: "The Idempotency-Key came before with another body.",
    415: "The body came with a Content-Encoding.",
    429: "More requests than the client may send; Retry-After says when to come back.",
    500: "The model failed on this request.",
    501: "A part of the contract that is not offered.",
    503: "Triton, NATS or the model is not available; Retry-After says when to come back.",
    504: "The answer was not there in time.",
}
_RETRY = {"Retry-After": {"description": "Seconds to wait.", "schema": {"type": "integer", "minimum": 0}}}
_CHALLENGE = {"WWW-Authenticate": {"description": "RFC 6750.", "schema": {"type": "string"}}}
_ERROR_HEADERS = {401: _CHALLENGE, 429: _RETRY, 503: _RETRY}

VERSION_HEADERS = {
    "Deprecation": {"description": "RFC 9745: this version is on its way out.", "schema": {"type": "string"}},
    "Sunset": {"description": "RFC 8594: the day it goes.", "schema": {"type": "string"}},
}

ANY_VALUE: Schema = {"description": "Any JSON value."}
MODEL_NAME = r"^[A-Za-z0-9._-]{1,128}$"


def ref(name: str) -> Schema:
    """A reference to a schema of the document's components."""
    return {"$ref": f"#/components/schemas/{name}"}


def record(
    properties: Mapping[str, Schema], optional: Iterable[str] = (), description: str = "", **more: Any
) -> Schema:
    """An object with these members, all required but the optional ones; others may come with time."""
    skipped = set(optional)
    schema: Schema = {"type": "object", "properties": dict(properties), **more}
    if required := [name for name in properties if name not in skipped]:
        schema["required"] = required
    if description:
        schema["description"] = description
    return schema


def path_parameter(name: str, description: str, pattern: str = MODEL_NAME) -> Schema:
    """A parameter that is a segment of the path."""
    schema = {"type": "string", "pattern": pattern}
    return {"name": name, "in": "path", "required": True, "description": description, "schema": schema}


def answer(description: str, schema: Schema, headers: Schema | None = None, example: Any = None) -> Schema:
    """One response: JSON of this schema."""
    content: Schema = {"schema": schema}
    if example is not None:
        content["example"] = example
    response: Schema = {"description": description, "content": {"application/json": content}}
    return {**response, "headers": headers} if headers else response


def operation(
    tag: str,
    identifier: str,
    summary: str,
    answers: Mapping[int, Schema],
    *,
    error: str,
    errors: Iterable[int],
    parameters: Iterable[Schema] = (),
    body: Schema | None = None,
    examples: Mapping[str, Any] | None = None,
) -> Schema:
    """One operation; `error` names the schema of its error bodies, `errors` the statuses they come with."""
    responses = {str(status): answers[status] for status in sorted(answers)}
    for status in sorted({401, 403, 429, *errors}):
        responses[str(status)] = answer(
            _ERROR_STATUSES.get(status, HTTPStatus(status).phrase), ref(error), _ERROR_HEADERS.get(status)
        )
    described: Schema = {"tags": [tag], "operationId": identifier, "summary": summary, "responses": responses}
    if listed := list(parameters):
        described["parameters"] = listed
    if body is not None:
        content: Schema = {"schema": body}
        if examples:
            content["examples"] = {name: {"value": value} for name, value in examples.items()}
        described["requestBody"] = {"required": True, "content": {"application/json": content}}
    return described


def document(paths: Iterable[Paths], schemas: Iterable[Mapping[str, Schema]]) -> Schema:
    """The whole document, of the contracts' operations and schemas."""
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "miaas-adapter",
            "version": __version__,
            "description": "The MIaaS, KServe V1 and Open Inference protocols in front of NVIDIA Triton.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "security": [{"apiKey": []}, {"bearer": []}],
        "paths": {path: operations for part in paths for path, operations in part.items()},
        "components": {
            "schemas": {name: schema for part in schemas for name, schema in part.items()},
            "securitySchemes": {
                "apiKey": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
                "bearer": {"type": "http", "scheme": "bearer", "description": "An API key or a JWT."},
            },
        },
    }
