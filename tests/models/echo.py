"""Every output is the input that stands at its place."""

import json
from typing import Any

import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    def initialize(self, args: dict[str, str]) -> None:
        config = json.loads(args["model_config"])
        inputs, outputs = ([tensor["name"] for tensor in config[side]] for side in ("input", "output"))
        self.outputs = dict(zip(inputs, outputs, strict=True))

    def execute(self, requests: list[Any]) -> list[Any]:
        return [self.answer(request) for request in requests]

    def answer(self, request: Any) -> Any:
        return pb_utils.InferenceResponse(
            [renamed(tensor, self.outputs[tensor.name()]) for tensor in request.inputs()]
        )


def renamed(tensor: Any, name: str) -> Any:
    """numpy knows no BF16 and DLPack no strings, so each carries what the other cannot."""
    try:
        return pb_utils.Tensor(name, tensor.as_numpy())
    except pb_utils.TritonModelException:
        return pb_utils.Tensor.from_dlpack(name, tensor)
