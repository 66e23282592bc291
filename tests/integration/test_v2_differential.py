"""V2 against Triton itself: hypothesis makes requests, both servers answer, and the answers agree.

Where they may differ docs/v2.md says why.
"""

import json
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.integration.conftest import Up
from tests.integration.v2 import Pair, binary, message
from tests.models.generate import DATATYPES

BUDGET = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
SIZES = st.integers(0, 3)
NO_JSON_IN_TRITON = ("FP16", "BF16")


@pytest.fixture(scope="module")
def pair(up: Up) -> Iterator[Pair]:
    facts = up.facts
    pair = Pair(facts["url"], facts["api_key"], facts["triton_http"])
    yield pair
    pair.close()


def elements(datatype: str) -> st.SearchStrategy[Any]:
    match datatype:
        case "BOOL":
            return st.booleans()
        case "BYTES":
            return st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
        case "FP16" | "FP32" | "FP64":
            width: Any = int(datatype[2:])
            return st.floats(width=width)
        case "BF16":
            return st.integers(0, 0xFFFF)
        case _:
            limits = np.iinfo(datatype.lower())
            return st.integers(int(limits.min), int(limits.max))


SIXTEENTHS = st.integers(-(10**9), 10**9).map(lambda number: number / 16)


def as_bytes(datatype: str, values: list[Any]) -> bytes:
    return binary(datatype, [value.encode() for value in values] if datatype == "BYTES" else values)


@st.composite
def nested(draw: st.DrawFn, values: list[Any], shape: list[int]) -> Any:
    """The values in one array, or in the arrays of their shape."""
    if draw(st.booleans()) or not all(shape):
        return values
    rows = [values[i : i + shape[1]] for i in range(0, len(values), shape[1])]
    assert len(rows) == shape[0]
    return rows


@st.composite
def requests(draw: st.DrawFn, datatype: str) -> tuple[bytes, dict[str, str]]:
    """A good request to the identity model of a datatype, in any form."""
    shape = [draw(SIZES), draw(SIZES)]
    count = shape[0] * shape[1]
    in_json = datatype not in NO_JSON_IN_TRITON and draw(st.booleans())
    # Triton's JSON reader is off by the last bit of some doubles; those of few digits are exact in both.
    few_digits = datatype == "FP64" and in_json
    values = draw(st.lists(SIXTEENTHS if few_digits else elements(datatype), min_size=count, max_size=count))
    one: dict[str, Any] = {"name": "INPUT0", "datatype": datatype, "shape": shape}
    tail = []
    if in_json:
        one["data"] = draw(nested(values, shape))
    else:
        tail.append(as_bytes(datatype, values))
        one["parameters"] = {"binary_data_size": len(tail[0])}
    document: dict[str, Any] = {"inputs": [one]}
    must = datatype in NO_JSON_IN_TRITON
    if must or draw(st.booleans()):
        output: dict[str, Any] = {"name": "OUTPUT0"}
        if must or draw(st.booleans()):
            output["parameters"] = {"binary_data": must or draw(st.booleans())}
        document["outputs"] = [output]
    if draw(st.booleans()):
        document["id"] = draw(st.text("abc-_0123", max_size=10))
    if draw(st.booleans()):
        document["parameters"] = {"binary_data_output": draw(st.booleans()), "note": "x", "n": 3}
    return message(document, *tail)


@pytest.mark.parametrize("datatype", DATATYPES)
@BUDGET
@given(data=st.data())
def test_every_datatype(pair: Pair, datatype: str, data: st.DataObject) -> None:
    ours, triton = pair.infer(f"identity-{datatype.lower()}", *data.draw(requests(datatype)))
    assert ours == triton


@pytest.mark.parametrize("datatype", NO_JSON_IN_TRITON)
@BUDGET
@given(data=st.data())
def test_half_floats_in_json_which_triton_refuses(pair: Pair, datatype: str, data: st.DataObject) -> None:
    values = data.draw(st.lists(st.integers(-256, 256).map(lambda n: n / 4), min_size=1, max_size=6))
    one = {"name": "INPUT0", "datatype": datatype, "shape": [1, len(values)], "data": values}
    response = pair.ours.post(f"/v2/models/identity-{datatype.lower()}/infer", json={"inputs": [one]})
    rounded = [float(np.float32(value)) for value in values]
    if datatype == "BF16":
        # Seven bits of fraction hold every quarter up to 32 exactly, and the whole numbers up to 256.
        values = [value for value in values if abs(value) <= 32]
        rounded = [value for value in rounded if abs(value) <= 32]
        got = [value for value in response.json()["outputs"][0]["data"] if abs(value) <= 32]
        assert got == rounded
    else:
        assert response.json()["outputs"][0]["data"] == rounded


@BUDGET
@given(data=st.data())
def test_several_tensors_in_any_mixture(pair: Pair, data: st.DataObject) -> None:
    rows = data.draw(st.integers(1, 4))
    declared = {"a": ("FP32", 2), "b": ("INT64", 1), "c": ("FP32", 1)}
    names = data.draw(st.permutations(["a", "b", "c"] if data.draw(st.booleans()) else ["a", "b"]))
    inputs, tail = [], []
    for name in names:
        datatype, width = declared[name]
        values = data.draw(st.lists(st.integers(-1000, 1000), min_size=rows * width, max_size=rows * width))
        one: dict[str, Any] = {"name": name, "datatype": datatype, "shape": [rows, width]}
        if data.draw(st.booleans()):
            one["data"] = values
        else:
            tail.append(binary(datatype, values))
            one["parameters"] = {"binary_data_size": len(tail[-1])}
        inputs.append(one)
    outputs = [
        {"name": name, "parameters": parameters}
        for name in data.draw(st.permutations(["sum", "echo"]))[: data.draw(st.integers(0, 2))]
        for parameters in [
            data.draw(
                st.sampled_from([{}, {"binary_data": True}, {"binary_data": False}, {"classification": 1}])
            )
        ]
    ]
    document: dict[str, Any] = {"inputs": inputs, "id": "7"}
    if outputs:
        document["outputs"] = outputs
    ours, triton = pair.infer("two-io", *message(document, *tail))
    assert ours == triton


GOOD = {"name": "INPUT0", "datatype": "FP32", "shape": [1, 2]}
FINE = {"inputs": [{**GOOD, "data": [1, 2]}]}
SABOTAGED: list[tuple[str, dict[str, Any], bytes | None]] = [
    ("no inputs", {}, None),
    ("inputs that are no array", {"inputs": {}}, None),
    ("no input", {"inputs": []}, None),
    ("an input that is no object", {"inputs": [1]}, None),
    ("an unknown input", {"inputs": [{**GOOD, "name": "nope", "data": [1, 2]}]}, None),
    ("an input twice", {"inputs": [{**GOOD, "data": [1, 2]}] * 2}, None),
    ("no data", {"inputs": [GOOD]}, None),
    ("data twice", {"inputs": [{**GOOD, "data": [1, 2], "parameters": {"binary_data_size": 8}}]}, bytes(8)),
    ("a wrong datatype", {"inputs": [{**GOOD, "datatype": "FP64", "data": [1, 2]}]}, None),
    ("an unknown datatype", {"inputs": [{**GOOD, "datatype": "FP99", "data": [1, 2]}]}, None),
    ("a wrong rank", {"inputs": [{**GOOD, "shape": [2], "data": [1, 2]}]}, None),
    ("a negative size", {"inputs": [{**GOOD, "shape": [-1, 2], "data": [1, 2]}]}, None),
    ("a size that is no integer", {"inputs": [{**GOOD, "shape": [1.0, 2], "data": [1, 2]}]}, None),
    ("too few elements", {"inputs": [{**GOOD, "data": [1]}]}, None),
    ("too many elements", {"inputs": [{**GOOD, "data": [1, 2, 3]}]}, None),
    ("a string among numbers", {"inputs": [{**GOOD, "data": ["1", 2]}]}, None),
    ("a boolean among numbers", {"inputs": [{**GOOD, "data": [True, 2]}]}, None),
    ("null among numbers", {"inputs": [{**GOOD, "data": [None, 2]}]}, None),
    ("data that is no array", {"inputs": [{**GOOD, "data": 5}]}, None),
    ("fewer bytes than the shape", {"inputs": [{**GOOD, "parameters": {"binary_data_size": 4}}]}, bytes(4)),
    ("fewer bytes than said", {"inputs": [{**GOOD, "parameters": {"binary_data_size": 8}}]}, bytes(4)),
    ("more bytes than said", {"inputs": [{**GOOD, "parameters": {"binary_data_size": 8}}]}, bytes(12)),
    ("a negative number of bytes", {"inputs": [{**GOOD, "parameters": {"binary_data_size": -8}}]}, bytes(8)),
    ("an unknown output", {**FINE, "outputs": [{"name": "nope"}]}, None),
    ("an output without a name", {**FINE, "outputs": [{}]}, None),
    ("an id that is no string", {**FINE, "id": 7}, None),
    ("a priority below 0", {**FINE, "parameters": {"priority": -1}}, None),
    ("a timeout that is no integer", {**FINE, "parameters": {"timeout": 1.5}}, None),
    ("a start that is no boolean", {**FINE, "parameters": {"sequence_start": 1}}, None),
    ("Triton's own parameter", {**FINE, "parameters": {"triton_x": 1}}, None),
    ("an array as a parameter", {**FINE, "parameters": {"x": [1]}}, None),
]  # fmt: skip


@pytest.mark.parametrize(
    ("document", "tail"), [case[1:] for case in SABOTAGED], ids=[case[0] for case in SABOTAGED]
)
def test_what_triton_refuses_is_refused(pair: Pair, document: dict[str, Any], tail: bytes | None) -> None:
    ours, triton = pair.infer("identity-fp32", *message(document, *([] if tail is None else [tail])))
    # To Triton some of a client's mistakes are its own: it says 500.
    assert triton.status in (400, 500)
    assert ours.status == 400
    assert ours.content_type == "application/json"
    assert ours.document.keys() == {"error"}


@pytest.mark.parametrize(
    ("datatype", "value"),
    [("INT8", 300), ("UINT16", 70_000), ("INT32", 2**31), ("FP32", 1e39)],
)
def test_a_value_out_of_range_is_refused_where_triton_wraps_it(pair: Pair, datatype: str, value: Any) -> None:
    one = {"name": "INPUT0", "datatype": datatype, "shape": [1, 1], "data": [value]}
    ours, triton = pair.infer(f"identity-{datatype.lower()}", *message({"inputs": [one]}))
    assert (ours.status, triton.status) == (400, 200)
    assert "inputs[0].data[0]" in ours.document["error"]


def test_more_rows_than_the_model_takes(pair: Pair) -> None:
    one = {"name": "INPUT0", "datatype": "FP32", "shape": [9, 1], "data": list(range(9))}
    ours, triton = pair.infer("identity-batch", *message({"inputs": [one]}))
    assert ours.status == triton.status == 400
    assert ours.document["error"] == "inference request batch-size must be <= 8 for 'identity-batch'"


@pytest.mark.parametrize(
    ("model", "body"),
    [
        ("sklearn-iris", binary("FP32", [5.1, 3.5, 1.4, 0.2])),
        ("identity-batch", binary("FP32", [1, 2, 3])),
        ("identity-batch", b"12345"),
        ("identity-fp32", bytes(16)),
        ("identity-bytes", b"abcd"),
        ("two-io", bytes(16)),
        ("imagenet-preprocess", b"no picture"),
    ],
)
def test_a_body_without_json(pair: Pair, model: str, body: bytes) -> None:
    ours, triton = pair.infer(model, body, {"Inference-Header-Content-Length": "0"})
    assert ours.status == triton.status
    if triton.status == 200:
        assert ours == triton


def test_what_comes_beside_the_tensors(pair: Pair) -> None:
    parameters = {
        **{"sequence_id": 2**64 - 1, "sequence_start": True, "sequence_end": True, "priority": 2},
        **{"timeout": 1_000_000, "text": "é", "whole": -3, "real": 2.5, "flag": True},
    }
    one = {"name": "INPUT0", "datatype": "INT32", "shape": [1], "data": [1]}
    ours, triton = pair.infer("inspect", *message({"id": "an-id", "inputs": [one], "parameters": parameters}))
    seen, by_triton = (json.loads(one.document["outputs"][0]["data"][4:]) for one in (ours, triton))
    assert seen == by_triton
    assert seen["id"] == "an-id"
    assert seen["flags"] == 3
    assert seen["correlation_id"] == 2**64 - 1
    assert seen["parameters"] == {"text": "é", "whole": -3, "real": 2.5, "flag": True}


@pytest.mark.parametrize("name", ["priority", "timeout"])
def test_the_largest_number_of_a_parameter(pair: Pair, name: str) -> None:
    one = {"name": "INPUT0", "datatype": "INT32", "shape": [1], "data": [1]}
    ours, triton = pair.infer("inspect", *message({"inputs": [one], "parameters": {name: 2**64 - 1}}))
    assert ours == triton


@BUDGET
@given(value=st.floats(allow_nan=False, allow_infinity=False))
def test_doubles_in_json_are_exact(pair: Pair, value: float) -> None:
    one = {"name": "INPUT0", "datatype": "FP64", "shape": [1, 1], "data": [value]}
    answer = pair.ours.post("/v2/models/identity-fp64/infer", json={"inputs": [one]}).json()
    assert answer["outputs"][0]["data"] == [value]


@pytest.mark.parametrize("sequence_id", [7, "a-name"])
def test_a_sequence(pair: Pair, sequence_id: int | str) -> None:
    totals = []
    for value in (1, 2, 3):
        one = {"name": "INPUT0", "datatype": "INT32", "shape": [1], "data": [value]}
        parameters = {
            "sequence_id": sequence_id,
            "sequence_start": value == 1,
            "sequence_end": value == 3,
        }
        body = {"inputs": [one], "parameters": parameters}
        response = pair.ours.post("/v2/models/running-sum/infer", json=body)
        totals.append(response.json()["outputs"][0]["data"])
    assert totals == [[1], [3], [6]]


def test_classification_of_a_batch(pair: Pair) -> None:
    one = {"name": "input", "datatype": "FP32", "shape": [2, 4], "data": [5.1, 3.5, 1.4, 0.2] * 2}
    for parameters in (
        {"classification": 2},
        {"classification": 9, "binary_data": True},
        {"classification": 0},
    ):
        document = {"inputs": [one], "outputs": [{"name": "output", "parameters": parameters}]}
        ours, triton = pair.infer("sklearn-iris", *message(document))
        assert ours == triton


def test_strings_that_json_cannot_carry(pair: Pair) -> None:
    one = {"name": "INPUT0", "datatype": "BYTES", "shape": [1, 1], "parameters": {"binary_data_size": 6}}
    body, headers = message({"inputs": [one]}, b"\x02\0\0\0\xff\xfe")
    refused = pair.ours.post("/v2/models/identity-bytes/infer", content=body, headers=headers)
    assert refused.status_code == 400
    assert refused.json()["error"] == (
        "output 'OUTPUT0' holds bytes that are not UTF-8, which JSON cannot carry; "
        "ask for it with the parameter binary_data"
    )
