"""What metrics are made of: counters, gauges and histograms that can be added up over processes.

prometheus_client's cost four times as much per observation, and its way of adding up processes knows no
exemplars; one request makes a dozen observations. These are changed by the event loop's thread alone, so they
need no lock; how they are written for Prometheus is `exposition.py`'s.
"""

import time
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from itertools import product
from typing import Any, Generic, Literal, TypeVar

Labels = Mapping[str, Sequence[str]]
"""A family's labels, each with the values that it may have; none where they are not known beforehand."""
Row = Sequence[Any]
"""Two: the values of a series' labels, and what JSON holds of the series."""


class Value:
    """A number: one series of a counter or gauge."""

    __slots__ = ("value",)

    def __init__(self) -> None:
        self.value = 0.0

    def inc(self, amount: float = 1) -> None:
        """Add to it."""
        self.value += amount

    def dec(self) -> None:
        """Take one from it; gauges alone."""
        self.value -= 1

    def set(self, value: float) -> None:
        """Have it be so much; gauges alone."""
        self.value = value


class Distribution:
    """How many observations fell between which bounds: one series of a histogram."""

    __slots__ = ("bounds", "counts", "exemplars", "sum")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.sum = 0.0
        self.exemplars: dict[int, tuple[str, float, float]] = {}
        """Bucket → trace id, value and time (epoch seconds) of the last observation that had a trace."""

    @property
    def count(self) -> int:
        """How many observations there were."""
        return sum(self.counts)

    def observe(self, value: float, times: int = 1, trace_id: str | None = None) -> None:
        """Count a value that was seen so many times."""
        bucket = bisect_left(self.bounds, value)
        self.counts[bucket] += times
        self.sum += value * times
        if trace_id:
            self.exemplars[bucket] = (trace_id, value, time.time())


Series = TypeVar("Series", Value, Distribution)


class Family(Generic[Series]):
    """One metric: a series for each combination of its labels' values.

    Where all values are known beforehand every series stands from the start, at zero: of one that comes up
    with its first event Prometheus would miss that event.
    """

    kind: str

    def __init__(self, name: str, help: str, labels: Labels) -> None:  # noqa: A002 - Prometheus's word
        self.name = name
        self.help = help
        self.label_values = labels
        self.series: dict[tuple[str, ...], Series] = {}

    def labels(self, *values: str) -> Series:
        """The series with these values, in the order in which the labels were declared."""
        series = self.series.get(values)
        if series is None:
            series = self.series[values] = self._new()
        return series

    def dump(self) -> list[Row]:
        """Every series, as JSON can hold it."""
        raise NotImplementedError

    def absorb(self, rows: Sequence[Row], *, living: bool) -> None:
        """Add what another process's `dump` holds; of one that has ended (not `living`) what still counts."""
        raise NotImplementedError

    def _new(self) -> Series:
        raise NotImplementedError

    def _fill(self) -> None:
        if self.label_values and not all(self.label_values.values()):
            return
        for values in product(*self.label_values.values()):
            self.labels(*values)


class Counter(Family[Value]):
    """What only grows; its name ends with `_total`."""

    kind = "counter"

    def __init__(self, name: str, help: str, labels: Labels | None = None) -> None:  # noqa: A002
        super().__init__(name, help, labels or {})
        self._fill()

    def dump(self) -> list[Row]:
        """See `Family.dump`."""
        return [(values, series.value) for values, series in self.series.items()]

    def absorb(self, rows: Sequence[Row], *, living: bool) -> None:
        """See `Family.absorb`: what a process has counted stays counted."""
        for values, value in rows:
            self.labels(*values).value += value

    def _new(self) -> Value:
        return Value()


class Gauge(Family[Value]):
    """What goes up and down; `over` says what processes' values come to: their sum, least or greatest."""

    kind = "gauge"

    def __init__(
        self,
        name: str,
        help: str,  # noqa: A002
        labels: Labels | None = None,
        over: Literal["sum", "min", "max"] = "sum",
    ) -> None:
        super().__init__(name, help, labels or {})
        self._over = over

    def dump(self) -> list[Row]:
        """See `Family.dump`."""
        return [(values, series.value) for values, series in self.series.items()]

    def absorb(self, rows: Sequence[Row], *, living: bool) -> None:
        """See `Family.absorb`: of a process that has ended a sum keeps the series, and adds nothing."""
        for values, value in rows:
            key = tuple(values)
            if self._over == "sum":
                self.labels(*key).value += value if living else 0
            elif living:
                least_or_greatest = min if self._over == "min" else max
                known = self.series.get(key)
                self.labels(*key).value = least_or_greatest(value, known.value) if known else value

    def clear(self) -> None:
        """Say nothing, until it is set again."""
        self.series.clear()

    def _new(self) -> Value:
        return Value()


class Histogram(Family[Distribution]):
    """How values are distributed; `bounds` are the upper ends of its buckets, each included."""

    kind = "histogram"

    def __init__(self, name: str, help: str, bounds: tuple[float, ...], labels: Labels | None = None) -> None:  # noqa: A002
        super().__init__(name, help, labels or {})
        self.bounds = bounds
        self._fill()

    def dump(self) -> list[Row]:
        """See `Family.dump`."""
        return [(values, (s.sum, s.counts, list(s.exemplars.items()))) for values, s in self.series.items()]

    def absorb(self, rows: Sequence[Row], *, living: bool) -> None:
        """See `Family.absorb`: what a process has counted stays counted. Of two exemplars the newer stays."""
        for values, (total, counts, exemplars) in rows:
            series = self.labels(*values)
            series.sum += total
            series.counts = [mine + theirs for mine, theirs in zip(series.counts, counts, strict=True)]
            for bucket, exemplar in exemplars:
                known = series.exemplars.get(bucket)
                if known is None or known[2] < exemplar[2]:
                    series.exemplars[bucket] = tuple(exemplar)

    def _new(self) -> Distribution:
        return Distribution(self.bounds)
