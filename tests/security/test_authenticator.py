"""Credentials of both kinds, and what each was worth."""

import asyncio
import time
from pathlib import Path
from typing import cast

import pytest

from adapter.core.errors import AdapterError, ExpiredCredentials, InvalidCredentials, Unavailable
from adapter.core.metrics import Metrics
from adapter.core.types import Client
from adapter.security.authenticator import Credentials
from adapter.security.keys import KeyStore
from adapter.security.oauth import TokenVerifier


class Tokens:
    """A verifier to which a token is what becomes of it."""

    async def verify(self, token: str) -> Client:
        error = {
            "expired": ExpiredCredentials("over"),
            "forged": InvalidCredentials("forged"),
            "unknown": Unavailable("the issuer is away"),
        }.get(token)
        if error:
            raise error
        return Client(f"oauth:{token}", frozenset())


def test_what_each_credential_was_worth_is_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    keys, metrics = KeyStore(tmp_path / "keys.json"), Metrics()
    good = keys.create("alice", ["read"]).key
    short = keys.create("bob", ["read"], expires=time.time() + 60).key
    credentials = Credentials(keys, cast(TokenVerifier, Tokens()), metrics)

    async def outcome(credential: str) -> str:
        try:
            return (await credentials.authenticate(credential)).id
        except AdapterError as error:
            return type(error).__name__

    async def all_of(*given: str) -> list[str]:
        return [await outcome(credential) for credential in given]

    assert asyncio.run(all_of(good, short)) == ["alice", "bob"]
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now + 61)
    forged = good[:-3] + "xxx"
    assert asyncio.run(all_of(good, short, forged, "me", "expired", "forged", "unknown")) == [
        "alice",
        "ExpiredCredentials",
        "InvalidCredentials",
        "oauth:me",
        "ExpiredCredentials",
        "InvalidCredentials",
        "Unavailable",
    ]
    counted = {values: series.value for values, series in metrics.authentications.series.items()}
    assert {values: value for values, value in counted.items() if value} == {
        ("key", "ok"): 3,
        ("key", "expired"): 1,
        ("key", "invalid"): 1,
        ("token", "ok"): 1,
        ("token", "expired"): 1,
        ("token", "invalid"): 1,
        ("token", "unavailable"): 1,
    }
