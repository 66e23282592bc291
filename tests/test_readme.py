"""README.md says what is so: the settings table is whole, every field has its sentence."""

from pathlib import Path

from adapter.settings import Settings
from scripts.document_settings import documented

README = Path(__file__).parents[1] / "README.md"


def test_every_setting_is_documented() -> None:
    assert [name for name, field in Settings.model_fields.items() if not field.description] == []
    assert documented(README.read_text()) == README.read_text(), "run `make docs`"
