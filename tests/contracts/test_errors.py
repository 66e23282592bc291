"""The tree of errors as HTTP: every status and code, in each contract's form."""

from collections.abc import Iterator

import orjson
import pytest
from starlette.responses import Response

from adapter.contracts.errors import contract_of, error_body, error_response, status_of
from adapter.core import errors
from adapter.core.errors import AdapterError

EXPECTED: dict[str, tuple[int, str]] = {
    "AdapterError": (500, "internal"),
    "InvalidInput": (400, "invalid_input"),
    "PayloadTooLarge": (413, "payload_too_large"),
    "UnsupportedEncoding": (415, "unsupported_encoding"),
    "Unauthenticated": (401, "unauthenticated"),
    "InvalidCredentials": (401, "unauthenticated"),
    "ExpiredCredentials": (401, "unauthenticated"),
    "PermissionDenied": (403, "permission_denied"),
    "RateLimited": (429, "rate_limited"),
    "NotFound": (404, "not_found"),
    "ModelNotFound": (404, "model_not_found"),
    "JobNotFound": (404, "request_not_found"),
    "IdempotencyConflict": (422, "idempotency_conflict"),
    "NotSupported": (501, "not_supported"),
    "DeadlineExceeded": (504, "deadline_exceeded"),
    "InferenceFailed": (500, "inference_failed"),
    "Unavailable": (503, "unavailable"),
    "ModelNotReady": (503, "model_not_ready"),
    "ModelGone": (503, "model_not_ready"),
    "ModelCrashed": (503, "model_crashed"),
    "EngineUnavailable": (503, "engine_unavailable"),
    "EngineUnreached": (503, "engine_unavailable"),
    "QueueUnavailable": (503, "queue_unavailable"),
    "QueueFull": (503, "queue_full"),
    "BatchQueueFull": (503, "batch_queue_full"),
}
V1, V2, MIAAS = "/v1/models/iris:predict", "/v2/models/iris/infer", "/v1/inference"


def tree(kind: type[AdapterError]) -> Iterator[type[AdapterError]]:
    yield kind
    for child in kind.__subclasses__():
        yield from tree(child)


KINDS = [kind for kind in tree(AdapterError) if kind.__module__ == errors.__name__]


def make(kind: type[AdapterError], message: str = "what was wrong") -> AdapterError:
    return errors.RateLimited(message, 7) if issubclass(kind, errors.RateLimited) else kind(message)


def body(response: Response) -> object:
    return orjson.loads(response.body)


def test_the_table_of_this_test_holds_the_whole_tree() -> None:
    assert {kind.__name__ for kind in KINDS} == set(EXPECTED)


def test_the_modules_docstring_draws_the_whole_tree() -> None:
    drawn = {line.strip(" │├└─").split(" ")[0] for line in (errors.__doc__ or "").splitlines()[2:] if line}
    assert drawn == set(EXPECTED)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("path", [V1, V2, MIAAS])
def test_every_error_has_its_status_and_its_contracts_form(kind: type[AdapterError], path: str) -> None:
    status, code = EXPECTED[kind.__name__]
    error = make(kind)
    response = error_response(path, error)
    assert status_of(error) == response.status_code == status
    in_full = {"code": code, "message": "what was wrong"}
    assert body(response) == {"error": in_full if path == MIAAS else "what was wrong"}
    assert response.headers["content-type"] == "application/json"


@pytest.mark.parametrize("kind", KINDS)
def test_headers_come_with_their_statuses(kind: type[AdapterError]) -> None:
    headers = error_response(MIAAS, make(kind)).headers
    retry_after = {"RateLimited": "7", "QueueFull": "5"}.get(kind.__name__)
    if EXPECTED[kind.__name__][0] == 503:
        retry_after = retry_after or "1"
    assert headers.get("retry-after") == retry_after
    invalid = 'Bearer realm="miaas-adapter", error="invalid_token", error_description="what was wrong"'
    challenges = {
        "Unauthenticated": 'Bearer realm="miaas-adapter"',
        "InvalidCredentials": invalid,
        "ExpiredCredentials": invalid,
        "PermissionDenied": 'Bearer realm="miaas-adapter", error="insufficient_scope"',
    }
    assert headers.get("www-authenticate") == challenges.get(kind.__name__)
    # What is left of a body that is too large is not read.
    assert headers.get("connection") == ("close" if kind is errors.PayloadTooLarge else None)


def test_details_are_told_in_miaas_form_alone() -> None:
    error = errors.InvalidInput("wrong", {"path": "inputs[0]", "got": "null"})
    assert body(error_response(MIAAS, error)) == {
        "error": {
            "code": "invalid_input",
            "message": "wrong",
            "details": {"path": "inputs[0]", "got": "null"},
        }
    }
    assert body(error_response(V1, error)) == {"error": "wrong"}
    assert body(error_response(V2, error)) == {"error": "wrong"}


@pytest.mark.parametrize("path", [V1, MIAAS])
def test_a_message_is_cut_at_2000_characters(path: str) -> None:
    def shown(message: str) -> str:
        content = orjson.loads(error_body(path, 400, "invalid_input", message).body)["error"]
        return str(content["message"] if path == MIAAS else content)

    assert shown("é" * 2000) == "é" * 2000
    assert shown("é" * 2001) == "é" * 1999 + "…"
    assert len(shown("x" * 1_000_000)) == 2000


@pytest.mark.parametrize(
    ("path", "contract"),
    [
        ("/v1/models/iris", "v1"),
        ("/v1/models/iris:predict", "v1"),
        ("/v1/models/iris/versions/1:predict", "v1"),
        ("/v1/models/iris/nothing/here", "v1"),
        ("/v1/models", "miaas"),
        ("/v1/health", "miaas"),
        ("/v1/inference/abc", "miaas"),
        ("/health", "miaas"),
        ("/models/iris", "miaas"),
        ("/", "miaas"),
        ("/v1/modelsX", "miaas"),
        ("/v2", "v2"),
        ("/v2/health/ready", "v2"),
        ("/v20", "miaas"),
    ],
)
def test_a_path_tells_its_contract(path: str, contract: str) -> None:
    assert contract_of(path) == contract
