"""What docker/ ships for Prometheus and Grafana, as tests look at it."""

import json
from pathlib import Path
from typing import Any

import yaml

DOCKER = Path(__file__).parents[2] / "docker"
GUIDE = DOCKER.parent / "docs" / "operations.md"
RULE_FILES = sorted((DOCKER / "prometheus" / "rules").glob("*.yml"))
RULES: list[dict[str, Any]] = [
    rule
    for file in RULE_FILES
    for group in yaml.safe_load(file.read_text())["groups"]
    for rule in group["rules"]
]
ALERTS = {rule["alert"]: rule for rule in RULES if "alert" in rule}
RECORDED = {rule["record"] for rule in RULES if "record" in rule}

PAGES: dict[str, Any] = {
    file.stem: json.loads(file.read_text())
    for file in sorted((DOCKER / "grafana" / "dashboards").glob("*.json"))
}
PANELS: dict[str, dict[str, Any]] = {
    f"{name}-{panel['id']}-{panel['title']}": panel
    for name, page in PAGES.items()
    for panel in page["panels"]
    if panel["type"] != "row"
}
"""Page, id and title → panel."""
