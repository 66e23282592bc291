"""Which tensors of a request may lie in shared memory, and where."""

from dataclasses import replace
from typing import Any

import pytest

from adapter.core.errors import InferenceFailed
from adapter.core.types import (
    InferRequest,
    InferResponse,
    ModelMetadata,
    Region,
    RequestedOutput,
    Tensor,
    TensorMetadata,
)
from adapter.triton.layout import Layout, Planner
from adapter.triton.segments import Segment

LEAST = 1024


def model(*outputs: TensorMetadata, batched: bool = True) -> ModelMetadata:
    return ModelMetadata("m", "1", ("1",), "", "", 8 if batched else 0, (), outputs)


def request(*inputs: Tensor, **more: Any) -> InferRequest:
    return InferRequest("m", "", inputs, **more)


def block(name: str, size: int, rows: int = 1) -> Tensor:
    return Tensor(name, "UINT8", (rows, size // rows), bytes(range(256)) * (size // 256))


SMALL, LARGE = block("small", 256), block("large", 2048)
FIXED = TensorMetadata("fixed", "FP32", (-1, 100))
KNOWN = model(FIXED, TensorMetadata("text", "BYTES", (-1, 9000)), TensorMetadata("any", "FP32", (-1, -1)))


def test_a_request_without_large_tensors_goes_as_it_is() -> None:
    assert Planner(LEAST).layout(request(SMALL), KNOWN, 1) is None
    assert Planner(LEAST).layout(request(SMALL), None, 0) is None
    assert Planner(LEAST).layout(request(), model(batched=False), 0) is None


def test_large_inputs_lie_behind_each_other() -> None:
    odd = Tensor("odd", "UINT8", (1025,), bytes(1025))
    layout = Planner(LEAST).layout(request(odd, SMALL, LARGE), None, 0)
    assert layout is not None
    assert layout.inputs == (0, None, 1088)
    assert layout.size == 1088 + 2048
    view = memoryview(bytearray(4096))
    filled = layout.filled(view)
    assert view[1088 : 1088 + 2048] == LARGE.data
    assert [tensor.data for tensor in filled.request.inputs] == [odd.data, SMALL.data, LARGE.data]
    first, second, third = filled.placed("r").inputs
    assert first == odd._replace(data=b"", region=Region("r", 1025, 0))
    assert second == SMALL
    assert third == LARGE._replace(data=b"", region=Region("r", 2048, 1088))
    assert filled.placed("r").outputs == ()


def test_outputs_of_a_known_size_are_asked_for_and_then_all_are_named() -> None:
    layout = Planner(LEAST).layout(request(block("x", 768, rows=3)), KNOWN, 3)
    assert layout is not None
    assert layout.outputs == {"fixed": (0, 1200)}
    parameters = Region("r", 1200, 0).parameters
    assert layout.placed("r").outputs == (
        RequestedOutput("fixed", parameters),
        RequestedOutput("text"),
        RequestedOutput("any"),
    )
    tensors = (Tensor("fixed", "FP32", (3, 100), b""), Tensor("text", "BYTES", (3, 1), b"abc"))
    view = memoryview(bytes(range(200)) * 6)
    read = layout.read(InferResponse("m", "1", tensors), view)
    assert [tensor.data for tensor in read.outputs] == [view, b"abc"]


@pytest.mark.parametrize(
    "more",
    [
        {"parameters": {"sequence_id": 7}},
        {"outputs": (RequestedOutput("text"),)},
        {"outputs": (RequestedOutput("fixed", {"classification": 1}),)},
        {"outputs": (RequestedOutput("fixed", Region("theirs", 9000).parameters),)},
    ],
    ids=["sequence", "not wanted", "classification", "a region of the client's"],
)
def test_outputs_that_go_as_they_are(more: dict[str, Any]) -> None:
    inputs = block("x", 768, rows=3)
    assert Planner(LEAST).layout(request(inputs, **more), KNOWN, 3) is None
    layout = Planner(LEAST).layout(request(inputs, block("y", 3072, rows=3), **more), KNOWN, 3)
    assert layout is not None
    assert (layout.inputs, layout.outputs) == ((None, 0), {})
    assert layout.request.outputs == more.get("outputs", ())


def test_an_input_in_a_region_of_the_clients_stays_there() -> None:
    theirs = Tensor("x", "UINT8", (9000,), b"", Region("theirs", 9000))
    layout = Planner(LEAST).layout(request(theirs, LARGE), None, 0)
    assert layout is not None
    assert layout.inputs == (None, 0)
    assert layout.placed("r").inputs[0] == theirs


def test_an_input_that_lies_in_a_region_already_is_asked_for_there() -> None:
    segment = Segment(8192)
    view = segment.lend(lambda _: None)
    there = Tensor("there", "UINT8", (2000,), view[100:2100])
    layout = Planner(LEAST).layout(request(there, SMALL, LARGE), None, 0)
    assert layout is not None
    assert layout.size == 2048
    placed = layout.filled(memoryview(bytearray(2048))).placed("r")
    assert [tensor.region for tensor in placed.inputs] == [
        Region(segment.name, 2000, 100),
        None,
        Region("r", 2048, 0),
    ]
    assert [tensor.data for tensor in placed.inputs] == [b"", SMALL.data, b""]
    alone = Planner(LEAST).layout(request(there), None, 0)
    assert alone is not None
    assert alone.size == 0


def answered(layout: Layout, *outputs: Tensor) -> InferResponse:
    """What Triton says, which leaves out what it wrote into a region."""
    outputs = tuple(each._replace(data=b"") if each.name in layout.outputs else each for each in outputs)
    return InferResponse("m", "1", outputs)


def test_outputs_of_unknown_size_are_expected_as_large_as_they_were_for_inputs_of_the_same_shape() -> None:
    planner, asked = Planner(LEAST), request(block("x", 2048, rows=2))
    text = Tensor("text", "BYTES", (1,), bytes(9000))
    for size in (3000, 2000):
        first = planner.layout(asked, KNOWN, 2)
        assert first is not None
        assert "any" not in first.outputs
        any_ = Tensor("any", "FP32", (2, size // 8), bytes(size))
        planner.saw(first, answered(first, any_, text))
        for _ in range(3):
            layout = planner.layout(asked, KNOWN, 2)
            assert layout is not None
            assert layout.outputs == {"any": (2048, size)}
            planner.saw(layout, answered(layout, any_, text))
        asked = request(block("x", 2048, rows=4))
    planner.surprised_by(asked)
    layout = planner.layout(asked, KNOWN, 4)
    assert layout is not None
    assert layout.outputs == {}
    planner.saw(layout, answered(layout, any_))
    assert planner.layout(asked, KNOWN, 4) == layout


def test_what_is_remembered_of_answers_is_bounded() -> None:
    planner = Planner(LEAST)
    requests = [request(Tensor("x", "UINT8", (1, 1024 + n), bytes(1024 + n))) for n in range(300)]
    for asked in requests:
        layout = planner.layout(asked, KNOWN, 1)
        assert layout is not None
        planner.saw(layout, answered(layout, Tensor("any", "FP32", (1, 500), bytes(2000))))
    layouts = [planner.layout(asked, KNOWN, 1) for asked in requests]
    assert 1 <= sum(layout is not None and "any" in layout.outputs for layout in layouts) <= 64


def test_a_model_that_answered_more_than_it_declares_is_not_believed_until_it_declares_other_outputs() -> (
    None
):
    planner, inputs = Planner(LEAST), block("x", 768, rows=3)
    assert planner.layout(request(inputs), KNOWN, 3) is not None
    planner.surprised_by(request(inputs))
    assert planner.layout(request(inputs), KNOWN, 3) is None
    assert planner.layout(request(inputs), replace(KNOWN), 3) is None
    layout = planner.layout(request(inputs), model(TensorMetadata("fixed", "FP32", (-1, 200))), 3)
    assert layout is not None
    assert layout.outputs == {"fixed": (0, 2400)}
    assert planner.layout(request(inputs), model(TensorMetadata("fixed", "FP32", (-1, 2))), 3) is None


@pytest.mark.parametrize("shape", [(3, 101), (-1, 100), (3, 200)])
@pytest.mark.parametrize("datatype", ["FP32", "BYTES", "?"])
def test_an_output_that_does_not_fit_is_none(shape: tuple[int, ...], datatype: str) -> None:
    layout = Planner(LEAST).layout(request(block("x", 768, rows=3)), KNOWN, 3)
    assert layout is not None
    response = InferResponse("m", "1", (Tensor("fixed", datatype, shape, b""),))
    with pytest.raises(InferenceFailed, match="'fixed' is not of the size that its model declares"):
        layout.read(response, memoryview(bytes(1200)))
