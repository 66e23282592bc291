"""MIaaS's asynchronous inference: submit one or many, poll or wait, list, cancel."""

import asyncio
import re
from collections.abc import Mapping
from time import perf_counter
from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import Response

from adapter.contracts.answers import json_response, timestamp, version_headers
from adapter.contracts.body import parse_json, read_body
from adapter.contracts.leaving import end_with_client
from adapter.contracts.models import name_model
from adapter.contracts.submissions import idempotency_key, preferred_wait, read_model_id, read_submission
from adapter.core.codec import encode_answer
from adapter.core.dataplane import DataPlane
from adapter.core.errors import AdapterError, InvalidInput, JobNotFound
from adapter.core.metrics import Metrics
from adapter.core.nested import describe
from adapter.core.ports import JobQueue
from adapter.core.types import InferResponse, JobError, JobStatus, ModelMetadata, Submission
from adapter.core.work import Stage
from adapter.settings import Settings

MOST_AT_ONCE = 1000
"""Requests that one body may hold."""
_SIDE_BY_SIDE = 64
_PAGE, _LARGEST_PAGE = 20, 100
_JOB_ID = re.compile(r"[A-Za-z0-9_-]{1,64}\Z")


class Inference:
    """The operations on `/inference`, each an endpoint."""

    def __init__(self, dataplane: DataPlane, queue: JobQueue, metrics: Metrics, settings: Settings) -> None:
        self._dataplane = dataplane
        self._queue = queue
        self._metrics = metrics
        self._settings = settings

    async def submit(self, request: Request) -> Response:
        """Check the request against its model, store it durably, and answer 202 with its id.

        With `Prefer: wait` the answer is the result, if there is one in time. An array is taken as
        `submit_many` takes it.
        """
        content = await read_body(request.scope, request.receive, self._settings.max_body_bytes)
        key = idempotency_key(request.headers)
        with Stage("decode"):
            started = perf_counter()
            body = parse_json(content)
            parsed_s = perf_counter() - started
            read = None if type(body) is list else await self._read(request, body, key, parsed_s)
        if read is None:
            return await self._submit_many(request, body, key, parsed_s)
        submission, metadata = read
        name_model(request.scope, metadata)
        request.state.job = job_id = await self._queue.submit(submission)
        headers = {"Location": f"{request.scope['path']}/{job_id}", **version_headers(metadata)}
        if wait_s := preferred_wait(request.headers):
            headers["Preference-Applied"] = f"wait={wait_s}"
            end_with_client(request.scope)
            # That it is queued is settled: whatever happens to the wait, its client must learn the id.
            status = await self._ended_within(submission.client, job_id, wait_s)
            if status is not None:
                return self._answer(status, headers)
        return json_response({"request_id": job_id, "status": "queued"}, 202, headers)

    async def submit_many(self, request: Request) -> Response:
        """The same for an array of requests, answered by an array: each place with an id or an error."""
        content = await read_body(request.scope, request.receive, self._settings.max_body_bytes)
        key, started = idempotency_key(request.headers), perf_counter()
        bodies = parse_json(content)
        return await self._submit_many(request, bodies, key, perf_counter() - started)

    async def result(self, request: Request) -> Response:
        """Where the caller's request stands, with its result once there is one; `Prefer: wait` holds it."""
        wait_s = preferred_wait(request.headers)
        end_with_client(request.scope)
        status = await self._queue.status(request.state.client.id, _job_id(request), wait_s)
        headers = {} if status.result else {"Retry-After": "1"}
        if wait_s:
            headers["Preference-Applied"] = f"wait={wait_s}"
        return self._answer(status, headers)

    async def cancel(self, request: Request) -> Response:
        """End the caller's request, unless it has ended; answers with where it stands."""
        status, ended = await self._queue.cancel(request.state.client.id, _job_id(request))
        if ended:
            self._metrics.jobs.labels("cancelled").inc()
        return self._answer(status, {})

    async def page(self, request: Request) -> Response:
        """The caller's own requests, newest first, a page at a time."""
        limit = request.query_params.get("limit", str(_PAGE))
        if not (limit.isascii() and limit.isdigit() and 1 <= int(limit[:9]) <= _LARGEST_PAGE):
            raise InvalidInput(f"limit: expected an integer from 1 to {_LARGEST_PAGE}, got {limit[:40]!r}")
        cursor = request.query_params.get("cursor", "")
        found = await self._queue.page(request.state.client.id, int(limit), cursor)
        lines = [
            {
                "request_id": job.id,
                "model_id": job.model,
                "status": job.state,
                "submitted": timestamp(job.submitted),
                "timestamp": timestamp(job.timestamp),
            }
            for job in found.jobs
        ]
        return json_response({"requests": lines, **({"next": found.next} if found.next else {})})

    def _answer(self, status: JobStatus, headers: dict[str, str]) -> Response:
        series = None
        if status.result is not None and isinstance(status.result.outcome, InferResponse):
            series = self._metrics.stage_seconds.labels("encode", status.model)
        with Stage("encode", series):
            body = _status_body(status)
            return json_response(body, headers=headers, nan_tokens=self._settings.nan_tokens)

    async def _submit_many(self, request: Request, bodies: Any, key: str, parsed_s: float) -> Response:
        """One entry per request, in their order. Raises the first one's error when none was accepted."""
        if type(bodies) is not list:
            raise InvalidInput(f"the body must be an array of requests, got {describe(bodies)}")
        if not 1 <= len(bodies) <= MOST_AT_ONCE:
            raise InvalidInput(f"the body: expected 1 to {MOST_AT_ONCE} requests, got {len(bodies)}")
        answers: list[dict[str, Any]] = []
        errors: list[AdapterError] = []
        for begin in range(0, len(bodies), _SIDE_BY_SIDE):
            some = bodies[begin : begin + _SIDE_BY_SIDE]
            share_s = parsed_s / len(bodies)
            calls = (self._submit_one(request, body, key, begin + i, share_s) for i, body in enumerate(some))
            for outcome in await asyncio.gather(*calls):
                if isinstance(outcome, AdapterError):
                    errors.append(outcome)
                    shown = {"code": outcome.code, "message": outcome.message}
                    details = {"details": outcome.details} if outcome.details else {}
                    answers.append({"error": {**shown, **details}})
                else:
                    answers.append({"request_id": outcome, "status": "queued"})
        if len(errors) == len(bodies):
            raise errors[0]
        for error in errors:
            self._metrics.refused(error.code)
        return json_response(answers, 202)

    async def _submit_one(
        self, request: Request, body: Any, key: str, number: int, parsed_s: float
    ) -> str | AdapterError:
        try:
            # A key's own text holds no NUL, so no other key can be meant.
            submission, _ = await self._read(request, body, f"{key}\0{number}" if key else "", parsed_s)
            return await self._queue.submit(submission)
        except AdapterError as error:
            return error

    async def _read(
        self, request: Request, body: Any, key: str, parsed_s: float
    ) -> tuple[Submission, ModelMetadata]:
        """Check the request against its model; `parsed_s` is how long its JSON took."""
        name, version = read_model_id(body)
        metadata = await self._dataplane.metadata(name, version)
        started = perf_counter() - parsed_s
        client, timeout_s = request.state.client.id, self._settings.job_timeout_s
        submission = read_submission(body, metadata, version, client, key, timeout_s)
        self._metrics.staged("decode", metadata.name, started)
        return submission, metadata

    async def _ended_within(self, client: str, job_id: str, wait_s: float) -> JobStatus | None:
        try:
            status = await self._queue.status(client, job_id, wait_s)
        except AdapterError:
            return None
        return status if status.result else None


def add_routes(routes: APIRouter, inference: Inference, prefix: str) -> None:
    """Mount the operations below `prefix`."""

    # A path is one route, whatever its methods: of several the router would name the first one's in `Allow`.
    # They are Starlette's own: what FastAPI does around an endpoint costs more than these do themselves.
    async def every(request: Request) -> Response:
        return await (inference.submit if request.method == "POST" else inference.page)(request)

    async def one(request: Request) -> Response:
        return await (inference.cancel if request.method == "DELETE" else inference.result)(request)

    routes.add_route(f"{prefix}/inference", every, methods=["GET", "POST"])
    routes.add_route(f"{prefix}/inference/batch", inference.submit_many, methods=["POST"])
    routes.add_route(f"{prefix}/inference/{{request_id:segment}}", one, methods=["GET", "DELETE"])


def _job_id(request: Request) -> str:
    job_id: str = request.path_params["request_id"]
    if not _JOB_ID.match(job_id):
        raise JobNotFound(f"no request with the id {job_id[:64]}")
    return job_id


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
