"""The PromQL that several panels share."""

REQUESTS = "adapter_request_duration_seconds"
STAGES = "adapter_stage_duration_seconds"
WINDOW = "$__rate_interval"
FAULTS = 'code=~"5..",code!="501"'
"""Answers that the service, not its client, is to blame for, as in docker/prometheus/rules/slo.yml."""


def rate(metric: str, by: str = "", *where: str) -> str:
    """Events per second of a counter, summed `by` labels."""
    return f"sum{_by(by)} (rate({metric}{_where(where)}[{WINDOW}]))"


def mean(histogram: str, by: str = "", *where: str) -> str:
    """The mean of what a histogram or summary observed."""
    return f"{rate(f'{histogram}_sum', by, *where)} / {rate(f'{histogram}_count', by, *where)}"


def quantile(q: float, histogram: str, by: str = "", *where: str) -> str:
    """A percentile of what a histogram observed."""
    labels = f"le, {by}" if by else "le"
    return f"histogram_quantile({q}, {rate(f'{histogram}_bucket', labels, *where)})"


def share(metric: str, part: str, by: str = "", *where: str) -> str:
    """How much of a counter's events match `part`: 0 where events are, but none that matches."""
    every = rate(metric, by, *where)
    return f"({rate(metric, by, part, *where)} or 0 * {every}) / {every}"


def _by(labels: str) -> str:
    return f" by ({labels})" if labels else ""


def _where(matchers: tuple[str, ...]) -> str:
    return f"{{{','.join(matchers)}}}" if matchers else ""
