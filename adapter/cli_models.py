"""`miaas-adapter models`: the models of a repository, shown, checked, added, deprecated."""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from datetime import UTC, date, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from adapter.cli_common import AsJson, fail, fields, model_id, table

if TYPE_CHECKING:
    from adapter.models.repository import Entry

DEFAULT_REPOSITORY = Path("model_repository")

app = typer.Typer(
    help="Look into a model repository, and put models of your own into it.", no_args_is_help=True
)

Folder = Annotated[Path, typer.Argument(metavar="DIR", help="The model repository.")]
Names = Annotated[list[str] | None, typer.Argument(help="These models alone.")]
Repository = Annotated[
    Path, typer.Option("--repository", "--model-repository", help="The model repository; a new one is made.")
]


@app.command("list")
def list_(folder: Folder = DEFAULT_REPOSITORY, as_json: AsJson = False) -> None:
    """List the models, and what Triton serves of them."""
    with _failing():
        found = [_described(entry) for entry in _entries(folder, None)]
    if as_json:
        typer.echo(json.dumps(found))
        return
    columns = ["name", "served", "backend", "inputs", "outputs", "problem"]
    table([{column: _text(model.get(column)) for column in columns} for model in found])


@app.command()
def show(folder: Folder = DEFAULT_REPOSITORY, names: Names = None, as_json: AsJson = False) -> None:
    """Show all that is declared of each model."""
    with _failing():
        found = [_described(entry) for entry in _entries(folder, names)]
    if as_json:
        typer.echo(json.dumps(found))
        return
    for model in found:
        _show(model)


@app.command()
def check(
    folder: Folder = DEFAULT_REPOSITORY,
    names: Names = None,
    trial: Annotated[
        bool, typer.Option("--trial/--no-trial", help="Load them into a Triton of their own, and ask each.")
    ] = True,
    as_json: AsJson = False,
) -> None:
    """Check configurations, files and tensors; exits with 1 when something is wrong."""
    from adapter.standalone.errors import StartError

    with _failing():
        from adapter.models.check import check as run

        entries = _entries(folder, names)
        try:
            report = run(folder, entries, trial=trial)
        except StartError as error:
            fail(f"{error}\nthe files alone are checked with --no-trial", 1)
    if as_json:
        typer.echo(json.dumps(asdict(report)))
    else:
        for line in report.problems:
            typer.echo(f"wrong: {line}")
        for line in report.notes:
            typer.echo(f"note: {line}")
        for model_id in report.answered:
            typer.echo(f"answers: {model_id}")
        typer.echo(f"models: {len(entries)}, problems: {len(report.problems)}")
    if report.problems:
        raise typer.Exit(1)


@app.command()
def add(
    file: Annotated[Path, typer.Argument(help="ONNX, a pickled scikit-learn estimator, .pt or .pt2.")],
    name: Annotated[str, typer.Option(help="What the model is to be called.")],
    version: Annotated[
        int | None, typer.Option(min=1, max=10**18 - 1, help="Its number; without it the next one.")
    ] = None,
    repository: Repository = DEFAULT_REPOSITORY,
    feature_names: Annotated[
        str | None, typer.Option(help="Comma-separated: the places along the last axis of the one input.")
    ] = None,
    labels: Annotated[
        str | None, typer.Option(metavar="FILE|a,b,c", help="The names of the classes, or a line for each.")
    ] = None,
    max_batch_size: Annotated[
        int | None, typer.Option(min=0, help="Most rows of one call; 0 for a model that does not batch.")
    ] = None,
    warmup: Annotated[bool, typer.Option("--warmup", help="Run it on zeros before it is ready.")] = False,
    inputs: Annotated[
        list[str] | None,
        typer.Option("--input", metavar="NAME:DATATYPE:SHAPE", help="An input that the file does not tell."),
    ] = None,
    outputs: Annotated[
        list[str] | None,
        typer.Option("--output", metavar="NAME", help="An output to keep; of TorchScript as the inputs."),
    ] = None,
    trust_pickle: Annotated[
        bool, typer.Option("--trust-pickle", help="Open a pickle, which runs whatever code it holds.")
    ] = False,
    force: Annotated[
        bool, typer.Option("--force", help="Replace the version, by default the latest, and config.pbtxt.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Make a model of the repository out of a file, or a version beside those that are there."""
    with _failing():
        from adapter.models import files
        from adapter.models.adding import Options
        from adapter.models.adding import add as run

        names = _listed("--feature-names", feature_names)
        options = Options(max_batch_size, names, _labels(labels), warmup)
        source = files.read(file, inputs or (), outputs or (), trust_pickle=trust_pickle)
        entry, number = run(repository, name, source, options, version, force=force)
        described = _described(entry)
        notes = list(source.notes)
        if number not in described["served"]:
            notes.append(f"the version_policy in {entry.config_path} leaves version {number} out")
    if as_json:
        typer.echo(json.dumps({"added": f"{name}@{number}", **described, "notes": notes}))
        return
    typer.echo(f"added {name}@{number}")
    _show(described)
    for note in notes:
        typer.echo(f"note: {note}", err=True)


@app.command()
def deprecate(
    model: Annotated[
        str, typer.Argument(help="name@version, or name for the whole model.", callback=model_id)
    ],
    sunset: Annotated[
        str | None, typer.Option(metavar="DATE", help="The day from which it may be gone, as 2027-06-30.")
    ] = None,
    undo: Annotated[bool, typer.Option("--undo", help="Take it back.")] = False,
    repository: Repository = DEFAULT_REPOSITORY,
    as_json: AsJson = False,
) -> None:
    """Say that a version is on its way out: its answers then carry Deprecation, and Sunset."""
    if undo and sunset:
        raise typer.BadParameter("--undo takes no --sunset")
    with _failing():
        from adapter.models import deprecation
        from adapter.models.repository import find

        name, _, version = model.partition("@")
        entry = find(repository, name)
        if undo:
            deprecation.undo(entry, version or deprecation.ALL)
        else:
            today = datetime.now(UTC).date()
            deprecation.deprecate(entry, version or deprecation.ALL, today, _day(sunset))
        described = _described(entry)
    if as_json:
        typer.echo(json.dumps(described))
    else:
        _show({key: described[key] for key in ("name", "versions", "deprecated_since", "sunset")})


@contextmanager
def _failing() -> Iterator[None]:
    """End the process with one line for what cannot be done."""
    from adapter.models.errors import ModelError
    from adapter.models.source import INSTALL

    try:
        yield
    except ModelError as error:
        fail(str(error), 1)
    except ImportError as error:
        fail(f"this needs the package {error.name}: {INSTALL}", 1)
    except OSError as error:
        fail(f"{error.filename}: {error.strerror}" if error.filename else str(error), 1)


def _entries(folder: Path, names: list[str] | None) -> "list[Entry]":
    from adapter.models.repository import entries, find

    return [find(folder, name) for name in names] if names else entries(folder)


def _described(entry: "Entry") -> dict[str, Any]:
    """A model as its configuration declares it; with "problem" alone where that cannot be read."""
    from adapter.contracts.models import tensor_body
    from adapter.models.errors import ModelError
    from adapter.triton.description import describe

    try:
        config = entry.config()
        served = entry.served()
    except ModelError as error:
        return {"name": entry.name, "problem": str(error)}
    except OSError as error:
        return {"name": entry.name, "problem": f"{error.filename}: {error.strerror}"}
    metadata, _ = describe(config, "", tuple(served))
    return {
        "name": entry.name,
        "versions": entry.versions(),
        "served": served,
        "backend": entry.backend(),
        "max_batch_size": config.max_batch_size,
        "inputs": [tensor_body(tensor) for tensor in metadata.inputs],
        "outputs": [tensor_body(tensor) for tensor in metadata.outputs],
        "feature_names": list(metadata.feature_names),
        "version_labels": dict(metadata.labels),
        "deprecated_since": {version: day.isoformat() for version, day in metadata.deprecated_since.items()},
        "sunset": {version: day.isoformat() for version, day in metadata.sunset.items()},
        "warmup": [sample.name for sample in config.model_warmup],
    }


def _show(model: dict[str, Any]) -> None:
    """What is declared of it, without what is not."""
    fields({key.replace("_", " "): _text(value) for key, value in model.items() if value not in ([], {})})


def _text(value: Any) -> str:
    """A value for people: lists with commas between, a tensor in one line."""
    match value:
        case None:
            return ""
        case {"name": name, "datatype": datatype, "shape": shape}:
            return f"{name} {datatype} {shape}"
        case dict():
            return "\n".join(f"{key}: {member}" for key, member in value.items())
        case [dict(), *_]:
            return "\n".join(map(_text, value))
        case list():
            return ", ".join(value)
        case _:
            return str(value)


def _listed(option: str, text: str | None) -> tuple[str, ...]:
    """`a,b,c` → its parts."""
    parts = tuple(part.strip() for part in text.split(",")) if text else ()
    if not all(parts):
        fail(f"{option}: one of {text!r} is empty", 2)
    return parts


def _labels(text: str | None) -> tuple[str, ...]:
    """`a,b,c`, or the lines of a file."""
    if text is None:
        return ()
    # A long list is no name that a file may have: to look for it is an error of its own.
    if not os.path.isfile(text):
        if text and "," not in text:
            fail(f"--labels: there is no file {text}, and one label alone is none", 2)
        return _listed("--labels", text)
    try:
        return tuple(Path(text).read_text().splitlines())
    except (OSError, UnicodeDecodeError) as error:
        fail(f"--labels: {text} cannot be read: {error}", 2)


def _day(text: str | None) -> date | None:
    try:
        return None if text is None else date.fromisoformat(text)
    except ValueError:
        fail(f"--sunset: {text!r} is no day like 2027-06-30", 2)
