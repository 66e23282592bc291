"""What one request observes, written down while it is made, and what the same costs again and again."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from time import perf_counter
from typing import Any

from prometheus_client import CollectorRegistry
from prometheus_client import Counter as TheirCounter
from prometheus_client import Gauge as TheirGauge
from prometheus_client import Histogram as TheirHistogram

from adapter.core.instruments import Distribution, Family, Histogram, Value
from adapter.core.metrics import Metrics

_TIMES, _DRAWS = 2_000, 15


@dataclass(frozen=True)
class Observation:
    """One call of one series."""

    family: str
    """Its attribute of `Metrics`."""
    labels: tuple[str, ...]
    call: str
    """As Python has it: `.inc(1)`."""


class Recording(Metrics):
    """Metrics that write down what is observed: as the lines of Python that did it, and call by call."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []
        self.observations: list[Observation] = []
        self._inside = False
        for name, family in list(vars(self).items()):
            if isinstance(family, Family):
                setattr(family, "labels", self._recorded(name, family))  # noqa: B010 - in a method's place

    def staged(self, stage: str, model: str, since: float) -> None:
        self._as_one(
            f"m.staged({stage!r}, {model!r}, clock())", lambda: Metrics.staged(self, stage, model, since)
        )

    def called(self, model: str, requests: int, rows: int, since: float) -> None:
        line = f"m.called({model!r}, {requests}, {rows}, clock())"
        self._as_one(line, lambda: Metrics.called(self, model, requests, rows, since))

    def forget(self) -> None:
        """Begin anew."""
        self.lines.clear()
        self.observations.clear()

    def note(self, observation: Observation) -> None:
        """One more."""
        self.observations.append(observation)
        if not self._inside:
            labels = ", ".join(map(repr, observation.labels))
            self.lines.append(f"m.{observation.family}.labels({labels}){observation.call}")

    def _as_one(self, line: str, call: Callable[[], None]) -> None:
        self.lines.append(line)
        self._inside = True
        call()
        self._inside = False

    def _recorded(self, name: str, family: Family[Any]) -> Callable[..., "_Series"]:
        original = family.labels

        def labels(*values: str) -> _Series:
            return _Series(self, name, values, original(*values))

        return labels


class _Series:
    """A series, and a note of whatever is done to it."""

    def __init__(
        self, metrics: Recording, family: str, labels: tuple[str, ...], series: Value | Distribution
    ) -> None:
        self._metrics = metrics
        self._of = (family, labels)
        self._series = series

    def __getattr__(self, name: str) -> Callable[..., None]:
        method = getattr(self._series, name)

        def noted(*args: Any, **options: Any) -> None:
            written = ", ".join([*map(repr, args), *(f"{key}={value!r}" for key, value in options.items())])
            self._metrics.note(Observation(*self._of, f".{name}({written})"))
            method(*args, **options)

        return noted


def ours_us(lines: Sequence[str]) -> float:
    """CPU microseconds of the lines, label look-ups and clocks included."""
    return _cost_us(lines, {"m": Metrics(), "clock": perf_counter})


def theirs_us(observations: Sequence[Observation]) -> float:
    """The same observations by prometheus_client at its best: its series kept, and no look-ups."""
    registry, metrics, names, lines = CollectorRegistry(), Metrics(), {}, []
    for number, seen in enumerate(observations):
        family = getattr(metrics, seen.family)
        names[f"s{number}"] = _theirs(family, f"{family.name}_{number}", seen.labels, registry)
        times = 1
        call = seen.call
        if isinstance(family, Histogram):
            value, *more = call.removeprefix(".observe(").removesuffix(")").split(", ")
            call = f".observe({value})"
            times = int(more[0]) if more and more[0].isdecimal() else 1
        lines += [f"s{number}{call}"] * times
    return _cost_us(lines, names)


def _theirs(family: Family[Any], name: str, labels: tuple[str, ...], registry: CollectorRegistry) -> Any:
    named = list(family.label_values)
    if isinstance(family, Histogram):
        found: Any = TheirHistogram(name, "", named, buckets=family.bounds, registry=registry)
    else:
        kind = TheirCounter if family.kind == "counter" else TheirGauge
        found = kind(name, "", named, registry=registry)
    return found.labels(*labels) if labels else found


def _cost_us(lines: Sequence[str], names: dict[str, Any]) -> float:
    """The least of several draws: whatever else the machine does only adds."""
    body = "\n".join(f"        {line}" for line in lines)
    exec(f"def run():\n    for _ in range({_TIMES}):\n{body}", names)
    return min(_draw(names["run"]) for _ in range(_DRAWS)) / _TIMES * 1e6


def _draw(run: Callable[[], None]) -> float:
    started = time.thread_time()
    run()
    return time.thread_time() - started
