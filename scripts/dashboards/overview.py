"""Overview: is it well, and if not, where."""

from scripts.dashboards.page import Section
from scripts.dashboards.panels import (
    BLUE,
    GREEN,
    RED,
    UP_OR_DOWN,
    YELLOW,
    Query,
    lines,
    names,
    number,
    states,
    word,
)
from scripts.dashboards.promql import FAULTS, REQUESTS, STAGES, mean, quantile, rate, share

DAY = 86_400
PROCESSES = "sum by (role) (adapter_processes)"
STATUSES = {"2..": GREEN, "3..|4..": YELLOW, "5..": RED}

WELL = Section(
    "Is it well?",
    4,
    number(
        "Alerts",
        "Alerts that fire now; docs/operations.md has a section for each.",
        'count(ALERTS{alertname=~"Miaas.*",alertstate="firing"}) or vector(0)',
        "none",
        (1, RED),
    ),
    number(
        "Availability",
        "Share of the last hour's requests that the service did not fail; the objective is 99.9 %.",
        "1 - miaas:request_errors:ratio_rate1h",
        "percentunit",
        (0.99, YELLOW),
        (0.999, GREEN),
        base=RED,
        decimals=2,
    ),
    number(
        "In time",
        "Share of the last hour's predictions that were answered within 0.5 s; the objective is 99 %.",
        "1 - miaas:slow_predictions:ratio_rate1h",
        "percentunit",
        (0.95, YELLOW),
        (0.99, GREEN),
        base=RED,
        decimals=2,
    ),
    number(
        "Requests", "Requests per second, over all contracts.", rate(f"{REQUESTS}_count"), "reqps", base=BLUE
    ),
    number(
        "99th percentile",
        "99 of 100 predictions (V1 and V2) are answered within this time.",
        quantile(0.99, REQUESTS, "", 'contract=~"v1|v2"', 'model!=""'),
        "s",
        (0.25, YELLOW),
        (0.5, RED),
    ),
    word(
        "Triton",
        "Whether every adapter reaches Triton.",
        'min(adapter_dependency_up{dependency="triton"})',
        UP_OR_DOWN,
    ),
    word(
        "NATS",
        "Whether every adapter reaches NATS.",
        'min(adapter_dependency_up{dependency="nats"})',
        UP_OR_DOWN,
    ),
    number(
        "Oldest job",
        "Age of the oldest job that has not ended; an alert follows when it passes five minutes and grows.",
        "max(adapter_oldest_job_age_seconds)",
        "s",
        (60, YELLOW),
        (300, RED),
    ),
)

TRAFFIC = Section(
    "Traffic and errors",
    8,
    lines(
        "Requests",
        "Requests per second by contract.",
        "reqps",
        Query(rate(f"{REQUESTS}_count", "contract"), "{{contract}}"),
    ),
    lines(
        "Answers",
        "Answers per second by HTTP status: 4xx is the client's doing, 5xx the service's.",
        "reqps",
        Query(rate(f"{REQUESTS}_count", "code"), "{{code}}"),
        stacked=True,
        colours=STATUSES,
    ),
    lines(
        "Errors",
        "Share of each contract's requests that failed by the service's fault; 501 is none of them.",
        "percentunit",
        Query(share(f"{REQUESTS}_count", FAULTS, "contract"), "{{contract}}"),
    ),
    lines(
        "Error codes",
        "Errors that clients got per second, by code: client's mistakes, refusals and failures alike.",
        "reqps",
        Query(f"{rate('adapter_refusals_total', 'reason')} > 0", "{{reason}}"),
    ),
)

LATENCY = Section(
    "Latency",
    8,
    lines(
        "Predictions",
        "Percentiles of the time from a prediction's first byte to its answer's last, V1 and V2 together.",
        "s",
        *(
            Query(quantile(q, REQUESTS, "", 'contract=~"v1|v2"', 'model!=""'), f"{100 * q:g} %")
            for q in (0.99, 0.9, 0.5)
        ),
        limit=0.5,
    ),
    lines(
        "99th percentile by contract",
        "MIaaS's includes polls that wait for a result, up to as long as the client asked for.",
        "s",
        Query(quantile(0.99, REQUESTS, "contract"), "{{contract}}"),
    ),
    lines(
        "Where the time goes",
        "Mean time of a request in each stage: the thickest layer is what to look at first.",
        "s",
        Query(mean(STAGES, "stage", 'stage!="job_wait"'), "{{stage}}"),
        stacked=True,
    ),
)

SATURATION = Section(
    "Saturation",
    8,
    lines(
        "In flight",
        "Requests that are being worked on at this moment, by contract.",
        "none",
        Query("sum by (contract) (adapter_requests_in_flight)", "{{contract}}"),
    ),
    lines(
        "Processor",
        "How busy a process of each role is, in the mean: near 100 % it can do no more.",
        "percentunit",
        Query(f"{rate('adapter_process_cpu_seconds_total', 'role')} / {PROCESSES}", "{{role}}"),
        limit=0.9,
    ),
    lines(
        "Memory",
        "Resident memory of all processes of a role.",
        "bytes",
        Query("sum by (role) (adapter_process_resident_memory_bytes)", "{{role}}"),
    ),
    lines(
        "Jobs",
        "Asynchronous jobs that wait for a worker, and those that workers have.",
        "none",
        Query("max by (state) (adapter_queue_jobs)", "{{state}}"),
    ),
)

FOUNDATIONS = Section(
    "What it stands on",
    7,
    states(
        "Dependencies",
        "Whether every process reaches Triton and NATS, over time.",
        Query("min by (dependency) (adapter_dependency_up)", "{{dependency}}"),
        UP_OR_DOWN,
    ),
    states(
        "Alerts over time",
        "When each alert fired.",
        Query('max by (alertname) (ALERTS{alertname=~"Miaas.*",alertstate="firing"})', "{{alertname}}"),
        {1: ("firing", RED)},
    ),
    lines("Processes", "Processes that run, by role.", "none", Query(PROCESSES, "{{role}}")),
    lines(
        "Restarts",
        "Processes that ended and were started again, by role.",
        "none",
        Query("sum by (role) (increase(adapter_process_restarts_total[$__rate_interval]))", "{{role}}"),
    ),
)

CLIENTS = Section(
    "Who is calling",
    8,
    lines(
        "Authentication",
        "Requests per second by their credentials, and what these were worth.",
        "reqps",
        Query(f"{rate('adapter_authentications_total', 'method, outcome')} > 0", "{{method}}: {{outcome}}"),
    ),
    lines(
        "Rate limits",
        "Requests per second that were admitted or refused; local ones were admitted while NATS was away.",
        "reqps",
        Query(rate("adapter_rate_limit_decisions_total", "outcome"), "{{outcome}}"),
        colours={"refused": RED},
    ),
    lines(
        "Clients over their limit",
        "Requests per second that were refused with 429, of the ten clients with most of them.",
        "reqps",
        Query(f"topk(10, {rate('adapter_rate_limited_total', 'client')})", "{{client}}"),
    ),
    lines(
        "Bytes",
        "Bytes of request and answer bodies per second.",
        "Bps",
        Query(rate("adapter_request_body_bytes_total"), "received"),
        Query(rate("adapter_response_body_bytes_total"), "sent"),
    ),
)

SMALL_PRINT = Section(
    "Certificates and versions",
    4,
    number(
        "Certificates",
        "Time until the certificate in use ends: the listener's, and those shown to Triton and NATS.",
        Query("min by (file) (adapter_certificate_expiry_timestamp_seconds) - time()", "{{file}}"),
        "s",
        (2 * DAY, YELLOW),
        (14 * DAY, GREEN),
        base=RED,
    ),
    names(
        "Version",
        "Versions of the adapter that run; there are two only while a new one is rolled out.",
        Query("count by (version) (adapter_build_info)", "{{version}}"),
    ),
)

SECTIONS = (WELL, TRAFFIC, LATENCY, SATURATION, FOUNDATIONS, CLIENTS, SMALL_PRINT)
