"""config.pbtxt: Triton's `ModelConfig` in protobuf's text format, written, read, and changed in place."""

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2 as model_config

from adapter.core.types import TensorMetadata
from adapter.models.errors import ModelError
from adapter.models.source import Source, variable_first_axes
from adapter.triton.description import PREFIX, describe

CONFIG_FILE = "config.pbtxt"
LABELS_FILE = "labels.txt"
MAX_BATCH_SIZE = 64
"""What a model that batches gets when nobody says otherwise."""


def build(
    source: Source,
    *,
    max_batch_size: int | None = None,
    feature_names: Sequence[str] = (),
    labels: Sequence[str] = (),
    warmup: bool = False,
) -> Any:
    """The `ModelConfig` of a model; all of its versions are served. Raises ModelError.

    `max_batch_size` 0 is for a model that does not batch. `labels`, the names of classes, go with the output
    that has as many values, if it is but one: then it has a `label_filename`.
    """
    config = model_config.ModelConfig()
    if source.platform == "onnxruntime":
        config.backend = source.platform
    else:
        config.platform = source.platform
    config.version_policy.all.SetInParent()
    config.max_batch_size = _max_batch_size(source, max_batch_size)
    for tensors, fields in ((source.inputs, config.input), (source.outputs, config.output)):
        for tensor in tensors:
            _declare(tensor, fields.add(), batching=config.max_batch_size > 0)
    config.instance_group.add(count=1)
    if config.max_batch_size > 1:
        config.dynamic_batching.SetInParent()
    labelled = [output for output in config.output if labels and output.dims[-1] == len(labels)]
    if len(labelled) == 1:
        labelled[0].label_filename = LABELS_FILE
    if feature_names:
        set_parameter(config, "feature_names", list(feature_names))
    if warmup:
        _warm_up(config)
    _, ignored = describe(config, "", ())
    for reason in ignored.values():
        raise ModelError(f"the feature names do not fit: {reason}")
    return config


def set_parameter(config: Any, key: str, value: Any) -> None:
    """Say something to the adapter: `miaas.<key>`, as JSON."""
    config.parameters[PREFIX + key].string_value = _json(value)


def served(config: Any, versions: Sequence[str]) -> list[str]:
    """Those of a model's versions, ascending, that Triton serves by the model's `version_policy`."""
    policy = config.version_policy
    match policy.WhichOneof("policy_choice"):
        case "all":
            return list(versions)
        case "specific":
            return [version for version in versions if int(version) in policy.specific.versions]
        case _:
            return list(versions[-(policy.latest.num_versions or 1) :])


def differences(
    config: Any, inputs: Sequence[TensorMetadata], outputs: Sequence[TensorMetadata]
) -> list[str]:
    """In what a configuration contradicts the model's own tensors; it may be narrower, or want less."""
    found = []
    for side, fields, tensors in (("input", config.input, inputs), ("output", config.output, outputs)):
        declared = {field.name: field for field in fields}
        known = {tensor.name: tensor for tensor in tensors}
        for name, field in declared.items():
            if name not in known:
                found.append(f"the model has no {side} {name!r}, it has {', '.join(known)}")
            elif problem := _difference(config, field, known[name]):
                found.append(f"{side} {name!r}: {problem}")
        if side == "input":
            found += [f"the model's input {name!r} is missing" for name in known if name not in declared]
    return found


def _difference(config: Any, field: Any, tensor: TensorMetadata) -> str:
    if field.data_type != _data_type(tensor):
        declared = model_config.DataType.Name(field.data_type)
        return f"{declared}, and the model has {model_config.DataType.Name(_data_type(tensor))}"
    batch = (-1,) if config.max_batch_size > 0 else ()
    dims = field.reshape.shape if field.HasField("reshape") else field.dims
    shape = (*batch, *dims)
    fits = len(shape) == len(tensor.shape) and all(
        size in (-1, declared) for declared, size in zip(shape, tensor.shape, strict=True)
    )
    return "" if fits else f"shape {list(shape)}, and the model has {list(tensor.shape)}"


def render(config: Any) -> str:
    """A `ModelConfig` as text, a line for each of its fields."""
    text = text_format.MessageToString(config, use_short_repeated_primitives=True, as_utf8=True)
    lines = re.sub(r"\n +|\n(?=\})", " ", text).splitlines(keepends=True)
    return "".join(sorted(lines, key=lambda line: not line.startswith(("backend:", "platform:"))))


def parse(text: str, path: Path) -> Any:
    """Text → `ModelConfig`. Raises ModelError, which names the line and the column in `path`."""
    try:
        return text_format.Parse(text, model_config.ModelConfig())
    except text_format.ParseError as error:
        what = re.sub(r"^[\d: ]+", "", str(error))
        raise ModelError(f"{path}:{error.GetLine() or 1}:{error.GetColumn() or 1}: {what}") from error


def with_parameters(text: str, path: Path, values: Mapping[str, Any]) -> str:
    """The text with other parameters `miaas.<key>`, and with all that its author wrote beside them."""
    wanted = parse(text, path)
    for key, value in values.items():
        set_parameter(wanted, key, value)
        text = _with_parameter(text, PREFIX + key, _json(value))
    try:
        if parse(text, path) == wanted:
            return text
    except ModelError:
        pass
    # It is written in a way that is not foreseen: what it says is kept, its form is not.
    return render(wanted)


def _with_parameter(text: str, name: str, value: str) -> str:
    entry = rf"""(key\s*:\s*["']{re.escape(name)}["']\s*,?\s*value\s*:?\s*{{\s*string_value\s*:\s*)"""
    string = r"""("(?:[^"\\\n]|\\.)*"|'(?:[^'\\\n]|\\.)*')"""
    changed, times = re.subn(entry + string, lambda match: f"{match[1]}'{value}'", text)
    if times:
        return changed
    end = "" if text.endswith("\n") or not text else "\n"
    return f"{text}{end}parameters {{ key: \"{name}\" value {{ string_value: '{value}' }} }}\n"


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


def _max_batch_size(source: Source, wanted: int | None) -> int:
    if wanted is None:
        return MAX_BATCH_SIZE if source.batches else 0
    if wanted > 0:
        for tensor in (*source.inputs, *source.outputs):
            if not variable_first_axes(tensor):
                raise ModelError(
                    f"the model does not batch: the first axis of {tensor.name!r} is not of any size, its "
                    f"shape is {list(tensor.shape)}; export it with a dynamic first axis, or leave out "
                    "--max-batch-size"
                )
    return wanted


def _declare(tensor: TensorMetadata, field: Any, *, batching: bool) -> None:
    field.name = tensor.name
    field.data_type = _data_type(tensor)
    dims = tensor.shape[1:] if batching else tensor.shape
    field.dims.extend(dims or (1,))
    if dims:
        return
    if not batching:
        raise ModelError(
            f"{tensor.name!r} is a tensor without axes, which Triton takes of no model that does not batch: "
            "give it an axis of size 1, or, of an output, name those to keep with --output"
        )
    # Triton takes no empty dims: clients see one element where the model has none of an axis.
    field.reshape.SetInParent()


def _data_type(tensor: TensorMetadata) -> int:
    name = "STRING" if tensor.datatype == "BYTES" else tensor.datatype
    return int(model_config.DataType.Value(f"TYPE_{name}"))


def _warm_up(config: Any) -> None:
    """Let Triton run the model on zeros before it counts as ready."""
    sample = config.model_warmup.add(name="zeros", batch_size=1)
    for tensor in config.input:
        field = sample.inputs[tensor.name]
        field.data_type = tensor.data_type
        field.dims.extend(max(size, 1) for size in tensor.dims)
        field.zero_data = True
