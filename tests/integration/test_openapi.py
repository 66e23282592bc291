"""The OpenAPI document against the live server: no server error, no answer that is not documented."""

import copy
from typing import Any

import httpx
import pytest
import schemathesis
from hypothesis import HealthCheck, settings
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
    unsupported_method,
)

from adapter.app import openapi_document
from tests.integration.conftest import Up

CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_schema_conformance,
    response_headers_conformance,
    unsupported_method,
]


def _with_real_models(document: dict[str, Any]) -> dict[str, Any]:
    """The document, its path parameters narrowed to what exists, so that more than 404s are seen."""
    real = {
        "name": ["sklearn-iris", "digits", "two-io"],
        "version": ["1", "2"],
        "label": ["stable", "previous"],
        "model_id": ["sklearn-iris@1", "digits"],
    }
    for operations in document["paths"].values():
        for operation in operations.values():
            for parameter in operation.get("parameters", []):
                if parameter["name"] in real:
                    parameter["schema"] = {"type": "string", "enum": real[parameter["name"]]}
    return document


ANY = schemathesis.openapi.from_dict(openapi_document())
REAL = schemathesis.openapi.from_dict(_with_real_models(copy.deepcopy(openapi_document())))
BUDGET = settings(max_examples=15, deadline=None, suppress_health_check=list(HealthCheck))


Case = schemathesis.Case[Any]


def check(up: Up, case: Case) -> None:
    case.call_and_validate(
        base_url=up.facts["url"], headers={"X-API-Key": up.facts["api_key"]}, checks=CHECKS, timeout=30
    )


@ANY.parametrize()
@BUDGET
def test_anything_that_the_document_allows_or_forbids(up: Up, case: Case) -> None:
    check(up, case)


@REAL.parametrize()
@BUDGET
def test_the_same_on_models_that_exist(up: Up, case: Case) -> None:
    check(up, case)


def test_the_server_shows_the_document_without_a_key(up: Up) -> None:
    shown = httpx.get(up.facts["url"] + "/openapi.json")
    assert shown.status_code == 200
    assert shown.json() == openapi_document()


@pytest.mark.parametrize(
    "path",
    ["/docs", "/docs/files/swagger-ui-bundle.js", "/docs/files/swagger-ui.css", "/docs/files/favicon.png"],
)
def test_the_page_and_its_files_come_from_here(up: Up, path: str) -> None:
    page = httpx.get(up.facts["url"] + path)
    assert page.status_code == 200
    assert "https://" not in page.text if path == "/docs" else page.content
