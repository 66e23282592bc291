"""What the commands at a terminal ask of a running API, and how its answers are taken."""

import base64
import json
import ssl
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx

from adapter.cli_common import fail, read_settings
from adapter.settings import Settings

_TIMEOUT = httpx.Timeout(10, read=120)


@contextmanager
def client(**options: Any) -> Iterator[httpx.Client]:
    """A client of the API that the settings name; options that are given (not None) go first.

    Ends the process with one line when they name none, and when it cannot be reached.
    """
    url, key, ca_file = _where(read_settings(**options))
    if not key.isprintable():
        # httpx would say so by showing it.
        fail("the API key holds a line break, or another sign that no key has", 2)
    try:
        trust = ssl.create_default_context(cafile=ca_file)
    except OSError as error:
        fail(f"{ca_file}: is no CA certificate that can be read: {error.strerror or error}", 2)
    try:
        api = httpx.Client(base_url=url, headers={"X-API-Key": key}, verify=trust, timeout=_TIMEOUT)
    except (httpx.InvalidURL, UnicodeEncodeError) as error:
        fail(f"the URL or the key cannot be sent: {error}", 2)
    with api:
        try:
            yield api
        except httpx.HTTPError as error:
            fail(f"{url}: {unreachable(error)}", 1)


def unreachable(error: httpx.HTTPError) -> str:
    """Why no answer came, for people."""
    text = str(error)
    if "CERTIFICATE_VERIFY_FAILED" in text:
        return "its certificate is not trusted; name the CA that it is from with --ca-file"
    if isinstance(error, httpx.TimeoutException):
        return "it does not answer in time"
    return f"cannot be reached: {text or type(error).__name__}"


def model_path(model: str) -> str:
    """Where V1 has a model, `name` or `name@version`."""
    name, _, version = model.partition("@")
    path = f"/v1/models/{quote(name, safe='')}"
    return f"{path}/versions/{quote(version, safe='')}" if version else path


def answer(response: httpx.Response) -> Any:
    """The answer's JSON; for an error ends the process with its message."""
    try:
        body = response.json()
    except ValueError:
        body = {}
    if response.is_success and body:
        return body
    error = body.get("error") if isinstance(body, dict) else None
    message = error.get("message") if isinstance(error, dict) else error
    fail(str(message or f"the answer is {response.status_code} {response.reason_phrase}, and no JSON"), 1)


def input_data(api: httpx.Client, model: str, file: Path | None) -> str:
    """What the file, or with none or `-` standard input, says to a model, as MIaaS's `input_data`.

    Text is JSON: an array is its instances. Anything else, a picture say, is the model's one BYTES input.
    Ends the process with one line for what is neither.
    """
    place, content = _read(file)
    if not content.strip():
        fail(f"{place}: is empty", 2)
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError:
        picture = {"b64": base64.b64encode(content).decode()}
        return json.dumps({"instances": [{_bytes_input(api, model, place): picture}]})
    try:
        value = json.loads(text)
    except ValueError as error:
        fail(f"{place}: is not JSON: {error}", 2)
    except RecursionError:
        fail(f"{place}: is nested too deep", 2)
    # Numbers are passed on as they are written.
    if isinstance(value, list):
        return f'{{"instances": {text}}}'
    if not isinstance(value, dict):
        fail(f"{place}: expected an array of instances, or an object", 2)
    return text


def _where(settings: Settings) -> tuple[str, str, str | None]:
    """URL, key and CA file. An `up` tells all three; its key goes nowhere else."""
    key = settings.key.get_secret_value().strip() if settings.key else ""
    if key.startswith("@"):
        key = _read_key(Path(key[1:]))
    ca_file = str(settings.ca_file) if settings.ca_file else None
    if settings.url is not None:
        if not key:
            fail("no API key: say --key, or set ADAPTER_KEY", 2)
        return settings.url, key, ca_file
    try:
        up = json.loads((settings.state_dir / "up.json").read_text())
        return up["url"], key or up["api_key"], ca_file or up.get("ca_file")
    except (OSError, ValueError, KeyError):
        fail(f"no `up` runs on {settings.state_dir}: say where the API is with --url", 2)


def _read_key(path: Path) -> str:
    try:
        return path.read_text().strip()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is no text"
        fail(f"{path}: the key cannot be read: {reason}", 2)


def _read(file: Path | None) -> tuple[str, bytes]:
    if file is None and sys.stdin.isatty():
        fail("name a file, or - for standard input", 2)
    if file is None or str(file) == "-":
        return "standard input", sys.stdin.buffer.read()
    try:
        return str(file), file.read_bytes()
    except OSError as error:
        fail(f"{file}: {error.strerror}", 2)


def _bytes_input(api: httpx.Client, model: str, place: str) -> str:
    """The input that what is no text goes to."""
    inputs = answer(api.get(model_path(model)))["inputs"]
    if [tensor["datatype"] for tensor in inputs] != ["BYTES"]:
        takes = ", ".join(f"{tensor['name']} {tensor['datatype']} {tensor['shape']}" for tensor in inputs)
        fail(f'{place}: is no text, and {model} takes {takes}: write JSON, bytes as {{"b64": "…"}}', 2)
    return str(inputs[0]["name"])
