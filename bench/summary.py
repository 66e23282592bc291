"""From draws to figures: medians with their spread, ratios of draws that were taken next to each other."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from statistics import median, quantiles

from bench.results import Draw, Run

Measure = Callable[[Draw], float]

MEASURES: dict[str, Measure] = {
    "per_second": lambda draw: draw.per_second,
    "p50_ms": lambda draw: draw.p50_ms,
    "p90_ms": lambda draw: draw.p90_ms,
    "p99_ms": lambda draw: draw.p99_ms,
    "cpu_us": lambda draw: draw.cpu_us,
    "triton_cpu_us": lambda draw: draw.triton_cpu_us,
}


@dataclass(frozen=True)
class Figure:
    """A median, and the quartiles around it."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Iterable[float]) -> "Figure | None":
        """None of no values."""
        known = sorted(values)
        if not known:
            return None
        if len(known) < 4:
            return cls(median(known), known[0], known[-1])
        low, _, high = quantiles(known, n=4, method="inclusive")
        return cls(median(known), low, high)


def draws(run: Run, server: str, load: str, connections: int) -> list[Draw]:
    """The draws of one point, in order."""
    return [
        draw
        for draw in run.draws
        if (draw.server, draw.load, draw.connections) == (server, load, connections)
    ]


def figure(run: Run, server: str, load: str, connections: int, measure: str) -> Figure | None:
    """One measure at one point."""
    return Figure.of(map(MEASURES[measure], draws(run, server, load, connections)))


def compared(
    run: Run,
    ours: str,
    peer: str,
    load: str,
    connections: int,
    measure: str,
    compare: Callable[[float, float], float] = lambda ours, peer: ours / peer if peer else float("inf"),
) -> Figure | None:
    """Ours against a peer's, draw by draw."""
    read = MEASURES[measure]
    others = {draw.number: read(draw) for draw in draws(run, peer, load, connections)}
    pairs = [
        (read(draw), others[draw.number])
        for draw in draws(run, ours, load, connections)
        if draw.number in others
    ]
    return Figure.of(compare(*pair) for pair in pairs)


def connection_counts(run: Run, load: str) -> list[int]:
    """At how many connections a load was measured."""
    return sorted({draw.connections for draw in run.draws if draw.load == load})
