"""Checking models: their files first, then, on a Triton of their own, what they answer."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from adapter.models import inspection
from adapter.models.repository import Entry
from adapter.models.repository import entries as all_entries
from adapter.models.trial import try_models
from adapter.standalone.wheels import OUR_BACKENDS

_HERE = {"ensemble", "python", *(folder.name for folder in OUR_BACKENDS.iterdir())}
"""What `up`, and so a trial, can run."""


@dataclass(frozen=True)
class Report:
    """What was found; every line but an id begins with its place."""

    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    """What is right here and may not be elsewhere, or could not be seen."""
    answered: list[str] = field(default_factory=list)
    """Ids, `name@version`, of those that answered in the trial."""


def check(repository: Path, entries: Sequence[Entry], *, trial: bool) -> Report:
    """Check these models' files, and with `trial` ask each served version once.

    Raises ModelError when the repository cannot be read, `StartError` when no Triton runs here.
    """
    report, runnable = Report(), []
    names = [entry.name for entry in all_entries(repository)]
    for entry in entries:
        try:
            problems, notes = list(inspection.problems(entry, names)), list(inspection.notes(entry))
        except OSError as error:
            problems, notes = [f"{error.filename}: cannot be read: {error.strerror}"], []
        report.problems.extend(problems)
        report.notes.extend(notes)
        if problems or not trial:
            continue
        if entry.backend() in _HERE:
            runnable.append(entry.name)
        else:
            report.notes.append(f"{entry.folder}: not asked, `up` has no backend {entry.backend()!r}")
    if runnable:
        tried = asyncio.run(try_models(repository.resolve(), runnable))
        report.answered.extend(tried.answered)
        for lines, found in ((report.problems, tried.problems), (report.notes, tried.left_out)):
            lines.extend(
                f"{repository / model_id.replace('@', '/')}: {what}" for model_id, what in found.items()
            )
    return report
