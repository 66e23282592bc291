"""The MIaaS control plane: health, asynchronous inference, and the model registry."""

import asyncio

from fastapi import APIRouter, Request
from starlette.responses import Response

from adapter.contracts.answers import json_response, timestamp, version_headers
from adapter.contracts.inference import Inference, add_routes
from adapter.contracts.models import list_body, model_body, split_id
from adapter.core.dataplane import DataPlane
from adapter.core.errors import NotFound, Unavailable
from adapter.core.metrics import Metrics
from adapter.core.ports import JobQueue
from adapter.core.types import ModelMetadata
from adapter.settings import Settings


class ControlPlane:
    """Health and the model registry, each operation an endpoint."""

    def __init__(self, dataplane: DataPlane, queue: JobQueue) -> None:
        self._dataplane = dataplane
        self._queue = queue

    async def health(self) -> Response:
        """Healthy while both Triton and NATS answer; 503 that names the one that does not."""
        await asyncio.gather(self._dataplane.models(), self._queue.ping())
        return json_response({"status": "healthy", "timestamp": timestamp()})

    async def models(self) -> Response:
        """Every served version of every model."""
        lines = await self._dataplane.models()
        names = sorted({line.name for line in lines if line.ready})
        found = await asyncio.gather(*map(self._described, names))
        described = {metadata.name: metadata for metadata in found if metadata}
        return json_response(list_body(lines, described))

    async def model(self, request: Request) -> Response:
        """One version, or the latest, in full; a model's id is `name` or `name@version`."""
        name, version = split_id(request.path_params["model_id"])
        metadata = await self._dataplane.metadata(name, version)
        return json_response(model_body(metadata), headers=version_headers(metadata))

    async def _described(self, name: str) -> ModelMetadata | None:
        try:
            return await self._dataplane.metadata(name)
        except (NotFound, Unavailable):
            # It went away between the list and this look.
            return None


def router(dataplane: DataPlane, queue: JobQueue, metrics: Metrics, settings: Settings) -> APIRouter:
    """The contract's routes, as the text prints them and below `/v1`."""
    plane = ControlPlane(dataplane, queue)
    inference = Inference(dataplane, queue, metrics, settings)
    routes = APIRouter()
    for prefix in ("/v1", ""):
        routes.add_api_route(f"{prefix}/health", plane.health, methods=["GET"])
        routes.add_api_route(f"{prefix}/models", plane.models, methods=["GET"])
        add_routes(routes, inference, prefix)
    routes.add_api_route("/models/{model_id:segment}", plane.model, methods=["GET"])
    return routes
