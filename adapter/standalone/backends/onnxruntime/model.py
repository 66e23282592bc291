"""Triton's `onnxruntime` backend, on the onnxruntime wheel.

NVIDIA's containers bring a backend of this name in C++. Where there is no container, Triton runs this file in
its place, a process per model instance, so that one model repository serves both: it completes missing
configurations as the C++ backend does and understands the same thread parameters. Accelerators other than
CUDA, and levels of optimization, are left to the container.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import triton_python_backend_utils as pb_utils
from numpy.typing import NDArray
from onnxruntime.capi.onnxruntime_pybind11_state import InvalidArgument

DATATYPES = {
    "tensor(bool)": "TYPE_BOOL",
    "tensor(uint8)": "TYPE_UINT8",
    "tensor(uint16)": "TYPE_UINT16",
    "tensor(uint32)": "TYPE_UINT32",
    "tensor(uint64)": "TYPE_UINT64",
    "tensor(int8)": "TYPE_INT8",
    "tensor(int16)": "TYPE_INT16",
    "tensor(int32)": "TYPE_INT32",
    "tensor(int64)": "TYPE_INT64",
    "tensor(float16)": "TYPE_FP16",
    "tensor(float)": "TYPE_FP32",
    "tensor(double)": "TYPE_FP64",
    "tensor(string)": "TYPE_STRING",
}

# What Triton's `default-max-batch-size` is, unless the server was started with another.
DEFAULT_MAX_BATCH_SIZE = 4

decode_utf8 = np.frompyfunc(bytes.decode, 1, 1)


class BadInputError(ValueError):
    """A tensor that the request should not have brought."""


def model_path(config: dict[str, Any]) -> Path:
    return Path(pb_utils.get_model_dir(), config["default_model_filename"] or "model.onnx")


def session_options(config: dict[str, Any]) -> onnxruntime.SessionOptions:
    """The thread parameters of the C++ backend, with one thread per operator where it takes every core.

    On two cores one thread costs 4.7 ms of CPU per picture against 8 ms for two, so instances and not threads
    are what fills a machine.
    """

    def parameter(name: str, default: int) -> int:
        return int(config["parameters"].get(name, {}).get("string_value", default))

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = parameter("intra_op_thread_count", 1)
    options.inter_op_num_threads = parameter("inter_op_thread_count", 0)
    if parameter("execution_mode", 0) == 1:
        options.execution_mode = onnxruntime.ExecutionMode.ORT_PARALLEL
    return options


def providers(kind: str, device_id: str) -> list[str | tuple[str, dict[str, str]]]:
    """CUDA first on a GPU instance, where this onnxruntime has it."""
    if kind != "GPU":
        return ["CPUExecutionProvider"]
    # CUDA's libraries, where they come in wheels, lie where no linker looks for them.
    onnxruntime.preload_dlls()
    if "CUDAExecutionProvider" not in onnxruntime.get_available_providers():
        return ["CPUExecutionProvider"]
    return [("CUDAExecutionProvider", {"device_id": device_id}), "CPUExecutionProvider"]


def report_place(instance: str, kind: str, used: list[str]) -> None:
    """Say in Triton's log where an instance of a GPU runs: ONNX Runtime takes the CPU without an error."""
    if "CUDAExecutionProvider" in used:
        pb_utils.Logger.log_info(f"{instance} runs on the GPU")
    elif kind == "GPU":
        pb_utils.Logger.log_warn(f"{instance} is a GPU instance, but runs on the CPU")


def datatype(tensor: Any) -> str:
    try:
        return DATATYPES[tensor.type]
    except KeyError:
        raise ValueError(f"'{tensor.name}' is a {tensor.type}, which this backend cannot carry") from None


def tensor_config(tensor: Any, batching: bool) -> dict[str, Any]:
    """How Triton's model configuration describes a tensor of the model."""
    shape = [size if isinstance(size, int) else -1 for size in tensor.shape]
    dims = shape[1:] if batching else shape
    config: dict[str, Any] = {"name": tensor.name, "data_type": datatype(tensor), "dims": dims or [1]}
    if batching and not dims:
        # Triton takes no empty dims: clients see [batch, 1] and the model [batch].
        config["reshape"] = {"shape": []}
    return config


def check(side: str, configured: list[dict[str, Any]], tensors: list[Any]) -> None:
    """Refuse to load a configuration whose tensors are not the model's."""
    known = {tensor.name: tensor for tensor in tensors}
    for tensor in configured:
        name, claimed = tensor["name"], tensor["data_type"]
        if name not in known:
            raise ValueError(f"the model has no {side} '{name}', it has {', '.join(known)}")
        if claimed != datatype(known[name]):
            raise ValueError(f"{side} '{name}' is {datatype(known[name])}, not {claimed}")


def triton_error(error: Exception) -> Any:
    """The error of one request; its code tells whether the request's own tensors were the cause."""
    of_the_request = isinstance(error, InvalidArgument | BadInputError)
    code = pb_utils.TritonError.INVALID_ARG if of_the_request else pb_utils.TritonError.INTERNAL
    return pb_utils.TritonError(str(error), code)


def split(name: str, output: NDArray[Any], rows: list[int]) -> list[NDArray[Any]]:
    """Cut a joined output into the requests' own rows; without batching it is the only request's."""
    if rows and len(output) != sum(rows):
        raise ValueError(f"output '{name}' has {len(output)} rows for a batch of {sum(rows)}")
    return np.split(output, np.cumsum(rows[:-1]))


class TritonPythonModel:
    @staticmethod
    def auto_complete_config(model_config: Any) -> Any:
        """Fill in what the configuration leaves out: tensors, and batching where the model allows it."""
        config = model_config.as_dict()
        if config["input"] and config["output"]:
            return model_config
        options = onnxruntime.SessionOptions()
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
        session = onnxruntime.InferenceSession(model_path(config), options, ["CPUExecutionProvider"])
        inputs, outputs = session.get_inputs(), session.get_outputs()
        if all(tensor.shape and not isinstance(tensor.shape[0], int) for tensor in [*inputs, *outputs]):
            config["max_batch_size"] = config["max_batch_size"] or DEFAULT_MAX_BATCH_SIZE
            if config["max_batch_size"] > 1 and "sequence_batching" not in config:
                config.setdefault("dynamic_batching", {})
        elif config["max_batch_size"]:
            raise ValueError("max_batch_size is set, but a tensor of the model has no variable first axis")
        batching = config["max_batch_size"] > 0
        # Written directly: `add_input` and `add_output` refuse `reshape`.
        config["input"] = config["input"] or [tensor_config(tensor, batching) for tensor in inputs]
        config["output"] = config["output"] or [tensor_config(tensor, batching) for tensor in outputs]
        return model_config

    def initialize(self, args: dict[str, str]) -> None:
        config = json.loads(args["model_config"])
        self.batching = config["max_batch_size"] > 0
        self.outputs = [output["name"] for output in config["output"]]
        kind = args["model_instance_kind"]
        self.session = onnxruntime.InferenceSession(
            model_path(config), session_options(config), providers(kind, args["model_instance_device_id"])
        )
        report_place(args["model_instance_name"], kind, self.session.get_providers())
        # Initializers that are inputs too may be overridden: Triton's optional inputs.
        inputs = [*self.session.get_inputs(), *self.session.get_overridable_initializers()]
        self.scalars = {tensor.name for tensor in inputs if not tensor.shape}
        check("input", config["input"], inputs)
        check("output", config["output"], self.session.get_outputs())

    def execute(self, requests: list[Any]) -> list[Any]:
        """Answer a batch: requests of like shape share one run."""
        groups: dict[object, list[int]] = {}
        for index, request in enumerate(requests):
            # Without batching there is no axis to join along: each request is a group of its own.
            likeness = frozenset((tensor.name(), *tensor.shape()[1:]) for tensor in request.inputs())
            groups.setdefault(likeness if self.batching else index, []).append(index)
        responses: dict[int, Any] = {}
        for members in groups.values():
            responses.update(zip(members, self.answer([requests[index] for index in members]), strict=True))
        return [responses[index] for index in range(len(requests))]

    def answer(self, requests: list[Any]) -> list[Any]:
        """Run requests together, or each alone if that fails: a bad one must not fail its neighbours."""
        try:
            return self.run(requests)
        except Exception as error:
            if len(requests) > 1:
                return [response for request in requests for response in self.answer([request])]
            return [pb_utils.InferenceResponse(error=triton_error(error))]

    def run(self, requests: list[Any]) -> list[Any]:
        parts: dict[str, list[NDArray[Any]]] = {}
        for request in requests:
            for tensor in request.inputs():
                parts.setdefault(tensor.name(), []).append(self.to_model(tensor))
        inputs = {name: np.concatenate(part) if len(part) > 1 else part[0] for name, part in parts.items()}
        asked = [request.requested_output_names() for request in requests]
        # Those come as sets: an answer has its outputs in the order of the configuration.
        wanted = [name for name in self.outputs if any(name in names for names in asked)]
        outputs = zip(wanted, self.session.run(wanted, inputs), strict=True)
        rows = [len(array) for array in next(iter(parts.values()))] if self.batching else []
        pieces = {name: split(name, np.atleast_1d(output), rows) for name, output in outputs}
        return [
            pb_utils.InferenceResponse(
                [pb_utils.Tensor(name, pieces[name][index]) for name in wanted if name in names]
            )
            for index, names in enumerate(asked)
        ]

    def to_model(self, tensor: Any) -> NDArray[Any]:
        """A request's tensor as ONNX Runtime wants it: strings decoded, a model's scalar without an axis."""
        array: NDArray[Any] = tensor.as_numpy()
        if array.dtype == np.object_:
            try:
                array = decode_utf8(array)
            except UnicodeDecodeError as error:
                raise BadInputError(f"input '{tensor.name()}': not UTF-8: {error}") from error
        return array.reshape(()) if tensor.name() in self.scalars else array
