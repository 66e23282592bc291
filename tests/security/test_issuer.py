"""Issuers that are not there, slow, or wrong, and what they say of their keys."""

import asyncio
import json
from functools import partial
from typing import Any

import jwt
import pytest

from adapter.core.errors import Unavailable
from adapter.security import issuer as issuer_module
from adapter.security.issuer import IssuerKeys
from adapter.security.oauth import TokenVerifier
from adapter.security.tls import TlsError
from tests.security.oidc import Provider, make_key, public_jwk
from tests.security.verifying import ALGORITHMS, KEYS, fetched, refusal, with_verifier


@pytest.mark.parametrize("fault", ["broken", "other issuer"])
def test_an_issuer_that_is_not_there_is_asked_now_and_then(provider: Provider, fault: str) -> None:
    if fault == "broken":
        provider.broken = True
    else:
        provider.issuer_says = "https://evil.example"

    async def use(verifier: TokenVerifier) -> None:
        for n in range(20):
            with pytest.raises(Unavailable):
                await verifier.verify(provider.token("ES256", sub=str(n)))
        assert len(provider.fetches) == 1

    with_verifier(provider, use)


DISCOVERY, KEYS_PATH = "/.well-known/openid-configuration", "/keys"
FOUND = {"Location": "/moved"}


@pytest.mark.parametrize(
    ("path", "status", "headers", "document"),
    [
        (DISCOVERY, 302, FOUND, None),
        (KEYS_PATH, 307, FOUND, None),
        (DISCOVERY, 200, {}, {"jwks_uri": "http://issuer.example/keys"}),
        (DISCOVERY, 200, {}, {"jwks_uri": "file:///etc/passwd"}),
        (DISCOVERY, 200, {}, {"jwks_uri": "http://127.0.0.1:1:2/keys"}),
        (DISCOVERY, 200, {}, {"jwks_uri": 7}),
        (KEYS_PATH, 200, {}, []),
        (KEYS_PATH, 200, {}, {}),
        (KEYS_PATH, 200, {}, {"keys": 7}),
        (KEYS_PATH, 200, {}, {"keys": []}),
        (KEYS_PATH, 200, {}, {"keys": ["none"]}),
        (KEYS_PATH, 200, {}, {"keys": [], "more": "x" * (1 << 20)}),
        (KEYS_PATH, 200, {"Content-Encoding": "gzip"}, {"keys": []}),
    ],
)
def test_an_issuer_that_answers_nonsense_is_as_one_that_is_not_there(
    provider: Provider, path: str, status: int, headers: dict[str, str], document: Any
) -> None:
    if path == DISCOVERY and document:
        document = {"issuer": provider.url, **document}
    # Where it is redirected to, all is well.
    provider.instead["/moved"] = 200, {}, json.dumps(provider.answer(path)).encode()
    provider.instead[path] = status, headers, json.dumps(document).encode()

    async def use(verifier: TokenVerifier) -> None:
        for n in range(20):
            with pytest.raises(Unavailable, match="the token's issuer cannot be reached"):
                await verifier.verify(provider.token("ES256", sub=str(n)))
        assert provider.fetches in ([DISCOVERY], [DISCOVERY, KEYS_PATH])

    with_verifier(provider, use)


def test_an_issuer_that_takes_all_its_keys_back_is_believed(
    provider: Provider, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def use(verifier: TokenVerifier) -> None:
        token = provider.token("ES256")
        await verifier.verify(token)
        provider.instead[KEYS_PATH] = 200, {}, b'{"keys": []}'
        with monkeypatch.context() as patch:
            patch.setattr(issuer_module, "_FRESH_S", -1.0)
            await verifier.verify(token)
        await fetched(verifier)
        with pytest.raises(Unavailable):
            await verifier.verify(token)

    with_verifier(provider, use)


def test_keys_need_no_ids_of_their_own(provider: Provider) -> None:
    listed = [public_jwk(KEYS[algorithm]) for algorithm in ALGORITHMS]
    # One of them twice, and one that is for something else.
    listed += [listed[0], {**public_jwk(make_key("RS256")), "use": "enc"}]
    for same in ({}, {"kid": "same"}):
        document = {"keys": [{**key, **same} for key in listed]}
        provider.instead[KEYS_PATH] = 200, {}, json.dumps(document).encode()
        for algorithm in ALGORITHMS:
            token = jwt.encode(provider.claims(), KEYS[algorithm], algorithm=algorithm, headers=same)
            assert with_verifier(provider, partial(TokenVerifier.verify, token=token)).id == "oauth:alice"


def test_two_keys_of_a_kind_with_one_id_are_none(provider: Provider) -> None:
    keys = [{**public_jwk(key), "kid": "same"} for key in (KEYS["RS256"], make_key("RS256"))]
    provider.instead[KEYS_PATH] = 200, {}, json.dumps({"keys": keys}).encode()
    token = jwt.encode(provider.claims(), KEYS["RS256"], algorithm="RS256", headers={"kid": "same"})
    assert refusal(provider, token) == "the token's key is not one of the issuer's"


@pytest.mark.parametrize(
    "wrong", [{"x": 7}, {"x": "A"}, {"x": "A" * 43}, {"y": None}, {"crv": "P-384"}, {"kty": "RSA"}]
)
def test_a_key_that_is_none_is_not_used(provider: Provider, wrong: dict[str, Any]) -> None:
    key = {**public_jwk(KEYS["ES256"]), "kid": "ES256", **wrong}
    provider.instead[KEYS_PATH] = 200, {}, json.dumps({"keys": [key]}).encode()
    assert refusal(provider, provider.token("ES256")) == "the token's key is not one of the issuer's"


def test_who_is_known_does_not_wait_for_a_slow_issuer(provider: Provider) -> None:
    async def use(verifier: TokenVerifier) -> None:
        known = provider.token("ES256")
        await verifier.verify(known)
        provider.add_key("next", "ES256")
        provider.goes_on.clear()
        waiting = asyncio.create_task(verifier.verify(provider.token("next", sub="bob")))
        async with asyncio.timeout(10):
            while len(provider.fetches) < 3:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        assert (await verifier.verify(known)).id == "oauth:alice"
        assert (await verifier.verify(provider.token("RS256", sub="carol"))).id == "oauth:carol"
        assert not waiting.done()
        provider.goes_on.set()
        assert (await waiting).id == "oauth:bob"

    with_verifier(provider, use)


def test_an_issuer_in_plain_text_over_the_network_is_refused() -> None:
    with pytest.raises(TlsError, match=r"ADAPTER_OAUTH_ISSUER: http://issuer\.example is not https"):
        IssuerKeys("http://issuer.example", 60)
