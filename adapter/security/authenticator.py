"""A credential is an API key or an access token; which one, its form tells."""

from adapter.core.errors import ExpiredCredentials, InvalidCredentials
from adapter.core.metrics import Metrics
from adapter.core.types import Client
from adapter.security.keys import PREFIX, KeyStore
from adapter.security.oauth import TokenVerifier


class Credentials:
    """`adapter.core.ports.Authenticator` of both kinds; without an issuer of keys alone."""

    def __init__(self, keys: KeyStore, tokens: TokenVerifier | None, metrics: Metrics) -> None:
        self._keys = keys
        self._tokens = tokens
        self._metrics = metrics

    async def authenticate(self, credential: str) -> Client:
        """See `Authenticator.authenticate`."""
        method, outcome = "key" if credential.startswith(PREFIX) else "token", "unavailable"
        try:
            client = await self._client(method, credential)
            outcome = "ok"
            return client
        except ExpiredCredentials:
            outcome = "expired"
            raise
        except InvalidCredentials:
            outcome = "invalid"
            raise
        finally:
            self._metrics.authentications.labels(method, outcome).inc()

    async def _client(self, method: str, credential: str) -> Client:
        if method == "key":
            return self._keys.authenticate(credential)
        if self._tokens is not None:
            return await self._tokens.verify(credential)
        raise InvalidCredentials("the API key is not known, or not valid any more")
