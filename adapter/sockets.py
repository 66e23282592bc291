"""Listening sockets."""

import errno
import socket

BACKLOG = 2048


class ListenError(Exception):
    """An address cannot be listened on; one line says why, and what to do."""


def listen(host: str, port: int, option: str) -> socket.socket:
    """A socket that listens on `host`; `port` 0 takes a free one.

    Raises ListenError, which names `option` as the way out when the port is in use.
    """
    try:
        family, _, _, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listener = socket.socket(family, socket.SOCK_STREAM)
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(address)
            # Requests that come before the server is up wait instead of being refused.
            listener.listen(BACKLOG)
        except OSError:
            listener.close()
            raise
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise ListenError(f"port {port} on {host} is in use; choose another with {option}") from error
        raise ListenError(f"cannot listen on {host}, port {port}: {error.strerror}") from error
    return listener
