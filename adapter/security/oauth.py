"""OAuth2 access tokens: JWTs of one external issuer (RFC 7519, RFC 9068, RFC 8725).

A token that was verified is remembered by its digest until it expires or its key goes, so that a client pays
for a signature once and not with every request.
"""

import time
from collections import OrderedDict
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any

import jwt

from adapter.core.errors import ExpiredCredentials, InvalidCredentials
from adapter.core.types import Client
from adapter.security.issuer import IssuerKeys
from adapter.settings import Settings

SCOPES = frozenset({"infer", "read", "admin"})
MOST_BYTES = 8192
_MOST_REMEMBERED = 10_000
_SKEW_S = 5
"""How far the issuer's clock may be ahead of ours."""
_FOREIGN_KEYS = frozenset({"jku", "jwk", "x5u", "x5c"})
"""Header members by which a token would bring its own key."""


@dataclass(frozen=True, slots=True)
class _Verified:
    client: Client
    expires: float
    keys_version: int


class TokenVerifier:
    """Tells whose token it is. `keys` are the issuer's."""

    def __init__(self, settings: Settings, keys: IssuerKeys) -> None:
        self._issuer = settings.oauth_issuer
        self._audience = settings.oauth_audience
        self._algorithms = {name.strip() for name in settings.oauth_algorithms.split(",")}
        self._keys = keys
        self._verified: OrderedDict[bytes, _Verified] = OrderedDict()

    async def verify(self, token: str) -> Client:
        """The client that a token stands for, with the scopes of its `scope` (or `scp`) claim.

        Raises InvalidCredentials, and Unavailable while the issuer's keys cannot be had.
        """
        if len(token) > MOST_BYTES:
            raise InvalidCredentials("the token is too long")
        digest = blake2b(token.encode("utf-8", "replace"), digest_size=32).digest()
        known = self._verified.get(digest)
        if known is not None:
            if known.expires > time.time() and known.keys_version == self._keys.version():
                self._verified.move_to_end(digest)
                return known.client
            del self._verified[digest]
        verified = await self._check(token)
        self._verified[digest] = verified
        if len(self._verified) > _MOST_REMEMBERED:
            self._verified.popitem(last=False)
        return verified.client

    async def _check(self, token: str) -> _Verified:
        try:
            header = jwt.get_unverified_header(token)
        except (jwt.PyJWTError, ValueError):
            raise InvalidCredentials("neither an API key nor a JWT") from None
        algorithm, key_id = header.get("alg"), header.get("kid", "")
        if not isinstance(algorithm, str) or algorithm not in self._algorithms:
            raise InvalidCredentials("the token's algorithm is not accepted")
        if "crit" in header:  # RFC 7515, 4.1.11: what is not understood is refused, and we understand none
            raise InvalidCredentials("the token's crit header is not understood")
        if _FOREIGN_KEYS & header.keys() or not isinstance(key_id, str):
            raise InvalidCredentials("a token may not bring its own key")
        key = await self._keys.find(key_id, algorithm)
        try:
            claims = jwt.decode(
                token,
                key.key,
                algorithms=[algorithm],
                audience=self._audience,
                issuer=self._issuer,
                leeway=_SKEW_S,
                options={"require": ["exp", "iss", "aud", "sub"]},
            )
            return _Verified(_client(claims), _expiry(claims), self._keys.version())
        except (jwt.PyJWTError, ValueError, ArithmeticError, TypeError) as error:
            # Beside its own errors the library lets those of odd numbers through (an infinite exp).
            expired = isinstance(error, jwt.ExpiredSignatureError)
            kind = ExpiredCredentials if expired else InvalidCredentials
            raise kind(f"the token is not valid: {_reason(error)}") from None


def _reason(error: Exception) -> str:
    """In our words: the library's may quote the token."""
    reasons: dict[type[Exception], str] = {
        jwt.ExpiredSignatureError: "it has expired",
        jwt.ImmatureSignatureError: "it is not valid yet",
        jwt.InvalidIssuedAtError: "its iat is not a time",
        jwt.InvalidAudienceError: "its audience is another one",
        jwt.InvalidIssuerError: "its issuer is another one",
        jwt.InvalidSignatureError: "its signature does not fit",
        jwt.MissingRequiredClaimError: "a claim of iss, aud, sub, exp is missing",
    }
    return next((text for kind, text in reasons.items() if isinstance(error, kind)), "it is malformed")


def _expiry(claims: dict[str, Any]) -> float:
    expires = float(claims["exp"])
    # The leeway is for clocks that run ahead; a token that has expired has expired.
    if expires <= time.time():
        raise ExpiredCredentials("the token is not valid: it has expired")
    return expires


def _client(claims: dict[str, Any]) -> Client:
    subject = claims["sub"]
    # JSON lets half a surrogate pair through, which nothing can write.
    if not subject or len(subject) > 256 or any("\ud800" <= sign <= "\udfff" for sign in subject):
        raise InvalidCredentials("the token's sub names nobody")
    scopes = claims.get("scope", claims.get("scp", ""))
    names = scopes.split() if isinstance(scopes, str) else scopes if isinstance(scopes, list) else ()
    # The colon keeps subjects apart from the names of keys, which hold none.
    return Client(f"oauth:{subject}", SCOPES & {name for name in names if isinstance(name, str)})
