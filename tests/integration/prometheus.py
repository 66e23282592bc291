"""A real Prometheus with the project's rules, at a pace that a test can wait for."""

import math
import re
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import yaml

from adapter.sockets import listen
from scripts.monitor import HOST, command
from tests.integration.conftest import eventually
from tests.monitoring.conftest import needs
from tests.monitoring.shipped import RULE_FILES

FACTOR = 240
"""Every duration of the rules is divided by this: five minutes take 1.25 s, six hours a minute and a half."""
SCRAPE = "500ms"
STEP_S = 0.5
LEAST_FOR_MS = 3000
"""The product looks at its own pace: what one look found, the next finds mended a second later, and a scrape
after that sees it."""
WINDOW = "10s"
"""What `$__rate_interval` stands for."""

_MILLISECONDS = {"s": 1000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}
_DURATION = re.compile(r"\b(\d+)([smhd])\b")
_RANGE = re.compile(r"\[[^\]]+\]")
_AGE = re.compile(r"(_age_seconds\)* > )(\d+)")


def hurried(rules: str) -> str:
    """The rules with each window, each `for` and each age that a job may have divided by FACTOR.

    No `for` is shorter than LEAST_FOR_MS.
    """
    content = yaml.safe_load(rules)
    for group in content["groups"]:
        for rule in group["rules"]:
            expr = _RANGE.sub(lambda window: _divided(window[0]), rule["expr"])
            rule["expr"] = _AGE.sub(lambda age: f"{age[1]}{int(age[2]) / FACTOR}", expr)
            if "for" in rule:
                held_ms = int(_divided(rule["for"]).removesuffix("ms"))
                rule["for"] = f"{max(held_ms, LEAST_FOR_MS)}ms"
    return yaml.safe_dump(content)


def _divided(text: str) -> str:
    return _DURATION.sub(lambda found: f"{int(found[1]) * _MILLISECONDS[found[2]] // FACTOR}ms", text)


@dataclass
class Fired:
    """An alert that was seen firing."""

    first: float
    last: float
    annotations: list[dict[str, str]]
    """As they were first seen, of each of its instances."""


@dataclass
class Prometheus:
    """A running Prometheus, and what was seen of its alerts."""

    url: str
    fired: dict[str, Fired] = field(default_factory=dict)
    caught: set[str] = field(default_factory=set)
    """Alerts that fired after their own fault was made."""

    def __post_init__(self) -> None:
        self.client = httpx.Client(base_url=self.url, timeout=20)

    def ask(self, path: str, **parameters: Any) -> Any:
        """`data` of an answer of the API."""
        answer = self.client.get(f"/api/v1/{path}", params=parameters)
        assert answer.status_code == 200, answer.text
        return answer.json()["data"]

    def query(self, expr: str) -> list[Any]:
        """The series of an instant query, now."""
        result: list[Any] = self.ask("query", query=expr)["result"]
        return result

    def history(self, expr: str, start: float, end: float) -> list[Any]:
        """The series of a range query."""
        result: list[Any] = self.ask("query_range", query=expr, start=start, end=end, step=STEP_S)["result"]
        return result

    def targets_up(self) -> int:
        """How many targets answered the last time."""
        return sum(int(series["value"][1]) for series in self.query("up"))

    def firing(self) -> dict[str, list[dict[str, str]]]:
        """Alert → the annotations of each of its instances that fires now."""
        found: dict[str, list[dict[str, str]]] = {}
        for alert in self.ask("alerts")["alerts"]:
            if alert["state"] == "firing":
                found.setdefault(alert["labels"]["alertname"], []).append(alert["annotations"])
        return found

    def look(self) -> dict[str, list[dict[str, str]]]:
        """What fires now, which is remembered in `fired`."""
        now, firing = time.time(), self.firing()
        for name, annotations in firing.items():
            self.fired.setdefault(name, Fired(now, now, annotations)).last = now
        return firing

    def expect(self, since: float, *alerts: str, within_s: float = 40) -> bool:
        """Wait until all of these alerts have fired after their fault was made; False when it takes too long.

        Those that have are `caught`.
        """
        until = time.monotonic() + within_s
        while time.monotonic() < until:
            self.look()
            self.caught |= {name for name in alerts if name in self.fired and self.fired[name].last >= since}
            if self.caught >= set(alerts):
                return True
            time.sleep(0.1)
        return False

    def watch(self, seconds: float) -> None:
        """Do nothing but look."""
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            self.look()
            time.sleep(0.1)


def has_data(series: list[Any]) -> bool:
    """Whether a query's answer holds a number."""
    values = (value for each in series for value in each.get("values", [each.get("value")]))
    return any(math.isfinite(float(value)) for _, value in values)


@contextmanager
def start_prometheus(folder: Path, targets: dict[str, list[str]]) -> Iterator[Prometheus]:
    """Start one that scrapes `targets` (job → addresses) by the hurried rules."""
    binary = needs("prometheus")
    (folder / "rules").mkdir(parents=True)
    for file in RULE_FILES:
        (folder / "rules" / file.name).write_text(hurried(file.read_text()))
    configuration = {
        "global": {"scrape_interval": SCRAPE, "scrape_timeout": SCRAPE, "evaluation_interval": SCRAPE},
        "rule_files": ["rules/*.yml"],
        "scrape_configs": [
            {"job_name": job, "static_configs": [{"targets": addresses}]}
            for job, addresses in targets.items()
        ],
    }
    (folder / "prometheus.yml").write_text(yaml.safe_dump(configuration))
    with listen(HOST, 0, "") as free:
        port = free.getsockname()[1]
    with (folder / "prometheus.log").open("wb") as log:
        process = subprocess.Popen(command(binary, folder, port), stdout=log, stderr=log)
    try:
        running = Prometheus(f"http://{HOST}:{port}")
        with running.client:
            eventually(lambda: _ready(running, process, folder))
            yield running
    finally:
        process.terminate()
        process.wait(15)


def _ready(prometheus: Prometheus, process: subprocess.Popen[bytes], folder: Path) -> bool:
    assert process.poll() is None, (folder / "prometheus.log").read_text()
    try:
        return prometheus.client.get("/-/ready").status_code == 200
    except httpx.TransportError:
        return False
