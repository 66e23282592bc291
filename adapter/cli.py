"""The command line. Commands import what they need inside: `--help` is quick."""

from importlib import metadata
from pathlib import Path
from typing import Annotated

import typer

from adapter.cli_common import fail, read_settings
from adapter.cli_keys import keys
from adapter.cli_models import DEFAULT_REPOSITORY
from adapter.cli_models import app as models_app
from adapter.cli_predict import predict, result, submit
from adapter.cli_queue import app as queue_app

app = typer.Typer(
    name="miaas-adapter",
    help="Model Inference as a Service in front of NVIDIA Triton.",
    epilog="Every setting is an environment variable ADAPTER_*; an option here goes before it.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_show_locals=False,
)

app.add_typer(keys)
app.add_typer(models_app, name="models")
app.add_typer(queue_app, name="queue")
app.command()(predict)
app.command()(submit)
app.command()(result)

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
        Path | None,
        typer.Option(help="Folder of the models; without it ./model_repository, or the demo models."),
    ] = None,
    state_dir: Annotated[
        Path | None, typer.Option(help="Folder for keys, the queue's files, logs and up.json.")
    ] = None,
    workers: Annotated[int, typer.Option(min=1, help="Processes that serve the API.")] = 1,
    tls: Annotated[
        bool, typer.Option("--tls", help="Speak TLS everywhere, with a CA of this machine's own.")
    ] = False,
) -> None:
    """Run Triton, NATS, a queue worker and the API on this machine, and keep them running."""
    from rich.console import Console

    from adapter.standalone.errors import StartError
    from adapter.standalone.repository import demo
    from adapter.standalone.supervisor import up as run

    settings = read_settings(host=host, port=port, ops_port=ops_port, state_dir=state_dir)
    settings = settings.model_copy(update={"state_dir": settings.state_dir.absolute()})
    repository = model_repository or DEFAULT_REPOSITORY
    if model_repository is None and not repository.is_dir():
        repository = demo()
        typer.echo(
            "no folder model_repository here: these are the demo models; `miaas-adapter models add` makes "
            "one of your own, --model-repository names another",
            err=True,
        )
    try:
        run(settings, repository, workers, tls, Console())
    except StartError as error:
        fail(str(error), 1)


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
    settings = read_settings(host=host, port=port, ops_host=ops_host, ops_port=ops_port)
    from adapter.processes import MetricsFolderError
    from adapter.security.tls import TlsError
    from adapter.server import serve as run
    from adapter.sockets import ListenError

    try:
        run(settings, fd=fd, ops_fd=ops_fd)
    except (ListenError, MetricsFolderError, TlsError) as error:
        fail(str(error), 1)


@app.command()
def worker(ops_host: OpsHost = None, ops_port: OpsPort = None) -> None:
    """Work off the queue, against the Triton and NATS that the settings name."""
    settings = read_settings(ops_host=ops_host, ops_port=ops_port)
    from adapter.jobs.worker import main as run
    from adapter.processes import MetricsFolderError
    from adapter.security.tls import TlsError
    from adapter.sockets import ListenError

    try:
        run(settings)
    except (ListenError, MetricsFolderError, TlsError) as error:
        fail(str(error), 1)
