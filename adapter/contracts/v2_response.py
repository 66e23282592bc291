"""An InferResponse → the body of a V2 answer: JSON, followed by the outputs that were asked for as bytes."""

import json
from collections.abc import Mapping, Sequence
from math import prod
from typing import Any

import numpy as np
import orjson

from adapter.contracts.v2_request import OutputForms
from adapter.core.datatypes import unpack_bytes
from adapter.core.errors import InferenceFailed, InvalidInput
from adapter.core.nested import to_json
from adapter.core.types import InferResponse, Tensor

Parts = Sequence[bytes | memoryview]
"""The pieces of a body, one behind the other."""


def encode_response(response: InferResponse, forms: OutputForms) -> tuple[bytes, Parts]:
    """The JSON, and the bytes that follow it, uncopied.

    Elements in the JSON are flat, in row-major order, FP16 and BF16 as numbers; NaN and infinities are the
    bare tokens that Triton's clients read. Raises InferenceFailed for outputs that break the protocol, and
    InvalidInput for strings that no JSON can hold.
    """
    outputs: list[Mapping[str, Any]] = []
    tail: list[bytes | memoryview] = []
    for tensor in response.outputs:
        head = {"name": tensor.name, "datatype": tensor.datatype, "shape": tensor.shape}
        form = forms.of(tensor.name)
        if form == "region":
            outputs.append(head)
        elif form == "binary":
            outputs.append({**head, "parameters": {"binary_data_size": len(tensor.data)}})
            tail.append(tensor.data)
        else:
            outputs.append({**head, "data": _data(tensor)})
    document: dict[str, Any] = {"id": response.id} if response.id else {}
    document |= {"model_name": response.model_name, "model_version": response.model_version}
    if response.parameters:
        document["parameters"] = response.parameters
    document["outputs"] = outputs
    return orjson.dumps(document, option=orjson.OPT_SERIALIZE_NUMPY), tail


def _data(tensor: Tensor) -> Any:
    """The elements as a JSON writer takes them."""
    count = prod(tensor.shape)
    if tensor.datatype == "BYTES":
        return _strings(tensor, count)
    array = to_json(tensor._replace(shape=(count,)))
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        return orjson.Fragment(json.dumps(array.tolist()).encode())
    return array


def _strings(tensor: Tensor, count: int) -> list[str]:
    try:
        elements = unpack_bytes(tensor.data)
    except ValueError as error:
        raise InferenceFailed(f"output {tensor.name!r}: {error}") from error
    if len(elements) != count:
        shape = list(tensor.shape)
        raise InferenceFailed(f"output {tensor.name!r}: its data does not fit its shape {shape}")
    try:
        return [element.decode() for element in elements]
    except UnicodeDecodeError:
        raise InvalidInput(
            f"output {tensor.name!r} holds bytes that are not UTF-8, which JSON cannot carry; "
            "ask for it with the parameter binary_data"
        ) from None
