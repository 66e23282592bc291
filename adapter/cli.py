"""The command line: `up`, `serve`, `worker`. Commands import what they need inside: `--help` is quick."""

from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

if TYPE_CHECKING:
    from adapter.settings import Settings

DEFAULT_REPOSITORY = Path("model_repository")

app = typer.Typer(
    name="miaas-adapter",
    help="Model Inference as a Service in front of NVIDIA Triton.",
    epilog="Every setting is an environment variable ADAPTER_*; an option here goes before it.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_show_locals=False,
)

Host = Annotated[str | None, typer.Option(help="Address that the API listens on.")]
Port = Annotated[int | None, typer.Option(min=0, max=65535, help="Port of the API; 0 takes a free one.")]
OpsHost = Annotated[str | None, typer.Option(help="Address of /livez, /readyz and /metrics.")]
OpsPort = Annotated[
    int | None,
    typer.Option(min=0, max=65535, help="Port of /livez, /readyz and /metrics; 0 takes a free one."),
]
Fd = Annotated[int | None, typer.Option(hidden=True)]


def main() -> None:
    """Run the command that the arguments name."""
    app()


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(metadata.version("miaas-adapter"))
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    pass


@app.command()
def up(
    host: Host = None,
    port: Port = None,
    ops_port: OpsPort = None,
    model_repository: Annotated[
        Path | None, typer.Option(help="Folder of the models. [default: ./model_repository]")
    ] = None,
    state_dir: Annotated[
        Path | None, typer.Option(help="Folder for keys, the queue's files, logs and up.json.")
    ] = None,
    workers: Annotated[int, typer.Option(min=1, help="Processes that serve the API.")] = 1,
) -> None:
    """Run Triton, NATS, a queue worker and the API on this machine, and keep them running."""
    from rich.console import Console

    from adapter.standalone.errors import StartError
    from adapter.standalone.supervisor import up as run

    settings = _settings(host=host, port=port, ops_port=ops_port, state_dir=state_dir)
    settings = settings.model_copy(update={"state_dir": settings.state_dir.absolute()})
    repository = model_repository or DEFAULT_REPOSITORY
    if model_repository is None and not repository.is_dir():
        _fail("there is no folder model_repository here; pass one with --model-repository", 2)
    try:
        run(settings, repository, workers, Console())
    except StartError as error:
        _fail(str(error), 1)


@app.command()
def serve(
    host: Host = None,
    port: Port = None,
    ops_host: OpsHost = None,
    ops_port: OpsPort = None,
    fd: Fd = None,
    ops_fd: Fd = None,
) -> None:
    """Serve the API alone, against the Triton and NATS that the settings name."""
    settings = _settings(host=host, port=port, ops_host=ops_host, ops_port=ops_port)
    from adapter.server import serve as run
    from adapter.sockets import ListenError

    try:
        run(settings, fd=fd, ops_fd=ops_fd)
    except ListenError as error:
        _fail(str(error), 1)


@app.command()
def worker() -> None:
    """Work off the queue, against the Triton and NATS that the settings name."""
    settings = _settings()
    from adapter.jobs.worker import main as run

    run(settings)


def _settings(**options: Any) -> "Settings":
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
        lines = [f"ADAPTER_{'_'.join(map(str, e['loc'])).upper()}: {e['msg']}" for e in error.errors()]
        _fail("\n".join(lines), 2)
    except SettingsError as error:
        _fail(str(error), 2)


def _fail(message: str, code: int) -> NoReturn:
    typer.echo(message, err=True)
    raise typer.Exit(code)
