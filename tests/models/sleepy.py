"""Takes as long as it is asked to; while it does, a hidden file in its folder says so.

Asked for less than nothing it is unavailable.
"""

import time
from pathlib import Path
from typing import Any

import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    def execute(self, requests: list[Any]) -> list[Any]:
        return [self.answer(request) for request in requests]

    def answer(self, request: Any) -> Any:
        seconds = pb_utils.get_input_tensor_by_name(request, "seconds").as_numpy()
        if seconds.sum() < 0:
            error = pb_utils.TritonError("it is too early", pb_utils.TritonError.UNAVAILABLE)
            return pb_utils.InferenceResponse(error=error)
        busy = Path(pb_utils.get_model_dir()) / ".busy"
        busy.touch()
        time.sleep(float(seconds.sum()))
        busy.unlink()
        return pb_utils.InferenceResponse([pb_utils.Tensor("slept", seconds)])
