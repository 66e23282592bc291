"""Every metric of the adapter, on a registry that is handed in."""

from collections.abc import Iterator
from contextlib import contextmanager
from time import perf_counter
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Histogram

_LATENCY = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)


class Metrics:
    """Counters and histograms, in base units (seconds). A model that does not exist never becomes a label."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.registry = registry
        self._children: dict[tuple[Any, ...], Any] = {}
        self.requests = Counter(
            "adapter_requests",
            "Requests answered, by contract, model and HTTP status.",
            ["contract", "model", "code"],
            registry=registry,
        )
        self.request_seconds = Histogram(
            "adapter_request_duration_seconds",
            "Time from a request's first byte to its answer's last, by contract and model.",
            ["contract", "model"],
            buckets=_LATENCY,
            registry=registry,
        )
        self.inference_seconds = Histogram(
            "adapter_inference_duration_seconds",
            "Time in Triton, splitting and joining of batches included, by model.",
            ["model"],
            buckets=_LATENCY,
            registry=registry,
        )
        self.jobs = Counter(
            "adapter_jobs",
            "Asynchronous jobs by what became of them: accepted, completed, failed, given_back.",
            ["outcome"],
            registry=registry,
        )

    def answered(self, contract: str, model: str, status: int, seconds: float) -> None:
        """Count one request and the time that it took."""
        self._child(self.requests, contract, model, str(status)).inc()
        self._child(self.request_seconds, contract, model).observe(seconds)

    def _child(self, metric: Any, *labels: str) -> Any:
        """The metric with these labels; looking one up here is cheaper than asking the metric for it."""
        key = (metric, *labels)
        child = self._children.get(key)
        if child is None:
            child = self._children[key] = metric.labels(*labels)
        return child

    @contextmanager
    def inference(self, model: str) -> Iterator[None]:
        """Time one inference of a model that exists."""
        started = perf_counter()
        try:
            yield
        finally:
            self._child(self.inference_seconds, model).observe(perf_counter() - started)
