"""Tokens of a real provider, verified: what tests of tokens and of issuers share."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from adapter.core.errors import InvalidCredentials
from adapter.security.issuer import IssuerKeys
from adapter.security.oauth import TokenVerifier
from adapter.settings import Settings
from tests.security.oidc import AUDIENCE, Provider, make_key

ALGORITHMS = ("RS256", "ES256", "EdDSA")
KEYS = {algorithm: make_key(algorithm) for algorithm in ALGORITHMS}


def with_verifier(provider: Provider, use: Callable[[TokenVerifier], Awaitable[Any]], **settings: Any) -> Any:
    """Run `use` with a verifier of the provider's tokens."""

    async def run() -> Any:
        chosen = Settings(oauth_issuer=provider.url, oauth_audience=AUDIENCE, **settings)
        keys = IssuerKeys(provider.url, chosen.oauth_keys_max_age_s)
        try:
            return await use(TokenVerifier(chosen, keys))
        finally:
            await keys.close()

    return asyncio.run(run())


def refusal(provider: Provider, token: str, **settings: Any) -> str:
    """Why a token is refused."""
    with pytest.raises(InvalidCredentials) as caught:
        with_verifier(provider, lambda verifier: verifier.verify(token), **settings)
    assert token not in caught.value.message
    return caught.value.message


async def fetched(verifier: TokenVerifier) -> None:
    """Return once the issuer's keys are not being fetched any more."""
    async with asyncio.timeout(10):
        while verifier._keys._fetching:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
