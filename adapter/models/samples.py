"""Made-up inputs, to see whether a model runs at all."""

import base64
from typing import Any

import numpy as np
from numpy.typing import NDArray

from adapter.core.datatypes import DATATYPES, pack_bytes
from adapter.core.types import Tensor, TensorMetadata

# Eight by eight grey pixels.
_PICTURE = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAgAAAAICAAAAADhZOFXAAAAEElEQVR42mNsYIAAJgaKGAAmCACQtTEKkQAAAABJRU5ErkJggg=="
)
_TEXT = b"text"


def sample(tensor: TensorMetadata, rows: int | None) -> NDArray[Any]:
    """Values that a model of this input should take; of `rows` rows where axis 0 is the batch, else None.

    An axis of any size is of size 1. Numbers are between 0 and 1, integers 0, which is an index everywhere;
    BYTES are a picture if the input's name says so, else a text.
    """
    shape = tuple(1 if size < 0 else size for size in tensor.shape)
    if rows is not None:
        shape = (rows, *shape[1:])
    datatype = DATATYPES[tensor.datatype]
    if datatype.kind == "bytes":
        array = np.empty(shape, np.object_)
        array.fill(_PICTURE if "image" in tensor.name.lower() else _TEXT)
        return array
    if datatype.kind == "number" and tensor.datatype != "BF16":
        return np.random.default_rng(0).random(shape).astype(datatype.dtype)
    return np.zeros(shape, datatype.dtype)


def sample_tensor(tensor: TensorMetadata, rows: int | None) -> Tensor:
    """`sample` in the protocol's binary form."""
    array = sample(tensor, rows)
    data = pack_bytes(array.ravel().tolist()) if array.dtype == np.object_ else array.tobytes()
    return Tensor(tensor.name, tensor.datatype, array.shape, data)
