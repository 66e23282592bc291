"""The ports of `up`: taking them, keeping them, looking whether something answers there."""

import asyncio
import socket
import ssl
from contextlib import suppress

LOOPBACK = "127.0.0.1"


def hold_port() -> socket.socket:
    """A socket bound to a free port of the loopback interface, which does not listen.

    As long as it is open the kernel gives the port to nobody who asks for any, but a server that asks for
    this one, with SO_REUSEADDR as tritonserver and nats-server do, gets it, after a restart too.
    """
    holder = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    holder.bind((LOOPBACK, 0))
    return holder


def port_of(bound: socket.socket) -> int:
    """The port that a socket is bound to."""
    port: int = bound.getsockname()[1]
    return port


def is_open(port: int, host: str = LOOPBACK) -> bool:
    """Whether something accepts connections on this port of `host`, an address of the loopback interface."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.settimeout(0.2)
        return probe.connect_ex((host, port)) == 0


def reachable(host: str) -> str:
    """The address under which a client on this machine finds a server that listens on `host`."""
    return {"0.0.0.0": LOOPBACK, "": LOOPBACK, "::": "::1"}.get(host, host)  # noqa: S104 # nosec B104


def http_url(host: str, port: int, tls: bool = False) -> str:
    """The URL for a client on this machine of a server that listens on `host`."""
    name, scheme = reachable(host), "https" if tls else "http"
    return f"{scheme}://[{name}]:{port}" if ":" in name else f"{scheme}://{name}:{port}"


async def http_status(
    host: str, port: int, path: str, timeout_s: float = 5.0, tls: ssl.SSLContext | None = None
) -> int | None:
    """The status that `GET path` answers with; None when nobody answers in time."""
    with suppress(OSError, TimeoutError, ValueError, IndexError):
        async with asyncio.timeout(timeout_s):
            reader, writer = await asyncio.open_connection(reachable(host), port, ssl=tls)
            try:
                writer.write(f"GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode())
                return int((await reader.readline()).split()[1])
            finally:
                writer.close()
    return None
