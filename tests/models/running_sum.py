"""Adds up the values of a sequence; with one instance and one slot there is one sequence at a time."""

from typing import Any

import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    def initialize(self, args: dict[str, str]) -> None:
        self.total = 0

    def execute(self, requests: list[Any]) -> list[Any]:
        return [self.answer(request) for request in requests]

    def answer(self, request: Any) -> Any:
        value, start = (
            pb_utils.get_input_tensor_by_name(request, name).as_numpy() for name in ("INPUT0", "START")
        )
        self.total = value if start.any() else self.total + value
        return pb_utils.InferenceResponse([pb_utils.Tensor("sum", self.total)])
