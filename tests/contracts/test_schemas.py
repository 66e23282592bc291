"""The JSON Schemas of a model say what the API does: by example, and by property."""

from typing import Any

import orjson
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from adapter.contracts.schemas import input_schema, output_schema
from adapter.core.codec import decode_input_data, encode_answer
from adapter.core.errors import InvalidInput
from adapter.core.types import AnswerForm, ModelMetadata, Tensor, TensorMetadata
from tests.fakes import model, tensor
from tests.strategies import outputs_and_their_model

# --- By example ---


def accepts(schema: dict[str, Any], value: Any) -> bool:
    return bool(Draft202012Validator(schema).is_valid(value))


def takes(metadata: ModelMetadata, input_data: Any) -> bool:
    try:
        decode_input_data(metadata, input_data)
    except InvalidInput:
        return False
    return True


IRIS = model(
    tensor("input", "FP32", -1, 4),
    outputs=[tensor("probabilities", "FP32", -1, 3)],
    max_batch_size=8,
    feature_names=("sl", "sw", "pl", "pw"),
)
WORDS = model(tensor("words", "BYTES", -1, 1), max_batch_size=4)
TWO = model(tensor("a", "UINT8", -1, 1), tensor("c", "INT64", -1, 2, optional=True), max_batch_size=4)
FIXED = model(tensor("a", "INT8", 2), tensor("b", "BOOL", 2, -1))
HALVES = model(
    tensor("h", "FP16", -1), tensor("b", "BF16", -1), tensor("s", "FP32", -1), tensor("d", "FP64", -1)
)
SCALAR = model(tensor("x", "FP64"))
INPUTS = model(tensor("inputs", "UINT8", -1))
ROW = {"sl": 1, "sw": 2, "pl": 3, "pw": 4}


@pytest.mark.parametrize(
    ("metadata", "input_data"),
    [
        (IRIS, {"instances": [[1, 2.5, 3, 4]]}),
        (IRIS, {"instances": [[1, 2, 3, 4]], "signature_name": "x", "more": None}),
        (IRIS, {"instances": [{"input": [1, 2, 3, 4]}]}),
        (IRIS, {"instances": [ROW]}),
        (IRIS, {"inputs": [ROW]}),
        (IRIS, {"inputs": [[1, 2, 3, 4]]}),
        (IRIS, {"inputs": {"input": [[1, 2, 3, 4]]}}),
        (IRIS, {"inputs": {name: [value] for name, value in ROW.items()}}),
        (IRIS, {"input": [[1, 2, 3, 4]]}),
        (IRIS, {name: [value] for name, value in ROW.items()}),
        (WORDS, {"instances": ["a", {"b64": "QQ=="}, ["c"]]}),
        (WORDS, {"words": ["a", {"b64": ""}]}),
        (TWO, {"a": [1, [2]]}),
        (TWO, {"a": [255], "c": [[-(2**63), 2**63 - 1]]}),
        (FIXED, {"a": [1, 2], "b": [[], []]}),
        (FIXED, {"instances": [{"a": 1, "b": [True]}, {"a": 2, "b": [False]}]}),
        (HALVES, {"h": [65519], "b": [3.39e38], "s": [3.4028235e38], "d": [1e308]}),
        (SCALAR, {"x": 1}),
        (SCALAR, {"inputs": 1}),
        (INPUTS, {"inputs": [1]}),
        (INPUTS, {"instances": [1]}),
        (INPUTS, {"instances": [{"inputs": 1}]}),
    ],
)
def test_what_the_api_takes_the_schema_accepts(metadata: ModelMetadata, input_data: Any) -> None:
    assert takes(metadata, input_data)
    assert accepts(input_schema(metadata), input_data)


@pytest.mark.parametrize(
    ("metadata", "input_data"),
    [
        (IRIS, []),
        (IRIS, {}),
        (IRIS, {"instances": []}),
        (IRIS, {"instances": [[1, 2, 3]]}),
        (IRIS, {"instances": [[1, 2, 3, True]]}),
        (IRIS, {"instances": [[1, 2, 3, None]]}),
        (IRIS, {"instances": [[1, 2, 3, "4"]]}),
        (IRIS, {"instances": [[1, 2, 3, 1e39]]}),
        (IRIS, {"instances": [[1, 2, 3, 4]], "inputs": [[1, 2, 3, 4]]}),
        (IRIS, {"instances": [[1, 2, 3, 4]], "signature_name": None}),
        (IRIS, {"instances": [ROW, [1, 2, 3, 4]]}),
        (IRIS, {"instances": [ROW, {"input": [1, 2, 3, 4]}]}),
        (IRIS, {"instances": [{**ROW, "more": 1}]}),
        (IRIS, {"instances": [{"sl": 1}]}),
        (IRIS, {"inputs": []}),
        (IRIS, {"input": []}),
        (IRIS, {"input": [[1, 2, 3, 4]], "more": 1}),
        (WORDS, {"instances": [{"b64": "QQ"}]}),
        (WORDS, {"instances": [{"b64": "QQ==\n"}]}),
        (WORDS, {"instances": [{"b64": "-_=="}]}),
        (WORDS, {"instances": [{"b64": "QQ==", "x": 1}]}),
        (WORDS, {"b64": "QQ=="}),
        (TWO, {"a": [256]}),
        (TWO, {"a": [-1]}),
        (TWO, {"a": [1.5]}),
        (TWO, {"c": [[1, 2]]}),
        (TWO, {"a": [1], "c": [[1, 2**63]]}),
        (TWO, {"inputs": [1]}),
        (FIXED, {"a": [1], "b": [[], []]}),
        (FIXED, {"a": 1, "b": [[], []]}),
        (FIXED, {"instances": [{"a": 1, "b": [True]}]}),
        (HALVES, {"h": [65520], "b": [0], "s": [0], "d": [0]}),
        (HALVES, {"h": [0], "b": [3.4e38], "s": [0], "d": [0]}),
        (HALVES, {"h": [0], "b": [0], "s": [-3.4028236e38], "d": [0]}),
        (SCALAR, {"x": [1]}),
        (SCALAR, {"instances": [1]}),
        (INPUTS, {"inputs": {"inputs": [1]}}),
        (INPUTS, {"inputs": [1], "instances": [1]}),
    ],
)
def test_what_the_schema_refuses_the_api_refuses(metadata: ModelMetadata, input_data: Any) -> None:
    assert not accepts(input_schema(metadata), input_data)
    assert not takes(metadata, input_data)


@pytest.mark.parametrize(
    ("metadata", "input_data"),
    [
        (TWO, {"a": [1.0]}),
        (TWO, {"a": [1, 2], "c": [[1, 2]]}),
        (TWO, {"instances": [{"a": 1}, {"a": 1, "c": [1, 2]}]}),
        (FIXED, {"a": [1, 2], "b": [[True], []]}),
    ],
)
def test_what_no_schema_can_say(metadata: ModelMetadata, input_data: Any) -> None:
    """The list in adapter/contracts/schemas.py; the property below knows no other exceptions."""
    assert accepts(input_schema(metadata), input_data)
    assert not takes(metadata, input_data)
    assert excused(metadata, input_data)


# --- By property ---

SIZES = st.sampled_from([-1, -1, 1, 2, 3])
DATATYPES = st.sampled_from(["BOOL", "INT8", "UINT64", "FP16", "FP32", "FP64", "BYTES"])


@st.composite
def models(draw: st.DrawFn) -> ModelMetadata:
    """A model of one to three inputs, batching or not, some with feature names, some with optional inputs."""
    batched = draw(st.booleans())
    names = draw(st.lists(st.sampled_from(["a", "b", "c", "inputs"]), min_size=1, max_size=3, unique=True))
    inputs = []
    for name in names:
        dims: tuple[int, ...] = tuple(draw(st.lists(SIZES, min_size=int(batched), max_size=2)))
        shape = (-1, *dims) if batched else dims
        # An optional input's own number of rows is one more thing that no schema can say.
        optional = shape[:1] == (-1,) and bool(draw(st.booleans()))
        inputs.append(TensorMetadata(name, draw(DATATYPES), shape, optional))
    features: tuple[str, ...] = ()
    last = inputs[0].shape[-1:] if len(inputs) == 1 and len(inputs[0].shape) > batched else ()
    if draw(st.booleans()) and last:
        features = ("f", "g", "h")[: last[0]] if last[0] > 0 else ("f", "g")
    return model(*inputs, max_batch_size=4 if batched else 0, feature_names=features)


ELEMENTS: dict[str, st.SearchStrategy[Any]] = {
    "BOOL": st.booleans(),
    "INT8": st.sampled_from([0, 1, -128, 127]),
    "UINT64": st.sampled_from([0, 1, 2**64 - 1]),
    "FP16": st.sampled_from([0, 0.5, -65519.9]),
    "FP32": st.sampled_from([0, 0.5, -3.4028235e38]),
    "FP64": st.sampled_from([0, 0.5, -1.7e308]),
    "BYTES": st.sampled_from(["", "é", {"b64": ""}, {"b64": "QQ=="}, {"b64": "QUI="}, {"b64": "QUJD"}]),
}
ODD = st.sampled_from(
    [
        None,
        True,
        0,
        1,
        -1,
        2,
        256,
        -129,
        2**64,
        0.5,
        1.0,
        65520,
        3.41e38,
        "",
        "1",
        {},
        [],
        [1],
        [[1]],
        ["a"],
        {"b64": "Q"},
    ]
)


def nested(draw: st.DrawFn, declared: TensorMetadata, shape: tuple[int, ...]) -> Any:
    if not shape or (shape == (1,) and draw(st.booleans())):
        return draw(ELEMENTS[declared.datatype])
    size = draw(st.integers(0, 2)) if shape[0] < 0 else shape[0]
    return [nested(draw, declared, shape[1:]) for _ in range(size)]


@st.composite
def documents(draw: st.DrawFn, metadata: ModelMetadata) -> Any:
    """An `input_data`, right in most of its parts, and wrong in at most two places."""
    group: list[TensorMetadata] = [t for t in metadata.inputs if not t.optional or draw(st.booleans())]
    if draw(st.booleans()) and metadata.feature_names:
        only = metadata.inputs[0]
        group = [TensorMetadata(name, only.datatype, only.shape[:-1]) for name in metadata.feature_names]
    rows = draw(st.integers(1, 3))

    def whole(t: TensorMetadata) -> Any:
        if t.shape[:1] == (-1,):
            return [nested(draw, t, t.shape[1:]) for _ in range(rows)]
        return nested(draw, t, t.shape)

    def row() -> Any:
        return {t.name: nested(draw, t, t.shape[1:]) for t in group}

    columns: Any = {t.name: whole(t) for t in group}
    if len(metadata.inputs) == 1 and draw(st.booleans()):
        columns = whole(metadata.inputs[0])
    value = draw(st.sampled_from(["instances", "inputs", "rows in inputs", "names"]))
    document: Any
    if value == "names":
        document = {t.name: whole(t) for t in group}
    elif value == "inputs":
        document = {"inputs": columns}
    else:
        instances = [row() for _ in range(rows)] if type(columns) is dict else columns
        document = {"instances" if value == "instances" else "inputs": instances}
    for _ in range(draw(st.integers(0, 2))):
        document = changed(draw, document)
    return document


def changed(draw: st.DrawFn, value: Any) -> Any:
    """The document with one change somewhere in it."""
    if type(value) in (dict, list) and value and draw(st.integers(0, 5)):
        at = draw(st.sampled_from(sorted(value) if type(value) is dict else range(len(value))))
        return _with(value, at, changed(draw, value[at]))
    match draw(st.integers(0, 3)):
        case 0 if type(value) is list:
            return value[1:]
        case 1 if type(value) is list:
            return [*value, *(value[:1] or [draw(ODD)])]
        case 0 if type(value) is dict and value:
            gone = draw(st.sampled_from(sorted(value)))
            return {name: each for name, each in value.items() if name != gone}
        case 1 if type(value) is dict:
            return {
                **value,
                draw(st.sampled_from(["a", "f", "x", "inputs", "instances", "signature_name"])): draw(ODD),
            }
        case 2:
            return [value]
        case _:
            return draw(ODD)


def _with(value: Any, at: Any, changed: Any) -> Any:
    if type(value) is list:
        return [*value[:at], changed, *value[at + 1 :]]
    return {**value, at: changed}


def excused(metadata: ModelMetadata, value: Any) -> bool:
    """Whether a document holds anything that no schema can refuse, wherever it stands."""
    if type(value) is float:
        return value.is_integer()
    if type(value) is list:
        if value and all(type(each) is dict for each in value):
            names = value[0].keys()
            return any(row.keys() != names for row in value) or excused(
                metadata, {name: [row[name] for row in value] for name in names}
            )
        return _shape(value) is None or any(excused(metadata, each) for each in value)
    if type(value) is dict:
        arrays = [each for each in value.values() if type(each) is list]
        sizes = {len(each) for each in arrays} if metadata.batched else set()
        shapes = set(map(_shape, arrays)) if value.keys() == set(metadata.feature_names) else set()
        return len(sizes) > 1 or len(shapes) > 1 or any(excused(metadata, each) for each in value.values())
    return False


def _shape(value: Any) -> tuple[int, ...] | None:
    """The shape of nested arrays, or None when they are ragged."""
    if type(value) is not list:
        return ()
    inner = {_shape(each) for each in value}
    if None in inner or len(inner) > 1:
        return None
    return (len(value), *(inner.pop() or () if inner else ()))


@given(models(), st.data())
@settings(max_examples=1500)
def test_the_input_schema_says_what_the_api_does(metadata: ModelMetadata, data: st.DataObject) -> None:
    document = data.draw(documents(metadata))
    accepted, taken = accepts(input_schema(metadata), document), takes(metadata, document)
    if taken:
        assert accepted
    if accepted:
        assert taken or excused(metadata, document)


@given(models())
@settings(max_examples=100)
def test_the_schemas_are_schemas(metadata: ModelMetadata) -> None:
    for schema in (input_schema(metadata), output_schema(metadata)):
        assert schema["$schema"] == "https://json-schema.org/draft/2020-12/schema"
        Draft202012Validator.check_schema(schema)
        assert orjson.loads(orjson.dumps(schema)) == schema


@given(
    st.booleans().flatmap(lambda rows: outputs_and_their_model(rows=rows)),
    st.sampled_from(["predictions", "outputs", "names"]),
)
@settings(max_examples=300)
def test_any_answer_is_as_the_output_schema_says(
    case: tuple[tuple[Tensor, ...], ModelMetadata], form: AnswerForm
) -> None:
    outputs, metadata = case
    try:
        value = encode_answer(outputs, form, batched=metadata.batched)
    except InvalidInput:
        assume(False)
    result = orjson.loads(orjson.dumps(value, option=orjson.OPT_SERIALIZE_NUMPY))
    assert accepts(output_schema(metadata), result)
    assert not accepts(output_schema(metadata), {**result, "more": 1})


@pytest.mark.parametrize(
    ("result", "valid"),
    [
        ({"predictions": [[0.5, None, 3.0]]}, True),
        ({"outputs": [[0.5, 1, 2]]}, True),
        ({"probabilities": [[0.5, 1, 2]]}, True),
        ({"predictions": [[0.5, 1]]}, False),
        ({"predictions": [["0.5", 1, 2]]}, False),
        ({"predictions": [{"probabilities": [1, 2, 3]}]}, False),
        ({"predictions": [[1, 2, 3]], "outputs": [[1, 2, 3]]}, False),
        ({}, False),
    ],
)
def test_the_output_schema_by_example(result: Any, valid: bool) -> None:
    assert accepts(output_schema(IRIS), result) is valid
