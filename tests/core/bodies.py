"""Models that the tests of the codec decode bodies for."""

from typing import Any

import numpy as np
import pytest

from adapter.core.codec import decode_body
from adapter.core.errors import InvalidInput
from adapter.core.types import ModelMetadata, Tensor
from tests.fakes import model, tensor

FEATURES = ("sepal_length", "sepal_width", "petal_length", "petal_width")
ONES = {name: [1] for name in FEATURES}
IRIS = model(tensor("input", "FP32", -1, 4), max_batch_size=8, feature_names=FEATURES)
PHOTO = model(tensor("image_bytes", "BYTES", -1, 1), max_batch_size=8)
TWO = model(tensor("a", "FP32", -1, 2), tensor("b", "INT64", -1, 1), max_batch_size=4)
OPTIONAL = model(tensor("a", "UINT8", -1, 1), tensor("c", "UINT8", -1, 1, optional=True), max_batch_size=4)
UNBATCHED = model(tensor("a", "UINT8", -1, 2), tensor("b", "UINT8", 3))
VECTOR = model(tensor("x", "UINT8", -1))


def refusal(metadata: ModelMetadata, body: Any) -> str:
    with pytest.raises(InvalidInput) as caught:
        decode_body(metadata, body)
    return caught.value.message


def uint8(name: str, *elements: int, shape: tuple[int, ...] = ()) -> Tensor:
    return Tensor(name, "UINT8", shape or (len(elements),), bytes(elements))


def iris(*rows: tuple[float, ...]) -> tuple[Tensor, ...]:
    return (Tensor("input", "FP32", (len(rows), 4), np.array(rows, "<f4").tobytes()),)
