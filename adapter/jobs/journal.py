"""What is kept of a job's turn in a worker: its place in a trace, and its line in the log."""

import time
from random import random
from types import TracebackType
from typing import Any, Literal, Self

import structlog

from adapter.core import tracing, work
from adapter.core.ports import Delivery
from adapter.core.types import JobError, JobResult
from adapter.core.work import milliseconds
from adapter.jobs import messages
from adapter.jobs.streams import JOBS

_log = structlog.get_logger()

Outcome = JobResult | Literal["given_back", "settled", "unsettled"]
"""Its result, saved now; or it goes to the next, had a result already, or stands where it stood."""


class Turn:
    """A job's turn, in the trace that it was submitted in; `outcome` is to be set before its end.

    Then its line is written: that of a job that failed, or that has no result yet, always.
    """

    def __init__(self, delivery: Delivery, sample: float) -> None:
        self._delivery = delivery
        self._sample = sample
        self.outcome: Outcome = "given_back"

    def __enter__(self) -> Self:
        job = self._delivery.job
        self._began = time.time()
        self._at_hand = work.begin(job.correlation_id)
        tracing.resume(job.trace)
        if self._waited_s is not None:
            tracing.span("wait", since=job.submitted).end()
        self._span = tracing.span(f"process {JOBS}", "consumer").__enter__()
        if self._span.recording:
            self._span.set(messages.span_attributes("process", JOBS, job))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        outcome: str
        failure = None
        if self._span.recording:
            self._span.set({"miaas.attempt": self._delivery.attempt})
        if isinstance(self.outcome, str):
            outcome = self.outcome
        elif isinstance(self.outcome.outcome, JobError):
            outcome, failure = "failed", self.outcome.outcome
            self._span.fail(failure.code)
        else:
            outcome = "completed"
        if outcome not in ("completed", "settled") or random() < self._sample:  # noqa: S311 # nosec B311
            self._tell(outcome, failure)
        self._span.__exit__(kind, error, trace)

    @property
    def _waited_s(self) -> float | None:
        """How long it waited for its first worker; None in a later turn, which waited for something else."""
        job = self._delivery.job
        if self._delivery.deliveries > 1 or job.replaces:
            return None
        return max(0.0, self._began - job.submitted)

    def _tell(self, outcome: str, failure: JobError | None) -> None:
        job = self._delivery.job
        line: dict[str, Any] = {
            "job": job.id,
            "client": job.client,
            "model": job.request.model_name,
            "version": job.request.model_version,
            "outcome": outcome,
            "code": failure and failure.code,
            "attempt": self._delivery.attempt,
            "wait_ms": None if self._waited_s is None else milliseconds(self._waited_s),
            "ms": milliseconds(time.time() - self._began),
            **self._at_hand.timings,
        }
        _log.info("job", **{name: value for name, value in line.items() if value not in (None, "")})
