"""Jobs and results ↔ NATS messages: subjects, headers and payloads, and nothing that talks to a server.

A job's payload is the serialized `ModelInferRequest`; a completed result's is the `ModelInferResponse`. What
else must be known travels in headers, so that an operator can read it with the `nats` command.
"""

import json
from collections.abc import Mapping
from hashlib import blake2b
from typing import Any, cast

import orjson

from adapter.core.types import AnswerForm, InferResponse, Job, JobError, JobResult, JobStatus
from adapter.core.wire import decode_request, decode_response, encode_request, encode_response

JOBS_STREAM = "MIAAS_JOBS"
RESULTS_STREAM = "MIAAS_RESULTS"
CONSUMER = "workers"

_ID, _CLIENT, _FORM, _BATCHED = "Miaas-Request-Id", "Miaas-Client", "Miaas-Form", "Miaas-Batched"
_MODEL, _SUBMITTED, _DEADLINE, _FINISHED = (
    "Miaas-Model",
    "Miaas-Submitted",
    "Miaas-Deadline",
    "Miaas-Finished",
)
_STATE = "Miaas-State"

Headers = dict[str, Any]


def job_subject(client: str, job_id: str) -> str:
    """Where a job waits. The client's name is hashed: a token must not hold `.`, `*`, `>` or blanks."""
    return f"miaas.jobs.{_token(client)}.{job_id}"


def result_subject(client: str, job_id: str) -> str:
    """Where a job's result stands."""
    return f"miaas.results.{_token(client)}.{job_id}"


def _token(client: str) -> str:
    return blake2b(client.encode(), digest_size=16).hexdigest()


def job_message(job: Job) -> tuple[bytes, Headers]:
    """The payload and the headers that carry a job."""
    return encode_request(job.request), {
        _ID: job.id,
        _CLIENT: json.dumps(job.client),  # ASCII, one line
        _MODEL: job.request.model_name,
        _FORM: job.form,
        _BATCHED: str(int(job.batched)),
        _SUBMITTED: repr(job.submitted),
        _DEADLINE: repr(job.deadline),
    }


def read_job(payload: bytes, headers: Mapping[str, str]) -> Job:
    """The opposite of `job_message`. Raises ValueError, KeyError or IndexError on a message that is none."""
    return Job(
        id=headers[_ID],
        client=orjson.loads(headers[_CLIENT]),
        request=decode_request(payload),
        form=cast(AnswerForm, headers[_FORM]),
        batched=headers[_BATCHED] == "1",
        submitted=float(headers[_SUBMITTED]),
        deadline=float(headers[_DEADLINE]),
    )


def result_message(result: JobResult, finished: float) -> tuple[bytes, Headers]:
    """The payload and the headers that carry a result; `finished` is in epoch seconds."""
    headers = {_FORM: result.form, _BATCHED: str(int(result.batched)), _FINISHED: repr(finished)}
    if isinstance(result.outcome, InferResponse):
        return encode_response(result.outcome), {_STATE: "completed", **headers}
    error = {"code": result.outcome.code, "message": result.outcome.message}
    return orjson.dumps(error), {_STATE: "failed", **headers}


def read_result(job_id: str, payload: bytes, headers: Mapping[str, str]) -> JobStatus:
    """The opposite of `result_message`."""
    outcome: InferResponse | JobError
    if headers[_STATE] == "completed":
        outcome = decode_response(payload)
    else:
        outcome = JobError(**orjson.loads(payload))
    result = JobResult(outcome, cast(AnswerForm, headers[_FORM]), headers[_BATCHED] == "1")
    return JobStatus(job_id, float(headers[_FINISHED]), result)


def read_waiting(job_id: str, headers: Mapping[str, str]) -> JobStatus:
    """The status of a job that has no result yet."""
    return JobStatus(job_id, float(headers[_SUBMITTED]))
