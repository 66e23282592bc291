"""What we aim at, as a table, and how a run stands to it."""

from dataclasses import dataclass
from operator import sub
from typing import Literal

from bench.results import Run
from bench.summary import Figure, compared

OURS = "adapter"


@dataclass(frozen=True)
class Goal:
    """Our figure against a peer's: a ratio, or for `added` a difference."""

    title: str
    load: str
    connections: int
    measure: str
    peer: str
    kind: Literal["at least", "at most", "added"]
    bound: float

    def stands(self, run: Run) -> Figure | None:
        """What the run found; None when it did not measure it."""
        pair = (OURS, self.peer, self.load, self.connections, self.measure)
        return compared(run, *pair, sub) if self.kind == "added" else compared(run, *pair)

    def met(self, found: Figure) -> bool:
        """Whether the median keeps the bound."""
        return found.median >= self.bound if self.kind == "at least" else found.median <= self.bound


def _throughput(load: str, peer: str, title: str, bounds: dict[int, float]) -> list[Goal]:
    return [
        Goal(title, load, connections, "per_second", peer, "at least", bound)
        for connections, bound in bounds.items()
    ]


GOALS: tuple[Goal, ...] = (
    *_throughput("iris", "kserve", "iris, requests/s ÷ KServe's", {1: 1.9, 16: 5.5, 64: 11.0}),
    *_throughput("iris", "triton", "iris, requests/s ÷ Triton HTTP's", {1: 0.55, 16: 0.75, 64: 1.0}),
    *_throughput("img", "kserve", "img, requests/s ÷ KServe's", {1: 1.6, 16: 2.9}),
    *_throughput("img", "triton", "img, requests/s ÷ Triton HTTP's", {1: 1.4, 16: 1.4}),
    Goal("iris, median latency − Triton HTTP's (ms)", "iris", 1, "p50_ms", "triton", "added", 0.30),
    Goal("iris, 99th percentile ÷ Triton HTTP's", "iris", 16, "p99_ms", "triton", "at most", 1.5),
    Goal("iris, CPU per request ÷ bare ASGI's", "iris", 16, "cpu_us", "bare", "at most", 2.5),
    Goal("iris, CPU per request ÷ bare ASGI's", "iris", 64, "cpu_us", "bare", "at most", 1.5),
)

JOBS_GOAL = 0.65
"""Asynchronous jobs a second, against publish → fetch → KV put → ack alone."""
