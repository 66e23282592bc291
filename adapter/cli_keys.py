"""`keys create | list | revoke | rotate`: API keys, on a machine that holds their file."""

import json
import re
import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from adapter.cli_common import AsJson, fail, read_settings

if TYPE_CHECKING:
    from adapter.security.keyfile import StoredKey
    from adapter.security.keys import KeyStore, NewKey

keys = typer.Typer(name="keys", help="Make, list, revoke and rotate API keys.", no_args_is_help=True)

StateDir = Annotated[Path | None, typer.Option(help="Folder that holds the keys.")]
Which = Annotated[str, typer.Argument(metavar="ID|NAME", help="A key's id, or its client's name.")]

_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}


@keys.command()
def create(
    name: Annotated[
        str | None, typer.Argument(help="The client's name; without one it gets a random one.")
    ] = None,
    name_option: Annotated[str | None, typer.Option("--name", help="The same as NAME.")] = None,
    scopes: Annotated[
        str, typer.Option("--scopes", "--scope", help="Comma-separated: infer, read, admin.")
    ] = "infer,read",
    expires: Annotated[
        str | None, typer.Option(help="When it ends: 90d, 12h, 30m, 45s from now, or an ISO 8601 time.")
    ] = None,
    rate_limit: Annotated[
        int | None, typer.Option(min=0, max=10**9, help="Its own requests per minute; 0 is no limit.")
    ] = None,
    state_dir: StateDir = None,
    as_json: AsJson = False,
) -> None:
    """Make a key for a client and show it, once."""
    with _store(state_dir) as store:
        wanted = [scope.strip() for scope in scopes.split(",")]
        client = name or name_option or f"client-{secrets.token_hex(4)}"
        _show_new(store.create(client, wanted, _time(expires), rate_limit), as_json)


@keys.command("list")
def list_(state_dir: StateDir = None, as_json: AsJson = False) -> None:
    """Show every key that was not revoked, without its secret."""
    with _store(state_dir) as store:
        stored = store.all()
    if as_json:
        typer.echo(json.dumps([_public(key) for key in stored]))
        return
    for key in stored:
        ends = "expired" if not key.live(time.time()) else f"until {_iso(key.expires)}" if key.expires else ""
        rate = "" if key.rate_per_minute is None else f"{key.rate_per_minute}/min"
        typer.echo("  ".join(filter(None, [key.id, key.name, ",".join(key.scopes), ends, rate])))


@keys.command()
def revoke(which: Which, state_dir: StateDir = None, as_json: AsJson = False) -> None:
    """Revoke one key, or all keys of a client; every process knows it within 5 s."""
    with _store(state_dir) as store:
        gone = store.revoke(which)
    if as_json:
        typer.echo(json.dumps({"revoked": [_public(key) for key in gone]}))
        return
    for key in gone:
        typer.echo(f"revoked {key.id} of {key.name}")


@keys.command()
def rotate(
    which: Which,
    overlap: Annotated[str, typer.Option(help="How long the old key still works: 0s, 30m, 12h, 7d.")] = "1d",
    state_dir: StateDir = None,
    as_json: AsJson = False,
) -> None:
    """Make a key that takes over from an old one, and show it, once."""
    with _store(state_dir) as store:
        _show_new(store.rotate(which, _seconds(overlap)), as_json)


@contextmanager
def _store(state_dir: Path | None) -> "Iterator[KeyStore]":
    """The keys that the settings name; ends the process with one line when a change cannot be made."""
    from adapter.security.keyfile import KeyFileError
    from adapter.security.keys import ChangeRefused, KeyStore

    try:
        yield KeyStore(read_settings(state_dir=state_dir).keys_path)
    except (ChangeRefused, KeyFileError) as error:
        fail(str(error), 1)


def _show_new(new: "NewKey", as_json: bool) -> None:
    if as_json:
        shown = asdict(new) | {"expires": _iso(new.expires)}
        typer.echo(json.dumps(shown))
        return
    typer.echo(new.key)
    typer.echo(f"This is shown once. id {new.id}, client {new.name}, scopes {','.join(new.scopes)}", err=True)


def _public(key: "StoredKey") -> dict[str, Any]:
    """What may be shown of a key: no digest."""
    return {
        "id": key.id,
        "name": key.name,
        "scopes": list(key.scopes),
        "created": _iso(key.created),
        "expires": _iso(key.expires),
        "rate_per_minute": key.rate_per_minute,
    }


def _iso(seconds: float | None) -> str | None:
    if seconds is None:
        return None
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


def _time(text: str | None) -> float | None:
    """`90d` from now, or an ISO 8601 time (UTC where it names no zone), in epoch seconds."""
    if text is None:
        return None
    if re.fullmatch(r"\d+[smhd]", text):
        return time.time() + _seconds(text)
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        fail(f"not a duration like 90d, nor an ISO 8601 time: {text[:40]!r}", 2)
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()


def _seconds(text: str) -> float:
    if not re.fullmatch(r"\d{1,9}[smhd]", text):
        fail(f"not a duration like 30m, 12h or 7d: {text[:40]!r}", 2)
    return float(int(text[:-1]) * _UNITS[text[-1]])
