"""The rules of docker/prometheus: promtool takes them, each alert is tested, and has its runbook."""

import re
from pathlib import Path

import pytest
import yaml

from tests.monitoring.conftest import Promtool
from tests.monitoring.promql import unknown
from tests.monitoring.shipped import ALERTS, DOCKER, GUIDE, RECORDED, RULES

PROMETHEUS = DOCKER / "prometheus"
TEST_FILES = sorted((PROMETHEUS / "tests").glob("*.yml"))


def test_prometheus_takes_the_configuration(promtool: Promtool) -> None:
    done = promtool("check", "config", PROMETHEUS / "prometheus.yml")
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("file", TEST_FILES, ids=lambda file: file.stem)
def test_alerts_fire_and_resolve(promtool: Promtool, file: Path) -> None:
    done = promtool("test", "rules", file)
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_alert_is_tested_before_during_and_after() -> None:
    seen: dict[str, list[list[bool]]] = {name: [] for name in ALERTS}
    for file in TEST_FILES:
        for case in yaml.safe_load(file.read_text())["tests"]:
            asked = case["promql_expr_test"]
            for name in ALERTS:
                firing = [
                    any(f'"{name}"' in sample["labels"] for sample in each.get("exp_samples", ()))
                    for each in asked
                    if each["expr"].startswith("ALERTS") and _concerns(each["expr"], name)
                ]
                seen[name].append(firing)
    for name, cases in seen.items():
        # Nothing, then the alert, then nothing again.
        assert any(re.fullmatch("(no)+(yes)+(no)+", _told(case)) for case in cases), name


def _concerns(expr: str, alert: str) -> bool:
    """Whether a query of ALERTS shows this alert if it fires."""
    wanted = re.search(r'alertname(=~?)"([^"]*)"', expr)
    return not wanted or re.fullmatch(wanted[2], alert) is not None


def _told(firing: list[bool]) -> str:
    return "".join("yes" if each else "no" for each in firing)


@pytest.mark.parametrize("name", ALERTS)
def test_every_alert_says_what_to_do(name: str) -> None:
    alert = ALERTS[name]
    assert alert["labels"]["severity"] in ("critical", "warning")
    annotations = alert["annotations"]
    assert annotations.keys() == {"summary", "description", "runbook_url"}
    assert annotations["description"].endswith(".")
    assert annotations["runbook_url"] == f"docs/operations.md#{name.lower()}"
    section = re.search(rf"^### {name}\n(.*?)(?=^##)", GUIDE.read_text(), re.MULTILINE | re.DOTALL)
    assert section, f"docs/operations.md has no section {name}"
    for part in ("**Means**", "**Look**", "**Do**"):
        assert part in section[1], f"{name} lacks {part}"


@pytest.mark.parametrize("name", [*ALERTS, *RECORDED])
def test_rules_ask_for_what_exists(name: str) -> None:
    [expr] = {rule["expr"] for rule in RULES if name in (rule.get("alert"), rule.get("record"))}
    assert unknown(expr, RECORDED) == set()
