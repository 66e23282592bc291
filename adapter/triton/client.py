"""The Engine over Triton's gRPC service."""

from collections.abc import Sequence

from adapter.core.errors import InferenceFailed
from adapter.core.types import InferRequest, InferResponse, ModelMetadata, ModelVersion
from adapter.core.wire import decode_response, encode_request
from adapter.triton.registry import Registry
from adapter.triton.transport import GrpcTransport


class TritonEngine:
    """`adapter.core.ports.Engine` on one Triton server at `url` (`host:port`)."""

    def __init__(self, url: str, metadata_ttl_s: float) -> None:
        self._transport = GrpcTransport(url)
        self._registry = Registry(self._transport, metadata_ttl_s)

    async def models(self) -> Sequence[ModelVersion]:
        """See `Engine.models`."""
        return await self._registry.models()

    async def metadata(self, name: str, version: str = "") -> ModelMetadata:
        """See `Engine.metadata`."""
        return await self._registry.metadata(name, version)

    async def infer(self, request: InferRequest, timeout_s: float) -> InferResponse:
        """See `Engine.infer`."""
        answer = await self._transport.infer(encode_request(request), timeout_s)
        try:
            return decode_response(answer)
        except (ValueError, IndexError) as error:
            raise InferenceFailed("Triton's answer is not a ModelInferResponse") from error

    def forget(self) -> None:
        """See `Engine.forget`."""
        self._registry.forget()

    async def close(self) -> None:
        """Close the connection to Triton."""
        await self._transport.close()
