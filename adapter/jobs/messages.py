"""Jobs and results ↔ NATS messages: subjects, headers and payloads, and nothing that talks to a server.

A job's payload is the serialized `ModelInferRequest`; a completed result's is the `ModelInferResponse`. What
else must be known travels in headers, so that an operator can read it with the `nats` command. A payload that
is too large for one message stands in chunks elsewhere, and a header points to it.
"""

import json
from collections.abc import Mapping
from typing import Literal, cast

import orjson

from adapter.core.trace_context import read_trace_context
from adapter.core.tracing import Attribute
from adapter.core.types import (
    AnswerForm,
    InferRequest,
    InferResponse,
    Job,
    JobError,
    JobLine,
    JobResult,
    JobState,
    JobStatus,
)
from adapter.core.wire import decode_request, decode_response, encode_request, encode_response
from adapter.jobs.ids import lane_of, submitted_at, token

_ID, _CLIENT, _FORM, _BATCHED = "Miaas-Request-Id", "Miaas-Client", "Miaas-Form", "Miaas-Batched"
_MODEL, _DEADLINE, _FINISHED = "Miaas-Model", "Miaas-Deadline", "Miaas-Finished"
_REPLACES = "Miaas-Replaces"
_CORRELATION, _TRACEPARENT, _TRACESTATE = "X-Request-ID", "traceparent", "tracestate"
"""Under the names that other programs know them by."""
STATE = "Miaas-State"
"""On a result: `completed` or `failed`."""
CHUNKS = "Miaas-Chunks"
"""Points to the payload's chunks."""
INPUT = "Miaas-Input"
"""On a failed result: points to the chunks of its input."""
CANCELLED = "cancelled"
"""The code of the error that a cancelled job ends with."""

Headers = dict[str, str]


def job_subject(client: str, job_id: str) -> str:
    """Where a job waits. Raises JobNotFound for what is no id of ours."""
    return f"miaas.jobs.{lane_of(job_id).tokens}.{token(client)}.{job_id}"


def result_subject(client: str, job_id: str) -> str:
    """Where a job's result stands; the chunks of a large one stand below."""
    return f"miaas.results.{token(client)}.{job_id}"


def input_subject(client: str, job_id: str) -> str:
    """Below it stand the chunks of a large input."""
    return f"miaas.inputs.{token(client)}.{job_id}"


def done_subject(client: str, job_id: str) -> str:
    """Where it is announced that the job has a result."""
    return f"miaas.done.{token(client)}.{job_id}"


def job_message(job: Job) -> tuple[bytes, Headers]:
    """The payload and the headers that carry a job."""
    return encode_request(job.request), job_headers(job)


def job_headers(job: Job) -> Headers:
    """What is known of a job beside its request."""
    headers = {
        _ID: job.id,
        _CLIENT: json.dumps(job.client),  # ASCII, one line
        _MODEL: job.request.model_name,
        _FORM: job.form,
        _BATCHED: str(int(job.batched)),
        _DEADLINE: repr(job.deadline),
    }
    if job.replaces:
        headers[_REPLACES] = str(job.replaces)
    if job.correlation_id:
        headers[_CORRELATION] = job.correlation_id
    if job.trace:
        headers[_TRACEPARENT] = job.trace.traceparent
        if job.trace.state:
            headers[_TRACESTATE] = job.trace.state
    return headers


def span_attributes(operation: Literal["send", "process"], stream: str, job: Job) -> dict[str, Attribute]:
    """A message of a job in OpenTelemetry's words: https://opentelemetry.io/docs/specs/semconv/messaging/"""
    return {
        "messaging.system": "nats",
        "messaging.operation.type": operation,
        "messaging.destination.name": stream,
        "messaging.message.id": job.id,
        "miaas.model": job.request.model_name,
        "miaas.client": job.client,
    }


def read_job(payload: bytes, headers: Mapping[str, str]) -> Job:
    """The opposite of `job_message`. Raises ValueError, KeyError or IndexError on a message that is none."""
    return _job(headers, decode_request(payload))


def read_job_headers(headers: Mapping[str, str]) -> Job:
    """A job with an empty request of its model. Raises ValueError or KeyError."""
    return _job(headers, InferRequest(headers[_MODEL], "", ()))


def _job(headers: Mapping[str, str], request: InferRequest) -> Job:
    job_id = headers[_ID]
    return Job(
        id=job_id,
        client=orjson.loads(headers[_CLIENT]),
        request=request,
        form=cast(AnswerForm, headers[_FORM]),
        batched=headers[_BATCHED] == "1",
        submitted=submitted_at(job_id),
        deadline=float(headers[_DEADLINE]),
        replaces=int(headers.get(_REPLACES, "0")),
        correlation_id=headers.get(_CORRELATION, ""),
        trace=read_trace_context([headers.get(_TRACEPARENT, "")], [headers.get(_TRACESTATE, "")]),
    )


def result_message(job: Job, result: JobResult, finished: float) -> tuple[bytes, Headers]:
    """The payload and the headers that carry a job's result; `finished` is in epoch seconds."""
    completed = isinstance(result.outcome, InferResponse)
    headers = {**job_headers(job), STATE: "completed" if completed else "failed", _FINISHED: repr(finished)}
    if isinstance(result.outcome, InferResponse):
        return encode_response(result.outcome), headers
    return orjson.dumps({"code": result.outcome.code, "message": result.outcome.message}), headers


def read_result(job_id: str, payload: bytes, headers: Mapping[str, str]) -> JobStatus:
    """The opposite of `result_message`."""
    completed = headers[STATE] == "completed"
    outcome = decode_response(payload) if completed else JobError(**orjson.loads(payload))
    result = JobResult(outcome, cast(AnswerForm, headers[_FORM]), headers[_BATCHED] == "1")
    return JobStatus(job_id, headers[_MODEL], submitted_at(job_id), float(headers[_FINISHED]), result)


def read_waiting(job_id: str, headers: Mapping[str, str]) -> JobStatus:
    """The status of a job that has no result yet."""
    submitted = submitted_at(job_id)
    return JobStatus(job_id, headers[_MODEL], submitted, submitted)


def read_line(job_id: str, headers: Mapping[str, str]) -> JobLine:
    """What a list says of a job, by its own headers or by its result's."""
    submitted = submitted_at(job_id)
    state = cast(JobState, headers.get(STATE, "processing"))
    return JobLine(job_id, headers[_MODEL], submitted, float(headers.get(_FINISHED, submitted)), state)
