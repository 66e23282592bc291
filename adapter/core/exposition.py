"""Metrics as Prometheus reads them: OpenMetrics 1.0, or its older text format 0.0.4 without exemplars.

prometheus_client takes ten microseconds for a line, and makes all lines at once: on the event loop a large
scrape would hold every request up. Here the text comes in pieces, between which requests can have their turn.
"""

from collections.abc import Iterable, Iterator
from typing import Any

from adapter.core.instruments import Distribution, Family

OPENMETRICS = "application/openmetrics-text; version=1.0.0; charset=utf-8"
TEXT = "text/plain; version=0.0.4; charset=utf-8"
_ESCAPES = str.maketrans({"\\": r"\\", "\n": r"\n", '"': r"\""})
_HELP_ESCAPES = str.maketrans({"\\": r"\\", "\n": r"\n"})


def render(families: Iterable[Family[Any]], *, openmetrics: bool) -> Iterator[str]:
    """The text, a piece for each series."""
    for family in families:
        # Of a counter OpenMetrics names the family without the suffix that its samples have.
        name = family.name.removesuffix("_total") if openmetrics else family.name
        yield f"# HELP {name} {family.help.translate(_HELP_ESCAPES)}\n# TYPE {name} {family.kind}\n"
        for values, series in list(family.series.items()):
            labels = ",".join(
                f'{label}="{value.translate(_ESCAPES)}"'
                for label, value in zip(family.label_values, values, strict=True)
            )
            if isinstance(series, Distribution):
                yield _histogram(family.name, labels, series, exemplars=openmetrics)
            else:
                yield f"{family.name}{_braced(labels)} {series.value}\n"
    if openmetrics:
        yield "# EOF\n"


def _histogram(name: str, labels: str, series: Distribution, *, exemplars: bool) -> str:
    start, total, lines = f'{name}_bucket{{{labels}{"," if labels else ""}le="', 0, []
    for bucket, count in enumerate(series.counts):
        total += count
        bound = float(series.bounds[bucket]) if bucket < len(series.bounds) else "+Inf"
        seen = series.exemplars.get(bucket) if exemplars else None
        trace = f' # {{trace_id="{seen[0].translate(_ESCAPES)}"}} {seen[1]} {seen[2]:.3f}' if seen else ""
        lines.append(f'{start}{bound}"}} {total}{trace}\n')
    braced = _braced(labels)
    return f"{''.join(lines)}{name}_count{braced} {total}\n{name}_sum{braced} {series.sum}\n"


def _braced(labels: str) -> str:
    return f"{{{labels}}}" if labels else ""
