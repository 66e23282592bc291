"""The bodies of V1 and MIaaS ↔ tensors. Pure: JSON values in and out, no I/O, no HTTP.

Rows (`instances`), columns (`inputs`) and named values all come down to one nested list per tensor. The rules
are KServe's V1 and TensorFlow Serving's (https://www.tensorflow.org/tfx/serving/api_rest) made strict;
docs/contracts.md lists them.
"""

from collections.abc import Callable, Iterable, Sequence
from itertools import chain, islice
from typing import Any, TypeGuard

import numpy as np

from adapter.core.datatypes import DATATYPES, pack_bytes, unpack_bytes
from adapter.core.errors import InferenceFailed, InvalidInput
from adapter.core.nested import Where, decode_tensor, describe, indices, invalid_input, to_json
from adapter.core.types import AnswerForm, ModelMetadata, Tensor, TensorMetadata


def decode_body(metadata: ModelMetadata, body: Any) -> tuple[tuple[Tensor, ...], AnswerForm]:
    """A V1 `:predict` body → its tensors and the form of the answer.

    Takes exactly one of `instances` (rows) and `inputs` (columns; a list of objects there is rows). Raises
    InvalidInput, whose message names the tensor and the JSON path of the first offending element.
    """
    if type(body) is not dict:
        raise InvalidInput(f"the body must be a JSON object, got {describe(body)}")
    signature = body.get("signature_name", "")
    if type(signature) is not str:
        raise InvalidInput(f"signature_name: expected a string, got {describe(signature)}")
    if ("instances" in body) == ("inputs" in body):
        raise InvalidInput('the body must hold exactly one of "instances" and "inputs"')
    if "instances" in body:
        return _decode_rows(metadata, body["instances"], "instances"), "predictions"
    inputs = body["inputs"]
    if type(inputs) is list and inputs and _is_named(inputs[0], metadata):
        return _decode_rows(metadata, inputs, "inputs"), "predictions"
    if _is_named(inputs, metadata):
        return _decode_columns(metadata, inputs, "inputs"), "outputs"
    return _decode_bare(metadata, inputs, "inputs"), "outputs"


def decode_input_data(metadata: ModelMetadata, input_data: Any) -> tuple[tuple[Tensor, ...], AnswerForm]:
    """MIaaS's `input_data` → its tensors and the form of `result`.

    Takes a V1 body, or an object of the model's input names; a model's own names win over V1's two.
    """
    if type(input_data) is not dict:
        raise InvalidInput(f"input_data: expected an object, got {describe(input_data)}")
    v1 = {"instances", "inputs"} & input_data.keys()
    if v1 and v1.isdisjoint(own_names(metadata)):
        return decode_body(metadata, input_data)
    return _decode_columns(metadata, input_data, "input_data"), "names"


def own_names(metadata: ModelMetadata) -> set[str]:
    """The names that a request may call the model's inputs by."""
    return {tensor.name for tensor in metadata.inputs} | set(metadata.feature_names)


def _decode_rows(metadata: ModelMetadata, instances: Any, root: str) -> tuple[Tensor, ...]:
    """The row form: one element per instance, bare for a single input, else an object of input names."""
    if type(instances) is not list:
        raise InvalidInput(f"{root}: expected an array of instances, got {describe(instances)}")
    if not instances:
        raise InvalidInput(f"{root}: expected at least one instance, got an empty array")
    if not _is_named(instances[0], metadata):
        return _decode_bare(metadata, instances, root)

    names = instances[0].keys()
    for i, instance in enumerate(instances):
        if type(instance) is not dict:
            raise InvalidInput(f"{root}[{i}]: expected an object as {root}[0] is, got {describe(instance)}")
        if instance.keys() != names:
            odd = min(instance.keys() ^ names)
            raise invalid_input(
                odd, f"{root}[{i}]", f"the inputs of {root}[0] ({_listed(names)})", _listed(instance)
            )

    def column(name: str) -> tuple[Any, Where]:
        rows = [instance[name] for instance in instances]
        return rows, lambda at: f"{root}[{at[0]}].{name}{indices(at[1:])}" if at else f"{root}[*].{name}"

    return _decode_named(metadata, names, column, f"{root}[0]")


def _decode_columns(metadata: ModelMetadata, inputs: dict[str, Any], root: str) -> tuple[Tensor, ...]:
    """The columnar form: an object of whole tensors by name."""

    def column(name: str) -> tuple[Any, Where]:
        return inputs[name], lambda at: f"{root}.{name}{indices(at)}"

    return _decode_named(metadata, inputs.keys(), column, root)


def _decode_bare(metadata: ModelMetadata, value: Any, root: str) -> tuple[Tensor, ...]:
    """The one tensor of a model with a single input, without its name; rows and columns look alike."""
    if len(metadata.inputs) != 1:
        if type(value) is list and value:
            root, value = f"{root}[0]", value[0]
        names = _listed(tensor.name for tensor in metadata.inputs)
        raise InvalidInput(f"{root}: expected an object of the inputs {names}, got {describe(value)}")

    def where(at: Sequence[int]) -> str:
        return root + indices(at)

    return _checked_batch(metadata, [(decode_tensor(metadata.inputs[0], value, where), where)])


def _is_named(value: Any, metadata: ModelMetadata) -> TypeGuard[dict[str, Any]]:
    """Whether `value` is an object of names, and not the b64 object of a BYTES element."""
    if type(value) is not dict:
        return False
    single_bytes = len(metadata.inputs) == 1 and metadata.inputs[0].datatype == "BYTES"
    return not (single_bytes and value.keys() == {"b64"} and "b64" not in own_names(metadata))


def _decode_named(
    metadata: ModelMetadata, names: Iterable[str], column: Callable[[str], tuple[Any, Where]], path: str
) -> tuple[Tensor, ...]:
    given = set(names)
    known = [tensor.name for tensor in metadata.inputs]
    features = metadata.feature_names
    if features and given and given.isdisjoint(known):
        _check_names(given, features, features, path)
        return _checked_batch(metadata, [_stack_features(metadata.inputs[0], features, column)])
    _check_names(given, [tensor.name for tensor in metadata.inputs if not tensor.optional], known, path)
    decoded = []
    for tensor in metadata.inputs:
        if tensor.name in given:
            value, where = column(tensor.name)
            decoded.append((decode_tensor(tensor, value, where), where))
    return _checked_batch(metadata, decoded)


def _check_names(given: set[str], required: Sequence[str], known: Sequence[str], path: str) -> None:
    for name in required:
        if name not in given:
            raise invalid_input(name, path, f"all of {_listed(required)}", _listed(sorted(given)))
    if unknown := given.difference(known):
        raise invalid_input(min(unknown), path, f"only {_listed(known)}", _listed(sorted(given)))


def _listed(names: Iterable[str]) -> str:
    """Names for an error's message, not too many and not too long."""
    shown = [repr(name[:40]) for name in islice(names, 20)]
    return ", ".join(shown) or "no names"


def _stack_features(
    tensor: TensorMetadata, features: Sequence[str], column: Callable[[str], tuple[Any, Where]]
) -> tuple[Tensor, Where]:
    """Named features fill the last axis of the tensor in their declared order."""
    each = TensorMetadata(tensor.name, tensor.datatype, tensor.shape[:-1])
    values, wheres = zip(*map(column, features), strict=True)
    parts = [decode_tensor(each, value, where) for value, where in zip(values, wheres, strict=True)]
    shape = parts[0].shape
    for part, where in zip(parts, wheres, strict=True):
        if part.shape != shape:
            raise invalid_input(
                tensor.name, where(()), f"shape {list(shape)} as {features[0]!r} has", f"{list(part.shape)}"
            )
    data: bytes
    if tensor.datatype == "BYTES":
        rows = zip(*(unpack_bytes(part.data) for part in parts), strict=True)
        data = pack_bytes(list(chain.from_iterable(rows)))
    else:
        dtype = DATATYPES[tensor.datatype].dtype
        data = np.stack([np.frombuffer(part.data, dtype) for part in parts], axis=-1).tobytes()
    return Tensor(tensor.name, tensor.datatype, (*shape, len(features)), data), wheres[0]


def _checked_batch(metadata: ModelMetadata, decoded: Sequence[tuple[Tensor, Where]]) -> tuple[Tensor, ...]:
    """Hold every tensor of a batching model to one and the same number of rows, at least one."""
    tensors = tuple(tensor for tensor, _ in decoded)
    if metadata.batched:
        for tensor, where in decoded:
            rows, got = tensors[0].shape[0], tensor.shape[0]
            if got == 0:
                raise invalid_input(tensor.name, where(()), "at least one row", "an empty array")
            if got != rows:
                raise invalid_input(
                    tensor.name, where(()), f"{rows} rows as {tensors[0].name!r} has", f"{got}"
                )
    return tensors


def encode_answer(outputs: Sequence[Tensor], form: AnswerForm, *, batched: bool) -> Any:
    """Output tensors → `predictions`, `outputs` or an object by name, as JSON values and numpy arrays.

    One output comes bare in V1's two forms; several come as an object per instance (`predictions`) or as one
    object (`outputs`). Rows of a model that does not batch run along axis 0; where its outputs do not agree
    on one, InvalidInput says to ask for columns. Raises InferenceFailed for outputs that break the protocol.
    """
    values = {tensor.name: to_json(tensor) for tensor in outputs}
    if form == "names":
        return values
    if form == "outputs":
        return {"outputs": next(iter(values.values())) if len(values) == 1 else values}
    if len(values) == 1:
        return {"predictions": next(iter(values.values()))}
    leading = {tensor.shape[:1] for tensor in outputs}
    if len(leading) != 1 or () in leading:
        shapes = ", ".join(f"{tensor.name} {list(tensor.shape)}" for tensor in outputs)
        if batched:
            raise InferenceFailed(f"the model's outputs differ in their number of rows ({shapes})")
        raise InvalidInput(f'the outputs have no common rows ({shapes}); send "inputs" for the columnar form')
    columns = zip(*values.values(), strict=True)
    return {"predictions": [dict(zip(values, row, strict=True)) for row in columns]}
