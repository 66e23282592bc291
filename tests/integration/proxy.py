"""A TCP proxy that remembers what clients send, and stops passing it on when a test says so."""

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from adapter.sockets import listen


class Proxy:
    """Stands before a server on this machine.

    With `stop_before`, whatever a client sends from these bytes on does not reach the server; the connection
    stays open. With `bytes_per_s`, what the server sends comes no faster.
    """

    def __init__(
        self, target: tuple[str, int], stop_before: bytes = b"", bytes_per_s: float = float("inf")
    ) -> None:
        self.sent = bytearray()
        """What clients sent."""
        self.stopped = threading.Event()
        """Set once `stop_before` was about to be passed on."""
        self._flowing = threading.Event()
        self._flowing.set()
        self._target = target
        self._stop_before = stop_before
        self._bytes_per_s = bytes_per_s
        self._listener = listen("127.0.0.1", 0, "")
        self._open: list[socket.socket] = []
        self.address = f"127.0.0.1:{self._listener.getsockname()[1]}"

    @contextmanager
    def running(self) -> Iterator["Proxy"]:
        """Forward while inside."""
        accepting = threading.Thread(target=self._accept, daemon=True)
        accepting.start()
        try:
            yield self
        finally:
            for each in (self._listener, *self._open):
                with suppress(OSError):
                    each.shutdown(socket.SHUT_RDWR)
                each.close()
            accepting.join()

    @contextmanager
    def frozen(self) -> Iterator[None]:
        """While inside, nothing comes through, and no connection breaks.

        What was connected then stays mute afterwards, as if a router had forgotten it.
        """
        self._flowing.clear()
        try:
            yield
        finally:
            self._flowing = threading.Event()
            self._flowing.set()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                try:
                    server = socket.create_connection(self._target)
                except OSError:  # away for now
                    client.close()
                    continue
                self._open += [client, server]
                threading.Thread(target=self._there, args=(client, server), daemon=True).start()
                threading.Thread(target=self._back, args=(server, client), daemon=True).start()

    def _there(self, client: socket.socket, server: socket.socket) -> None:
        before = b""
        with suppress(OSError):
            while chunk := client.recv(65536):
                self.sent += chunk
                if self._stop_before:
                    # The bytes may have come in two parts, of which the first was passed on already.
                    at = (before + chunk).find(self._stop_before)
                    if at >= 0:
                        server.sendall(chunk[: max(0, at - len(before))])
                        self.stopped.set()
                        return
                    before = (before + chunk)[1 - len(self._stop_before) :]
                self._flowing.wait()
                server.sendall(chunk)
        _no_more(server)

    def _back(self, server: socket.socket, client: socket.socket) -> None:
        with suppress(OSError):
            while chunk := server.recv(65536):
                self._flowing.wait()
                time.sleep(len(chunk) / self._bytes_per_s)
                client.sendall(chunk)
        _no_more(client)


def _no_more(target: socket.socket) -> None:
    with suppress(OSError):
        target.shutdown(socket.SHUT_WR)
