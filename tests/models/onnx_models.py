"""Small ONNX models, each with what makes it special."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper

FLOAT = TensorProto.FLOAT
Axis = int | str | None


def value(name: str, *shape: Axis, kind: int = FLOAT) -> Any:
    """A tensor of the graph; an axis is a size, a name, or None."""
    return helper.make_tensor_value_info(name, kind, list(shape))


def model(
    nodes: Sequence[Any],
    inputs: Sequence[Any],
    outputs: Sequence[Any],
    *,
    opset: int = 17,
    ir_version: int = 8,
    weights: Sequence[Any] = (),
    **domains: int,
) -> Any:
    """A `ModelProto`; `domains` are more opsets, dots written as underscores."""
    graph = helper.make_graph(nodes, "graph", inputs, outputs, list(weights))
    opsets = [helper.make_opsetid("", opset)]
    opsets += [helper.make_opsetid(name.replace("_", "."), version) for name, version in domains.items()]
    return helper.make_model(graph, ir_version=ir_version, opset_imports=opsets)


def double(*shape: Axis, op: str = "Add", **versions: Any) -> Any:
    """y = x + x, of this shape."""
    node = helper.make_node(op, ["x", "x"] if op == "Add" else ["x"], ["y"])
    return model([node], [value("x", *shape)], [value("y", *shape)], **versions)


def write(path: Path, proto: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    onnx.save(proto, path)
    return path


def weight(name: str, size: int) -> Any:
    """An initializer of so many ones."""
    return onnx.numpy_helper.from_array(np.ones(size, np.float32), name)
