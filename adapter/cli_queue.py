"""`miaas-adapter queue`: how the queue stands, for operators. Commands import what they need inside."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeVar

import typer

from adapter.cli_common import AsJson, fail, read_settings, table

if TYPE_CHECKING:
    from adapter.jobs.admin import Line, QueueAdmin

T = TypeVar("T")

app = typer.Typer(help="Look into the queue of asynchronous requests.", no_args_is_help=True)

StateDir = Annotated[
    Path | None, typer.Option(help="State directory of a running `up`, instead of ADAPTER_NATS_URL.")
]
Client = Annotated[str | None, typer.Option(help="Only this client's.")]
Model = Annotated[str | None, typer.Option(help="Only for this model.")]
Limit = Annotated[int, typer.Option(min=1, help="At most so many.")]

_CONNECT_S = 10.0


@app.command()
def status(state_dir: StateDir = None, as_json: AsJson = False) -> None:
    """What each stream and each lane holds."""

    async def ask(admin: "QueueAdmin") -> dict[str, Any]:
        return await admin.status()

    found = _run(state_dir, ask)
    if as_json:
        typer.echo(json.dumps(found))
        return
    for part in found.values():
        rows = [{"name": name, **counts} for name, counts in part.items()]
        table(rows)


@app.command("list")
def list_(
    state: Annotated[
        Literal["waiting", "failed", "ended"], typer.Argument(help="waiting (or running), failed, or ended.")
    ] = "waiting",
    client: Client = None,
    model: Model = None,
    limit: Limit = 100,
    state_dir: StateDir = None,
    as_json: AsJson = False,
) -> None:
    """List requests, oldest first."""
    from adapter.jobs.admin import as_dict

    async def ask(admin: "QueueAdmin") -> list[dict[str, str]]:
        source = {"waiting": admin.waiting, "failed": admin.failed, "ended": admin.ended}[state]
        lines: list[dict[str, str]] = []
        async for line, _ in source():
            if len(lines) >= limit:
                break
            if _wanted(line, client, model):
                lines.append(as_dict(line))
        return lines

    found = _run(state_dir, ask)
    if as_json:
        typer.echo(json.dumps(found))
    else:
        table(found)


@app.command()
def requeue(
    request_ids: Annotated[list[str] | None, typer.Argument(help="Ids of failed requests.")] = None,
    every: Annotated[
        bool, typer.Option("--all", help="Every failed request that the filters leave.")
    ] = False,
    client: Client = None,
    model: Model = None,
    timeout_s: Annotated[float, typer.Option(min=1, help="The new deadline, from now.")] = 3600,
    state_dir: StateDir = None,
    as_json: AsJson = False,
) -> None:
    """Run failed requests again, under their ids; a new result replaces the failed one."""
    chosen = set(request_ids or [])
    if bool(chosen) == every:
        raise typer.BadParameter("name request ids, or say --all")

    async def ask(admin: "QueueAdmin") -> dict[str, Any]:
        queued: list[str] = []
        without_input: list[str] = []
        async for line, stored in admin.failed():
            if (every and _wanted(line, client, model)) or line.request_id in chosen:
                done = await admin.requeue(stored, timeout_s)
                (queued if done else without_input).append(line.request_id)
        unknown = sorted(chosen - {*queued, *without_input})
        return {"requeued": queued, "without_input": without_input, "unknown": unknown}

    _report(_run(state_dir, ask), as_json)


@app.command()
def purge(
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    client: Client = None,
    model: Model = None,
    state_dir: StateDir = None,
    as_json: AsJson = False,
) -> None:
    """Cancel every waiting request that the filters leave; their clients see them as failed."""
    if not yes:
        typer.confirm("Cancel all of these waiting requests?", abort=True)

    async def ask(admin: "QueueAdmin") -> dict[str, Any]:
        cancelled = []
        async for line, stored in admin.waiting():
            if _wanted(line, client, model):
                await admin.purge(stored)
                cancelled.append(line.request_id)
        return {"cancelled": cancelled}

    _report(_run(state_dir, ask), as_json)


def _wanted(line: "Line", client: str | None, model: str | None) -> bool:
    return client in (None, line.client) and model in (None, line.model)


def _run(state_dir: Path | None, ask: "Callable[[QueueAdmin], Awaitable[T]]") -> T:
    """What the queue answers; ends the process with a line when it does not."""
    from adapter.core.errors import AdapterError
    from adapter.security.tls import TlsError

    async def run() -> T:
        async with _admin(state_dir) as admin:
            return await ask(admin)

    try:
        return asyncio.run(run())
    except (AdapterError, TlsError) as error:
        fail(str(error), 1)


@asynccontextmanager
async def _admin(state_dir: Path | None) -> "AsyncIterator[QueueAdmin]":
    from adapter.core.errors import QueueUnavailable
    from adapter.jobs.admin import QueueAdmin
    from adapter.jobs.connection import Connection
    from adapter.nats import NatsConnection
    from adapter.standalone.certificates import Certificates

    settings = read_settings()
    if state_dir is not None:
        try:
            facts = json.loads((state_dir / "up.json").read_text())
            found = {"nats_url": facts["nats_url"]}
        except (OSError, ValueError, KeyError):
            raise QueueUnavailable(f"no `up` runs on {state_dir}") from None
        if "ca_file" in facts:
            tls = Certificates.within(state_dir / "tls")
            found |= {"nats_ca_file": tls.ca, "nats_cert_file": tls.client, "nats_key_file": tls.client_key}
        settings = settings.model_copy(update=found)

    async def prepare() -> None:
        """An operator looks at what is there, and creates nothing."""

    nats = NatsConnection(settings)
    connection = Connection(nats, prepare)
    connection.use()
    nats.open()
    try:
        await connection.wait_ready(_CONNECT_S)
        yield QueueAdmin(connection, settings)
    finally:
        await nats.close()


def _report(found: dict[str, Any], as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps(found))
        return
    for what, ids in found.items():
        typer.echo(f"{what.replace('_', ' ')}: {len(ids)}")
