"""Saying in a model's configuration that a version, or the whole model, is on its way out."""

from collections.abc import Mapping
from datetime import date

from adapter.models.adding import write_text
from adapter.models.config import with_parameters
from adapter.models.errors import ModelError
from adapter.models.repository import Entry
from adapter.triton.description import PREFIX, describe

ALL = "*"
"""Every version."""


def deprecate(entry: Entry, version: str, since: date, sunset: date | None) -> None:
    """Deprecate one version, or `ALL`, as of a day; from `sunset` on it may be gone. Raises ModelError."""
    if version != ALL and version not in entry.versions():
        raise ModelError(f"{entry.folder}: there is no version {version[:32]}")
    if sunset is not None and sunset < since:
        raise ModelError(f"the sunset, {sunset}, is over: the model is deprecated as of {since}")
    deprecated, sunsets = _declared(entry)
    deprecated[version] = since
    sunsets.pop(version, None)
    if sunset is not None:
        sunsets[version] = sunset
    _write(entry, deprecated, sunsets)


def undo(entry: Entry, version: str) -> None:
    """Take back what `deprecate` said of one version, or of all of them. Raises ModelError."""
    deprecated, sunsets = _declared(entry)
    if version == ALL and deprecated:
        _write(entry, {}, {})
    elif version in deprecated:
        del deprecated[version]
        sunsets.pop(version, None)
        _write(entry, deprecated, sunsets)
    else:
        what = entry.name if version == ALL else f"{entry.name}@{version[:32]}"
        whole = ", the whole model is" if ALL in deprecated else ""
        raise ModelError(f"{what} is not deprecated{whole}")


def _declared(entry: Entry) -> tuple[dict[str, date], dict[str, date]]:
    metadata, _ = describe(entry.config(), "", ())
    return dict(metadata.deprecated_since), dict(metadata.sunset)


def _write(entry: Entry, deprecated: Mapping[str, date], sunsets: Mapping[str, date]) -> None:
    there = entry.config().parameters
    values = {
        key: {version: day.isoformat() for version, day in days.items()}
        for key, days in (("deprecated_versions", deprecated), ("sunset", sunsets))
        if days or f"{PREFIX}{key}" in there
    }
    text = with_parameters(entry.text(), entry.config_path, values)
    try:
        write_text(entry.config_path, text)
    except OSError as error:
        raise ModelError(f"{entry.config_path}: {error.strerror}") from error
