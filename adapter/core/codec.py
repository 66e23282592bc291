"""The bodies of V1 and MIaaS ↔ tensors. Pure: JSON values in and out, no I/O, no HTTP.

Rows (`instances`), columns (`inputs`) and named values all come down to one nested list per tensor. The rules
are KServe's V1 and TensorFlow Serving's (https://www.tensorflow.org/tfx/serving/api_rest) made strict;
docs/contracts.md lists them.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeGuard

import numpy as np

from adapter.core.datatypes import DATATYPES
from adapter.core.errors import InvalidInput
from adapter.core.nested import Where, decode_tensor, describe, indices, to_json
from adapter.core.types import AnswerForm, ModelMetadata, Tensor, TensorMetadata


def decode_body(metadata: ModelMetadata, body: Any) -> tuple[tuple[Tensor, ...], AnswerForm]:
    """A V1 `:predict` body → its tensors and the form of the answer.

    Takes exactly one of `instances` (rows) and `inputs` (columns; a list of objects there is rows). Raises
    InvalidInput, whose message names the tensor and the JSON path of the first offending element.
    """
    if type(body) is not dict:
        raise InvalidInput(f"the body must be a JSON object, got {describe(body)}")
    signature = body.get("signature_name")
    if signature is not None and type(signature) is not str:
        raise InvalidInput(f"signature_name: expected a string, got {describe(signature)}")
    if ("instances" in body) == ("inputs" in body):
        raise InvalidInput('the body must hold exactly one of "instances" and "inputs"')
    if "instances" in body:
        return decode_rows(metadata, body["instances"], "instances"), "predictions"
    inputs = body["inputs"]
    if type(inputs) is list and inputs and _is_named(inputs[0], metadata):
        return decode_rows(metadata, inputs, "inputs"), "predictions"
    return decode_columns(metadata, inputs, "inputs"), "outputs"


def decode_input_data(metadata: ModelMetadata, input_data: Any) -> tuple[tuple[Tensor, ...], AnswerForm]:
    """MIaaS's `input_data` → its tensors and the form of `result`.

    Takes a V1 body, or an object of the model's input names; a model's own names win over V1's two.
    """
    if type(input_data) is not dict:
        raise InvalidInput(f"input_data: expected an object, got {describe(input_data)}")
    v1 = {"instances", "inputs"} & input_data.keys()
    if v1 and not v1 & {tensor.name for tensor in metadata.inputs}:
        return decode_body(metadata, input_data)
    return decode_columns(metadata, input_data, "input_data"), "names"


def decode_rows(metadata: ModelMetadata, instances: Any, root: str) -> tuple[Tensor, ...]:
    """The row form: one element per instance, bare for a single input, else an object of input names."""
    if type(instances) is not list:
        raise InvalidInput(f"{root}: expected an array of instances, got {describe(instances)}")
    if not instances:
        raise InvalidInput(f"{root}: expected at least one instance, got an empty array")
    if not _is_named(instances[0], metadata):
        tensor = _only_input(metadata, f"{root}[0]", instances[0])
        return _checked_batch(metadata, (decode_tensor(tensor, instances, lambda at: root + indices(at)),))

    names = instances[0].keys()
    for i, instance in enumerate(instances):
        if type(instance) is not dict:
            raise InvalidInput(f"{root}[{i}]: expected an object as {root}[0] is, got {describe(instance)}")
        if instance.keys() != names:
            odd = min(instance.keys() ^ names)
            raise InvalidInput(f"{root}[{i}]: {odd!r} is in some instances and not in others")

    def column(name: str) -> tuple[Any, Where]:
        rows = [instance[name] for instance in instances]
        return rows, lambda at: f"{root}[{at[0]}].{name}{indices(at[1:])}" if at else f"{root}[*].{name}"

    return _decode_named(metadata, names, column, f"{root}[0]")


def decode_columns(metadata: ModelMetadata, inputs: Any, root: str) -> tuple[Tensor, ...]:
    """The columnar form: an object of whole tensors by name, or one bare tensor for a single input."""
    if not _is_named(inputs, metadata):
        tensor = _only_input(metadata, root, inputs)
        return _checked_batch(metadata, (decode_tensor(tensor, inputs, lambda at: root + indices(at)),))

    def column(name: str) -> tuple[Any, Where]:
        return inputs[name], lambda at: f"{root}.{name}{indices(at)}"

    return _decode_named(metadata, inputs.keys(), column, root)


def _is_named(value: Any, metadata: ModelMetadata) -> TypeGuard[dict[str, Any]]:
    """Whether `value` is an object of names, and not the b64 object of a BYTES element."""
    if type(value) is not dict:
        return False
    single_bytes = len(metadata.inputs) == 1 and metadata.inputs[0].datatype == "BYTES"
    return not (single_bytes and value.keys() == {"b64"} and metadata.inputs[0].name != "b64")


def _only_input(metadata: ModelMetadata, path: str, value: Any) -> TensorMetadata:
    """The input that a bare value is for. Raises InvalidInput when the model has several."""
    if len(metadata.inputs) != 1:
        names = ", ".join(tensor.name for tensor in metadata.inputs)
        raise InvalidInput(f"{path}: expected an object with the inputs {names}, got {describe(value)}")
    return metadata.inputs[0]


def _decode_named(
    metadata: ModelMetadata, names: Iterable[str], column: Callable[[str], tuple[Any, Where]], path: str
) -> tuple[Tensor, ...]:
    given = set(names)
    features = metadata.feature_names
    if features and not given & {tensor.name for tensor in metadata.inputs}:
        _check_names(given, features, features, path)
        return _checked_batch(metadata, (_stack_features(metadata.inputs[0], features, column),))
    required = [tensor.name for tensor in metadata.inputs if not tensor.optional]
    _check_names(given, required, [tensor.name for tensor in metadata.inputs], path)
    present = (tensor for tensor in metadata.inputs if tensor.name in given)
    return _checked_batch(metadata, tuple(decode_tensor(tensor, *column(tensor.name)) for tensor in present))


def _check_names(given: set[str], required: Sequence[str], known: Sequence[str], path: str) -> None:
    for name in required:
        if name not in given:
            raise InvalidInput(f"{path}: input {name!r} is missing")
    if unknown := given.difference(known):
        raise InvalidInput(f"{path}: {min(unknown)!r} is no input; the model has {', '.join(known)}")


def _stack_features(
    tensor: TensorMetadata, features: Sequence[str], column: Callable[[str], tuple[Any, Where]]
) -> Tensor:
    """Named features fill the last axis of the tensor in their declared order."""
    each = TensorMetadata(tensor.name, tensor.datatype, tensor.shape[:-1])
    parts = [decode_tensor(each, *column(name)) for name in features]
    if len({part.shape for part in parts}) != 1:
        odd = next(i for i, part in enumerate(parts) if part.shape != parts[0].shape)
        raise InvalidInput(f"{features[odd]!r} has another shape than {features[0]!r}")
    dtype = DATATYPES[tensor.datatype].dtype
    arrays = [np.frombuffer(part.data, dtype).reshape(part.shape) for part in parts]
    stacked = np.stack(arrays, axis=-1)
    return Tensor(tensor.name, tensor.datatype, stacked.shape, stacked.tobytes())


def _checked_batch(metadata: ModelMetadata, tensors: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """Hold every tensor of a batching model to one and the same number of rows, at least one."""
    if not metadata.batched or not tensors:
        return tensors
    rows = tensors[0].shape[0]
    if rows == 0:
        raise InvalidInput(f"input {tensors[0].name!r}: expected at least one row, got none")
    for tensor in tensors:
        if tensor.shape[0] != rows:
            expected = f"{rows} rows as in {tensors[0].name!r}"
            raise InvalidInput(f"input {tensor.name!r}: expected {expected}, got {tensor.shape[0]}")
    return tensors


def encode_answer(outputs: Sequence[Tensor], form: AnswerForm, *, batched: bool) -> Any:
    """Output tensors → `predictions`, `outputs` or an object by name, as JSON values and numpy arrays.

    One output comes bare in V1's two forms; several come as an object per instance (`predictions`) or as one
    object (`outputs`). Rows of a model that does not batch run along axis 0, where the outputs agree on it.
    """
    values = {tensor.name: to_json(tensor) for tensor in outputs}
    if form == "names":
        return values
    if form == "outputs":
        return {"outputs": next(iter(values.values())) if len(values) == 1 else values}
    if len(values) == 1:
        return {"predictions": next(iter(values.values()))}
    rows = {tensor.shape[0] if tensor.shape else 1 for tensor in outputs}
    if len(rows) != 1 and not batched:
        shapes = ", ".join(f"{tensor.name} {list(tensor.shape)}" for tensor in outputs)
        raise InvalidInput(f'the outputs have no common rows ({shapes}); send "inputs" for the columnar form')
    columns = zip(*values.values(), strict=True)
    return {"predictions": [dict(zip(values, row, strict=True)) for row in columns]}
