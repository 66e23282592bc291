"""Request bodies: bytes with a limit, then JSON with RFC 8259's strictness and a few named allowances."""

import json
from collections.abc import Callable
from math import isinf
from tempfile import SpooledTemporaryFile
from typing import Any

import numpy as np
import orjson
from starlette.requests import ClientDisconnect
from starlette.types import Receive, Scope

from adapter.core.errors import InvalidInput, PayloadTooLarge, UnsupportedEncoding

MAX_DEPTH = 64
MAX_CONTAINERS = 1_000_000
"""Arrays and objects: each takes fifty times its two bytes once it is parsed."""
MAX_ELEMENTS = 20_000_000
BODY_INTO = "adapter.body_into"
"""An extension of ASGI, a function: the whole body will come with the next message, in the view it is given.

It returns False where that cannot be.
"""
LARGE = 1 << 18
"""JSON of so many bytes is read and written off the event loop."""
_MOST_IN_MEMORY = 4 << 20
_PIECE = 1 << 20
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
    return await _read(receive, _announced_size(scope, limit), limit)


async def _read(receive: Receive, announced: int | None, limit: int) -> bytes:
    chunk: bytes
    chunk, more = await _next_piece(receive)
    if not more and len(chunk) <= limit:
        return chunk
    size = len(chunk)
    if announced is not None:
        pieces = [chunk]
        while more and size <= limit:
            chunk, more = await _next_piece(receive)
            size += len(chunk)
            pieces.append(chunk)
        if size > limit:
            raise _too_large(limit)
        return b"".join(pieces)
    # Of a body without a size nobody knows how long it gets; what is over the limit never fills the memory.
    with SpooledTemporaryFile(max_size=_MOST_IN_MEMORY) as file:
        file.write(chunk)
        while more and size <= limit:
            chunk, more = await _next_piece(receive)
            size += len(chunk)
            file.write(chunk)
        if size > limit:
            raise _too_large(limit)
        file.seek(0)
        return file.read()


async def read_body_into(
    scope: Scope, receive: Receive, limit: int, memory: Callable[[int], memoryview]
) -> bytes | memoryview:
    """The same, a large one in the `memory` for so many bytes, where the server can read into it."""
    size = _announced_size(scope, limit)
    put_into = scope.get("extensions", {}).get(BODY_INTO)
    if size is None or size < LARGE or put_into is None or not put_into(memory(size)):
        return await _read(receive, size, limit)
    body: bytes | memoryview
    body, _ = await _next_piece(receive)
    return body


def _announced_size(scope: Scope, limit: int) -> int | None:
    size = None
    for name, value in scope["headers"]:
        if name == b"content-length":
            size = int(value) if value.isdigit() else None
        elif name == b"content-encoding" and value.strip().lower() not in (b"identity", b""):
            encoding = value.decode("latin-1").strip().lower()[:40]
            raise UnsupportedEncoding(
                f"Content-Encoding {encoding!r} is not supported; send the body as it is"
            )
    if size is not None and size > limit:
        raise _too_large(limit)
    return size


async def _next_piece(receive: Receive) -> tuple[Any, bool]:
    """A piece of the body, bytes or a view of where they were to lie, and whether more will come."""
    message = await receive()
    if message["type"] == "http.disconnect":
        raise ClientDisconnect
    return message.get("body", b""), message.get("more_body", False)


def _too_large(limit: int) -> PayloadTooLarge:
    return PayloadTooLarge(f"the body is larger than {limit} bytes")


def parse_json(body: bytes) -> Any:
    """A JSON document in UTF-8. Raises InvalidInput with the place of the mistake.

    Beyond RFC 8259: a byte order mark is skipped, and the bare tokens NaN, Infinity and -Infinity are
    numbers. Of duplicate keys the last one wins. More than 64 levels deep is refused. Raises PayloadTooLarge
    for more arrays, objects and values than one request may fill the memory with.
    """
    body = body.removeprefix(_BOM)
    if not body.strip():
        raise InvalidInput("the body is empty; expected a JSON object")
    _check_structure(body)
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


def _check_structure(body: bytes) -> None:
    """Raise before a parser makes far more of a body than it is: parsers recurse, and keep every element."""
    containers = body.count(b"[") + body.count(b"{")
    if containers > MAX_CONTAINERS or containers + body.count(b",") > MAX_ELEMENTS:
        raise PayloadTooLarge(
            f"the JSON holds more than {MAX_CONTAINERS} arrays and objects, or too many values"
        )
    if containers > MAX_DEPTH and _deeper_than(body, MAX_DEPTH):
        raise InvalidInput(f"the JSON is nested more than {MAX_DEPTH} levels deep")


def _deeper_than(body: bytes, limit: int) -> bool:
    """Whether arrays and objects are nested more than `limit` deep, up to the first mistake in the JSON.

    Passes at C speed over the body, piece by piece, so that it needs little memory beside it.
    """
    depth, inside, start = 0, 0, 0
    while start < len(body):
        end = min(start + _PIECE, len(body))
        while end < len(body) and body[end - 1] == ord("\\"):
            # What is escaped stays with its backslash.
            end += 1
        piece = body[start:end]
        if b"\\" in piece:
            # Escaped backslashes first: then a backslash before a quote escapes it.
            piece = piece.replace(rb"\\", b"").replace(rb"\"", b"")
        structure = np.frombuffer(piece.translate(None, _NOT_STRUCTURE), np.uint8)
        if structure.size:
            # The count of quotes wraps; whether it is odd, inside a string, does not suffer.
            quotes = np.cumsum(structure == ord('"'), dtype=np.uint8) + np.uint8(inside)
            steps = _STEP[structure] * (1 - (quotes & 1)).astype(np.int8)
            depths = np.cumsum(steps, dtype=np.int32) + depth
            if depths.max() > limit:
                return True
            depth, inside = int(depths[-1]), int(quotes[-1]) & 1
        start = end
    return False
