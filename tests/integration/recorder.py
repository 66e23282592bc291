"""A TCP proxy that remembers every byte that goes through it."""

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from adapter.sockets import listen


class Recorder:
    """Stands before a server on this machine."""

    def __init__(self, target: tuple[str, int]) -> None:
        self.sent = bytearray()
        """What clients sent."""
        self._target = target
        self._listener = listen("127.0.0.1", 0, "")
        self._open: list[socket.socket] = []
        self.address = f"127.0.0.1:{self._listener.getsockname()[1]}"

    @contextmanager
    def running(self) -> Iterator["Recorder"]:
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

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                server = socket.create_connection(self._target)
                self._open += [client, server]
                threading.Thread(target=self._copy, args=(client, server, self.sent), daemon=True).start()
                threading.Thread(target=self._copy, args=(server, client, bytearray()), daemon=True).start()

    def _copy(self, source: socket.socket, target: socket.socket, record: bytearray) -> None:
        with suppress(OSError):
            while chunk := source.recv(65536):
                record += chunk
                target.sendall(chunk)
        with suppress(OSError):
            target.shutdown(socket.SHUT_WR)
