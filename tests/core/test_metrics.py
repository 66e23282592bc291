"""Metrics by themselves: what is counted, how it adds up over processes, and how Prometheus reads it."""

import json
import shutil
import subprocess
from typing import Any

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as read_openmetrics
from prometheus_client.parser import text_string_to_metric_families as read_text

from adapter.core.exposition import render
from adapter.core.instruments import Counter, Gauge, Histogram
from adapter.core.metrics import MOST_CLIENTS, Metrics

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"


def text(metrics: Metrics, *, openmetrics: bool = False) -> str:
    return "".join(render(metrics.families, openmetrics=openmetrics))


def over_json(metrics: Metrics) -> dict[str, Any]:
    """What another process reads."""
    read: dict[str, Any] = json.loads(json.dumps(metrics.dump()))
    return read


def full() -> Metrics:
    """Metrics with a series in every family."""
    metrics = Metrics()
    for number, family in enumerate(metrics.families):
        values = [values[0] if values else f"of {name}" for name, values in family.label_values.items()]
        series = family.labels(*values)
        if isinstance(family, Histogram):
            series.observe(0.3 * number, times=2, trace_id=TRACE if number % 2 else None)
        else:
            series.inc(number + 0.5)
    return metrics


def test_a_value_on_a_bound_counts_below_it() -> None:
    histogram = Histogram("h", "", (1, 2))
    for value in (0.5, 1, 1.5, 2, 2.5):
        histogram.labels().observe(value)
    assert (histogram.labels().counts, histogram.labels().sum) == ([2, 2, 1], 7.5)


def test_every_series_whose_labels_are_known_stands_from_the_start() -> None:
    counter = Counter("c_total", "", {"a": ("x", "y"), "b": ("1", "2")})
    assert {values: series.value for values, series in counter.series.items()} == {
        ("x", "1"): 0,
        ("x", "2"): 0,
        ("y", "1"): 0,
        ("y", "2"): 0,
    }
    assert Counter("c_total", "", {"a": ("x", "y"), "model": ()}).series == {}


def test_counters_and_histograms_of_all_processes_add_up_the_dead_ones_too() -> None:
    total = Metrics()
    for living in (True, False, True):
        total.absorb(over_json(full()), living=living)
    alone = full()
    for family in total.families:
        if isinstance(family, Counter):
            mine = {values: series.value for values, series in family.series.items()}
            theirs = getattr(alone, next(k for k, v in vars(total).items() if v is family)).series
            assert mine == {values: 3 * series.value for values, series in theirs.items()}
    assert total.job_attempts.labels().count == 6
    assert total.job_attempts.labels().counts == [3 * n for n in alone.job_attempts.labels().counts]


def test_gauges_are_those_of_living_processes() -> None:
    total, processes = Metrics(), []
    for in_flight, nats, waiting in ((3, 1, 7), (4, 0, 9), (5, 1, 8)):
        metrics = Metrics()
        metrics.requests_in_flight.labels("v1").set(in_flight)
        metrics.dependency_up.labels("nats").set(nats)
        metrics.queue_jobs.labels("waiting").set(waiting)
        processes.append(metrics)
    for metrics, living in zip(processes, (True, True, False), strict=True):
        total.absorb(over_json(metrics), living=living)
    assert total.requests_in_flight.labels("v1").value == 7
    assert total.dependency_up.labels("nats").value == 0
    assert total.queue_jobs.labels("waiting").value == 9


def test_of_a_role_without_a_living_process_it_is_told_that_there_is_none() -> None:
    dead, total = Metrics(), Metrics()
    dead.processes.labels("worker").set(1)
    dead.dependency_up.labels("nats").set(1)
    total.absorb(over_json(dead), living=False)
    assert total.processes.series[("worker",)].value == 0
    assert total.dependency_up.series == {}


def test_the_newest_exemplar_of_a_bucket_stays() -> None:
    total = Metrics()
    for trace in ("a", "b"):
        metrics = Metrics()
        metrics.job_attempts.labels().observe(1, trace_id=trace)
        total.absorb(over_json(metrics), living=True)
    assert [trace for trace, _, _ in total.job_attempts.labels().exemplars.values()] == ["b"]


def test_only_so_many_clients_have_series_of_their_own() -> None:
    metrics = Metrics()
    for number in range(MOST_CLIENTS + 50):
        metrics.limited(f"oauth:{number}")
    metrics.limited("oauth:3")
    series = metrics.rate_limited.series
    assert len(series) == MOST_CLIENTS + 1
    assert series["other",].value == 50
    assert series["oauth:3",].value == 2


@pytest.mark.parametrize("openmetrics", [False, True])
def test_what_is_exposed_is_read_back_as_it_is(openmetrics: bool) -> None:
    metrics = full()
    families = list((read_openmetrics if openmetrics else read_text)(text(metrics, openmetrics=openmetrics)))
    samples = {
        (sample.name, *sample.labels.values()): sample.value
        for family in families
        for sample in family.samples
    }
    assert [family.name for family in families] == [
        family.name.removesuffix("_total") for family in metrics.families
    ]
    for family in metrics.families:
        for values, series in family.series.items():
            if not isinstance(family, Histogram):
                assert samples[family.name, *values] == series.value
                continue
            assert samples[f"{family.name}_count", *values] == series.count
            assert samples[f"{family.name}_sum", *values] == series.sum
            bounds = [*(str(float(bound)) for bound in family.bounds), "+Inf"]
            counted = [samples[f"{family.name}_bucket", *values, bound] for bound in bounds]
            assert counted == [sum(series.counts[: n + 1]) for n in range(len(bounds))]


def test_exemplars_are_exposed_in_openmetrics_alone() -> None:
    metrics = Metrics()
    metrics.request_seconds.labels("v1", "iris", "1", "200").observe(0.003, trace_id=TRACE)
    [exemplar] = [
        sample.exemplar
        for family in read_openmetrics(text(metrics, openmetrics=True))
        for sample in family.samples
        if sample.exemplar
    ]
    assert (exemplar.labels, exemplar.value) == ({"trace_id": TRACE}, 0.003)
    assert TRACE not in text(metrics)


def test_a_client_may_be_called_anything() -> None:
    metrics, name = Metrics(), 'oauth:"quoted"\\ and\nbroken {curly} \ud800'
    metrics.limited(name)
    for read, openmetrics in ((read_text, False), (read_openmetrics, True)):
        written = text(metrics, openmetrics=openmetrics).encode(errors="replace").decode()
        clients = [
            sample.labels["client"]
            for family in read(written)
            for sample in family.samples
            if "client" in sample.labels
        ]
        assert clients == [name.replace("\ud800", "?")]


@pytest.mark.skipif(not shutil.which("promtool"), reason="promtool comes with Debian's prometheus")
def test_promtool_has_nothing_to_say() -> None:
    checked = subprocess.run(
        ["promtool", "check", "metrics"], input=text(full()), capture_output=True, text=True, check=False
    )
    assert (checked.returncode, checked.stdout + checked.stderr) == (0, "")


def test_gauges_can_be_silent_again() -> None:
    gauge = Gauge("g", "", {"state": ("waiting",)}, over="max")
    assert gauge.series == {}
    gauge.labels("waiting").set(3)
    gauge.clear()
    assert gauge.series == {}
