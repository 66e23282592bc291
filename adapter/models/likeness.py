"""Whether an estimator's ONNX form answers as the estimator does: skl2onnx does not see to it."""

import warnings
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from adapter.models.errors import ModelError

_ROWS = 512
_MOST_UNLIKE = 0.01
"""Of rows: where an answer jumps, numbers of half the precision may fall on the other side."""


def compared(estimator: Any, model: Any, features: int) -> tuple[Any, list[str]]:
    """The `ModelProto`, its answers in the shapes of the estimator's, and notes on what it answers otherwise.

    Both are asked with made-up rows of so many FP32 features; nothing is said where either takes none of
    them. Raises ModelError when an answer is of another size.
    """
    generator = np.random.default_rng(0)
    scales = 10.0 ** generator.uniform(-1, 1, (_ROWS, 1))
    rows = (generator.normal(size=(_ROWS, features)) * scales).astype(np.float32)
    try:
        answers = _answers(model, rows)
        expected = {name: _expected(estimator, name, rows) for name in answers}
    except Exception:  # made-up rows are not for it, and tell nothing
        return model, []
    notes = []
    for output in list(model.graph.output):
        answer, wanted = answers[output.name], expected[output.name]
        if not isinstance(answer, np.ndarray):
            continue
        if wanted is None:
            if len(answer) != _ROWS:
                continue
            wanted = answer
        if answer.size != wanted.size:
            raise ModelError(
                f"skl2onnx cannot convert this {type(estimator).__name__}: its ONNX form answers "
                f"{_ROWS} rows with {output.name!r} of shape {list(answer.shape)}"
            )
        if not _is_declared(output, answer):
            _reshape(model, output, wanted.shape[1:])
        if (unlike := _unlike(answer.reshape(wanted.shape), wanted)) > _MOST_UNLIKE:
            notes.append(
                f"{output.name!r} is not what the estimator answers in {unlike:.0%} of made-up rows, as "
                "skl2onnx converts it: compare their answers to rows of your own"
            )
    return model, notes


def _answers(model: Any, rows: NDArray[Any]) -> dict[str, NDArray[Any]]:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, ["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(None, {session.get_inputs()[0].name: rows}), strict=True))


def _expected(estimator: Any, output: str, rows: NDArray[Any]) -> NDArray[Any] | None:
    """What the estimator itself answers for an output of its ONNX form; None where it has no such answer."""
    with warnings.catch_warnings():
        # It may miss the names of its features.
        warnings.simplefilter("ignore")
        match output:
            case "probabilities":
                answer = estimator.predict_proba(rows)
            case "scores":
                return None  # of each kind of estimator another thing
            case _:
                answer = (
                    estimator.predict(rows) if hasattr(estimator, "predict") else estimator.transform(rows)
                )
    return answer if isinstance(answer, np.ndarray) else None


def _is_declared(output: Any, answer: NDArray[Any]) -> bool:
    """Whether the answer has a row for each of the input's, and the shape that the file says."""
    sizes = [size.dim_value for size in output.type.tensor_type.shape.dim]
    return len(answer) == _ROWS and [*answer.shape[1:]] == sizes[1:]


def _reshape(model: Any, output: Any, row: tuple[int, ...]) -> None:
    """Let an output come as rows of this shape."""
    graph, name = model.graph, output.name
    for node in graph.node:
        node.output[:] = [f"{name}_as_converted" if each == name else each for each in node.output]
        node.input[:] = [f"{name}_as_converted" if each == name else each for each in node.input]
    graph.initializer.append(numpy_helper.from_array(np.array([-1, *row], np.int64), f"{name}_shape"))
    graph.node.append(helper.make_node("Reshape", [f"{name}_as_converted", f"{name}_shape"], [name]))
    kind = output.type.tensor_type.elem_type
    output.CopyFrom(helper.make_tensor_value_info(name, kind, [None, *row]))


def _unlike(answer: NDArray[Any], wanted: NDArray[Any]) -> float:
    """The share of rows that are not alike."""
    if wanted.dtype.kind in "biuf":
        reach = 1e-4 * float(np.nanmax(np.abs(wanted.astype(float)), initial=0))
        alike = np.isclose(answer.astype(float), wanted.astype(float), 1e-3, reach, equal_nan=True)
    else:
        alike = answer.astype(str) == wanted.astype(str)
    return float(1 - alike.reshape(len(wanted), -1).all(axis=1).mean())
