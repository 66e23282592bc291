"""A real Prometheus watches a live system in which everything is broken once.

Every alert fires when its fault is made and resolves when it is mended; every panel of the dashboards and
every query of docs/operations.md has data. With DASHBOARD_DATA=FILE what the panels got is written there, and
`python -m scripts.dashboards.draw FILE` makes the pictures of docs/ of it.
"""

import json
import os
import re
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest

from adapter.security.keys import KeyStore
from adapter.standalone.network import LOOPBACK, hold_port, port_of
from tests.integration.certificates import Files
from tests.integration.conftest import FOR_TESTS, Up, eventually, make_repository, start_up
from tests.integration.prometheus import WINDOW, Prometheus, has_data, start_prometheus
from tests.integration.proxy import Proxy
from tests.integration.services import Service
from tests.integration.site import job
from tests.integration.traffic import traffic
from tests.models.generate import write_count_model
from tests.monitoring.shipped import ALERTS, GUIDE, PANELS

pytestmark = pytest.mark.timeout(400)

QUERIES = re.findall(r"^```promql\n(.*?)^```", GUIDE.read_text(), re.MULTILINE | re.DOTALL)
GPU = "GPU "
"""Panels whose titles begin so are excused: here is none."""
# A machine that is busy with something else can be slow all by itself.
_SLOW = {"MiaasLatencyBudgetBurnsFast", "MiaasLatencyBudgetBurnsSlowly"}


@dataclass
class Night:
    """A live system, what was done to it, and what Prometheus saw of that."""

    up: Up
    second: Service
    """One more API process, with TLS, to which there are two Tritons."""
    relay: Proxy
    """Its way to one of them."""
    certificate: Files
    prometheus: Prometheus
    greedy: dict[str, str]
    """The credentials of a client with a low limit."""
    began: float = 0.0
    quiet: frozenset[str] = frozenset()
    """What fired while all was well."""
    left: frozenset[str] = frozenset()
    """What still fires at the end."""
    shown: dict[str, dict[str, list[Any]]] = field(default_factory=dict)
    """Panel → the answer to each of its queries."""

    def triton_hangs(self) -> None:
        """It answers nothing for four seconds, then all at once."""
        since = time.time()
        self.up.kill("triton", signal.SIGSTOP)
        time.sleep(4)
        self.up.kill("triton", signal.SIGCONT)
        self.prometheus.expect(since, "MiaasLatencyBudgetBurnsFast", "MiaasLatencyBudgetBurnsSlowly")

    def triton_dies_again_and_again(self) -> None:
        """A job that takes three seconds never comes to its end."""
        assert self.up.submit("sleepy", {"seconds": [3.0]}).status_code == 202
        since = time.time()
        alerts = (
            "MiaasTritonUnreachable",
            "MiaasAvailabilityBudgetBurnsFast",
            "MiaasAvailabilityBudgetBurnsSlowly",
            "MiaasOldestJobGrows",
        )
        while time.time() < since + 40 and not self.prometheus.expect(since, *alerts, within_s=0.5):
            with suppress(ProcessLookupError):
                self.up.kill("triton")
        eventually(self.up.ready)

    def one_of_two_tritons_is_cut_off(self) -> None:
        """The way to it passes nothing on."""
        since = time.time()
        with self.relay.frozen():
            self.prometheus.expect(since, "MiaasTritonServerDown")

    def nats_hangs(self) -> None:
        """It answers nothing until that is noticed."""
        since = time.time()
        self.up.kill("nats", signal.SIGSTOP)
        self.prometheus.expect(since, "MiaasNatsUnreachable")
        self.up.kill("nats", signal.SIGCONT)
        eventually(self.up.ready)

    def worker_hangs_and_dies(self) -> None:
        """It is stuck until that is noticed, and started again when it is killed."""
        since = time.time()
        self.up.kill("worker", signal.SIGSTOP)
        self.prometheus.expect(since, "MiaasNoWorker")
        self.up.kill("worker")
        self.prometheus.expect(since, "MiaasProcessDied")

    def a_job_is_poison(self) -> None:
        """Its model dies of it."""
        since = time.time()
        assert self.up.client.post("/inference", json=job(-1)).status_code == 202
        self.prometheus.expect(since, "MiaasPoisonJobs")

    def a_client_is_over_its_limit(self) -> None:
        """It calls several times as often as it may."""
        since = time.time()
        while time.time() < since + 40 and not self.prometheus.expect(
            since, "MiaasClientOverLimit", within_s=0.05
        ):
            self.up.client.get("/models", headers=self.greedy)

    def a_certificate_runs_out(self) -> None:
        """It ends tomorrow, and is renewed."""
        since = time.time()
        self.certificate.issue(LOOPBACK, until=datetime.now(UTC) + timedelta(days=1))
        self.prometheus.expect(since, "MiaasCertificateExpiresSoon", "MiaasCertificateExpiresNow")
        self.certificate.issue(LOOPBACK, until=datetime.now(UTC) + timedelta(days=90))

    def an_adapter_dies(self) -> None:
        """Nobody starts it again for a while."""
        since = time.time()
        self.second.kill()
        self.prometheus.expect(since, "MiaasAdapterDown")
        self.second.start().wait_up()


@pytest.fixture(scope="module")
def night(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Night]:
    """Some quiet seconds, one fault after another, and then all is well again."""
    folder = tmp_path_factory.mktemp("night")
    models = ("sklearn-iris", "digits", "sleepy", "imagenet", "imagenet-preprocess", "imagenet-postprocess")
    repository = make_repository(folder, *models, "efficientnet-lite0")
    (folder / "executions").touch()
    write_count_model(repository / "count", folder / "executions")
    settings = {
        "ADAPTER_RATE_LIMIT_PER_MINUTE": "100000",
        "ADAPTER_METADATA_TTL_S": "60",
        "ADAPTER_JOB_ATTEMPTS": "2",
        "ADAPTER_ACK_WAIT_S": "5",
    }
    with ExitStack() as stack:
        up = stack.enter_context(start_up(folder, repository, "--workers", "2", **settings))
        certificate = Files(folder)
        certificate.issue(LOOPBACK, until=datetime.now(UTC) + timedelta(days=30))
        host, port = up.facts["triton_grpc"].rsplit(":", 1)
        relay = stack.enter_context(Proxy((host, int(port))).running())
        second, ops_port = _second_adapter(stack, up, folder, certificate, relay)
        key = KeyStore(up.state_dir / "keys.json").create("greedy", ("infer", "read"), rate_per_minute=60).key
        for model in ("sklearn-iris", "imagenet"):
            assert up.client.get(f"/v1/models/{model}").status_code == 200
        headers = {"X-API-Key": up.facts["api_key"]}
        stack.enter_context(traffic(up.facts["url"], headers))
        address = httpx.URL(up.facts["ops_url"]).netloc.decode()
        triton = httpx.URL(up.facts["triton_metrics"]).netloc.decode()
        targets = {"adapter": [address, f"{LOOPBACK}:{ops_port}"], "triton": [triton]}
        prometheus = stack.enter_context(start_prometheus(folder / "prometheus", targets))
        night = Night(up, second, relay, certificate, prometheus, {"X-API-Key": key})
        yield _lived(night)


def _second_adapter(
    stack: ExitStack, up: Up, folder: Path, certificate: Files, relay: Proxy
) -> tuple[Service, int]:
    """A `serve` with TLS beside `up`, and the port of its operations listener."""
    port, ops_port = (port_of(stack.enter_context(hold_port())) for _ in range(2))
    environment = {
        **{**os.environ, **FOR_TESTS},
        "ADAPTER_TRITON_GRPC_URL": f"{up.facts['triton_grpc']},{relay.address}",
        "ADAPTER_NATS_URL": up.facts["nats_url"],
        "ADAPTER_STATE_DIR": str(up.state_dir),
        **{f"ADAPTER_{name}": value for name, value in certificate.settings.items()},
    }
    command = [sys.executable, "-m", "adapter", "serve", "--port", str(port), "--ops-port", str(ops_port)]

    def ready() -> bool:
        with suppress(httpx.TransportError):
            return httpx.get(f"http://{LOOPBACK}:{ops_port}/readyz").status_code == 200
        return False

    url = f"https://{LOOPBACK}:{port}"
    service = Service("second", url, command, environment, folder / "second.log", ready)
    stack.callback(service.kill)
    service.start().wait_up()
    return service, ops_port


def _lived(night: Night) -> Night:
    prometheus = night.prometheus
    eventually(lambda: prometheus.targets_up() == 3 and not prometheus.firing().keys() - _SLOW)
    night.began = time.time()
    prometheus.watch(12)
    night.quiet = frozenset(prometheus.fired)
    for fault in FAULTS:
        fault(night)
    # Six hours by the clock of the rules must pass until no window holds a fault any more.
    until = time.monotonic() + 180
    while prometheus.look() and time.monotonic() < until:
        time.sleep(0.2)
    night.left = frozenset(prometheus.look())
    prometheus.watch(3)
    ended = time.time()
    for name, panel in PANELS.items():
        night.shown[name] = {
            target["refId"]: prometheus.history(
                _filled_in(target["expr"], ended - night.began), night.began, ended
            )
            for target in panel["targets"]
        }
    if file := os.environ.get("DASHBOARD_DATA"):
        marks = [fired.first for fired in prometheus.fired.values()]
        content = {"began": night.began, "ended": ended, "marks": marks, "shown": night.shown}
        Path(file).write_text(json.dumps(content))
    return night


FAULTS: tuple[Callable[[Night], None], ...] = (
    # First what spends the budgets: it is forgotten last.
    Night.triton_hangs,
    Night.triton_dies_again_and_again,
    Night.one_of_two_tritons_is_cut_off,
    Night.nats_hangs,
    Night.worker_hangs_and_dies,
    Night.a_job_is_poison,
    Night.a_client_is_over_its_limit,
    Night.a_certificate_runs_out,
    Night.an_adapter_dies,
)


def test_nothing_fires_while_all_is_well(night: Night) -> None:
    assert night.quiet - _SLOW == set()


@pytest.mark.parametrize("alert", ALERTS)
def test_an_alert_fires_and_resolves(night: Night, alert: str) -> None:
    assert alert in night.prometheus.caught, "its fault was made, and it did not fire"
    for annotations in night.prometheus.fired[alert].annotations:
        assert not re.search(r"{{|no value|error", annotations["summary"]), annotations["summary"]
    assert alert not in night.left


@pytest.mark.parametrize("name", [name for name in PANELS if not PANELS[name]["title"].startswith(GPU)])
def test_a_panel_has_data(night: Night, name: str) -> None:
    for letter, series in night.shown[name].items():
        assert has_data(series), f"query {letter}"


def _filled_in(expr: str, seconds: float) -> str:
    """A panel's query with a value for each of Grafana's variables."""
    expr = expr.replace("$__rate_interval", WINDOW).replace("$__range", f"{int(seconds)}s")
    return re.sub(r"\$(contract|model)\b", ".+", expr)


@pytest.mark.parametrize("query", QUERIES)
def test_a_query_of_the_guide_has_an_answer(night: Night, query: str) -> None:
    assert has_data(night.prometheus.query(query))
