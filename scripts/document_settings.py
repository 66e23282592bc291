"""Writes the table of docs/settings.md from `adapter.settings`."""

from pathlib import Path

from pydantic_core import PydanticUndefined

from adapter.settings import Settings

PAGE = Path(__file__).parents[1] / "docs" / "settings.md"
BEGIN = "<!-- settings: written by scripts/document_settings.py -->"
END = "<!-- /settings -->"


def table() -> str:
    """The Markdown table of every setting: variable, default, and the sentence under the field."""
    rows = ["| variable | default | |", "| --- | --- | --- |"]
    for name, field in Settings.model_fields.items():
        default = "per user" if field.default is PydanticUndefined else field.default
        shown = "" if default is None else f"`{default}`"
        sentence = " ".join((field.description or "").split())
        rows.append(f"| `ADAPTER_{name.upper()}` | {shown} | {sentence} |")
    return "\n".join(rows)


def documented(text: str) -> str:
    """The page's text with the table as it should be."""
    head, _, rest = text.partition(BEGIN)
    _, _, tail = rest.partition(END)
    return f"{head}{BEGIN}\n{table()}\n{END}{tail}"


if __name__ == "__main__":
    PAGE.write_text(documented(PAGE.read_text()))
