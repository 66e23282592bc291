"""Request bodies: bytes with a limit, then JSON with RFC 8259's strictness and a few named allowances."""

import json
from math import isinf
from typing import Any

import numpy as np
import orjson
from starlette.datastructures import Headers
from starlette.requests import ClientDisconnect
from starlette.types import Receive, Scope

from adapter.core.errors import InvalidInput, PayloadTooLarge, UnsupportedEncoding

MAX_DEPTH = 64
_BOM = b"\xef\xbb\xbf"
_NOT_STRUCTURE = bytes(set(range(256)) - set(b'[]{}"'))
_STEP = np.zeros(256, np.int8)
"""What a byte of the structure adds to the depth."""
_STEP[list(b"[{")] = 1
_STEP[list(b"]}")] = -1


async def read_body(scope: Scope, receive: Receive, limit: int) -> bytes:
    """The whole body. Raises PayloadTooLarge as soon as more than `limit` bytes are announced or came.

    Raises UnsupportedEncoding for a Content-Encoding, and ClientDisconnect when the client hung up.
    """
    headers = Headers(scope=scope)
    encoding = headers.get("content-encoding", "identity").strip().lower()
    if encoding not in ("identity", ""):
        raise UnsupportedEncoding(
            f"Content-Encoding {encoding[:40]!r} is not supported; send the body as it is"
        )
    too_large = PayloadTooLarge(f"the body is larger than {limit} bytes")
    announced = headers.get("content-length", "")
    if announced.isdecimal() and int(announced) > limit:
        raise too_large
    chunks: list[bytes] = []
    size = 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientDisconnect
        chunk = message.get("body", b"")
        size += len(chunk)
        if size > limit:
            raise too_large
        chunks.append(chunk)
        if not message.get("more_body", False):
            return chunks[0] if len(chunks) == 1 else b"".join(chunks)


def parse_json(body: bytes) -> Any:
    """A JSON document in UTF-8. Raises InvalidInput with the place of the mistake.

    Beyond RFC 8259: a byte order mark is skipped, and the bare tokens NaN, Infinity and -Infinity are
    numbers. Of duplicate keys the last one wins. More than 64 levels deep is refused.
    """
    body = body.removeprefix(_BOM)
    if not body.strip():
        raise InvalidInput("the body is empty; expected a JSON object")
    if _deeper_than(body, MAX_DEPTH):
        raise InvalidInput(f"the JSON is nested more than {MAX_DEPTH} levels deep")
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError as error:
        if b"NaN" in body or b"Infinity" in body:
            return _parse_with_tokens(body)
        raise InvalidInput(f"the body is not JSON: {error}") from None


def _parse_with_tokens(body: bytes) -> Any:
    """The standard library's parser, which knows NaN and the infinities, held to the same strictness."""
    try:
        value = json.loads(body.decode(), parse_float=_finite)
        # It also lets lone surrogates through, which are no Unicode text.
        json.dumps(value, ensure_ascii=False).encode()
    except ValueError as error:
        raise InvalidInput(f"the body is not JSON: {error}") from None
    return value


def _finite(digits: str) -> float:
    value = float(digits)
    if isinf(value):
        raise ValueError(f"the number {digits[:40]} is too large for a double")
    return value


def _deeper_than(body: bytes, limit: int) -> bool:
    """Whether arrays and objects are nested more than `limit` deep, up to the first mistake in the JSON.

    Passes at C speed over the whole body; parsers recurse, so this must be known before they begin.
    """
    if body.count(b"[") + body.count(b"{") <= limit:
        return False
    if b"\\" in body:
        # Escaped backslashes first: then a backslash before a quote escapes it.
        body = body.replace(rb"\\", b"").replace(rb"\"", b"")
    structure = np.frombuffer(body.translate(None, _NOT_STRUCTURE), np.uint8)
    # The count of quotes wraps; whether it is odd, inside a string, does not suffer.
    inside_string = np.cumsum(structure == ord('"'), dtype=np.uint8) & 1
    steps = _STEP[structure] * (1 - inside_string).astype(np.int8)
    return bool(np.cumsum(steps, dtype=np.int32).max(initial=0) > limit)
