"""What a PromQL expression asks for, as far as spelling goes: names of metrics and of labels."""

import re

from adapter.core.metrics import Metrics

_NAME = re.compile(r"\b(adapter_\w+|nv_\w+|miaas:\w+(?::\w+)*)")
_MATCHER = re.compile(r"([a-z_]\w*)\s*(?:=~|!~|!=|=)\s*\"")
_GROUPING = re.compile(r"\b(?:by|without|on|ignoring)\s*\(([\w\s,]*)\)")

_SCRAPE = {"job", "instance"}
_ADAPTER = {family.name: set(family.label_values) for family in Metrics().families}
_HISTOGRAMS = {family.name for family in Metrics().families if family.kind == "histogram"}
# https://docs.nvidia.com/deeplearning/triton-inference-server/user-guide/docs/user_guide/metrics.html
_TRITON = {
    **{
        f"nv_inference_{name}": {"model", "version"}
        for name in (
            *("request_success", "count", "exec_count", "pending_request_count"),
            *("request_duration_us", "queue_duration_us"),
            *("compute_input_duration_us", "compute_infer_duration_us", "compute_output_duration_us"),
        )
    },
    "nv_inference_request_failure": {"model", "version", "reason"},
    **{
        f"nv_gpu_{name}": {"gpu_uuid"}
        for name in ("utilization", "memory_total_bytes", "memory_used_bytes", "power_usage", "power_limit")
    },
    **{
        name: set()
        for name in (
            *("nv_cpu_utilization", "nv_cpu_memory_total_bytes", "nv_cpu_memory_used_bytes"),
            *("nv_pinned_memory_pool_total_bytes", "nv_pinned_memory_pool_used_bytes"),
        )
    },
}


def metrics(expr: str) -> set[str]:
    """The metrics of the adapter, of Triton and of the recording rules that an expression names."""
    return set(_NAME.findall(expr))


def labels(expr: str) -> set[str]:
    """The labels that an expression matches or groups by."""
    grouped = {label.strip() for group in _GROUPING.findall(expr) for label in group.split(",")}
    return {*_MATCHER.findall(expr), *grouped} - {""}


def unknown(expr: str, recorded: set[str]) -> set[str]:
    """What an expression names that does not exist: metrics, and labels that none of its metrics has."""
    known, wrong = set(_SCRAPE), set()
    for name in metrics(expr):
        family = re.sub(r"_(bucket|count|sum)$", "", name)
        if family in _HISTOGRAMS and family != name:
            known |= _ADAPTER[family] | ({"le"} if name.endswith("_bucket") else set())
        elif name in _ADAPTER and name not in _HISTOGRAMS:
            known |= _ADAPTER[name]
        elif name in _TRITON:
            known |= _TRITON[name]
        elif name not in recorded:
            wrong.add(name)
    if "ALERTS" in expr:
        known |= {"alertname", "alertstate", "severity"}
    return wrong | (labels(expr) - known)
