"""An ONNX file → a Source: its tensors, and the file at a version that every Triton in use can read."""

import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray
from onnx import version_converter
from onnx.external_data_helper import load_external_data_for_model, uses_external_data

from adapter.core.types import TensorMetadata
from adapter.models.errors import ModelError, first_line
from adapter.models.samples import sample
from adapter.models.source import Source, variable_first_axes

OPSETS = {"": 17, "ai.onnx.ml": 3}
"""Domain → its newest opset that the Tritons of the last years know; those of 2023 refuse newer ones."""
IR_VERSION = 8
"""The version of the file's format that goes with these opsets (https://onnx.ai/onnx/repo-docs/Versioning.html)."""

MODEL_FILE = "model.onnx"

DATATYPES = {
    onnx.TensorProto.BOOL: "BOOL",
    onnx.TensorProto.UINT8: "UINT8",
    onnx.TensorProto.UINT16: "UINT16",
    onnx.TensorProto.UINT32: "UINT32",
    onnx.TensorProto.UINT64: "UINT64",
    onnx.TensorProto.INT8: "INT8",
    onnx.TensorProto.INT16: "INT16",
    onnx.TensorProto.INT32: "INT32",
    onnx.TensorProto.INT64: "INT64",
    onnx.TensorProto.FLOAT16: "FP16",
    onnx.TensorProto.FLOAT: "FP32",
    onnx.TensorProto.DOUBLE: "FP64",
    onnx.TensorProto.STRING: "BYTES",
}


def read(path: Path, keep: Sequence[str] = ()) -> Source:
    """The model in the file, with the outputs `keep`, or with none named all of them.

    Raises ModelError for a file that is no ONNX model, one that ONNX Runtime cannot run, and tensors that
    Triton cannot carry.
    """
    beside = any(map(uses_external_data, load(path, weights=False).graph.initializer))
    return source(load(path), keep, external=beside)


def load(path: Path, *, weights: bool = True) -> Any:
    """The file's `ModelProto`, with or without the `weights` that lie beside it. Raises ModelError."""
    try:
        model = onnx.load(path, load_external_data=weights)
        onnx.checker.check_model(path)
    except OSError as error:
        raise ModelError(f"{error.filename or path}: cannot be read: {first_line(error)}") from error
    except Exception as error:  # protobuf's, the checker's, and whatever a broken file brings about
        raise ModelError(f"{path}: is no ONNX model: {first_line(error)}") from error
    return model


def source(model: Any, keep: Sequence[str] = (), *, external: bool = False) -> Source:
    """See `read`; `model` is a `ModelProto`, whose weights `external` puts into a file of their own."""
    _keep(model.graph, keep)
    inputs, outputs = tensors(model)
    if not inputs:
        raise ModelError("the model has no inputs, and Triton serves none without")
    notes = []
    with tempfile.TemporaryDirectory(prefix="miaas-onnx-") as folder:
        session = _session(model, Path(folder, "as-it-is.onnx"), external)
        if newer := above_limits(model):
            model, note = _lowered(model, session, inputs, Path(folder, "lowered.onnx"), external)
            notes.append(f"{newer}: {note}")
        batches = variable_first_axes(*inputs, *outputs)
        if batches and (why := _no_batch(model, session, inputs)):
            batches = False
            notes.append(f"it is taken not to batch, {why}; --max-batch-size says otherwise")
        elif (size := _fixed_batch(*inputs, *outputs)) is not None:
            notes.append(
                f"it does not batch, as the first axis of its tensors is {size}: export it with one of any "
                "size, and requests are joined"
            )
        elif variable_first_axes(*inputs) and (other := _other_first_axis(outputs)) is not None:
            notes.append(
                f"it does not batch, as {other.name!r} has another first axis, its shape is "
                f"{list(other.shape)}: --output names the outputs to keep"
            )

    def save(folder: Path) -> None:
        _save(model, folder / MODEL_FILE, external)

    return Source("onnxruntime", inputs, outputs, save, batches, notes=tuple(notes))


def tensors(model: Any) -> tuple[tuple[TensorMetadata, ...], tuple[TensorMetadata, ...]]:
    """A model's inputs and outputs. Raises ModelError for one that Triton cannot carry."""
    if any(not value.type.tensor_type.HasField("shape") for value in model.graph.output):
        model = onnx.shape_inference.infer_shapes(model)
    # In old files weights are inputs, too.
    weights = {weight.name for weight in model.graph.initializer}
    inputs = [value for value in model.graph.input if value.name not in weights]
    return (
        tuple(_tensor("input", value) for value in inputs),
        tuple(_tensor("output", value) for value in model.graph.output),
    )


def above_limits(model: Any) -> str:
    """What of the file's versions is newer than older Tritons take, in words; "" when nothing is."""
    newer = [
        f"opset {used.version}{f' of {used.domain}' if used.domain else ''} (at most {OPSETS[used.domain]})"
        for used in model.opset_import
        if used.version > OPSETS.get(used.domain, used.version)
    ]
    if model.ir_version > IR_VERSION:
        newer.append(f"IR version {model.ir_version} (at most {IR_VERSION})")
    return ", ".join(newer)


def _tensor(side: str, value: Any) -> TensorMetadata:
    kind = value.type.WhichOneof("value")
    if kind != "tensor_type":
        raise ModelError(
            f"the {side} {value.name!r} is a {str(kind).removesuffix('_type')}, and Triton carries tensors "
            "alone; export the model without it, or name the outputs to keep with --output"
        )
    tensor = value.type.tensor_type
    if tensor.elem_type not in DATATYPES:
        name = onnx.TensorProto.DataType.Name(tensor.elem_type)
        raise ModelError(f"the {side} {value.name!r} is {name}, which Triton's ONNX backend cannot carry")
    if not tensor.HasField("shape"):
        raise ModelError(f"the {side} {value.name!r} has no shape; export the model with shapes")
    shape = tuple(size.dim_value if size.dim_value > 0 else -1 for size in tensor.shape.dim)
    return TensorMetadata(value.name, DATATYPES[tensor.elem_type], shape)


def _fixed_batch(*tensors: TensorMetadata) -> int | None:
    """The size of every tensor's first axis, if it is one: exporters do so unless they are told better."""
    sizes = {tensor.shape[:1] for tensor in tensors}
    return next(iter(sizes))[0] if len(sizes) == 1 and sizes.isdisjoint({(), (-1,)}) else None


def _other_first_axis(outputs: Sequence[TensorMetadata]) -> TensorMetadata | None:
    """The output that is in the way where others have a batch."""
    batched = [variable_first_axes(output) for output in outputs]
    return None if len(set(batched)) == 1 else outputs[batched.index(False)]


def _no_batch(model: Any, session: Any, inputs: Sequence[TensorMetadata]) -> str:
    """Why the first axis, which is of any size, is no batch after all; "" when it may well be one."""
    sizes = [value.type.tensor_type.shape.dim for value in model.graph.input]
    names = {size[0].dim_param for size in sizes if size} - {""}
    if len(names) > 1:
        return f"as the first axes of its inputs have different names ({', '.join(sorted(names))})"
    try:
        _run(session, inputs, 1)
    except Exception:  # made-up inputs are not for it, and tell nothing
        return ""
    try:
        rows = {len(output) for output in _run(session, inputs, 2)}
    except Exception as error:
        return f"as it fails on two rows ({first_line(error)})"
    return "" if rows == {2} else f"as it answers two rows with {', '.join(map(str, sorted(rows)))}"


def _keep(graph: Any, names: Sequence[str]) -> None:
    """Leave the outputs of these names alone."""
    outputs = {value.name: value for value in graph.output}
    if unknown := [name for name in names if name not in outputs]:
        raise ModelError(f"the model has no output {unknown[0]!r}, it has {', '.join(outputs)}")
    if names:
        kept = [outputs[name] for name in names]
        graph.ClearField("output")
        graph.output.extend(kept)


def _lowered(
    model: Any, before: Any, inputs: Sequence[TensorMetadata], path: Path, external: bool
) -> tuple[Any, str]:
    """The model at versions that older Tritons take, or as it is, and a note on that."""
    lower = onnx.ModelProto()
    lower.CopyFrom(model)
    try:
        if any(not used.domain and used.version > OPSETS[""] for used in model.opset_import):
            lower = version_converter.convert_version(lower, OPSETS[""])
        lower.ir_version = min(lower.ir_version, IR_VERSION)
        if still := above_limits(lower):
            raise ModelError(f"{still} stays")
        _compare(_run(before, inputs, None), _run(_session(lower, path, external), inputs, None))
    except Exception as error:  # the converter raises whatever its C++ does
        return model, f"older Tritons may refuse it, and it cannot be lowered: {first_line(error)}"
    return lower, "lowered, so that older Tritons take it, too"


def _session(model: Any, path: Path, external: bool) -> Any:
    """ONNX Runtime's session of the model, by way of a file. Raises ModelError when it does not take it."""
    try:
        _save(model, path, external)
    except OSError as error:
        place = tempfile.gettempdir()
        raise ModelError(f"{place}: cannot be written, TMPDIR names another: {first_line(error)}") from error
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    try:
        return onnxruntime.InferenceSession(path, options, ["CPUExecutionProvider"])
    except Exception as error:  # its errors have no base of their own
        raise ModelError(f"ONNX Runtime cannot run the model: {first_line(error)}") from error


def _run(session: Any, inputs: Sequence[TensorMetadata], rows: int | None) -> list[NDArray[Any]]:
    """What the model answers to made-up inputs."""
    outputs: list[NDArray[Any]] = session.run(None, {t.name: _text(sample(t, rows)) for t in inputs})
    return outputs


def _compare(before: Sequence[NDArray[Any]], after: Sequence[NDArray[Any]]) -> None:
    """Raise ModelError unless both are alike."""
    for one, other in zip(before, after, strict=True):
        if one.shape != other.shape or not _alike(one, other):
            raise ModelError("lowered, it answers otherwise")


def _alike(one: NDArray[Any], other: NDArray[Any]) -> bool:
    if one.dtype.kind == "f":
        return np.allclose(one, other, rtol=1e-3, atol=1e-5, equal_nan=True)
    return np.array_equal(one, other)


def _text(array: NDArray[Any]) -> NDArray[Any]:
    """ONNX Runtime wants strings where Triton has bytes."""
    if array.dtype != np.object_:
        return array
    return np.asarray(np.frompyfunc(bytes.decode, 1, 1)(array), np.object_)


def _save(model: Any, path: Path, external: bool) -> None:
    """Write the model, with `external` its weights into a file beside it: protobuf ends at 2 GiB."""
    beside = path.with_name(f"{path.name}.data")
    onnx.save(model, path, save_as_external_data=external, location=beside.name)
    if beside.exists():  # small weights stay in the model
        # It is for the owner alone, and Triton may run as another user.
        shutil.copymode(path, beside)
        # Writing has taken the weights out of the model.
        load_external_data_for_model(model, str(path.parent))
