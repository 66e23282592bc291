"""Triton: what the server says of itself, and of its GPUs."""

from scripts.dashboards.page import Section, choice
from scripts.dashboards.panels import BLUE, RED, UP_OR_DOWN, YELLOW, Query, lines, number, word
from scripts.dashboards.promql import rate

MODEL = 'model=~"$model"'
CHOICES = (choice("model", "Model", "label_values(nv_inference_count, model)"),)
GPU = "GPU"
"""What the titles of the panels begin with that need a GPU to show anything."""


def _per_request(stage: str, by: str = "") -> str:
    """Mean seconds that a request spent in a stage; Triton counts microseconds."""
    spent = rate(f"nv_inference_{stage}_duration_us", by, MODEL)
    return f"{spent} / {rate('nv_inference_request_success', by, MODEL)} / 1e6"


def _batch(by: str = "") -> str:
    """Mean number of rows that Triton executes at a time."""
    return f"{rate('nv_inference_count', by, MODEL)} / {rate('nv_inference_exec_count', by, MODEL)}"


WELL = Section(
    "Is it well?",
    4,
    word("Triton", "Whether every Triton's metrics can be scraped.", 'min(up{job="triton"})', UP_OR_DOWN),
    number(
        "Left alone",
        "How many of several Tritons the adapter sends nothing to, because they do not answer.",
        "count(min by (server) (adapter_triton_server_up) == 0) or vector(0)",
        "none",
        (1, RED),
    ),
    number(
        "Failovers",
        "Calls per second that went to another of several Tritons, because the one before was away or went.",
        rate("adapter_triton_failovers_total"),
        "ops",
        (0.01, YELLOW),
        (1, RED),
        decimals=2,
    ),
    number(
        "Inferences",
        "Requests per second that succeeded.",
        rate("nv_inference_request_success", "", MODEL),
        "reqps",
        base=BLUE,
    ),
    number(
        "Failures",
        "Requests per second that failed.",
        rate("nv_inference_request_failure", "", MODEL),
        "reqps",
        (0.01, YELLOW),
        (1, RED),
        decimals=2,
    ),
    number(
        "Pending",
        "Requests that wait for an instance of their model.",
        f"sum(nv_inference_pending_request_count{{{MODEL}}})",
        "none",
        (100, YELLOW),
        (1000, RED),
    ),
    number("Rows per execution", "Mean batch of an execution.", _batch(), "none", base=BLUE, decimals=1),
    number(
        "CPU",
        "Share of the machine's processors that is busy, with whatever.",
        "max(nv_cpu_utilization)",
        "percentunit",
        (0.8, YELLOW),
        (0.95, RED),
    ),
)

TRAFFIC = Section(
    "Traffic",
    8,
    lines(
        "Inferences",
        "Requests per second that succeeded, by model.",
        "reqps",
        Query(rate("nv_inference_request_success", "model", MODEL), "{{model}}"),
    ),
    lines(
        "Failures",
        "Requests per second that failed, by model and reason.",
        "reqps",
        Query(f"{rate('nv_inference_request_failure', 'model, reason', MODEL)} > 0", "{{model}} {{reason}}"),
    ),
    lines(
        "Rows per execution",
        "Mean batch that each model executes: Triton's own batcher joins requests as the adapter's does.",
        "none",
        Query(_batch("model"), "{{model}}"),
    ),
)

TIME = Section(
    "Where the time goes",
    8,
    lines(
        "Mean of each stage",
        "Mean time of a request in each of Triton's stages; a thick queue wants more instances.",
        "s",
        *(
            Query(_per_request(stage), legend)
            for stage, legend in (
                ("queue", "queue"),
                ("compute_input", "input"),
                ("compute_infer", "model"),
                ("compute_output", "output"),
            )
        ),
        stacked=True,
    ),
    lines(
        "Queue",
        "Mean time that a request waits for an instance, by model.",
        "s",
        Query(_per_request("queue", "model"), "{{model}}"),
    ),
    lines(
        "Pending",
        "Requests that wait for an instance, by model.",
        "none",
        Query(f"sum by (model) (nv_inference_pending_request_count{{{MODEL}}})", "{{model}}"),
    ),
)

MACHINE = Section(
    "The machine",
    7,
    lines(
        "CPU",
        "Share of the machine's processors that is busy.",
        "percentunit",
        Query("nv_cpu_utilization", "{{instance}}"),
        most=1,
    ),
    lines(
        "Memory",
        "Memory of the machine in use, and all there is.",
        "bytes",
        Query("nv_cpu_memory_used_bytes", "used {{instance}}"),
        Query("nv_cpu_memory_total_bytes", "all {{instance}}"),
    ),
    lines(
        "Pinned memory",
        "Pinned memory, through which tensors reach GPUs: in use, and all there is.",
        "bytes",
        Query("nv_pinned_memory_pool_used_bytes", "used {{instance}}"),
        Query("nv_pinned_memory_pool_total_bytes", "all {{instance}}"),
    ),
)

GPUS = Section(
    "GPUs",
    7,
    lines(
        f"{GPU} utilization",
        "Share of the time in which a GPU was busy.",
        "percentunit",
        Query("nv_gpu_utilization", "{{gpu_uuid}}"),
        most=1,
    ),
    lines(
        f"{GPU} memory",
        "Memory of each GPU in use, and all there is.",
        "bytes",
        Query("nv_gpu_memory_used_bytes", "used {{gpu_uuid}}"),
        Query("nv_gpu_memory_total_bytes", "all {{gpu_uuid}}"),
    ),
    lines(
        f"{GPU} power",
        "Power that each GPU draws, and the most that it may.",
        "watt",
        Query("nv_gpu_power_usage", "drawn {{gpu_uuid}}"),
        Query("nv_gpu_power_limit", "limit {{gpu_uuid}}"),
    ),
)

SECTIONS = (WELL, TRAFFIC, TIME, MACHINE, GPUS)
