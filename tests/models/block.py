"""Echoes after as many seconds as its first element says.

With the parameter `longer` twice over, with `repeated` as many times as its last element says.
"""

import json
import time
from typing import Any

import numpy as np
import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    def initialize(self, args: dict[str, str]) -> None:
        self.parameters = json.loads(args["model_config"])["parameters"]

    def execute(self, requests: list[Any]) -> list[Any]:
        return [self.answer(request) for request in requests]

    def answer(self, request: Any) -> Any:
        block = pb_utils.get_input_tensor_by_name(request, "block").as_numpy()
        time.sleep(float(block.flat[0]))
        times = 2 if "longer" in self.parameters else 1
        if "repeated" in self.parameters:
            times = int(block.flat[-1])
        return pb_utils.InferenceResponse([pb_utils.Tensor("echo", np.tile(block, times))])
