"""Two inputs, a third that may be left out, two outputs: `sum` adds up `a` and `c`, `echo` is `b`."""

from typing import Any

import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    def execute(self, requests: list[Any]) -> list[Any]:
        return [self.answer(request) for request in requests]

    def answer(self, request: Any) -> Any:
        tensors = {tensor.name(): tensor.as_numpy() for tensor in request.inputs()}
        total = tensors["a"].sum(axis=1, keepdims=True)
        if "c" in tensors:
            total += tensors["c"]
        return pb_utils.InferenceResponse(
            [pb_utils.Tensor("sum", total), pb_utils.Tensor("echo", tensors["b"])]
        )
