"""`predict`, `submit`, `result`: a model asked from a terminal."""

import json
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from adapter.cli_common import AsJson, fail, model_id, table

if TYPE_CHECKING:
    import httpx

Model = Annotated[str, typer.Argument(help="Its name, or name@version.", callback=model_id)]
Input = Annotated[
    Path | None,
    typer.Argument(help="JSON, or for a BYTES input the bytes, a picture say; - is standard input."),
]
Url = Annotated[str | None, typer.Option(help="The API's URL; without it that of the `up` that runs here.")]
Key = Annotated[str | None, typer.Option(help="API key, or @FILE that holds it.")]
CaFile = Annotated[Path | None, typer.Option(help="CA (PEM) of the API's certificate.")]
StateDir = Annotated[Path | None, typer.Option(help="State directory of a running `up`.")]
Wait = Annotated[bool, typer.Option("--wait", help="Wait for the result, and print it.")]

_WAIT_S = 20
_AGAIN_S = 1.0
_LONGEST_CELL = 200


def predict(
    model: Model,
    file: Input = None,
    url: Url = None,
    key: Key = None,
    ca_file: CaFile = None,
    state_dir: StateDir = None,
    as_json: AsJson = False,
) -> None:
    """Ask a model now. JSON is an array of instances, or a body with instances or inputs."""
    from adapter import cli_client

    with cli_client.client(url=url, key=key, ca_file=ca_file, state_dir=state_dir) as api:
        body = cli_client.input_data(api, model, file)
        if json.loads(body).keys().isdisjoint({"instances", "inputs"}):
            body = f'{{"inputs": {body}}}'
        response = api.post(f"{cli_client.model_path(model)}:predict", content=body)
        found = cli_client.answer(response)
    _note_deprecation(model, response)
    _show(found, as_json)


def submit(
    model: Model,
    file: Input = None,
    wait: Wait = False,
    url: Url = None,
    key: Key = None,
    ca_file: CaFile = None,
    state_dir: StateDir = None,
    as_json: AsJson = False,
) -> None:
    """Ask a model by way of the queue; prints the request's id, or with --wait the result."""
    from adapter import cli_client

    with cli_client.client(url=url, key=key, ca_file=ca_file, state_dir=state_dir) as api:
        body = f'{{"model_id": {json.dumps(model)}, "input_data": {cli_client.input_data(api, model, file)}}}'
        response = api.post("/v1/inference", content=body)
        submitted = cli_client.answer(response)
        _note_deprecation(model, response)
        if wait:
            _show_status(_wait(api, submitted["request_id"]), as_json)
        elif as_json:
            typer.echo(json.dumps(submitted))
        else:
            typer.echo(submitted["request_id"])
            typer.echo("queued; `miaas-adapter result ID` reads its result", err=True)


def result(
    request_id: Annotated[str, typer.Argument(help="As `submit` printed it.")],
    wait: Wait = False,
    url: Url = None,
    key: Key = None,
    ca_file: CaFile = None,
    state_dir: StateDir = None,
    as_json: AsJson = False,
) -> None:
    """Read the result of a request that was submitted."""
    from adapter import cli_client

    with cli_client.client(url=url, key=key, ca_file=ca_file, state_dir=state_dir) as api:
        status = _wait(api, request_id) if wait else cli_client.answer(api.get(_path(request_id)))
    _show_status(status, as_json)


def _wait(api: "httpx.Client", request_id: str) -> Any:
    """Poll until the request has ended; an API or a queue that is away for a while ends nothing."""
    import httpx
    from rich.console import Console
    from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    from adapter.cli_client import answer, unreachable

    terminal = Console(stderr=True)
    columns = SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn()
    hidden = not terminal.is_terminal
    with Progress(*columns, console=terminal, transient=True, disable=hidden) as progress:
        task = progress.add_task("waiting for the result")
        try:
            while True:
                try:
                    response = api.get(_path(request_id), headers={"Prefer": f"wait={_WAIT_S}"})
                except httpx.TransportError as error:
                    progress.update(task, description=f"the API {unreachable(error)}")
                    time.sleep(_AGAIN_S)
                    continue
                if response.status_code in (429, 502, 503, 504):
                    progress.update(task, description=f"the API answers {response.status_code}")
                    pause = response.headers.get("Retry-After", "")
                    time.sleep(int(pause) if pause.isdecimal() else _AGAIN_S)
                    continue
                status = answer(response)
                if status["status"] != "processing":
                    return status
                progress.update(task, description="waiting for the result")
        except KeyboardInterrupt:
            fail(f"{request_id} goes on; `miaas-adapter result {request_id}` reads its result", 130)


def _path(request_id: str) -> str:
    from urllib.parse import quote

    return f"/v1/inference/{quote(request_id, safe='')}"


def _note_deprecation(model: str, response: "httpx.Response") -> None:
    """RFC 9745 and RFC 8594, in words."""
    since = response.headers.get("Deprecation", "").removeprefix("@")
    if since.isdecimal():
        day = time.strftime("%Y-%m-%d", time.gmtime(int(since)))
        sunset = response.headers.get("Sunset")
        until = f", and may be gone from {sunset} on" if sunset else ""
        typer.echo(f"note: {model} is deprecated since {day}{until}", err=True)


def _show_status(status: dict[str, Any], as_json: bool) -> None:
    if status["status"] == "failed":
        if as_json:
            typer.echo(json.dumps(status))
        fail(f"failed: {status['error']['message']}", 1)
    if status["status"] == "processing" and not as_json:
        typer.echo("processing")
        return
    _show(status if as_json else status["result"], as_json)


def _show(found: dict[str, Any], as_json: bool) -> None:
    """An answer in rows, in columns or by name: a line for each row, or for each output."""
    if as_json:
        typer.echo(json.dumps(found))
        return
    match found:
        case {"predictions": [dict(), *_] as rows}:
            table([{name: _cell(value) for name, value in row.items()} for row in rows])
        case {"predictions": list() as rows}:
            table([{"prediction": _cell(row)} for row in rows])
        case {"outputs": outputs} if not isinstance(outputs, dict):
            table([{"output": _cell(outputs)}])
        case _:
            named = found.get("outputs", found)
            table([{"output": name, "value": _cell(value)} for name, value in named.items()])


def _cell(value: Any) -> str:
    """JSON, cut where a table has no place for it."""
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= _LONGEST_CELL else f"{text[:_LONGEST_CELL]}… (--json prints all)"
