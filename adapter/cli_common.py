"""What every command of the command line does alike: reads the settings, and fails in one line."""

from typing import TYPE_CHECKING, Any, NoReturn

import typer

if TYPE_CHECKING:
    from adapter.settings import Settings


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


def fail(message: str, code: int) -> NoReturn:
    typer.echo(message, err=True)
    raise typer.Exit(code)
