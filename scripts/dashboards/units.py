"""Numbers as Grafana writes them, in the units that the dashboards use."""

import math

_SECONDS = (
    (1e-6, "ns", 1e9),
    (1e-3, "µs", 1e6),
    (1, "ms", 1e3),
    (60, "s", 1),
    (3600, "min", 1 / 60),
    (86_400, "hours", 1 / 3600),
    (604_800, "days", 1 / 86_400),
    (31_536_000, "weeks", 1 / 604_800),
    (math.inf, "years", 1 / 31_536_000),
)
_SUFFIXES = {"reqps": " req/s", "ops": " ops/s", "none": "", "": ""}


def shown(value: float, unit: str, decimals: int | None = None) -> str:
    """The value in its unit, with so many decimals, or as many as tell it apart."""
    if unit == "s":
        size = abs(value)
        name, factor = next((name, factor) for below, name, factor in _SECONDS if size < below)
        return "0 s" if value == 0 else f"{_digits(value * factor, decimals)} {name}"
    if unit == "percentunit":
        return f"{_digits(100 * value, decimals)}%"
    if unit in ("bytes", "Bps"):
        return _bytes(value, decimals) + ("/s" if unit == "Bps" else "")
    return f"{_digits(value, decimals)}{_SUFFIXES[unit]}"


def _bytes(value: float, decimals: int | None) -> str:
    power = min(int(math.log(abs(value), 1024)), 4) if abs(value) >= 1 else 0
    return f"{_digits(value / 1024**power, decimals)} {('B', 'KiB', 'MiB', 'GiB', 'TiB')[power]}"


def _digits(value: float, decimals: int | None) -> str:
    if decimals is None:
        size = abs(value)
        decimals = 0 if size >= 100 else 1 if size >= 10 else 2 if size >= 0.1 else 3
        text = f"{value:.{decimals}f}"
        return text.rstrip("0").rstrip(".") if "." in text else text
    return f"{value:.{decimals}f}"
