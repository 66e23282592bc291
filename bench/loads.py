"""What is asked of every server: the loads, as bodies of both protocols, and the answers that are right."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import orjson
from numpy.typing import NDArray
from onnx import TensorProto, helper

Floats = NDArray[np.float32]

INPUT, OUTPUT = "input", "output"
"""The tensors of both models."""

_IMG_CONFIG = """\
backend: "onnxruntime"
max_batch_size: 16
dynamic_batching {}
input [{ name: "input" data_type: TYPE_FP32 dims: [3, 224, 224] }]
output [{ name: "output" data_type: TYPE_FP32 dims: [3] }]
instance_group [{ count: 1 }]
"""


@dataclass(frozen=True)
class Load:
    """Requests of one size for one model."""

    name: str
    title: str
    model: str
    rows: int
    row: tuple[int, ...]
    """Shape of one row."""
    low: float
    high: float
    decimals: int
    """Digits after the point."""

    @property
    def shape(self) -> tuple[int, ...]:
        """The input's shape."""
        return (self.rows, *self.row)

    def values(self, seed: int) -> Floats:
        """An input; each seed has one of its own."""
        values = np.random.default_rng(seed).uniform(self.low, self.high, self.shape)
        return values.round(self.decimals).astype(np.float32)

    def body(self, values: Floats, v2: bool) -> bytes:
        """The request in V1's or V2's JSON, its numbers as short as FP32 allows."""
        if v2:
            tensor = {"name": INPUT, "shape": values.shape, "datatype": "FP32", "data": values.ravel()}
            document: dict[str, Any] = {"inputs": [tensor]}
        else:
            document = {"instances": values}
        return orjson.dumps(document, option=orjson.OPT_SERIALIZE_NUMPY)

    def answer(self, body: bytes, v2: bool) -> Floats:
        """The output, out of an answer in V1's or V2's JSON. Raises KeyError or ValueError for another."""
        document = orjson.loads(body)
        data = document["outputs"][0]["data"] if v2 else document["predictions"]
        return np.array(data, np.float32).reshape(self.rows, -1)


IRIS = Load("iris", "one row of sklearn-iris, FP32 [1, 4]", "sklearn-iris", 1, (4,), 0.1, 7.9, 1)
IRIS64 = Load("iris64", "64 rows of sklearn-iris, FP32 [64, 4]", "sklearn-iris", 64, (4,), 0.1, 7.9, 1)
IMG = Load("img", "a picture as numbers, FP32 [1, 3, 224, 224]", "img", 1, (3, 224, 224), -2.1, 2.6, 9)
LOADS = (IRIS, IRIS64, IMG)


class Oracle:
    """The right answers, from ONNX Runtime in this process on the files that Triton serves."""

    def __init__(self, repository: Path) -> None:
        self._repository = repository

    @cached_property
    def _sessions(self) -> dict[str, onnxruntime.InferenceSession]:
        newest = {"sklearn-iris": "2", "img": "1"}
        return {
            model: onnxruntime.InferenceSession(self._repository / model / version / "model.onnx")
            for model, version in newest.items()
        }

    def answer(self, load: Load, values: Floats) -> Floats:
        """The output of the load's model for `values`."""
        output: Floats = self._sessions[load.model].run([OUTPUT], {INPUT: values})[0]
        return output


def write_img_model(repository: Path) -> None:
    """The model of `img`: the mean of each colour. It costs little, and every picture has its own answer."""
    floats = TensorProto.FLOAT
    graph = helper.make_graph(
        [helper.make_node("ReduceMean", [INPUT], [OUTPUT], axes=[2, 3], keepdims=0)],
        "img",
        [helper.make_tensor_value_info(INPUT, floats, ["n", *IMG.row])],
        [helper.make_tensor_value_info(OUTPUT, floats, ["n", 3])],
    )
    # Older containers refuse newer versions of ONNX.
    model = helper.make_model(graph, ir_version=8, opset_imports=[helper.make_opsetid("", 17)])
    folder = repository / IMG.model
    (folder / "1").mkdir(parents=True)
    (folder / "1" / "model.onnx").write_bytes(model.SerializeToString())
    (folder / "config.pbtxt").write_text(_IMG_CONFIG)
