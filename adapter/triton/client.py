"""The Engine over Triton's gRPC service."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from time import perf_counter
from typing import Any

import grpc
import numpy as np

from adapter.core import tracing
from adapter.core.metrics import Metrics
from adapter.core.rows import has_rows
from adapter.core.types import (
    OWN_REGIONS,
    InferRequest,
    InferResponse,
    ModelMetadata,
    ModelVersion,
    RegionKind,
)
from adapter.core.wire import request_parts
from adapter.settings import Settings
from adapter.triton.balancer import Balancer
from adapter.triton.batcher import Batcher, Limits
from adapter.triton.layout import Planner
from adapter.triton.messages import to_json
from adapter.triton.names import Address, Names
from adapter.triton.registry import Registry
from adapter.triton.shared_memory import LocalTransport, is_local
from adapter.triton.transport import INFER, GrpcTransport, read_answer

Answer = bytes | memoryview | InferResponse
"""Of a call: as Triton sent it, or read already."""


class TritonEngine:
    """`adapter.core.ports.Engine` on one Triton server or several, in plain text without credentials."""

    def __init__(
        self, settings: Settings, metrics: Metrics, credentials: grpc.ChannelCredentials | None = None
    ) -> None:
        url, lean = settings.triton_grpc_url, settings.triton_transport == "http2"
        least, most = settings.shared_memory_min_bytes, settings.shared_memory_max_bytes
        planner = self._planner = Planner(least) if least else None

        def connect(address: Address) -> GrpcTransport:
            place, authority = address.target, address.authority
            if planner and is_local(place):
                memory = planner, most, metrics
                return LocalTransport(place, credentials, *memory, lean=lean, authority=authority)
            return GrpcTransport(place, credentials, lean=lean, authority=authority)

        self._transport = (
            Balancer(Names(url), connect, metrics) if settings.several_tritons else connect(Address(url, ""))
        )
        self._registry = Registry(self._transport, settings.metadata_ttl_s)
        self._batcher = Batcher(self._send, settings.batch_queue, metrics)
        self._metrics = metrics
        self._batch_calls = settings.batch_calls

    async def models(self) -> Sequence[ModelVersion]:
        """See `Engine.models`."""
        return await self._registry.models()

    async def metadata(self, name: str, version: str = "") -> ModelMetadata:
        """See `Engine.metadata`."""
        return await self._registry.metadata(name, version)

    def infer(self, request: InferRequest, timeout_s: float) -> Awaitable[InferResponse]:
        """See `Engine.infer`."""
        limits = self._limits(request)
        if limits is None:
            return _to_its_end(self._send(request, timeout_s, 1))
        return self._batcher.infer(request, limits, timeout_s)

    def memory(self, size: int) -> memoryview:
        """See `Engine.memory`: that which a Triton on this machine has mapped too, if there is any."""
        view = None if isinstance(self._transport, Balancer) else self._transport.memory_for(size)
        return np.empty(size, np.uint8).data if view is None else view

    def _limits(self, request: InferRequest) -> Limits | None:
        """Within which limits the request may be joined with others; None when it must go alone."""
        known = self._registry.known(request.model_name, request.model_version)
        if known is None or known.max_batch_size <= 1 or request.parameters or not has_rows(request):
            return None
        if any(output.parameters for output in request.outputs) or any(t.region for t in request.inputs):
            return None
        if request.inputs[0].shape[0] * 2 > known.max_batch_size:
            # Nothing could join a request that fills more than half of a call.
            return None
        calls = self._batch_calls if known.batch_calls is None else known.batch_calls
        servers = 1
        if isinstance(self._transport, Balancer):
            servers = self._transport.spread(request.model_name, request.model_version)
        return Limits(known.max_batch_size, calls * servers, servers) if calls else None

    def _send(self, request: InferRequest, timeout_s: float, requests: int) -> Awaitable[InferResponse]:
        """One call of Triton, which answers so many requests; it begins when it is awaited."""
        known = self._registry.known(request.model_name, request.model_version)
        shape = request.inputs[0].shape if known and known.batched and request.inputs else ()
        rows = shape[0] if shape else 0
        call = self._call(request, known, rows, timeout_s)
        return self._observed(call, request.model_name, requests, rows)

    def _call(
        self, request: InferRequest, known: ModelMetadata | None, rows: int, timeout_s: float
    ) -> Awaitable[Answer]:
        """The call itself, which holds the tensors no longer than it needs them."""
        ask = self._asking(request, known, rows)
        if isinstance(self._transport, Balancer):
            sequence = request.parameters.get("sequence_id")
            return self._transport.infer(request.model_name, request.model_version, sequence, ask, timeout_s)
        return ask(self._transport, timeout_s)

    def _asking(
        self, request: InferRequest, known: ModelMetadata | None, rows: int
    ) -> Callable[[GrpcTransport, float], Awaitable[Answer]]:
        """What sends the request by a transport, and waits so many seconds at most."""
        layout = self._planner.layout(request, known, rows) if self._planner else None
        if layout:
            return lambda server, left_s: server.infer_large(layout, left_s)
        message = request_parts(request)
        return lambda server, left_s: server.infer(message, left_s)

    async def _observed(self, call: Awaitable[Answer], model: str, requests: int, rows: int) -> InferResponse:
        """What the call comes to, as a span and in the metrics."""
        started = perf_counter()
        with tracing.span(INFER, "client") as span:
            if span.recording:
                span.set({"rpc.system.name": "grpc", "rpc.method": INFER})
            try:
                answer = await call
            finally:
                self._metrics.called(model, requests, rows, started)
        return answer if isinstance(answer, InferResponse) else read_answer(answer)

    async def config(self, name: str, version: str = "") -> Mapping[str, Any]:
        """See `Engine.config`."""
        return to_json(await self._transport.model_config(name, version))

    async def statistics(self, name: str = "", version: str = "") -> Sequence[Mapping[str, Any]]:
        """See `Engine.statistics`."""
        answer = await self._transport.model_statistics(name, version)
        return [to_json(statistics) for statistics in answer.model_stats]

    async def repository_index(self) -> Sequence[Mapping[str, str]]:
        """See `Engine.repository_index`."""
        index = await self._transport.repository_index()
        lines = [to_json(model) for model in index.models]
        return [{key: value for key, value in line.items() if value} for line in lines]

    async def load(self, name: str) -> None:
        """See `Engine.load`."""
        await self._transport.load_model(name)
        self._registry.forget()

    async def unload(self, name: str, *, dependents: bool) -> None:
        """See `Engine.unload`."""
        await self._transport.unload_model(name, dependents=dependents)
        self._registry.forget()

    async def regions(self, kind: RegionKind, name: str = "") -> Sequence[Mapping[str, Any]]:
        """See `Engine.regions`."""
        found = (await self._transport.memory(kind, "Status", name=name)).regions
        return [to_json(found[region]) for region in sorted(found) if not region.startswith(OWN_REGIONS)]

    async def register_system_region(self, name: str, key: str, offset: int, byte_size: int) -> None:
        """See `Engine.register_system_region`."""
        place = {"key": key, "offset": offset, "byte_size": byte_size}
        await self._transport.memory("system", "Register", name=name, **place)

    async def register_cuda_region(self, name: str, handle: bytes, device: int, byte_size: int) -> None:
        """See `Engine.register_cuda_region`."""
        place = {"raw_handle": handle, "device_id": device, "byte_size": byte_size}
        await self._transport.memory("cuda", "Register", name=name, **place)

    async def unregister_region(self, kind: RegionKind, name: str = "") -> None:
        """See `Engine.unregister_region`; without a name the adapter's own regions stay."""
        for each in [name] if name else [region["name"] for region in await self.regions(kind)]:
            await self._transport.memory(kind, "Unregister", name=each)

    def servers(self) -> Mapping[str, str]:
        """See `Engine.servers`."""
        return self._transport.servers if isinstance(self._transport, Balancer) else {}

    @property
    def idle(self) -> bool:
        """Whether no request waits to be joined with others, and no joined one is in flight."""
        return self._batcher.idle

    def forget(self) -> None:
        """See `Engine.forget`."""
        self._registry.forget()

    async def close(self) -> None:
        """Close the connection to Triton."""
        await self._transport.close()


async def _to_its_end(call: Awaitable[InferResponse]) -> InferResponse:
    """A caller that gives up leaves the call to its deadline: cancelled calls have crashed Tritons."""
    return await asyncio.shield(asyncio.ensure_future(call))
