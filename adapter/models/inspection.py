"""What the configuration and the files of a model show to be wrong, each line with its file and place."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from adapter.core.dataplane import MODEL_NAME
from adapter.models import onnx_file
from adapter.models.config import differences, served
from adapter.models.deprecation import ALL
from adapter.models.errors import ModelError
from adapter.models.repository import MODEL_FILES, Entry
from adapter.standalone.repository import NO_NAME
from adapter.triton.description import PARAMETERS, PREFIX, describe


def problems(entry: Entry, names: Sequence[str]) -> Iterator[str]:
    """What keeps a model from being served as it is meant; `names` are all models of the repository."""
    if not MODEL_NAME.match(entry.name):
        yield f"{entry.folder}: no model can have this name: {NO_NAME}"
        return
    try:
        config = entry.config()
    except ModelError as error:
        yield str(error)
        return
    versions = entry.versions()
    if not versions:
        yield f"{entry.folder}: has no version, which is a folder called 1, 2 or so"
    if not entry.backend():
        yield f"{entry.config_path}: names no backend, and no file tells one"
    for version in served(config, versions):
        yield from _version_problems(entry, config, version)
    for output in config.output:
        if output.label_filename:
            yield from _label_problems(entry.folder / output.label_filename, output)
    yield from (f"{entry.config_path}: {problem}" for problem in _parameter_problems(config, versions))
    for step in config.ensemble_scheduling.step:
        if step.model_name not in names:
            yield f"{entry.config_path}: a step calls {step.model_name!r}, which is not in the repository"


def notes(entry: Entry) -> Iterator[str]:
    """What is right here, and may not be elsewhere."""
    for version in entry.versions():
        path = entry.folder / version / onnx_file.MODEL_FILE
        try:
            newer = onnx_file.above_limits(onnx_file.load(path, weights=False)) if path.is_file() else ""
        except ModelError:
            continue  # a problem, and told as one
        if newer:
            yield f"{path}: older Tritons may refuse its {newer}; `models add` lowers what it can"


def _version_problems(entry: Entry, config: Any, version: str) -> Iterator[str]:
    backend = entry.backend()
    if backend not in MODEL_FILES:
        return
    path = entry.folder / version / (config.default_model_filename or MODEL_FILES[backend])
    if not path.exists():
        yield f"{path}: is missing"
    elif backend == "onnxruntime" and path.is_file():
        try:
            inputs, outputs = onnx_file.tensors(onnx_file.load(path, weights=False))
        except ModelError as error:
            yield str(error) if str(path) in str(error) else f"{path}: {error}"
            return
        # What the configuration leaves out, Triton fills in.
        found = differences(config, inputs if config.input else (), outputs if config.output else ())
        yield from (f"{entry.config_path}: version {version}: {difference}" for difference in found)


def _label_problems(path: Path, output: Any) -> Iterator[str]:
    try:
        labels = path.read_text().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        yield f"{path}: the labels of {output.name!r} cannot be read: {reason}"
        return
    if output.dims[-1] not in (-1, len(labels)):
        yield f"{path}: holds {len(labels)} labels, and {output.name!r} has {output.dims[-1]} values"


def _parameter_problems(config: Any, versions: Sequence[str]) -> Iterator[str]:
    """What the adapter would pass over in silence, or what points nowhere."""
    metadata, ignored = describe(config, "", ())
    for parameter, reason in ignored.items():
        yield f"{parameter}: {reason}"
    for parameter in config.parameters:
        if parameter.startswith(PREFIX) and parameter.removeprefix(PREFIX) not in PARAMETERS:
            yield f"{parameter}: is none of {', '.join(PREFIX + known for known in sorted(PARAMETERS))}"
    for label, version in metadata.labels.items():
        if version not in served(config, versions):
            yield f"{PREFIX}labels: {label!r} is version {version}, which is not served"
    for key, days in (("deprecated_versions", metadata.deprecated_since), ("sunset", metadata.sunset)):
        for version in sorted(days.keys() - {*versions, ALL}):
            yield f"{PREFIX}{key}: there is no version {version}"
