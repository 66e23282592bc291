"""From the scores of the thousand ImageNet classes to the names of the five best."""

from pathlib import Path
from typing import Any

import numpy as np
import triton_python_backend_utils as pb_utils

TOP = 5


class TritonPythonModel:
    def initialize(self, _args: dict[str, str]) -> None:
        lines = Path(__file__).with_name("labels.txt").read_text(encoding="utf-8").splitlines()
        self.labels = np.array([line.encode() for line in lines], dtype=np.object_)

    def execute(self, requests: list[Any]) -> list[Any]:
        return [self.answer(request) for request in requests]

    def answer(self, request: Any) -> Any:
        scores = pb_utils.get_input_tensor_by_name(request, "scores").as_numpy()
        best = np.argsort(-scores, axis=1, kind="stable")[:, :TOP]
        return pb_utils.InferenceResponse(
            [
                pb_utils.Tensor("labels", self.labels[best]),
                pb_utils.Tensor("probabilities", np.take_along_axis(scores, best, axis=1)),
            ]
        )
