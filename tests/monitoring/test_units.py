"""Numbers in the pictures read as Grafana writes them."""

import pytest

from scripts.dashboards.units import shown


@pytest.mark.parametrize(
    ("value", "unit", "decimals", "text"),
    [
        (0, "s", None, "0 s"),
        (0.00025, "s", None, "250 µs"),
        (0.0183, "s", 0, "18 ms"),
        (4.5, "s", None, "4.5 s"),
        (90, "s", None, "1.5 min"),
        (90 * 86_400, "s", 0, "13 weeks"),
        (0.99951, "percentunit", 2, "99.95%"),
        (0.25, "percentunit", None, "25%"),
        (47.4, "reqps", 0, "47 req/s"),
        (0.1, "ops", None, "0.1 ops/s"),
        (3 * 2**30, "bytes", None, "3 GiB"),
        (40_000, "Bps", None, "39.1 KiB/s"),
        (0, "bytes", None, "0 B"),
        (1234, "none", None, "1234"),
    ],
)
def test_shown(value: float, unit: str, decimals: int | None, text: str) -> None:
    assert shown(value, unit, decimals) == text
