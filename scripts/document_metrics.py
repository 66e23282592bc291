"""Writes the table of docs/metrics.md from `adapter.core.metrics`."""

from pathlib import Path
from typing import Any

from adapter.core.instruments import Family
from adapter.core.metrics import Metrics

PAGE = Path(__file__).parents[1] / "docs" / "metrics.md"
BEGIN = "<!-- metrics: written by scripts/document_metrics.py -->"
END = "<!-- /metrics -->"


def table() -> str:
    """A section per metric: its kind, what it says, and its labels with the values that they may have."""
    return "\n\n".join(_section(family) for family in Metrics().families)


def _section(family: Family[Any]) -> str:
    lines = [f"### `{family.name}`", "", f"{family.kind.capitalize()}. {family.help}"]
    labels = [_label(name, values) for name, values in family.label_values.items()]
    if labels:
        lines += ["", *labels]
    if bounds := getattr(family, "bounds", ()):
        lines += ["", f"Buckets up to {', '.join(f'{bound:g}' for bound in bounds)}."]
    return "\n".join(lines)


def _label(name: str, values: Any) -> str:
    known = ", ".join(f"`{value}`" for value in values)
    return f"- `{name}`: {known}" if known else f"- `{name}`"


def documented(text: str) -> str:
    """The page's text with the sections as they should be."""
    head, _, rest = text.partition(BEGIN)
    _, _, tail = rest.partition(END)
    return f"{head}{BEGIN}\n\n{table()}\n\n{END}{tail}"


if __name__ == "__main__":
    PAGE.write_text(documented(PAGE.read_text()))
