"""Putting a model into a repository: a new folder, or a version beside those that are there.

What is written is written aside and renamed: whoever watches the repository never sees half of a model.
"""

import secrets
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from adapter.core.dataplane import MODEL_NAME
from adapter.models import config as configuration
from adapter.models.config import CONFIG_FILE, LABELS_FILE
from adapter.models.errors import ModelError
from adapter.models.repository import Entry
from adapter.models.source import Source
from adapter.standalone.repository import NO_NAME
from adapter.triton.description import PREFIX, describe


@dataclass(frozen=True)
class Options:
    """What config.pbtxt is to say of a model beside its tensors; see `config.build`."""

    max_batch_size: int | None = None
    feature_names: tuple[str, ...] = ()
    labels: tuple[str, ...] = ()
    warmup: bool = False


def add(
    repository: Path,
    name: str,
    source: Source,
    options: Options,
    version: int | None = None,
    *,
    force: bool = False,
) -> tuple[Entry, str]:
    """Put a version of a model into the repository, the next one if none is named; returns where and which.

    A new model gets a configuration, which further versions have to fit; `force` replaces a version, by
    default the latest, and the configuration. Raises ModelError, and then nothing has changed.
    """
    if not MODEL_NAME.match(name):
        raise ModelError(f"{name[:128]!r} is no name for a model: {NO_NAME}")
    if name.startswith("."):
        raise ModelError(f"{name!r} is no name for a model: folders that begin with a dot are passed over")
    entry = Entry(repository / name)
    for place in (repository, entry.folder):
        if place.exists() and not place.is_dir():
            raise ModelError(f"{place}: is no folder")
    versions = entry.versions() if entry.folder.is_dir() else []
    following = int(versions[-1]) + (not force) if versions else 1
    number = str(version or following)
    if number in versions and not force:
        raise ModelError(f"{name}@{number} is there: --force replaces it, another --version stands beside it")
    if entry.config_path.exists() and not force:
        _check_fits(entry, source, options)
        files = {}
    else:
        files = _files(entry, source, options, [version for version in versions if version != number])
    try:
        repository.mkdir(parents=True, exist_ok=True)
        if entry.folder.exists():
            with _aside(entry.folder / number) as aside:
                source.save(aside)
                _move(aside, entry.folder / number, replace=number in versions)
            for file, text in files.items():
                write_text(entry.folder / file, text)
        else:
            with _aside(entry.folder) as aside:
                (aside / number).mkdir()
                source.save(aside / number)
                for file, text in files.items():
                    (aside / file).write_text(text)
                aside.rename(entry.folder)
    except OSError as error:
        raise ModelError(f"{entry.folder}: cannot be written: {error.strerror}") from error
    return entry, number


def write_text(path: Path, text: str) -> None:
    """Replace the file at once, as a whole. Raises OSError."""
    aside = _beside(path)
    try:
        aside.write_text(text)
        aside.replace(path)
    finally:
        aside.unlink(missing_ok=True)


def _check_fits(entry: Entry, source: Source, options: Options) -> None:
    """Raise ModelError unless the model's configuration holds for another version, too."""
    config = entry.config()
    if options != Options():
        raise ModelError(
            f"{entry.config_path} is there and holds for every version: change it by hand, "
            "or --force writes it anew"
        )
    if source.platform not in (config.backend, config.platform):
        found = [f"it runs on {source.platform}, and the others on {config.platform or config.backend}"]
    else:
        found = configuration.differences(config, source.inputs, source.outputs)
    metadata, _ = describe(config, "", ())
    if source.feature_names and source.feature_names != metadata.feature_names:
        found.append(f"its features are {', '.join(source.feature_names)}")
    if found:
        raise ModelError(
            f"it does not fit {entry.config_path}: {'; '.join(found)}; give it another --name, "
            "or --force writes the configuration anew"
        )


def _files(entry: Entry, source: Source, options: Options, others: Sequence[str]) -> dict[str, str]:
    """What a model has beside its versions, of which `others` stay: each file's name and content."""
    labels = options.labels or source.labels
    config = configuration.build(
        source,
        max_batch_size=options.max_batch_size,
        feature_names=options.feature_names or source.feature_names,
        labels=labels,
        warmup=options.warmup,
    )
    # What was said of the versions stays so.
    for key, value in entry.config().parameters.items():
        if key != f"{PREFIX}feature_names":
            config.parameters[key].CopyFrom(value)
    if others:
        _check_others(entry, source, config, others)
    files = {CONFIG_FILE: configuration.render(config)}
    if any(output.label_filename for output in config.output):
        files[LABELS_FILE] = "".join(f"{label}\n" for label in labels)
    elif options.labels:
        shapes = ", ".join(f"{output.name} {list(output.dims)}" for output in config.output)
        raise ModelError(f"{len(labels)} labels, and not one output with so many values ({shapes})")
    return files


def _check_others(entry: Entry, source: Source, config: Any, versions: Sequence[str]) -> None:
    """Raise ModelError when a configuration that is written anew does not hold for these versions."""
    runs_on, they_run_on = source.platform.partition("_")[0], entry.backend()
    if they_run_on not in ("", runs_on):
        found = [f"it runs on {runs_on}, and they on {they_run_on}"]
    elif runs_on == "onnxruntime":
        found = [
            f"version {version}: {problem}"
            for version in versions
            for problem in _onnx_differences(entry.folder / version, config)
        ]
    else:
        found = []  # the files of others do not tell their tensors
    if found:
        raise ModelError(
            f"its configuration does not hold for versions that are there: {'; '.join(found)}; "
            f"give it another --name, or remove these versions from {entry.folder}"
        )


def _onnx_differences(folder: Path, config: Any) -> list[str]:
    """In what a configuration contradicts a version's file; nothing for one that does not run as it is."""
    # Not at the top: TorchScript does without the package.
    from adapter.models import onnx_file

    try:
        model = onnx_file.load(folder / onnx_file.MODEL_FILE, weights=False)
        return configuration.differences(config, *onnx_file.tensors(model))
    except ModelError:
        return []


def _beside(path: Path) -> Path:
    """A hidden place on the same disk, which nobody takes for a model or a version."""
    return path.with_name(f".{path.name}.{secrets.token_hex(4)}")


@contextmanager
def _aside(path: Path) -> Iterator[Path]:
    """A new folder beside `path`, to be renamed to it; what was not is removed."""
    folder = _beside(path)
    folder.mkdir()
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _move(aside: Path, folder: Path, *, replace: bool) -> None:
    """Rename the folder, with `replace` in the place of the one that is there. Raises OSError."""
    if not replace:
        aside.rename(folder)
        return
    old = _beside(folder)
    folder.rename(old)
    aside.rename(folder)
    shutil.rmtree(old)
