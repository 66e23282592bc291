"""The Open Inference Protocol (V2) with the extensions of Triton that `_extensions` names.

https://github.com/kserve/open-inference-protocol and the extension pages of Triton's documentation. What
Triton's own HTTP endpoint answers is the reference; docs/v2.md lists where we differ.
"""

from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import Response
from starlette.routing import Route

from adapter import __version__
from adapter.contracts import v2_control, v2_memory
from adapter.contracts.answers import json_response, version_headers
from adapter.contracts.models import tensor_body
from adapter.contracts.scopes import needs
from adapter.contracts.v2_infer import Infer
from adapter.core.dataplane import DataPlane
from adapter.core.errors import InvalidInput
from adapter.core.metrics import Metrics
from adapter.core.nested import describe
from adapter.settings import Settings

_MODEL = "/v2/models/{name:segment}"
_VERSION = _MODEL + "/versions/{version:segment}"


class Describe:
    """What is known of the server, its models and their repository."""

    def __init__(self, dataplane: DataPlane, settings: Settings) -> None:
        self._dataplane = dataplane
        self._extensions = [
            *("classification", "sequence", "schedule_policy", "model_configuration"),
            *("binary_tensor_data", "parameters", "statistics"),
            *(v2_control.EXTENSIONS if settings.v2_model_control else ()),
            *(v2_memory.EXTENSIONS if settings.v2_shared_memory else ()),
        ]

    async def server(self) -> Response:
        """The server's name, its version, and the extensions of the protocol that it offers."""
        answer = {"name": "miaas-adapter", "version": __version__, "extensions": self._extensions}
        return json_response(answer)

    async def live(self) -> Response:
        """Whether the process runs."""
        return json_response({"live": True})

    async def ready(self) -> Response:
        """Whether Triton answers; 503 while it does not."""
        await self._dataplane.models()
        return json_response({"ready": True})

    async def model(self, request: Request) -> Response:
        """A model's inputs and outputs, and its versions, or the one that was asked for."""
        metadata = await self._dataplane.metadata(**request.path_params)
        versions = [metadata.version] if "version" in request.path_params else metadata.versions
        answer = {
            "name": metadata.name,
            "versions": versions,
            "platform": metadata.platform,
            "inputs": [tensor_body(tensor) for tensor in metadata.inputs],
            "outputs": [tensor_body(tensor) for tensor in metadata.outputs],
        }
        return json_response(answer, headers=version_headers(metadata))

    async def model_ready(self, request: Request) -> Response:
        """Whether a model can answer: 404 when there is none, 503 while it cannot."""
        metadata = await self._dataplane.metadata(**request.path_params)
        return json_response({"name": metadata.name, "ready": True})

    async def config(self, request: Request) -> Response:
        """A model's configuration as Triton completed it."""
        return json_response(await self._dataplane.config(**request.path_params))

    async def statistics(self, request: Request) -> Response:
        """What each version has done since it was loaded: of one, of a model's, or of all."""
        return json_response({"model_stats": await self._dataplane.statistics(**request.path_params)})

    @needs("read")
    async def index(self, request: Request) -> Response:
        """Every model of the repository, loaded or not; with `{"ready": true}` those that are ready."""
        ready = (await v2_control.read_object(request)).get("ready", False)
        if type(ready) is not bool:
            raise InvalidInput(f"ready: expected a boolean, got {describe(ready)}")
        lines = await self._dataplane.repository_index()
        if ready:
            lines = [line for line in lines if line.get("state") == "READY"]
        return json_response(lines)


def router(dataplane: DataPlane, metrics: Metrics, settings: Settings) -> APIRouter:
    """The contract's routes."""
    routes = APIRouter(tags=["V2"])
    describing, infer = Describe(dataplane, settings), Infer(dataplane, metrics, settings)

    def add(path: str, endpoint: Any, method: str = "GET") -> None:
        routes.add_api_route(path, endpoint, methods=[method], response_class=Response)

    add("/v2", describing.server)
    add("/v2/health/live", describing.live)
    add("/v2/health/ready", describing.ready)
    add("/v2/models/stats", describing.statistics)
    for place in (_MODEL, _VERSION):
        routes.routes.append(Route(place + "/infer", infer, methods=["POST"]))
        add(place, describing.model)
        add(place + "/ready", describing.model_ready)
        add(place + "/config", describing.config)
        add(place + "/stats", describing.statistics)
    add("/v2/repository/index", describing.index, "POST")
    if settings.v2_model_control:
        control = v2_control.ModelControl(dataplane)
        add("/v2/repository/models/{name:segment}/load", control.load, "POST")
        add("/v2/repository/models/{name:segment}/unload", control.unload, "POST")
    for kind in v2_memory.KINDS if settings.v2_shared_memory else ():
        memory, place = v2_memory.SharedMemory(dataplane, kind), f"/v2/{kind}sharedmemory"
        one = place + "/region/{region:segment}"
        add(one + "/register", memory.register, "POST")
        for path in (place, one):
            add(path + "/status", memory.status)
            add(path + "/unregister", memory.unregister, "POST")
    return routes
