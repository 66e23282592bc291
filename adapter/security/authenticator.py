"""A credential is an API key or an access token; which one, its form tells."""

from adapter.core.errors import InvalidCredentials
from adapter.core.types import Client
from adapter.security.keys import PREFIX, KeyStore
from adapter.security.oauth import TokenVerifier


class Credentials:
    """`adapter.core.ports.Authenticator` of both kinds; without an issuer of keys alone."""

    def __init__(self, keys: KeyStore, tokens: TokenVerifier | None) -> None:
        self._keys = keys
        self._tokens = tokens

    async def authenticate(self, credential: str) -> Client:
        """See `Authenticator.authenticate`."""
        if credential.startswith(PREFIX):
            return self._keys.authenticate(credential)
        if self._tokens is not None:
            return await self._tokens.verify(credential)
        raise InvalidCredentials("the API key is not known, or not valid any more")
