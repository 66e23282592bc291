"""nats-py's client, mended where it would leave the adapter without NATS, or tell somebody too much."""

from base64 import b64encode

from nats.aio.client import Client, Srv
from nats.aio.transport import TcpTransport
from nats.errors import Error, SecureConnRequiredError, StaleConnectionError
from nats.protocol.parser import PERMISSIONS_ERR

from adapter.security.nats_access import NkeyLogin
from adapter.security.tls import TlsError


class NatsClient(Client):
    """A client that tells nothing to a server without TLS where TLS is asked for, and that never gives up.

    nats-py speaks plain text to a server that offers no TLS, or whose offer somebody took out on the way. It
    waits, perhaps for ever, until a silent server has taken what was written; here a connection that is given
    up ends at once, and what it had not sent is forgotten: the caller is told that it failed. And it closes
    for good when the server refuses something, as a login that has expired; here it connects anew.
    """

    def __init__(self, tls_only: bool, login: NkeyLogin | None) -> None:
        super().__init__()
        self._tls_only = tls_only
        self._login = login

    async def leave(self) -> None:
        """Give the connection up, and make another one."""
        await self._process_op_err(StaleConnectionError())

    def _connect_command(self) -> bytes:
        # The first thing that is sent, after the handshake if there was one.
        if self._tls_only and not self._server_info.get("tls_required"):
            raise SecureConnRequiredError
        if self._login is not None:
            try:
                pair, jwt = self._login.read()
            except TlsError as error:
                raise Error(str(error)) from None
            self._public_nkey = pair.public_key.decode()
            self._user_jwt_cb = (lambda: jwt) if jwt else None
            self._signature_cb = lambda nonce: b64encode(pair.sign(nonce.encode()))
        return super()._connect_command()

    async def _process_err(self, err_msg: str) -> None:
        if PERMISSIONS_ERR in err_msg:
            await super()._process_err(err_msg)
            return
        error = Error(f"nats: {err_msg}")
        await self._error_cb(error)
        await self._process_op_err(error)

    async def _process_op_err(self, e: Exception) -> None:
        # Whatever is wrong with a connection comes by here.
        if not self.is_closed and not self.is_reconnecting:
            self._abort()
            self._pending.clear()
            self._pending_data_size = 0
        await super()._process_op_err(e)

    async def _connect_to_server(self, s: Srv) -> None:
        # An attempt that came to nothing left its socket open.
        self._abort()
        await super()._connect_to_server(s)

    def _abort(self) -> None:
        if isinstance(self._transport, TcpTransport) and (writer := self._transport._io_writer):
            writer.transport.abort()
