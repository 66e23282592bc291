"""Fails every request with an exception of its own."""

from typing import Any


class TritonPythonModel:
    def execute(self, requests: list[Any]) -> list[Any]:
        raise ValueError("this model always fails")
