"""JSON answers: NaN, times, and the headers of a version on its way out."""

import json
from datetime import date
from typing import Any

import numpy as np
import pytest

from adapter.contracts.answers import json_response, timestamp, version_headers
from tests.fakes import model, tensor

NAN, INFINITY = float("nan"), float("inf")
SINCE = date(2026, 6, 30)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(
    ("rows", "nulls", "tokens"),
    [
        ([[NAN, 0.1], [2, 3]], "[[null,0.1],[2.0,3.0]]", "[[NaN,0.1],[2.0,3.0]]"),
        ([INFINITY, -INFINITY], "[null,null]", "[Infinity,-Infinity]"),
        ([1, 0.1], "[1.0,0.1]", "[1.0,0.1]"),
        ([], "[]", "[]"),
    ],
)
def test_nan_and_the_infinities_come_as_null_or_as_tokens(
    dtype: Any, rows: Any, nulls: str, tokens: str
) -> None:
    array = np.array(rows, dtype)
    # One output in columns, several as one object, several as objects of rows.
    for answer, form in (
        ({"outputs": array}, '{{"outputs":{}}}'),
        ({"outputs": {"y": array, "s": "NaN"}}, '{{"outputs":{{"y":{},"s":"NaN"}}}}'),
    ):
        assert json_response(answer).body == form.format(nulls).encode()
        assert json_response(answer, nan_tokens=True).body == form.format(tokens).encode()
    by_row = {"predictions": [{"y": row} for row in array]}
    text = bytes(json_response(by_row, nan_tokens=True).body).decode()
    assert "null" not in text
    assert repr(json.loads(text)["predictions"]) == repr([{"y": row} for row in json.loads(tokens)])


def test_an_answer_is_exactly_json() -> None:
    response = json_response({"a": "é"}, 202, {"Location": "/x"})
    assert response.status_code == 202
    assert response.headers["content-type"] == "application/json"
    assert response.headers["location"] == "/x"
    assert response.body == '{"a":"é"}'.encode()


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "1970-01-01T00:00:00.000Z"), (1704067200.25, "2024-01-01T00:00:00.250Z")],
)
def test_times_are_iso_8601_in_utc(seconds: float, text: str) -> None:
    assert timestamp(seconds) == text


@pytest.mark.parametrize(
    ("version", "since", "sunset", "headers"),
    [
        ("2", {"1": SINCE}, {"1": date(2027, 1, 31)}, {}),
        ("1", {"1": SINCE}, {}, {"Deprecation": "@1782777600"}),
        ("1", {"1": SINCE, "*": date(2020, 1, 1)}, {}, {"Deprecation": "@1782777600"}),
        ("1", {"1": SINCE}, {"2": date(2027, 1, 31)}, {"Deprecation": "@1782777600"}),
        (
            "1",
            {"1": SINCE},
            {"1": date(2027, 1, 31), "*": date(2030, 1, 1)},
            {"Deprecation": "@1782777600", "Sunset": "Sun, 31 Jan 2027 00:00:00 GMT"},
        ),
        (
            "7",
            {"*": date(1970, 1, 1)},
            {"*": date(2028, 2, 29)},
            {"Deprecation": "@0", "Sunset": "Tue, 29 Feb 2028 00:00:00 GMT"},
        ),
    ],
)
def test_a_version_on_its_way_out_says_so(
    version: str, since: dict[str, date], sunset: dict[str, date], headers: dict[str, str]
) -> None:
    metadata = model(tensor("x", "FP32", -1), version=version, deprecated_since=since, sunset=sunset)
    assert version_headers(metadata) == headers
