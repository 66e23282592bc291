"""Documents that name tests name tests that exist."""

import ast
import re
from pathlib import Path

import pytest

from adapter.settings import Settings
from scripts import document_metrics, document_settings

TESTS = Path(__file__).parent
DOCS = TESTS.parent / "docs"


@pytest.mark.parametrize("document", sorted(path.name for path in DOCS.glob("*.md")))
def test_every_test_that_is_named_exists(document: str) -> None:
    for file, name in re.findall(r"`([\w/]+\.py)::(\w+)`", (DOCS / document).read_text()):
        tree = ast.parse((TESTS / file).read_text())
        functions = {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}
        assert name in functions, f"{document} names {file}::{name}"


def test_the_contracts_are_held_by_tests() -> None:
    assert len(re.findall(r"::\w+`", (DOCS / "contracts.md").read_text())) > 80


def test_every_metric_is_documented() -> None:
    page = (DOCS / "metrics.md").read_text()
    assert document_metrics.documented(page) == page, "run `make docs`"


def test_every_setting_is_documented() -> None:
    assert [name for name, field in Settings.model_fields.items() if not field.description] == []
    page = (DOCS / "settings.md").read_text()
    assert document_settings.documented(page) == page, "run `make docs`"
