"""Models, and tensors of every datatype and shape, as hypothesis draws them."""

from math import prod

import numpy as np
from hypothesis import strategies as st

from adapter.core.datatypes import DATATYPES, from_bf16, pack_bytes
from adapter.core.types import ModelMetadata, Tensor, TensorMetadata
from tests.fakes import model

SHAPES = st.lists(st.integers(0, 4), max_size=4).map(tuple)
NAMES = ("x", "image_bytes", "Größe mm", "b64.x", "0")


@st.composite
def tensors(draw: st.DrawFn, name: str, shape: tuple[int, ...]) -> Tensor:
    """A tensor of any datatype, of any finite values."""
    datatype = draw(st.sampled_from(sorted(DATATYPES)))
    return Tensor(name, datatype, shape, draw(values(datatype, prod(shape))))


@st.composite
def values(draw: st.DrawFn, datatype: str, count: int) -> bytes:
    """The binary form of `count` elements: any bits that stand for a finite value."""
    row = DATATYPES[datatype]
    if row.kind == "bytes":
        elements = st.binary(max_size=8) | st.text(max_size=8).map(str.encode)
        return pack_bytes(draw(st.lists(elements, min_size=count, max_size=count)))
    if row.kind == "bool":
        return bytes(draw(st.lists(st.booleans(), min_size=count, max_size=count)))
    size = count * row.itemsize
    data = draw(st.binary(min_size=size, max_size=size))
    if row.kind == "number":
        array = np.frombuffer(data, row.dtype).copy()
        finite = np.isfinite(from_bf16(array) if datatype == "BF16" else array)
        array[~finite] = 1
        data = array.tobytes()
    return data


@st.composite
def outputs_and_their_model(draw: st.DrawFn, *, rows: bool) -> tuple[tuple[Tensor, ...], ModelMetadata]:
    """A model's answer, and a model that takes those very tensors as its inputs.

    With `rows` the tensors have a first axis, of one size that is not zero.
    """
    names = draw(st.lists(st.sampled_from(NAMES), min_size=1, max_size=3, unique=True))
    leading = (draw(st.integers(1, 4)),) if rows else ()
    outputs = tuple(draw(tensors(name, leading + draw(SHAPES))) for name in names)
    batched = rows and draw(st.booleans())
    return outputs, model(
        *(draw(declarations(output, batched)) for output in outputs), max_batch_size=2 if batched else 0
    )


@st.composite
def declarations(draw: st.DrawFn, tensor: Tensor, batched: bool) -> TensorMetadata:
    """A declaration that the tensor's shape fits: each size as it is, or -1 for any."""
    shape = tuple(size if size and draw(st.booleans()) else -1 for size in tensor.shape)
    return TensorMetadata(tensor.name, tensor.datatype, (-1, *shape[1:]) if batched else shape)
