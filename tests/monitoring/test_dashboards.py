"""The dashboards in git are those of the code; every panel says what it shows, and asks for what exists."""

import re
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
import yaml

from scripts.dashboards.pages import FOLDER, written
from tests.monitoring.conftest import Promtool
from tests.monitoring.promql import labels, unknown
from tests.monitoring.shipped import DOCKER, PAGES, PANELS, RECORDED

VARIABLES = {"__rate_interval", "__range", "contract", "model"}


def test_the_files_are_what_the_code_writes() -> None:
    assert {file.name: file.read_text() for file in FOLDER.iterdir()} == written(), "run `make docs`"


@pytest.mark.parametrize("panel", PANELS.values(), ids=PANELS)
def test_a_panel_says_what_it_shows(panel: dict[str, Any]) -> None:
    assert re.fullmatch(r"[A-Z0-9].{15,110}\.", panel["description"])
    assert panel["targets"]
    assert panel["datasource"] == {"type": "prometheus", "uid": "${datasource}"}
    if panel["type"] in ("stat", "timeseries") and panel["options"].get("textMode") != "name":
        assert panel["fieldConfig"]["defaults"]["unit"]


@pytest.mark.parametrize("panel", PANELS.values(), ids=PANELS)
def test_a_panel_asks_for_what_exists(panel: dict[str, Any]) -> None:
    for target in panel["targets"]:
        assert unknown(target["expr"], RECORDED) == set()
        shown = set(re.findall(r"{{(\w+)}}", target.get("legendFormat", "")))
        assert shown <= labels(target["expr"]) | {"instance", "gpu_uuid"}
        assert set(re.findall(r"\$(\w+)", target["expr"])) <= {
            "__rate_interval",
            "__range",
            "contract",
            "model",
        }


@pytest.mark.parametrize("name", PAGES)
def test_panels_lie_beside_one_another(name: str) -> None:
    panels = PAGES[name]["panels"]
    assert [panel["id"] for panel in panels] == list(range(1, len(panels) + 1))
    for one, other in combinations([panel["gridPos"] for panel in panels], 2):
        beside = one["x"] + one["w"] <= other["x"] or other["x"] + other["w"] <= one["x"]
        below = one["y"] + one["h"] <= other["y"] or other["y"] + other["h"] <= one["y"]
        assert beside or below


def test_prometheus_understands_every_query(promtool: Promtool, tmp_path: Path) -> None:
    queries = [target["expr"] for panel in PANELS.values() for target in panel["targets"]]
    rules = [
        {"record": f"query_{number}", "expr": re.sub(r"\$__\w+", "5m", query)}
        for number, query in enumerate(queries)
    ]
    file = tmp_path / "queries.yml"
    file.write_text(yaml.safe_dump({"groups": [{"name": "queries", "rules": rules}]}))
    done = promtool("check", "rules", file)
    assert done.returncode == 0, done.stdout + done.stderr


def test_grafana_finds_them() -> None:
    provisioning = DOCKER / "grafana" / "provisioning"
    [source] = yaml.safe_load((provisioning / "datasources" / "prometheus.yml").read_text())["datasources"]
    prometheus = yaml.safe_load((DOCKER / "prometheus" / "prometheus.yml").read_text())
    assert source["type"] == "prometheus"
    assert source["jsonData"]["timeInterval"] == prometheus["global"]["scrape_interval"]
    [provider] = yaml.safe_load((provisioning / "dashboards" / "miaas.yml").read_text())["providers"]
    assert provider["type"] == "file"
    tags = {page["uid"]: page["tags"] for page in PAGES.values()}
    assert tags == {f"miaas-{name}": ["miaas"] for name in ("models", "overview", "queue", "triton")}
