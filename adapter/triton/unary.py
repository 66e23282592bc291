"""Unary gRPC calls over a connection that is made when it is needed, and made again when it broke."""

import asyncio

import grpc

from adapter.triton.calls import CallFailed, Metadata, NotSent, Parts
from adapter.triton.http2 import Connection

_CONNECT_S = 2.0
_FAIL_FAST_S = 0.1
"""After an attempt that failed, this long nobody tries again."""


class UnaryClient:
    """Calls to one server, at `host:port`, in plain text."""

    def __init__(self, address: str) -> None:
        self._address = address
        host, _, port = address.rpartition(":")
        self._host, self._port = host.strip("[]"), int(port)
        self._connection: Connection | None = None
        self._connecting: asyncio.Task[Connection] | None = None
        self._try_again = 0.0
        self._closed = False

    async def call(self, method: str, parts: Parts, timeout_s: float, metadata: Metadata = ()) -> memoryview:
        """A serialized message → the serialized answer, as `Connection.call`.

        A call that the server says it has not looked at is made once more on a new connection.
        """
        connection = self._connection
        if connection is None or not connection.open:
            connection = await self._connect(timeout_s)
        try:
            return await connection.call(method, parts, timeout_s, metadata)
        except NotSent:
            connection = await self._connect(timeout_s)
            return await connection.call(method, parts, timeout_s, metadata)

    async def _connect(self, timeout_s: float) -> Connection:
        """The open connection, or a new one, which all who come meanwhile wait for."""
        if self._connection is not None and self._connection.open:
            return self._connection
        if self._connecting is None:
            loop = asyncio.get_running_loop()
            if self._closed or loop.time() < self._try_again:
                raise NotSent(grpc.StatusCode.UNAVAILABLE, "there is no connection")
            self._connecting = loop.create_task(self._open(loop))
            # Whoever waited may be gone when it fails.
            self._connecting.add_done_callback(lambda task: task.cancelled() or task.exception())
        try:
            return await asyncio.wait_for(asyncio.shield(self._connecting), timeout_s)
        except TimeoutError:
            raise CallFailed(grpc.StatusCode.DEADLINE_EXCEEDED, "no connection in time") from None

    async def _open(self, loop: asyncio.AbstractEventLoop) -> Connection:
        try:
            async with asyncio.timeout(_CONNECT_S):
                _, connection = await loop.create_connection(
                    lambda: Connection(self._address, loop), self._host, self._port
                )
        except OSError as error:  # TimeoutError is one
            self._try_again = loop.time() + _FAIL_FAST_S
            raise NotSent(grpc.StatusCode.UNAVAILABLE, f"no connection: {error}") from error
        finally:
            self._connecting = None
        self._connection = connection
        if self._closed:
            connection.close()
        return connection

    async def close(self) -> None:
        """End the connection; calls in flight fail."""
        self._closed = True
        if self._connecting is not None:
            await asyncio.wait([self._connecting])
        if self._connection is not None:
            self._connection.close()
