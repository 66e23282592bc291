"""One job's way through the engine: to its result, or back to the queue."""

import time
from dataclasses import dataclass

from adapter.core.dataplane import DataPlane
from adapter.core.errors import (
    AdapterError,
    DeadlineExceeded,
    EngineUnavailable,
    EngineUnreached,
    ModelCrashed,
    ModelGone,
    ModelNotFound,
    Unavailable,
)
from adapter.core.ports import Delivery
from adapter.core.types import InferResponse, Job, JobError, JobResult
from adapter.jobs import backoff
from adapter.jobs.quarantine import Quarantine

_CROWD_ATTEMPTS = 2
"""From the next attempt on a job runs alone."""


@dataclass(frozen=True, slots=True)
class Retry:
    """The job goes back; `excused` says that what happened says nothing about it."""

    delay_s: float
    excused: bool


class Runner:
    """Runs jobs. Whatever happens becomes a result or a Retry."""

    def __init__(self, dataplane: DataPlane, attempts: int, timeout_s: float) -> None:
        self._dataplane = dataplane
        self._attempts = attempts
        self._timeout_s = timeout_s
        self._quarantine = Quarantine(dataplane)

    async def read(self, delivery: Delivery) -> JobResult | Retry | None:
        """Complete the job, so that it can be run; or its result, or when to try again."""
        try:
            await delivery.read()
        except Unavailable as error:
            if time.time() < delivery.job.deadline:
                return Retry(backoff.delay_s(delivery.deliveries), excused=True)
            message = f"the deadline passed before the request could be read: {error.message}"
            return failure(delivery.job, DeadlineExceeded.code, message)
        return None

    async def run(self, delivery: Delivery) -> JobResult | Retry:
        """The result of a job that was read, or when to try again."""
        job = delivery.job
        delay_s = backoff.delay_s(delivery.deliveries)
        if delivery.lost:
            return failure(job, delivery.lost.code, delivery.lost.message)
        if delivery.attempt > self._attempts:
            return failure(
                job, "attempts_exhausted", f"{self._attempts} workers took it up, and none ended it"
            )
        try:
            response = await self._infer(delivery)
            if response is None:
                return Retry(self._quarantine.rest_s(job.request.model_name), excused=True)
            return JobResult(response, job.form, job.batched)
        except (EngineUnavailable, ModelCrashed, ModelGone, ModelNotFound, DeadlineExceeded) as error:
            if isinstance(error, DeadlineExceeded) and time.time() >= job.deadline:
                return failure(job, error.code, error.message)
            # All was there when the job was accepted. It may come back, or the job itself took it down.
            if delivery.attempt < self._attempts:
                return Retry(delay_s, excused=False)
            return failure(job, error.code, f"given up after {delivery.attempt} attempts: {error.message}")
        except Unavailable:
            return Retry(delay_s, excused=True)
        except AdapterError as error:
            return failure(job, error.code, error.message)

    async def _infer(self, delivery: Delivery) -> InferResponse | None:
        """The answer, or None while the model's process is dead."""
        job, model = delivery.job, delivery.job.request.model_name
        if time.time() >= job.deadline:
            raise DeadlineExceeded("the deadline passed before the request could run")
        if delivery.attempt <= _CROWD_ATTEMPTS and not self._quarantine.watches(model):
            return await self._ask(job)
        async with self._quarantine.alone(model) as turn:
            try:
                if (turn or not self._quarantine.dead(model)) and await self._quarantine.recovered(model):
                    return await self._ask(job)
            except ModelGone:
                # Nothing has run; and one that died is being loaded anew.
                if not self._quarantine.dead(model):
                    raise
        return None

    async def _ask(self, job: Job) -> InferResponse:
        request = job.request
        try:
            metadata = await self._dataplane.metadata(request.model_name, request.model_version)
        except (EngineUnavailable, DeadlineExceeded) as error:
            # Nothing has run here either.
            raise Unavailable(error.message) from error
        timeout_s = min(job.deadline - time.time(), self._timeout_s)
        try:
            response = await self._dataplane.infer(metadata, request, timeout_s)
        except EngineUnreached as error:
            raise Unavailable(error.message) from error
        except (EngineUnavailable, ModelCrashed):
            self._quarantine.died(request.model_name)
            raise
        self._quarantine.answered(request.model_name)
        return response


def failure(job: Job, code: str, message: str) -> JobResult:
    """The result of a job that failed."""
    return JobResult(JobError(code, message), job.form, job.batched)
