"""Which tensors of a request are large enough for shared memory, and where in a region each would lie."""

from collections.abc import Mapping
from math import prod
from typing import NamedTuple

from adapter.core.datatypes import DATATYPES
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
from adapter.triton.segments import place_of

_ALIGNED = 64
_MOST_SEEN = 64

Shapes = tuple[tuple[int, ...], ...]


class Layout(NamedTuple):
    """A request with large tensors, and a region of `size` bytes for those that lie in none yet."""

    request: InferRequest
    size: int
    inputs: tuple[int | Region | None, ...]
    """Where each input begins in the region, or lies already; None where it is small."""
    outputs: Mapping[str, tuple[int, int]]
    """Where each large output begins, and its size."""

    def filled(self, view: memoryview) -> "Layout":
        """The same, its large inputs copied into a region, which `view` shows all of."""
        inputs = list(self.request.inputs)
        for i, (tensor, start) in enumerate(zip(self.request.inputs, self.inputs, strict=True)):
            if isinstance(start, int):
                place = view[start : start + len(tensor.data)]
                place[:] = memoryview(tensor.data).cast("B")
                inputs[i] = tensor._replace(data=place)
        return self._replace(request=self.request._replace(inputs=tuple(inputs)))

    def placed(self, name: str) -> InferRequest:
        """The request as Triton is to be asked, with the large tensors in the region of that name."""
        inputs = tuple(
            _placed_input(tensor, name, start)
            for tensor, start in zip(self.request.inputs, self.inputs, strict=True)
        )
        outputs = tuple(self._placed_output(output, name) for output in self.request.outputs)
        return self.request._replace(inputs=inputs, outputs=outputs)

    def _placed_output(self, output: RequestedOutput, name: str) -> RequestedOutput:
        if output.name not in self.outputs:
            return output
        start, size = self.outputs[output.name]
        return output._replace(parameters=Region(name, size, start).parameters)

    def read(self, response: InferResponse, view: memoryview) -> InferResponse:
        """The answer with the data of the outputs that Triton wrote into the region."""
        outputs = tuple(
            self._read_output(tensor, view) if tensor.name in self.outputs else tensor
            for tensor in response.outputs
        )
        return response._replace(outputs=outputs)

    def _read_output(self, tensor: Tensor, view: memoryview) -> Tensor:
        start, most = self.outputs[tensor.name]
        known = DATATYPES.get(tensor.datatype)
        size = prod(tensor.shape) * known.itemsize if known and tensor.datatype != "BYTES" else -1
        if not 0 <= size <= most:
            raise InferenceFailed(f"output {tensor.name!r} is not of the size that its model declares")
        return tensor._replace(data=view[start : start + size])


def _placed_input(tensor: Tensor, name: str, start: int | Region | None) -> Tensor:
    if start is None:
        return tensor
    region = start if isinstance(start, Region) else Region(name, len(tensor.data), start)
    return tensor._replace(data=b"", region=region)


class _Sizes(NamedTuple):
    """How many bytes a row of each output has, where that is known beforehand, and the most."""

    known: ModelMetadata
    outputs: Mapping[str, int]
    largest: int
    seen: dict[Shapes, dict[str, int]] | None
    """The bytes of outputs of unknown size when the inputs had these shapes; None is not believed."""


class Planner:
    """Lays out requests with tensors of at least `least` bytes."""

    def __init__(self, least: int) -> None:
        self._least = least
        self._sizes: dict[tuple[str, str], _Sizes] = {}

    def layout(self, request: InferRequest, known: ModelMetadata | None, rows: int) -> Layout | None:
        """Where its large tensors would lie; None where it has none.

        `known` describes its model; `rows` is 0 where that does not batch.
        """
        sizes = self._sizes_of(request, known) if known else None
        for tensor in request.inputs:
            if len(tensor.data) >= self._least:
                break
        else:
            if sizes is None or sizes.largest * (rows or 1) < self._least:
                return None
        return self._lay_out(request, sizes, rows or 1)

    def surprised_by(self, request: InferRequest) -> None:
        """The model answers more than it declares: its outputs go as bytes, until it declares others."""
        key = request.model_name, request.model_version
        self._sizes[key] = self._sizes[key]._replace(outputs={}, largest=0, seen=None)

    def saw(self, layout: Layout, response: InferResponse) -> None:
        """What was answered: large outputs of unknown size are expected as large the next time.

        That is, when the model gets inputs of the same shapes.
        """
        request = layout.request
        sizes = self._sizes.get((request.model_name, request.model_version))
        if sizes is None or sizes.seen is None:
            return
        large = {
            output.name: len(output.data)
            for output in response.outputs
            if len(output.data) >= self._least
            and output.datatype != "BYTES"
            and sizes.outputs.get(output.name) == 0
            and output.name not in layout.outputs
        }
        if large:
            if len(sizes.seen) >= _MOST_SEEN:
                sizes.seen.clear()
            sizes.seen[_shapes(request)] = large

    def _sizes_of(self, request: InferRequest, known: ModelMetadata) -> _Sizes:
        key = request.model_name, request.model_version
        held = self._sizes.get(key)
        if held is not None and held.known is known:
            return held
        if held is not None and held.known == known:
            # It was described once more.
            held = held._replace(known=known)
        else:
            outputs = {tensor.name: _row_bytes(tensor, known) for tensor in known.outputs}
            held = _Sizes(known, outputs, max(outputs.values(), default=0), {})
        self._sizes[key] = held
        return held

    def _lay_out(self, request: InferRequest, sizes: _Sizes | None, rows: int) -> Layout | None:
        end = 0
        inputs: list[int | Region | None] = []
        for tensor in request.inputs:
            if tensor.region is not None or len(tensor.data) < self._least:
                inputs.append(None)
            elif place := place_of(tensor.data):
                segment, start = place
                inputs.append(Region(segment.name, len(tensor.data), start))
            else:
                inputs.append(end)
                end += _aligned(len(tensor.data))
        outputs: dict[str, tuple[int, int]] = {}
        # A request that does not fit is sent once more, which a sequence must not be.
        if sizes and not request.parameters.get("sequence_id"):
            # None named means all.
            every = tuple(RequestedOutput(tensor.name) for tensor in sizes.known.outputs)
            wanted = request.outputs or every
            seen = sizes.seen.get(_shapes(request), {}) if sizes.seen else {}
            for output in wanted:
                size = rows * sizes.outputs.get(output.name, 0) or seen.get(output.name, 0)
                if size >= self._least and not output.parameters:
                    outputs[output.name] = end, size
                    end += _aligned(size)
            if outputs:
                request = request._replace(outputs=wanted)
        return Layout(request, end, tuple(inputs), outputs) if end or any(inputs) else None


def _shapes(request: InferRequest) -> Shapes:
    return tuple(tensor.shape for tensor in request.inputs)


def _row_bytes(tensor: TensorMetadata, known: ModelMetadata) -> int:
    """Of an output; 0 where it may have any size."""
    shape = tensor.shape[known.batched :]
    return 0 if -1 in shape else prod(shape) * DATATYPES[tensor.datatype].itemsize


def _aligned(size: int) -> int:
    return -(-size // _ALIGNED) * _ALIGNED
