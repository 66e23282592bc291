"""Reads the rest of a large body from the socket to where it is to lie.

The common way copies a body into the bytes that the event loop hands on, again into those that uvicorn's
parser hands on, and once more into one piece. Here the kernel's copy is the only one.
"""

import asyncio
from collections.abc import Callable
from typing import cast


class Intake(asyncio.BufferedProtocol):
    """Stands in for a connection's `protocol` until `place` is full.

    `took` is told the number of bytes each time, and whether they were the last.
    """

    def __init__(
        self, protocol: asyncio.Protocol, place: memoryview, took: Callable[[int, bool], None]
    ) -> None:
        self._protocol = protocol
        self._place = place
        self._took = took

    def get_buffer(self, sizehint: int) -> bytearray:
        """What of the place is not filled."""
        return cast(bytearray, self._place)

    def buffer_updated(self, nbytes: int) -> None:
        """So many bytes of it are."""
        # The last part of the place must not be kept by who keeps this.
        self._place = self._place[nbytes:] or memoryview(b"")
        self._took(nbytes, not self._place)

    def connection_lost(self, exc: Exception | None) -> None:
        """The client hung up in the middle, or was hung up on."""
        self._protocol.connection_lost(exc)

    def pause_writing(self) -> None:
        """Something was answered that the client does not take."""
        self._protocol.pause_writing()

    def resume_writing(self) -> None:
        """It does again."""
        self._protocol.resume_writing()
