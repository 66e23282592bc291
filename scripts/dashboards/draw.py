"""Draws the dashboards as Grafana would, for docs/images, from what a test run's Prometheus answered.

DASHBOARD_DATA=night.json python -m pytest tests/integration/test_prometheus.py
python -m scripts.dashboards.draw night.json
"""

import io
import json
import sys
from pathlib import Path
from typing import Any

from PIL import Image

from scripts.dashboards.canvas import GAP, HEAD, UNIT, Canvas
from scripts.dashboards.pages import FOLDER
from scripts.dashboards.plots import Panel, draw

IMAGES = Path(__file__).parents[2] / "docs" / "images"
_COLOURS = 128


def main(data: Path) -> None:
    """Write a picture of every page."""
    run = json.loads(data.read_text())
    IMAGES.mkdir(exist_ok=True)
    for file in sorted(FOLDER.glob("*.json")):
        page = json.loads(file.read_text())
        (IMAGES / f"{file.stem}.png").write_bytes(picture(file.stem, page, run))


def picture(name: str, page: dict[str, Any], run: dict[str, Any]) -> bytes:
    """A page as PNG: `page` is the dashboard's JSON, `run` what its panels were answered."""
    rows = max(panel["gridPos"]["y"] + panel["gridPos"]["h"] for panel in page["panels"])
    canvas = Canvas(rows)
    canvas.text(2 * GAP, HEAD / 2, page["title"], fontsize=14)
    for panel in page["panels"]:
        grid = panel["gridPos"]
        if panel["type"] == "row":
            middle = HEAD + (grid["y"] + 0.5) * UNIT
            canvas.text(2 * GAP, middle, f"⌄  {panel['title']}", fontsize=11)
            continue
        answers = run["shown"][f"{name}-{panel['id']}-{panel['title']}"]
        draw(canvas, Panel(panel, answers, run["marks"]), run["began"], run["ended"])
    whole = io.BytesIO()
    canvas.figure.savefig(whole, format="png")
    # A quarter of the size, and no difference to see.
    image = Image.open(whole).convert("RGB").quantize(_COLOURS, dither=Image.Dither.NONE)
    small = io.BytesIO()
    image.save(small, "PNG", optimize=True)
    return small.getvalue()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
