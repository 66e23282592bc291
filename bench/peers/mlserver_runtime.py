"""MLServer before Triton: a runtime of one's own, MLServer's way to extend it, that calls Triton by gRPC.

It uses MLServer's stubs and converters: Triton's client and MLServer cannot live in one process, since each
registers the protocol's messages.
"""

import asyncio
import os
import sys

import grpc
from mlserver import MLModel, MLServer, ModelSettings, Settings
from mlserver.grpc.converters import ModelInferRequestConverter, ModelInferResponseConverter
from mlserver.grpc.dataplane_pb2_grpc import GRPCInferenceServiceStub
from mlserver.types import InferenceRequest, InferenceResponse


class TritonRuntime(MLModel):  # type: ignore[misc]
    """V2's JSON in, V2 over gRPC out, tensors as raw bytes."""

    async def load(self) -> bool:
        """Open the connection to Triton."""
        self._stub = GRPCInferenceServiceStub(grpc.aio.insecure_channel(os.environ["TRITON_GRPC_URL"]))
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        """Hand the request on as it is."""
        payload.id = None
        request = ModelInferRequestConverter.from_types(payload, self.name, use_raw=True)
        for tensor in request.inputs:
            tensor.ClearField("contents")  # it is there, empty, and Triton refuses that beside raw bytes
        return ModelInferResponseConverter.to_types(await self._stub.ModelInfer(request))


async def main(port: int) -> None:
    """Serve both models on `port` until SIGTERM, in one process, without logs of accesses."""
    settings = Settings(host="127.0.0.1", http_port=port, grpc_port=0, metrics_port=0)
    settings = settings.model_copy(update={"parallel_workers": 0, "debug": False, "metrics_endpoint": None})
    models = [ModelSettings(name=name, implementation=TritonRuntime) for name in ("sklearn-iris", "img")]
    await MLServer(settings).start(models)


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1])))
