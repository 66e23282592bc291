"""docs/security.md names tests that there are."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_every_attack_that_the_table_names_is_a_test() -> None:
    named = set(re.findall(r"`(test_\w+)`", (ROOT / "docs" / "security.md").read_text()))
    sources = "".join(path.read_text() for path in (ROOT / "tests").rglob("test_*.py"))
    assert named
    assert named - set(re.findall(r"def (test_\w+)", sources)) == set()


def test_each_of_the_ten_has_a_row() -> None:
    rows = re.findall(r"^\| API(\d+) .*\| .* \| `test_", (ROOT / "docs" / "security.md").read_text(), re.M)
    assert rows == [str(number) for number in range(1, 11)]
