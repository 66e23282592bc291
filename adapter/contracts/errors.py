"""The adapter's errors as HTTP: one table from the tree to a status, and the two forms of a body."""

from http import HTTPStatus
from typing import Any, Literal

import orjson
from starlette.responses import Response

from adapter.core import errors

STATUS: dict[type[errors.AdapterError], HTTPStatus] = {
    errors.InvalidInput: HTTPStatus.BAD_REQUEST,
    errors.PayloadTooLarge: HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
    errors.UnsupportedEncoding: HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
    errors.Unauthenticated: HTTPStatus.UNAUTHORIZED,
    errors.PermissionDenied: HTTPStatus.FORBIDDEN,
    errors.RateLimited: HTTPStatus.TOO_MANY_REQUESTS,
    errors.NotFound: HTTPStatus.NOT_FOUND,
    errors.IdempotencyConflict: HTTPStatus.UNPROCESSABLE_ENTITY,
    errors.NotSupported: HTTPStatus.NOT_IMPLEMENTED,
    errors.DeadlineExceeded: HTTPStatus.GATEWAY_TIMEOUT,
    errors.InferenceFailed: HTTPStatus.INTERNAL_SERVER_ERROR,
    errors.Unavailable: HTTPStatus.SERVICE_UNAVAILABLE,
    errors.AdapterError: HTTPStatus.INTERNAL_SERVER_ERROR,
}
"""An error that is not listed has its nearest listed ancestor's status."""

_MOST_CHARACTERS = 2000


def contract_of(path: str) -> Literal["v1", "v2", "miaas"]:
    """The contract that a path belongs to, and so the form of its errors; unknown paths are MIaaS's."""
    if path.startswith("/v1/models/"):
        return "v1"
    return "v2" if path == "/v2" or path.startswith("/v2/") else "miaas"


def status_of(error: errors.AdapterError) -> HTTPStatus:
    """The HTTP status that stands for an error, in every contract."""
    return next(STATUS[kind] for kind in type(error).__mro__ if kind in STATUS)


def error_response(path: str, error: errors.AdapterError) -> Response:
    """An error in the form of the contract that `path` belongs to, with the headers its status asks for."""
    headers: dict[str, str] = {}
    if isinstance(error, errors.Unavailable | errors.RateLimited):
        headers["Retry-After"] = str(error.retry_after_s)
    if isinstance(error, errors.PayloadTooLarge):
        # What is left of the body is not waited for.
        headers["Connection"] = "close"
    if isinstance(error, errors.Unauthenticated | errors.PermissionDenied):
        headers["WWW-Authenticate"] = _challenge(error)
    return error_body(path, status_of(error), error.code, error.message, error.details, headers)


def _challenge(error: errors.AdapterError) -> str:
    """RFC 6750, 3: no error code for a request that brought no credentials."""
    challenge = 'Bearer realm="miaas-adapter"'
    if isinstance(error, errors.InvalidCredentials):
        return f'{challenge}, error="invalid_token", error_description="{error.message}"'
    if isinstance(error, errors.PermissionDenied):
        scope = f', scope="{error.scope}"' if error.scope else ""
        return f'{challenge}, error="insufficient_scope"{scope}'
    return challenge


def unexpected(path: str) -> Response:
    """The answer to an error that nobody expected: nothing of it is shown."""
    return error_response(path, errors.AdapterError("an internal error; the server's log has more"))


def error_body(
    path: str,
    status: int,
    code: str,
    message: str,
    details: dict[str, Any] | None = None,
    headers: dict[str, str] | None = None,
) -> Response:
    """V1's and V2's `{"error": "…"}`, or MIaaS's `{"error": {"code", "message", "details"?}}`."""
    message = message if len(message) <= _MOST_CHARACTERS else message[: _MOST_CHARACTERS - 1] + "…"
    content: Any = message
    if contract_of(path) == "miaas":
        content = {"code": code, "message": message}
        if details:
            content["details"] = details
    body = orjson.dumps({"error": content}, default=str)
    return Response(body, status, headers, media_type="application/json")
