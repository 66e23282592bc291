"""A small HTTP client on raw connections: quick enough to load a server, and free to misbehave."""

import asyncio
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self
from urllib.parse import urlsplit

_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)


@dataclass(frozen=True)
class Answer:
    """A status, the head as it came, the body."""

    status: int
    head: bytes
    body: bytes

    def has(self, header: str) -> bool:
        """Whether a header is there."""
        return f"\r\n{header}:".lower().encode() in self.head.lower()


class Connection:
    """One connection, kept alive; every answer must tell its length."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    @classmethod
    async def open(cls, url: str) -> Self:
        """Connect to the server of a URL."""
        place = urlsplit(url)
        return cls(*await asyncio.open_connection(place.hostname, place.port))

    async def ask(self, request: bytes) -> Answer:
        """Send a request, wait for its answer. Raises OSError or IncompleteReadError when it is cut off."""
        self.writer.write(request)
        head = await self.reader.readuntil(b"\r\n\r\n")
        length = _LENGTH.search(head)
        body = await self.reader.readexactly(int(length[1]) if length else 0)
        return Answer(int(head[9:12]), head, body)

    def abort(self) -> None:
        """Hang up without a word."""
        self.writer.transport.abort()


def post(url: str, headers: Mapping[str, str], body: bytes) -> bytes:
    """A POST as it goes over the wire."""
    place = urlsplit(url)
    lines = [f"POST {place.path} HTTP/1.1", f"Host: {place.netloc}", "Content-Type: application/json"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    lines += [f"Content-Length: {len(body)}", "", ""]
    return "\r\n".join(lines).encode() + body
