"""Echoes after as many seconds as its first element says; with the parameter `longer` twice over."""

import json
import time
from typing import Any

import numpy as np
import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    def initialize(self, args: dict[str, str]) -> None:
        self.longer = "longer" in json.loads(args["model_config"])["parameters"]

    def execute(self, requests: list[Any]) -> list[Any]:
        return [self.answer(request) for request in requests]

    def answer(self, request: Any) -> Any:
        block = pb_utils.get_input_tensor_by_name(request, "block").as_numpy()
        time.sleep(float(block.flat[0]))
        echo = np.concatenate([block, block]) if self.longer else block
        return pb_utils.InferenceResponse([pb_utils.Tensor("echo", echo)])
