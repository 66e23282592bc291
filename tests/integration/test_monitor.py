"""`make monitor` beside a running `up`: Prometheus finds it, with the project's rules."""

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import yaml

from adapter.sockets import listen
from scripts.monitor import write_configuration, write_targets
from tests.integration.conftest import Up, eventually
from tests.monitoring.conftest import needs
from tests.monitoring.shipped import ALERTS

MONITOR = [sys.executable, "-m", "scripts.monitor"]


@contextmanager
def monitoring(state_dir: Path) -> Iterator[httpx.Client]:
    """Its Prometheus's API; it ends as by Ctrl-C."""
    command = [*MONITOR, "--state-dir", str(state_dir), "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            shown = re.search(r"http://\S+", process.stdout.readline())
            assert shown
            with httpx.Client(base_url=f"{shown[0]}/api/v1") as client:
                yield client
            process.send_signal(signal.SIGINT)
            assert process.wait(20) == 0
        finally:
            process.kill()


def ask(client: httpx.Client, path: str, **parameters: str) -> Any:
    """What Prometheus answers, None while it starts."""
    try:
        answer = client.get(path, params=parameters)
    except httpx.TransportError:
        return None
    return answer.json()["data"] if answer.status_code == 200 else None


def test_it_scrapes_adapter_and_triton_by_the_projects_rules(up: Up) -> None:
    needs("prometheus")
    with monitoring(up.state_dir) as client:
        groups = eventually(lambda: ask(client, "rules"))["groups"]
        assert {rule["name"] for group in groups for rule in group["rules"]} >= set(ALERTS)

        def seen() -> set[str]:
            found = ask(client, "query", query="up == 1")
            return {series["metric"]["job"] for series in found["result"]} if found else set()

        eventually(lambda: seen() == {"adapter", "triton"})


def test_without_prometheus_it_says_how_to_get_it(tmp_path: Path) -> None:
    environment = {**os.environ, "PATH": str(tmp_path)}
    done = subprocess.run(MONITOR, env=environment, capture_output=True, text=True)
    assert done.returncode == 1
    expected = "Prometheus is not installed here; on Debian and Ubuntu: apt-get install prometheus\n"
    assert done.stderr == expected


def test_without_up_it_says_so(tmp_path: Path) -> None:
    needs("prometheus")
    done = subprocess.run([*MONITOR, "--state-dir", str(tmp_path)], capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr == (
        f"no `up` runs on {tmp_path}: start one with `make up`, or name another with --state-dir\n"
    )


def test_a_port_that_is_taken_is_named(tmp_path: Path) -> None:
    needs("prometheus")
    (tmp_path / "up.json").write_text("{}")
    with listen("127.0.0.1", 0, "") as taken:
        port = taken.getsockname()[1]
        command = [*MONITOR, "--state-dir", str(tmp_path), "--port", str(port)]
        done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr == f"port {port} on 127.0.0.1 is in use; choose another with --port\n"


def test_it_follows_an_up_that_is_started_anew(tmp_path: Path) -> None:
    facts = {"ops_url": "http://127.0.0.1:8081", "triton_metrics": "http://127.0.0.1:5001/metrics"}
    write_configuration(tmp_path, facts)
    assert targets(tmp_path) == {"adapter": "http://127.0.0.1:8081", "triton": "http://127.0.0.1:5001"}
    write_targets(tmp_path, facts | {"triton_metrics": "http://127.0.0.1:5002/metrics"})
    assert targets(tmp_path) == {"adapter": "http://127.0.0.1:8081", "triton": "http://127.0.0.1:5002"}


def test_it_trusts_the_ca_of_an_up_that_speaks_tls(tmp_path: Path) -> None:
    facts = {"ops_url": "https://10.0.0.1:8081", "triton_metrics": "http://127.0.0.1:5001/metrics"}
    write_configuration(tmp_path, facts | {"ca_file": "/state/tls/ca.pem"})
    assert targets(tmp_path)["adapter"] == "https://10.0.0.1:8081"
    [scraped] = yaml.safe_load((tmp_path / "prometheus.yml").read_text())["scrape_configs"]
    assert scraped["tls_config"] == {"ca_file": "/state/tls/ca.pem"}


def targets(folder: Path) -> dict[str, str]:
    """Job → where it is scraped."""
    found = {}
    for entry in yaml.safe_load((folder / "targets.yml").read_text()):
        [address] = entry["targets"]
        found[entry["labels"]["job"]] = f"{entry['labels']['__scheme__']}://{address}"
    return found
