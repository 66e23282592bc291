"""Models: which one is slow or fails, and in which stage."""

from scripts.dashboards.overview import STATUSES
from scripts.dashboards.page import Section, choice
from scripts.dashboards.panels import BLUE, RED, YELLOW, Query, heat, lines, number, side_by_side
from scripts.dashboards.promql import FAULTS, REQUESTS, STAGES, mean, quantile, rate, share

CHOSEN = ('contract=~"$contract"', 'model=~"$model"')
MODEL = 'model=~"$model"'
CHOICES = (
    choice("contract", "Contract", f"label_values({REQUESTS}_count, contract)"),
    choice("model", "Model", f'label_values({REQUESTS}_count{{contract=~"$contract",model!=""}}, model)'),
)

WELL = Section(
    "The chosen models together",
    4,
    number("Requests", "Requests per second.", rate(f"{REQUESTS}_count", "", *CHOSEN), "reqps", base=BLUE),
    number(
        "Errors",
        "Share of the requests that failed by the service's fault.",
        share(f"{REQUESTS}_count", FAULTS, "", *CHOSEN),
        "percentunit",
        (0.001, YELLOW),
        (0.01, RED),
        decimals=2,
    ),
    number("Median", "Half of the requests take less.", quantile(0.5, REQUESTS, "", *CHOSEN), "s", base=BLUE),
    number(
        "99th percentile",
        "99 of 100 requests take less.",
        quantile(0.99, REQUESTS, "", *CHOSEN),
        "s",
        (0.25, YELLOW),
        (0.5, RED),
    ),
    number(
        "In Triton",
        "Mean time of a call to Triton, its own queue included.",
        mean(STAGES, "", 'stage="inference"', MODEL),
        "s",
        base=BLUE,
    ),
    number(
        "Requests per call",
        "How many requests the batcher joins into one call to Triton, in the mean.",
        mean("adapter_batch_requests", "", MODEL),
        "none",
        base=BLUE,
        decimals=1,
    ),
)

TABLE = Section(
    "Side by side",
    8,
    side_by_side(
        "Models",
        "Every version of the chosen models: how much it is asked, how often it fails, how long it takes.",
        Query(rate(f"{REQUESTS}_count", "model, version", *CHOSEN), "Requests", "reqps"),
        Query(share(f"{REQUESTS}_count", FAULTS, "model, version", *CHOSEN), "Errors", "percentunit"),
        Query(quantile(0.5, REQUESTS, "model, version", *CHOSEN), "Median", "s"),
        Query(quantile(0.99, REQUESTS, "model, version", *CHOSEN), "99th percentile", "s"),
    ),
)

TRAFFIC = Section(
    "Traffic and errors",
    8,
    lines(
        "Requests",
        "Requests per second by model.",
        "reqps",
        Query(rate(f"{REQUESTS}_count", "model", *CHOSEN), "{{model}}"),
    ),
    lines(
        "Answers",
        "Answers per second by HTTP status.",
        "reqps",
        Query(rate(f"{REQUESTS}_count", "code", *CHOSEN), "{{code}}"),
        stacked=True,
        colours=STATUSES,
    ),
    lines(
        "Errors",
        "Share of each model's requests that failed by the service's fault.",
        "percentunit",
        Query(share(f"{REQUESTS}_count", FAULTS, "model", *CHOSEN), "{{model}}"),
    ),
)

LATENCY = Section(
    "Latency",
    8,
    lines(
        "99th percentile",
        "The time within which 99 of 100 requests are answered, by model.",
        "s",
        Query(quantile(0.99, REQUESTS, "model", *CHOSEN), "{{model}}"),
    ),
    lines(
        "Median",
        "The time within which half of the requests are answered, by model.",
        "s",
        Query(quantile(0.5, REQUESTS, "model", *CHOSEN), "{{model}}"),
    ),
    heat(
        "All requests",
        "How many requests took how long: two bands mean two kinds of requests, or a cold and a warm model.",
        f"sum by (le) (increase({REQUESTS}_bucket{{{','.join(CHOSEN)}}}[$__rate_interval]))",
        "s",
    ),
)

STAGE = Section(
    "Where the time goes",
    8,
    lines(
        "Mean of each stage",
        "Mean time of a request in each stage: reading it, waiting for a call, Triton, writing the answer.",
        "s",
        Query(mean(STAGES, "stage", 'stage!="job_wait"', MODEL), "{{stage}}"),
        stacked=True,
    ),
    lines(
        "99th percentile of each stage",
        "The time within which 99 of 100 requests leave each stage.",
        "s",
        Query(quantile(0.99, STAGES, "stage", 'stage!="job_wait"', MODEL), "{{stage}}"),
    ),
    lines(
        "In Triton, by model",
        "Mean time of a call to Triton: a model that grows here is slow itself, or waits for its instances.",
        "s",
        Query(mean(STAGES, "model", 'stage="inference"', MODEL), "{{model}}"),
    ),
)

BATCHES = Section(
    "Batches",
    8,
    lines(
        "Requests per call",
        "How many requests share one call to Triton, in the mean; 1 means that there is no need to join any.",
        "none",
        Query(mean("adapter_batch_requests", "model", MODEL), "{{model}}"),
    ),
    lines(
        "Rows per call",
        "How many rows one call carries, in the mean.",
        "none",
        Query(mean("adapter_batch_rows", "model", MODEL), "{{model}}"),
    ),
    lines(
        "Calls",
        "Calls to Triton per second, by model.",
        "ops",
        Query(rate("adapter_batch_requests_count", "model", MODEL), "{{model}}"),
    ),
)

SECTIONS = (WELL, TABLE, TRAFFIC, LATENCY, STAGE, BATCHES)
