"""Echoes, and writes down each value that it was asked for, so that executions can be counted.

A value below zero ends the process, as a segmentation fault would; one from a billion on takes a second.
"""

import json
import os
import time
from typing import Any

import numpy as np
import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    def initialize(self, args: dict[str, str]) -> None:
        path = json.loads(args["model_config"])["parameters"]["log"]["string_value"]
        self.log = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)

    def execute(self, requests: list[Any]) -> list[Any]:
        values = [pb_utils.get_input_tensor_by_name(request, "value").as_numpy() for request in requests]
        every = np.concatenate([value.ravel() for value in values])
        os.write(self.log, "".join(f"{value}\n" for value in every).encode())
        if (every < 0).any():
            os._exit(1)
        if (every >= 1_000_000_000).any():
            time.sleep(1)
        return [pb_utils.InferenceResponse([pb_utils.Tensor("echo", value)]) for value in values]
