"""KServe's own way to stand before Triton: a transformer, V1 in, V2 over gRPC out."""

from typing import Any

import numpy as np
from kserve import InferInput, InferRequest, InferResponse, Model, ModelServer


class Transformer(Model):  # type: ignore[misc]
    """Turns V1's `instances` into one FP32 tensor, and Triton's answer into `predictions`."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.ready = True

    async def preprocess(self, payload: dict[str, Any], headers: Any = None) -> InferRequest:
        """V1 → V2."""
        array = np.array(payload["instances"], dtype=np.float32)
        tensor = InferInput("input", list(array.shape), "FP32")
        tensor.set_data_from_numpy(array, binary_data=True)
        return InferRequest(self.name, [tensor])

    async def postprocess(
        self, result: InferResponse, headers: Any = None, response_headers: Any = None
    ) -> dict[str, Any]:
        """V2 → V1."""
        return {"predictions": result.outputs[0].as_numpy().tolist()}


if __name__ == "__main__":
    ModelServer().start([Transformer("sklearn-iris"), Transformer("img")])
