"""docs/operations.md says what is so, and shows what there is."""

import re

from PIL import Image

from tests.integration.prometheus import FACTOR
from tests.monitoring.shipped import ALERTS, GUIDE, PAGES, RULES

TEXT = GUIDE.read_text()
IMAGES = GUIDE.parent / "images"
MOST_BYTES = 300_000


def test_it_shows_every_dashboard() -> None:
    assert re.findall(r"\]\(images/(\w+)\.png\)", TEXT) == ["overview", "models", "queue", "triton"]
    assert {file.stem for file in IMAGES.glob("*.png")} >= PAGES.keys()
    for name in PAGES:
        file = IMAGES / f"{name}.png"
        assert file.stat().st_size < MOST_BYTES
        with Image.open(file) as picture:
            assert picture.width == 1600


def test_it_has_a_section_for_each_alert_and_no_other() -> None:
    assert set(re.findall(r"^### (Miaas\w+)$", TEXT, re.MULTILINE)) == ALERTS.keys()


def test_its_objectives_are_those_of_the_rules() -> None:
    assert "**99.9 %** of all requests" in TEXT
    assert "**99 %** of all predictions" in TEXT
    assert "**0.5 s**" in TEXT
    asked = " ".join(rule["expr"] for rule in RULES)
    assert set(re.findall(r'\ble="([^"]*)"', asked)) == {"0.5"}
    budget = r":ratio_rate\w+ > (?:[\d.]+ \* )?([\d.]+)"
    assert set(re.findall(f"request_errors{budget}", asked)) == {"0.001"}
    assert set(re.findall(f"slow_predictions{budget}", asked)) == {"0.01"}


def test_it_says_how_fast_the_test_lives() -> None:
    assert f"with every duration\ndivided by {FACTOR}." in TEXT
