"""The addresses of several Tritons: a list of them, and names that DNS knows several addresses of."""

import asyncio
import socket
from typing import NamedTuple

import structlog

_log = structlog.get_logger()

DNS = "dns:///"


class Address(NamedTuple):
    """Where a Triton is."""

    target: str
    """`host:port`, for people too."""
    authority: str
    """What it is called in calls, and what its certificate must be for: the name that was looked up."""


class Names:
    """What `triton_grpc_url` names: `host:port` or `dns:///name:port`, or several, with commas between."""

    def __init__(self, urls: str) -> None:
        entries = [url.strip() for url in urls.split(",")]
        fixed = [Address(entry, entry) for entry in entries if not entry.startswith(DNS)]
        self._fixed = dict.fromkeys(fixed)
        self._found: dict[str, list[Address]] = {
            entry.removeprefix(DNS): [] for entry in entries if entry.startswith(DNS)
        }
        self._unknown: set[str] = set()
        """Names that could not be looked up the last time."""

    @property
    def change(self) -> bool:
        """Whether another look may find other addresses."""
        return bool(self._found)

    async def look_up(self) -> list[Address]:
        """All addresses now; a name that cannot be looked up keeps those that it had."""
        for name in self._found:
            try:
                self._found[name] = await _resolve(name)
                self._unknown.discard(name)
            except (OSError, UnicodeError) as error:
                if name not in self._unknown:
                    _log.warning("name not resolved", name=name, error=str(error))
                self._unknown.add(name)
        return list(self._fixed | {address: None for found in self._found.values() for address in found})


async def _resolve(name: str) -> list[Address]:
    """The addresses of `host:port`. Raises OSError.

    A machine may have an address in both families; so that it counts once, those of the family are taken that
    the system prefers.
    """
    host, _, port = name.rpartition(":")
    found = await asyncio.get_running_loop().getaddrinfo(host.strip("[]"), port, type=socket.SOCK_STREAM)
    hosts = [str(place[0]) for family, *_, place in found if family == found[0][0]]
    return [Address(f"[{host}]:{port}" if ":" in host else f"{host}:{port}", name) for host in hosts]
