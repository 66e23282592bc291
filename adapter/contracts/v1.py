"""KServe's V1 protocol, compatible with TensorFlow Serving's REST API: model metadata and `:predict`."""

from fastapi import APIRouter, Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from adapter.contracts.answers import json_response, version_headers
from adapter.contracts.models import model_body, split_id
from adapter.contracts.predict import Predict
from adapter.contracts.tfserving import metadata_body
from adapter.core.dataplane import DataPlane
from adapter.core.errors import NotSupported
from adapter.core.metrics import Metrics
from adapter.core.types import ModelMetadata
from adapter.settings import Settings

_MODEL = "/v1/models/{name:segment}"
_VERSION = _MODEL + "/versions/{version:segment}"
_LABEL = _MODEL + "/labels/{label:segment}"


class _Unsupported:
    """TensorFlow Serving's and KServe's other verbs."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        verb = scope["path_params"]["verb"]
        raise NotSupported(f"{verb[:64]!r} is not supported; there is :predict")


def router(dataplane: DataPlane, metrics: Metrics, settings: Settings) -> APIRouter:
    """The contract's routes."""
    routes = APIRouter()

    async def find(request: Request) -> ModelMetadata:
        place = request.path_params
        if place.keys() == {"name"}:
            # MIaaS's id of a model, which may hold a version, has the same path.
            place = dict(zip(("name", "version"), split_id(place["name"]), strict=True))
        return await dataplane.metadata(**place)

    async def describe(request: Request) -> Response:
        metadata = await find(request)
        return json_response(model_body(metadata), headers=version_headers(metadata))

    async def describe_signature(request: Request) -> Response:
        metadata = await find(request)
        return json_response(metadata_body(metadata), headers=version_headers(metadata))

    predict = Predict(dataplane, metrics, settings)
    for place in (_MODEL, _VERSION, _LABEL):
        routes.routes.append(Route(place + ":predict", predict, methods=["POST"]))
        routes.routes.append(Route(place + ":{verb:segment}", _Unsupported(), methods=["POST"]))
        routes.add_api_route(place, describe, methods=["GET"])
        routes.add_api_route(place + "/metadata", describe_signature, methods=["GET"])
    return routes
