"""What the commands of the command line do alike: read the settings, print tables, fail in one line."""

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

if TYPE_CHECKING:
    from adapter.settings import Settings

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def read_settings(**options: Any) -> "Settings":
    """The settings from the environment and the options that were given (not None), which go first.

    Ends the process with code 2 and a line for each variable that is wrong.
    """
    from pydantic import ValidationError
    from pydantic_settings import SettingsError

    from adapter.settings import Settings

    try:
        return Settings(**{name: value for name, value in options.items() if value is not None})
    except ValidationError as error:
        # The value is not shown: it may be a secret.
        lines = [
            f"ADAPTER_{'_'.join(map(str, e['loc'])).upper()}: {e['msg']}" if e["loc"] else e["msg"]
            for e in error.errors()
        ]
        fail("\n".join(lines), 2)
    except SettingsError as error:
        fail(str(error), 2)


def model_id(text: str) -> str:
    """A model that an argument names, `name` or `name@version`. Raises BadParameter for what is neither."""
    if re.fullmatch("[^@]+(@[^@]+)?", text) is None:
        raise typer.BadParameter("expected a model's name, or name@version")
    return text


def fail(message: str, code: int) -> NoReturn:
    typer.echo(message, err=True)
    raise typer.Exit(code)


def table(rows: Sequence[Mapping[str, Any]]) -> None:
    """Print the rows, which have the same keys, under these."""
    if rows:
        _print_table(rows[0].keys(), (row.values() for row in rows))
    else:
        typer.echo("none")


def fields(values: Mapping[str, Any]) -> None:
    """Print each value beside its name."""
    _print_table(("name", "value"), values.items(), show_header=False)


def _print_table(columns: Iterable[str], rows: Iterable[Iterable[Any]], *, show_header: bool = True) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    shown = Table(show_header=show_header)
    for column in columns:
        shown.add_column(column, overflow="fold")
    for row in rows:
        # As it is: brackets are no markup.
        shown.add_row(*(Text(str(value)) for value in row))
    Console().print(shown)
