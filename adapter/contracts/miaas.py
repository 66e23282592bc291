"""The MIaaS control plane: health, submit and poll, and the model registry."""

import asyncio
import math
import re
import secrets
import time
from collections.abc import Mapping
from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import Response

from adapter.contracts.answers import json_response, timestamp, version_headers
from adapter.contracts.body import parse_json, read_body
from adapter.contracts.models import list_body, model_body, split_id
from adapter.core.codec import decode_input_data, encode_answer
from adapter.core.dataplane import DataPlane
from adapter.core.errors import AdapterError, InvalidInput, JobNotFound, NotFound, Unavailable
from adapter.core.metrics import Metrics
from adapter.core.nested import describe
from adapter.core.ports import JobQueue
from adapter.core.types import InferRequest, Job, JobError, JobStatus, ModelMetadata, Parameter
from adapter.settings import Settings

_JOB_ID = re.compile(r"[A-Za-z0-9_-]{1,64}\Z")
_FIELDS = {"model_id", "input_data", "parameters"}


class ControlPlane:
    """The contract's operations, each an endpoint."""

    def __init__(self, dataplane: DataPlane, queue: JobQueue, metrics: Metrics, settings: Settings) -> None:
        self._dataplane = dataplane
        self._queue = queue
        self._metrics = metrics
        self._settings = settings

    async def health(self) -> Response:
        """Healthy while both Triton and NATS answer; 503 that names the one that does not."""
        await asyncio.gather(self._dataplane.models(), self._queue.ping())
        return json_response({"status": "healthy", "timestamp": timestamp()})

    async def submit(self, request: Request) -> Response:
        """Check the request against its model, store it durably, and answer 202 with its id."""
        content = await read_body(request.scope, request.receive, self._settings.max_body_bytes)
        body = _checked_fields(parse_json(content))
        name, version = split_id(body["model_id"])
        metadata = await self._dataplane.metadata(name, version)
        request.state.model = metadata.name
        tensors, form = decode_input_data(metadata, body["input_data"])
        parameters = _checked_parameters(body.get("parameters"))
        now = time.time()
        timeout_s = parameters.pop("timeout_s", self._settings.job_timeout_s)
        job = Job(
            id=secrets.token_hex(16),
            client=request.state.client.id,
            request=InferRequest(metadata.name, version, tensors, parameters=parameters),
            form=form,
            batched=metadata.batched,
            submitted=now,
            deadline=now + float(timeout_s),
        )
        await self._queue.submit(job)
        self._metrics.jobs.labels("accepted").inc()
        answer = {"request_id": job.id, "status": "queued"}
        headers = {"Location": f"{request.url.path}/{job.id}", **version_headers(metadata)}
        return json_response(answer, 202, headers)

    async def result(self, request: Request) -> Response:
        """Where the caller's request stands, with its result once there is one."""
        job_id = request.path_params["request_id"]
        if not _JOB_ID.match(job_id):
            raise JobNotFound(f"no request with the id {job_id[:64]}")
        status = await self._queue.status(request.state.client.id, job_id)
        headers = {} if status.result else {"Retry-After": "1"}
        return json_response(_status_body(status), headers=headers, nan_tokens=self._settings.nan_tokens)

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
        request.state.model = metadata.name
        return json_response(model_body(metadata), headers=version_headers(metadata))

    async def _described(self, name: str) -> ModelMetadata | None:
        try:
            return await self._dataplane.metadata(name)
        except (NotFound, Unavailable):
            # It went away between the list and this look.
            return None


def router(dataplane: DataPlane, queue: JobQueue, metrics: Metrics, settings: Settings) -> APIRouter:
    """The contract's routes, as the text prints them and below `/v1`."""
    plane = ControlPlane(dataplane, queue, metrics, settings)
    routes = APIRouter()
    for path, endpoint, method in (
        ("/health", plane.health, "GET"),
        ("/inference", plane.submit, "POST"),
        ("/inference/{request_id:segment}", plane.result, "GET"),
        ("/models", plane.models, "GET"),
    ):
        for prefix in ("/v1", ""):
            routes.add_api_route(prefix + path, endpoint, methods=[method])
    routes.add_api_route("/models/{model_id:segment}", plane.model, methods=["GET"])
    return routes


def _checked_fields(body: Any) -> dict[str, Any]:
    if type(body) is not dict:
        raise InvalidInput(f"the body must be a JSON object, got {describe(body)}")
    for name in ("model_id", "input_data"):
        if name not in body:
            raise InvalidInput(f"{name}: is missing")
    if unknown := body.keys() - _FIELDS:
        raise InvalidInput(f"{min(unknown)[:64]!r} is no member of an inference request")
    if type(body["model_id"]) is not str:
        raise InvalidInput(f"model_id: expected a string, got {describe(body['model_id'])}")
    return body


def _checked_parameters(given: Any) -> dict[str, Parameter]:
    """`parameters`: `timeout_s`, `priority`, and scalars for Triton. Raises InvalidInput."""
    if given is None:
        return {}
    if type(given) is not dict:
        raise InvalidInput(f"parameters: expected an object, got {describe(given)}")
    for name, value in given.items():
        if type(value) not in (bool, int, float, str) or (type(value) is float and not math.isfinite(value)):
            raise InvalidInput(f"parameters.{name[:64]}: expected a scalar, got {describe(value)}")
        if type(value) is int and not -(1 << 63) <= value < 1 << 63:
            raise InvalidInput(f"parameters.{name[:64]}: expected a 64-bit integer, got {describe(value)}")
        if name.startswith("triton_"):
            raise InvalidInput(f"parameters.{name[:64]}: names that begin with triton_ are Triton's own")
    timeout_s = given.get("timeout_s", 1)
    if type(timeout_s) not in (int, float) or not 0 < timeout_s <= 7 * 86_400:
        expected = "seconds, more than 0 and at most 604800"
        raise InvalidInput(f"parameters.timeout_s: expected {expected}, got {describe(timeout_s)}")
    priority = given.get("priority", 0)
    if type(priority) is not int or priority < 0:
        raise InvalidInput(f"parameters.priority: expected an integer from 0, got {describe(priority)}")
    return dict(given)


def _status_body(status: JobStatus) -> Mapping[str, Any]:
    head = {"request_id": status.id, "timestamp": timestamp(status.timestamp)}
    if status.result is None:
        return {**head, "status": "processing"}
    if isinstance(status.result.outcome, JobError):
        error = status.result.outcome
        return {**head, "status": "failed", "error": {"code": error.code, "message": error.message}}
    try:
        outputs, form = status.result.outcome.outputs, status.result.form
        answer = encode_answer(outputs, form, batched=status.result.batched)
    except AdapterError as error:
        return {**head, "status": "failed", "error": {"code": error.code, "message": error.message}}
    return {**head, "status": "completed", "result": answer}
