"""Every page, and the files that Grafana reads them from."""

import json
from pathlib import Path

from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.dashboard import Dashboard

from scripts.dashboards import models, overview, queue, triton
from scripts.dashboards.page import page

FOLDER = Path(__file__).parents[2] / "docker" / "grafana" / "dashboards"


def pages() -> dict[str, Dashboard]:
    """Name → page."""
    return {
        "overview": page(
            "overview",
            "Overview",
            "Is the service well, and if not, where: the first line tells, the lines below show.",
            overview.SECTIONS,
        ),
        "models": page(
            "models",
            "Models",
            "Which model is slow or fails, and in which stage.",
            models.SECTIONS,
            *models.CHOICES,
        ),
        "queue": page("queue", "Queue", "Are jobs kept up with, and what becomes of them.", queue.SECTIONS),
        "triton": page(
            "triton",
            "Triton",
            "What Triton says of itself, of the machine and of its GPUs.",
            triton.SECTIONS,
            *triton.CHOICES,
        ),
    }


def written() -> dict[str, str]:
    """File name → what stands in it."""
    return {
        f"{name}.json": json.dumps(page, cls=JSONEncoder, indent=2, sort_keys=True, ensure_ascii=False) + "\n"
        for name, page in pages().items()
    }
