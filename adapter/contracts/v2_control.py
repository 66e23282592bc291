"""Triton's model repository extension: load and unload, for administrators, where the settings allow it.

extension_model_repository.md in Triton's documentation. Models come from the repository alone: a
configuration or files that are sent along would be code to run.
"""

from typing import Any

from fastapi import Request
from starlette.responses import Response

from adapter.contracts.body import parse_json, read_body
from adapter.contracts.scopes import needs
from adapter.contracts.v2_tensors import parameters_of
from adapter.core.dataplane import DataPlane
from adapter.core.errors import InvalidInput
from adapter.core.nested import describe

EXTENSIONS = ("model_repository", "model_repository(unload_dependents)")
_MAX_BODY_BYTES = 1 << 16


class ModelControl:
    """Loads and unloads what lies in the repository."""

    def __init__(self, dataplane: DataPlane) -> None:
        self._dataplane = dataplane

    @needs("admin")
    async def load(self, request: Request) -> Response:
        """Load a model, or load it anew when its files changed. Takes no parameters."""
        if parameters := parameters_of(await read_object(request), ""):
            name = min(parameters)[:64]
            raise InvalidInput(f"parameters.{name}: a model is loaded as the repository has it")
        await self._dataplane.load(request.path_params["name"])
        return Response(media_type="application/json")

    @needs("admin")
    async def unload(self, request: Request) -> Response:
        """Unload a model; with `unload_dependents` also those that an ensemble was made of."""
        parameters = parameters_of(await read_object(request), "")
        dependents = parameters.pop("unload_dependents", False)
        if type(dependents) is not bool:
            place = "parameters.unload_dependents"
            raise InvalidInput(f"{place}: expected a boolean, got {describe(dependents)}")
        if parameters:
            raise InvalidInput(f"parameters.{min(parameters)[:64]}: only unload_dependents is known")
        await self._dataplane.unload(request.path_params["name"], dependents=dependents)
        return Response(media_type="application/json")


async def read_object(request: Request) -> dict[str, Any]:
    """The body of a request that is small: a JSON object; an empty body is an empty one."""
    body = await read_body(request.scope, request.receive, _MAX_BODY_BYTES)
    document = parse_json(body) if body.strip() else {}
    if type(document) is not dict:
        raise InvalidInput(f"the body must be a JSON object, got {describe(document)}")
    return document
