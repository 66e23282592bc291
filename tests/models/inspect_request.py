"""Answers with what came beside the tensors, as JSON."""

import json
from typing import Any

import numpy as np
import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    def execute(self, requests: list[Any]) -> list[Any]:
        return [self.answer(request) for request in requests]

    def answer(self, request: Any) -> Any:
        seen = {
            "id": request.request_id(),
            "parameters": json.loads(request.parameters() or "{}"),
            "correlation_id": request.correlation_id(),
            "flags": request.flags(),
            "timeout": request.timeout(),
        }
        text = np.array([json.dumps(seen).encode()], np.object_)
        return pb_utils.InferenceResponse([pb_utils.Tensor("seen", text)])
