"""Queue: are jobs kept up with, and what becomes of them."""

from scripts.dashboards.page import Section
from scripts.dashboards.panels import BLUE, GREEN, PURPLE, RED, YELLOW, Query, heat, lines, number
from scripts.dashboards.promql import STAGES, mean, quantile, rate

WAIT = 'stage="job_wait"'

WELL = Section(
    "Is it keeping up?",
    4,
    number(
        "Waiting",
        "Jobs that wait for a worker.",
        'max(adapter_queue_jobs{state="waiting"})',
        "none",
        (1000, YELLOW),
        (100_000, RED),
    ),
    number(
        "Running", "Jobs that workers run now.", 'max(adapter_queue_jobs{state="running"})', "none", base=BLUE
    ),
    number(
        "Oldest job",
        "Age of the oldest job that has not ended; an alert follows when it passes five minutes and grows.",
        "max(adapter_oldest_job_age_seconds)",
        "s",
        (60, YELLOW),
        (300, RED),
    ),
    number(
        "Ended",
        "Jobs per second that ended, completed or failed.",
        rate("adapter_jobs_total", "", 'outcome=~"completed|failed"'),
        "ops",
        base=BLUE,
        decimals=1,
    ),
    number(
        "Failed",
        "Jobs that failed in the time that the dashboard shows.",
        'sum(increase(adapter_jobs_total{outcome="failed"}[$__range])) or vector(0)',
        "none",
        (1, YELLOW),
    ),
    number(
        "Workers",
        "Worker processes that run.",
        'sum(adapter_processes{role="worker"}) or vector(0)',
        "none",
        (1, GREEN),
        base=RED,
    ),
)

BACKLOG = Section(
    "Backlog",
    8,
    lines(
        "Jobs",
        "Jobs that wait for a worker or run on one: a line that only rises wants more workers.",
        "none",
        Query("max by (state) (adapter_queue_jobs)", "{{state}}"),
    ),
    lines(
        "Oldest job",
        "Age of the oldest job that has not ended; a slope of one second a second means that nothing moves.",
        "s",
        Query("max(adapter_oldest_job_age_seconds)", "oldest"),
        limit=300,
    ),
    lines(
        "In and out",
        "Jobs per second by what became of them: accepted and completed should lie on one another.",
        "ops",
        Query(rate("adapter_jobs_total", "outcome"), "{{outcome}}"),
        colours={"accepted": BLUE, "completed": GREEN, "failed": RED, "given_back": PURPLE},
    ),
)

DURATION = Section(
    "How long it takes",
    8,
    lines(
        "Waiting",
        "Percentiles of the time from a job's submission to its start on a worker.",
        "s",
        *(Query(quantile(q, STAGES, "", WAIT), f"{100 * q:g} %") for q in (0.99, 0.9, 0.5)),
    ),
    lines(
        "From submission to result",
        "Percentiles of the whole time that a client waits for its result.",
        "s",
        *(Query(quantile(q, "adapter_job_duration_seconds"), f"{100 * q:g} %") for q in (0.99, 0.9, 0.5)),
    ),
    heat(
        "All jobs",
        "How many jobs took how long, from submission to result.",
        "sum by (le) (increase(adapter_job_duration_seconds_bucket[$__rate_interval]))",
        "s",
    ),
)

TROUBLE = Section(
    "What goes wrong",
    8,
    lines(
        "Failures",
        "Jobs per second that failed, by the code that their clients see.",
        "ops",
        Query(f"{rate('adapter_job_failures_total', 'code')} > 0", "{{code}}"),
    ),
    lines(
        "Attempts per job",
        "How often a job was started, in the mean; above 1, workers, models or Triton went away under jobs.",
        "none",
        Query(mean("adapter_job_attempts"), "attempts"),
    ),
    lines(
        "Workers",
        "Worker processes that run, and those that died and were started again.",
        "none",
        Query('sum(adapter_processes{role="worker"})', "running"),
        Query('sum(increase(adapter_process_restarts_total{role="worker"}[$__rate_interval]))', "restarted"),
        colours={"restarted": RED},
    ),
)

SECTIONS = (WELL, BACKLOG, DURATION, TROUBLE)
