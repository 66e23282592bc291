"""The keys of the issuer of access tokens: found by discovery, fetched without holding up the loop, rotated.

RFC 8414 and OpenID Connect Discovery for the document, RFC 7517 for the keys.
"""

import asyncio
import ssl
import time
from contextlib import suppress
from typing import Any
from urllib.parse import urlsplit

import httpx
import jwt
import orjson
import structlog
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey

from adapter.core.errors import InvalidCredentials, Unavailable
from adapter.security.tls import TlsError, is_loopback

_log = structlog.get_logger()

_FRESH_S = 300.0
"""Keys that are older are fetched again, in the background, when a token comes."""
_UNKNOWN_EVERY_S = 30.0
"""How often a key id that nobody knows may cause a fetch."""
_RETRY_S = 5.0
_TIMEOUT_S = 5.0
_MOST_BYTES = 1 << 20
_LEAST_RSA_BITS = 2048
_KINDS = {"RS256": "RSA", "ES256": "EC", "EdDSA": "OKP"}
_CURVES = {"ES256": "P-256", "EdDSA": "Ed25519"}
_UNUSABLE = (
    *(httpx.HTTPError, httpx.InvalidURL, TimeoutError),
    *(ValueError, KeyError, TypeError, AttributeError),
)
"""What comes of an issuer that does not answer, and of documents that are not what they should be."""


class IssuerKeys:
    """The issuer's signing keys by id. They are kept through an outage of the issuer for `max_age_s`.

    Raises TlsError for an issuer that would be asked in plain text over the network.
    """

    def __init__(self, issuer: str, max_age_s: float) -> None:
        self._issuer = issuer
        self._max_age_s = max_age_s
        self._keys: list[dict[str, Any]] = []
        self._fetched = -max_age_s
        self._next_try = 0.0
        self._next_for_unknown = 0.0
        self._version = 0
        self._fetching: asyncio.Task[None] | None = None
        try:
            _check_url(issuer)
        except ValueError as error:
            raise TlsError(f"ADAPTER_OAUTH_ISSUER: {error}") from None

    def version(self) -> int:
        """Another number whenever the keys are others; 0 while there are none. Has old ones fetched."""
        self._refresh()
        return self._version if self._current() else 0

    async def find(self, key_id: str, algorithm: str) -> jwt.PyJWK:
        """The key with this id for this algorithm; without an id the issuer's only one for it.

        Raises InvalidCredentials when there is none, Unavailable while the issuer's keys cannot be had.
        """
        now = time.monotonic()
        if not self._current():
            await self._fetch()
        self._refresh()
        if not self._current():
            raise Unavailable("the token's issuer cannot be reached")
        found = self._suitable(key_id, algorithm)
        if found is None and (self._fetching or now >= self._next_for_unknown):
            # It may be a new one. Made-up ids do not make us ask more often than this.
            if self._fetching is None:
                self._next_for_unknown = now + _UNKNOWN_EVERY_S
            await self._fetch()
            found = self._suitable(key_id, algorithm)
        if found is None:
            raise InvalidCredentials("the token's key is not one of the issuer's")
        return found

    async def close(self) -> None:
        """Stop what runs in the background."""
        if self._fetching is not None:
            self._fetching.cancel()
            with suppress(asyncio.CancelledError):
                await self._fetching

    def _refresh(self) -> None:
        """Begin to fetch the keys anew when they are no longer fresh, whoever asks."""
        now = time.monotonic()
        if self._keys and now - self._fetched > _FRESH_S and now >= self._next_try:
            self._start_fetch()

    def _current(self) -> list[dict[str, Any]]:
        return self._keys if time.monotonic() - self._fetched < self._max_age_s else []

    def _suitable(self, key_id: str, algorithm: str) -> jwt.PyJWK | None:
        fitting = [
            key
            for key in self._current()
            if key.get("kty") == _KINDS[algorithm]
            and key.get("use", "sig") == "sig"
            and key.get("alg", algorithm) == algorithm
            and key.get("crv") == _CURVES.get(algorithm)
            and (key.get("kid") == key_id or not key_id)
        ]
        # Keys of several kinds may have one id, and one key may be listed twice (RFC 7517, 4.5).
        if not fitting or any(key != fitting[0] for key in fitting):
            return None
        try:
            key = jwt.PyJWK(fitting[0], algorithm)
        except jwt.PyJWTError:
            return None
        weak = isinstance(key.key, RSAPublicKey) and key.key.key_size < _LEAST_RSA_BITS
        return None if weak else key

    async def _fetch(self) -> None:
        """Fetch, or wait for the fetch that runs: however many ask, one request goes out."""
        if self._fetching is not None or time.monotonic() >= self._next_try:
            await asyncio.shield(self._start_fetch())

    def _start_fetch(self) -> asyncio.Task[None]:
        if self._fetching is None:
            self._fetching = asyncio.create_task(self._load())
        return self._fetching

    async def _load(self) -> None:
        try:
            document = await _get(f"{self._issuer.rstrip('/')}/.well-known/openid-configuration")
            # RFC 8414, 3.3: it must be about the issuer that was asked.
            if document.get("issuer") != self._issuer:
                raise ValueError(f"the document is about {str(document.get('issuer'))[:200]!r}")
            _check_url(document["jwks_uri"])
            listed = (await _get(document["jwks_uri"]))["keys"]
            keys = [key for key in listed if isinstance(key, dict)]
            if keys != self._keys:
                self._keys = keys
                self._version += 1
            if not keys:
                raise ValueError("it lists no keys")
            self._fetched = time.monotonic()
            _log.info("issuer's keys fetched", issuer=self._issuer, keys=[key.get("kid") for key in keys])
        except _UNUSABLE as error:
            self._next_try = time.monotonic() + _RETRY_S
            _log.warning("issuer's keys not fetched", issuer=self._issuer, reason=repr(error)[:500])
        finally:
            self._fetching = None


async def _get(url: str) -> dict[str, Any]:
    """A JSON object; redirects are not followed. Raises httpx.HTTPError, ValueError."""
    async with (
        asyncio.timeout(2 * _TIMEOUT_S),
        httpx.AsyncClient(timeout=_TIMEOUT_S, verify=ssl.create_default_context()) as client,
        client.stream("GET", url, headers={"Accept": "application/json"}) as response,
    ):
        if response.status_code != httpx.codes.OK:
            raise ValueError(f"{url} answered {response.status_code}")
        content = b""
        async for chunk in response.aiter_bytes():
            content += chunk
            if len(content) > _MOST_BYTES:
                raise ValueError(f"{url} answered with more than {_MOST_BYTES} bytes")
    document = orjson.loads(content)
    if not isinstance(document, dict):
        raise ValueError(f"{url} answered with no JSON object")
    return document


def _check_url(url: str) -> None:
    """Raise ValueError for keys that would come in plain text from another machine."""
    parts = urlsplit(url)
    if parts.scheme != "https" and not (parts.scheme == "http" and is_loopback(parts.hostname or "")):
        raise ValueError(f"{url} is not https")
