"""The OpenAPI document is kept as a snapshot, and no change to it may break a client."""

import copy
import json
from collections.abc import Callable
from typing import Any

import pytest

from adapter.app import openapi_document
from scripts.document_openapi import SNAPSHOT
from scripts.openapi_compatibility import breaking

Document = dict[str, Any]


def test_no_client_is_broken() -> None:
    assert breaking(json.loads(SNAPSHOT.read_text()), openapi_document()) == []


def test_the_snapshot_is_current() -> None:
    assert json.loads(SNAPSHOT.read_text()) == openapi_document(), "run `make docs`"


def _drop_path(document: Document) -> None:
    del document["paths"]["/health"]


def _drop_status(document: Document) -> None:
    del document["paths"]["/inference"]["post"]["responses"]["202"]


def _drop_field(document: Document) -> None:
    del document["components"]["schemas"]["Model"]["properties"]["framework"]


def _make_uncertain(document: Document) -> None:
    document["components"]["schemas"]["Health"]["required"].remove("timestamp")


def _change_type(document: Document) -> None:
    document["components"]["schemas"]["Submitted"]["properties"]["request_id"] = {"type": "integer"}


def _add_value(document: Document) -> None:
    document["components"]["schemas"]["Inference"]["properties"]["status"]["enum"].append("queued")


def _require_more(document: Document) -> None:
    document["components"]["schemas"]["InferenceRequest"]["required"].append("parameters")


def _narrow_bound(document: Document) -> None:
    parameters = document["components"]["schemas"]["InferenceRequest"]["properties"]["parameters"]
    parameters["properties"]["timeout_s"]["maximum"] = 60


def _drop_header(document: Document) -> None:
    del document["paths"]["/inference"]["post"]["responses"]["202"]["headers"]["Location"]


@pytest.mark.parametrize(
    ("change", "found"),
    [
        (_drop_path, "GET /health: is gone"),
        (_drop_status, "POST /inference: status 202 is gone"),
        (_drop_field, "GET /v1/models/{name} 200.framework: is gone"),
        (_make_uncertain, "GET /health 200.timestamp: is not certain any more"),
        (_change_type, "POST /inference 202.request_id: the type was string, is integer"),
        (_add_value, "GET /inference/{request_id} 200.status: has other values than before"),
        (_require_more, "POST /inference body.parameters: is required now"),
        (_narrow_bound, "POST /inference body.parameters.timeout_s: maximum is narrower"),
        (_drop_header, "POST /inference 202: header Location is gone"),
    ],
)
def test_a_breaking_change_is_found(change: Callable[[Document], None], found: str) -> None:
    changed = copy.deepcopy(openapi_document())
    change(changed)
    assert found in breaking(openapi_document(), changed)


def test_an_addition_breaks_nobody() -> None:
    changed = copy.deepcopy(openapi_document())
    changed["paths"]["/v1/new"] = changed["paths"]["/health"]
    changed["components"]["schemas"]["Health"]["properties"]["uptime_s"] = {"type": "number"}
    request = changed["components"]["schemas"]["InferenceRequest"]
    request["properties"]["tags"] = {"type": "array"}
    assert breaking(openapi_document(), changed) == []
