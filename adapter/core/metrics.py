"""Every metric of the adapter, in base units (seconds, bytes), and nowhere a name that a client made up.

A model that does not exist, or a client that did not prove who it is, never becomes a label.
"""

from time import perf_counter
from typing import Any

from adapter.core import errors
from adapter.core.instruments import Counter, Family, Gauge, Histogram, Row

CONTRACTS = ("v1", "v2", "miaas")
STAGES = ("decode", "batch_wait", "inference", "encode", "job_wait")
JOB_OUTCOMES = ("accepted", "completed", "failed", "given_back", "cancelled")
METHODS = ("key", "token", "none")
AUTHENTICATIONS = ("ok", "missing", "invalid", "expired", "unavailable")
DECISIONS = ("admitted", "refused", "local")
DEPENDENCIES = ("triton", "nats")
ROLES = ("serve", "worker")
CERTIFICATES = ("server", "triton", "nats")

_PROTOCOL_CODES = (
    *("method_not_allowed", "malformed_request", "request_timeout", "headers_too_large"),
    "too_many_connections",
)
"""Of what is refused before a contract sees it."""
MOST_CLIENTS = 100
"""Clients with series of their own; all others are `other`."""

_ANY: tuple[str, ...] = ()
"""Values that are not known beforehand: those of models that exist, and of versions of them."""

_REQUEST_SECONDS = (
    *(0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5),
    *(1, 2.5, 5, 10, 30, 60),
)
_STAGE_SECONDS = (0.0001, 0.00025, *_REQUEST_SECONDS, 300, 1800)
_JOB_SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 900, 3600, 14_400, 86_400)
_SIZES = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)
_ATTEMPTS = (1, 2, 3, 4, 5, 10)


class Metrics:
    """One process's metrics, or the sum of several processes' once their dumps are absorbed."""

    def __init__(self) -> None:
        # --- Requests ---
        self.request_seconds = Histogram(
            "adapter_request_duration_seconds",
            "Time from a request's headers to the last byte of its answer. Model and version are those that "
            "an inference or a job is for, and empty on all else; code is the HTTP status, 499 where the "
            "client hung up before an answer.",
            _REQUEST_SECONDS,
            {"contract": CONTRACTS, "model": _ANY, "version": _ANY, "code": _ANY},
        )
        self.stage_seconds = Histogram(
            "adapter_stage_duration_seconds",
            "Where a request's time goes: reading the body's values (decode), waiting to be joined with "
            "others (batch_wait), Triton (inference), writing the answer (encode); of a job, from its "
            "submission to its first worker (job_wait).",
            _STAGE_SECONDS,
            {"stage": STAGES, "model": _ANY},
        )
        self.requests_in_flight = Gauge(
            "adapter_requests_in_flight",
            "Requests that are being worked on.",
            {"contract": CONTRACTS},
        )
        self.request_bytes = Counter(
            "adapter_request_body_bytes_total",
            "Bytes of request bodies, as far as they were read.",
            {"contract": CONTRACTS},
        )
        self.response_bytes = Counter(
            "adapter_response_body_bytes_total", "Bytes of answers' bodies.", {"contract": CONTRACTS}
        )
        self.refusals = Counter(
            "adapter_refusals_total",
            "Requests, and entries of a batch of them, that were answered with an error, by its code.",
            {"reason": (*errors.codes(), *_PROTOCOL_CODES)},
        )

        # --- Calls of Triton ---
        self.batch_requests = Histogram(
            "adapter_batch_requests",
            "Requests that one call of Triton answers.",
            _SIZES,
            {"model": _ANY},
        )
        self.batch_rows = Histogram(
            "adapter_batch_rows",
            "Rows of one call of Triton, of models that batch.",
            _SIZES,
            {"model": _ANY},
        )
        self.shared_memory_calls = Counter(
            "adapter_shared_memory_calls_total",
            "Calls of Triton whose large tensors went through shared memory.",
        )
        self.shared_memory_bytes = Gauge(
            "adapter_shared_memory_bytes", "Shared memory that is held for large tensors."
        )

        # --- Jobs ---
        self.jobs = Counter(
            "adapter_jobs_total",
            "Asynchronous jobs by what became of them. One that is submitted again with its idempotency key "
            "is accepted once; one that is given back is tried again.",
            {"outcome": JOB_OUTCOMES},
        )
        self.job_failures = Counter(
            "adapter_job_failures_total",
            "Jobs that ended as failed, by the error's code; attempts_exhausted took its workers down.",
            {"code": (*errors.codes(), "attempts_exhausted", "input_lost")},
        )
        self.job_attempts = Histogram(
            "adapter_job_attempts", "Attempts that a job took to its result.", _ATTEMPTS
        )
        self.job_seconds = Histogram(
            "adapter_job_duration_seconds",
            "Time from a job's submission to its result.",
            _JOB_SECONDS,
            {"model": _ANY},
        )
        self.queue_jobs = Gauge(
            "adapter_queue_jobs",
            "Jobs without a result: those that wait, and those that workers have. Absent while NATS is away.",
            {"state": ("waiting", "running")},
            over="max",
        )
        self.oldest_job_seconds = Gauge(
            "adapter_oldest_job_age_seconds",
            "Age of the oldest job without a result, 0 without one. Absent while NATS is away.",
            over="max",
        )

        # --- Clients ---
        self.authentications = Counter(
            "adapter_authentications_total",
            "Requests by the credentials that they came with, and what these were worth.",
            {"method": METHODS, "outcome": AUTHENTICATIONS},
        )
        self.rate_limit_decisions = Counter(
            "adapter_rate_limit_decisions_total",
            "Requests of clients that have a limit; local ones were admitted while NATS was away.",
            {"outcome": DECISIONS},
        )
        self.rate_limited = Counter(
            "adapter_rate_limited_total",
            f"Requests over their client's limit; from the {MOST_CLIENTS + 1}st on clients are `other`.",
            {"client": _ANY},
        )

        # --- Processes and what they need ---
        self.dependency_up = Gauge(
            "adapter_dependency_up",
            "Whether every process reaches it: 1 or 0, looked at every few seconds.",
            {"dependency": DEPENDENCIES},
            over="min",
        )
        self.triton_server_up = Gauge(
            "adapter_triton_server_up",
            "Whether every process uses this one of several Tritons: 1 or 0.",
            {"server": _ANY},
            over="min",
        )
        self.triton_failovers = Counter(
            "adapter_triton_failovers_total",
            "Calls that were sent to another of several Tritons, because the one before was away or went.",
        )
        self.processes = Gauge(
            "adapter_processes",
            "Processes that run; one that is stuck for seconds does not.",
            {"role": ROLES},
        )
        self.process_restarts = Counter(
            "adapter_process_restarts_total",
            "Processes that were started in the place of one that had died.",
            {"role": ROLES},
        )
        self.process_cpu_seconds = Counter(
            "adapter_process_cpu_seconds_total",
            "CPU time of the processes; one process can use little more than one CPU.",
            {"role": ROLES},
        )
        self.process_memory = Gauge(
            "adapter_process_resident_memory_bytes", "Resident memory of the processes.", {"role": ROLES}
        )
        self.certificate_expiry = Gauge(
            "adapter_certificate_expiry_timestamp_seconds",
            "When the certificate in use ends, in seconds since 1970: the listener's (server), and those "
            "that are shown to Triton and NATS.",
            {"file": CERTIFICATES},
            over="min",
        )
        self.build_info = Gauge(
            "adapter_build_info",
            "1, by the versions that run.",
            {"version": _ANY, "python": _ANY, "tritonclient": _ANY},
            over="max",
        )

    @property
    def families(self) -> list[Family[Any]]:
        """All of them, in the order in which they are declared."""
        return [family for family in vars(self).values() if isinstance(family, Family)]

    def staged(self, stage: str, model: str, since: float) -> None:
        """A stage of a request to a model that exists is over; it began at `since`, by `perf_counter`."""
        self.stage_seconds.labels(stage, model).observe(perf_counter() - since)

    def called(self, model: str, requests: int, rows: int, since: float) -> None:
        """A call of Triton, begun at `since`, is over: so many requests, so many rows (0 has no rows)."""
        elapsed = perf_counter() - since
        self.stage_seconds.labels("inference", model).observe(elapsed, requests)
        self.batch_requests.labels(model).observe(requests)
        if rows:
            self.batch_rows.labels(model).observe(rows)

    def refused(self, reason: str) -> None:
        """A request, or an entry of a batch, is answered with the error of this code."""
        self.refusals.labels(reason).inc()

    def limited(self, client: str) -> None:
        """A client that is known is over its limit."""
        known = self.rate_limited.series
        if (client,) not in known and len(known) >= MOST_CLIENTS:
            client = "other"
        self.rate_limited.labels(client).inc()

    def dump(self) -> dict[str, list[Row]]:
        """Everything, as JSON can hold it."""
        return {family.name: family.dump() for family in self.families}

    def absorb(self, dump: dict[str, list[Row]], *, living: bool) -> None:
        """Add another process's `dump`; of one that has ended (not `living`) what still counts."""
        for family in self.families:
            family.absorb(dump[family.name], living=living)
