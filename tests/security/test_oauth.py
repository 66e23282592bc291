"""Access tokens of a real provider over HTTP: the good ones, and every forgery we know of."""

import asyncio
import hmac
import time
from hashlib import sha256
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given
from hypothesis import strategies as st

from adapter.core.errors import InvalidCredentials, Unavailable
from adapter.core.types import Client
from adapter.security import issuer as issuer_module
from adapter.security.issuer import IssuerKeys
from adapter.security.oauth import TokenVerifier
from adapter.settings import Settings
from tests.security.oidc import AUDIENCE, Provider, b64, make_key, public_jwk
from tests.security.verifying import ALGORITHMS, refusal, with_verifier


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_a_good_token_names_its_client_and_scopes(provider: Provider, algorithm: str) -> None:
    token = provider.token(algorithm)
    client = with_verifier(provider, lambda verifier: verifier.verify(token))
    assert client == Client("oauth:alice", frozenset({"infer", "read"}))


@pytest.mark.parametrize(
    ("claims", "scopes"),
    [
        ({"scope": "admin openid"}, {"admin"}),
        ({"scope": None, "scp": ["read", 7]}, {"read"}),
        ({"scope": None}, set()),
        ({"scope": 7}, set()),
    ],
)
def test_scopes_are_those_that_we_know(provider: Provider, claims: dict[str, Any], scopes: set[str]) -> None:
    token = provider.token("ES256", **claims)
    assert with_verifier(provider, lambda verifier: verifier.verify(token)).scopes == scopes


@pytest.mark.parametrize(
    ("claims", "why"),
    [
        ({"exp": None}, "a claim of iss, aud, sub, exp is missing"),
        ({"exp": float("inf")}, "it is malformed"),
        ({"exp": 10**400}, "it is malformed"),
        ({"exp": "soon"}, "it is malformed"),
        ({"aud": "others"}, "its audience is another one"),
        ({"aud": None}, "a claim of iss, aud, sub, exp is missing"),
        ({"iss": "https://evil.example"}, "its issuer is another one"),
        ({"iss": None}, "a claim of iss, aud, sub, exp is missing"),
        ({"sub": None}, "a claim of iss, aud, sub, exp is missing"),
    ],
)
def test_claims_that_are_wrong(provider: Provider, claims: dict[str, Any], why: str) -> None:
    assert refusal(provider, provider.token("ES256", **claims)) == f"the token is not valid: {why}"


@pytest.mark.parametrize(
    ("name", "seconds", "why"),
    [
        ("exp", -1, "it has expired"),
        ("nbf", 600, "it is not valid yet"),
        ("iat", 600, "it is not valid yet"),
    ],
)
def test_times_that_are_wrong(provider: Provider, name: str, seconds: int, why: str) -> None:
    # The time is that of the test: they are collected long before they run.
    claims: dict[str, Any] = {name: int(time.time()) + seconds}
    assert refusal(provider, provider.token("ES256", **claims)) == f"the token is not valid: {why}"


def test_a_subject_that_is_nobody(provider: Provider) -> None:
    assert refusal(provider, provider.token("ES256", sub="")) == "the token's sub names nobody"
    for subject in ("x" * 257, "half \ud800 a pair"):
        assert refusal(provider, provider.token("ES256", sub=subject)) == "the token's sub names nobody"


@pytest.mark.parametrize("name", ["none", "None", "NONE", "nOnE", ""])
def test_a_token_without_a_signature(provider: Provider, name: str) -> None:
    unsigned = f"{b64({'alg': name, 'typ': 'JWT', 'kid': 'RS256'})}.{b64(provider.claims())}."
    assert refusal(provider, unsigned) == "the token's algorithm is not accepted"
    # The header of a good token, without its signature.
    stripped = provider.token("RS256").rpartition(".")[0] + "."
    assert refusal(provider, stripped) == "the token is not valid: its signature does not fit"


def test_an_algorithm_swap(provider: Provider) -> None:
    # The public key as the secret of an HMAC, for a verifier that lets the token choose.
    public: Any = provider.keys["RS256"][1].public_key()
    secret = public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    head = f"{b64({'alg': 'HS256', 'kid': 'RS256'})}.{b64(provider.claims())}"
    forged = f"{head}.{b64(hmac.new(secret, head.encode(), sha256).digest())}"
    assert refusal(provider, forged) == "the token's algorithm is not accepted"
    # One key's id with another's algorithm.
    _, key = provider.keys["ES256"]
    swapped = jwt.encode(provider.claims(), key, algorithm="ES256", headers={"kid": "RS256"})
    assert refusal(provider, swapped) == "the token's key is not one of the issuer's"
    # An algorithm that the library knows, but the settings do not allow.
    token = provider.token("EdDSA")
    assert refusal(provider, token, oauth_algorithms="RS256") == "the token's algorithm is not accepted"


def test_a_token_that_brings_its_own_key(provider: Provider) -> None:
    own = make_key("RS256")
    headers: list[dict[str, Any]] = [
        {"jwk": public_jwk(own)},
        {"jku": "http://127.0.0.1:9/keys"},
        {"x5u": "x"},
        {"x5c": []},
    ]
    for header in headers:
        token = jwt.encode(provider.claims(), own, algorithm="RS256", headers={"kid": "RS256", **header})
        assert refusal(provider, token) == "a token may not bring its own key"
    token = jwt.encode(provider.claims(), own, algorithm="RS256", headers={"kid": "RS256"})
    assert refusal(provider, token) == "the token is not valid: its signature does not fit"


def test_a_critical_header_that_nobody_understands(provider: Provider) -> None:
    token = provider.token("ES256", headers={"crit": ["exp"], "exp": 1})
    assert refusal(provider, token) in (
        "the token's crit header is not understood",
        "neither an API key nor a JWT",
    )


def test_a_changed_payload(provider: Provider) -> None:
    head, _, signature = provider.token("RS256").split(".")
    token = f"{head}.{b64(provider.claims(sub='root', scope='admin'))}.{signature}"
    assert refusal(provider, token) == "the token is not valid: its signature does not fit"


def test_a_weak_key_is_none(provider: Provider) -> None:
    provider.keys["weak"] = ("RS256", make_key("RS256", bits=1024))
    with pytest.warns(jwt.InsecureKeyLengthWarning):
        token = provider.token("weak")
    assert refusal(provider, token) == "the token's key is not one of the issuer's"


def test_a_token_without_a_key_id_needs_an_issuer_with_one_key(provider: Provider) -> None:
    algorithm, key = provider.keys["RS256"]
    token = jwt.encode(provider.claims(), key, algorithm=algorithm)
    assert with_verifier(provider, lambda verifier: verifier.verify(token)).id == "oauth:alice"
    provider.add_key("second", "RS256")
    assert refusal(provider, token) == "the token's key is not one of the issuer's"


@given(st.one_of(st.text(max_size=60), st.from_regex(r"\A[A-Za-z0-9_.=-]{0,80}\Z")))
def test_whatever_is_no_token_is_refused(text: str) -> None:
    keys = IssuerKeys("http://127.0.0.1:9", 60)
    verifier = TokenVerifier(Settings(oauth_issuer="http://127.0.0.1:9", oauth_audience=AUDIENCE), keys)
    with pytest.raises(InvalidCredentials):
        asyncio.run(verifier.verify(text))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=6,
)


@given(st.dictionaries(st.sampled_from(["alg", "kid", "typ", "crit", "b64", "jwk", "cty"]), JSON))
def test_whatever_a_header_holds_is_refused(header: dict[str, Any]) -> None:
    keys = IssuerKeys("http://127.0.0.1:9", 60)
    verifier = TokenVerifier(Settings(oauth_issuer="http://127.0.0.1:9", oauth_audience=AUDIENCE), keys)
    with pytest.raises((InvalidCredentials, Unavailable)):
        asyncio.run(verifier.verify(f"{b64(header)}.{b64({})}.{b64(b'signature')}"))


def test_a_token_that_is_too_long(provider: Provider) -> None:
    assert refusal(provider, provider.token("ES256", more="x" * 9000)) == "the token is too long"


def test_made_up_key_ids_cause_one_fetch(provider: Provider) -> None:
    _, key = provider.keys["ES256"]

    async def use(verifier: TokenVerifier) -> None:
        await verifier.verify(provider.token("ES256"))
        tokens = [
            jwt.encode(provider.claims(), key, algorithm="ES256", headers={"kid": f"made-up-{n}"})
            for n in range(1000)
        ]
        before = provider.key_fetches
        refusals = await asyncio.gather(*map(verifier.verify, tokens), return_exceptions=True)
        assert {type(refusal) for refusal in refusals} == {InvalidCredentials}
        assert provider.key_fetches - before == 1

    with_verifier(provider, use)


def test_a_hundred_first_tokens_cause_one_fetch(provider: Provider) -> None:
    async def use(verifier: TokenVerifier) -> None:
        tokens = [provider.token("EdDSA", sub=f"client-{n}") for n in range(100)]
        clients = await asyncio.gather(*map(verifier.verify, tokens))
        assert [client.id for client in clients] == [f"oauth:client-{n}" for n in range(100)]
        assert provider.key_fetches == 1

    with_verifier(provider, use)


def test_a_new_key_is_taken_in_and_a_dropped_one_goes(
    provider: Provider, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def use(verifier: TokenVerifier) -> None:
        old = provider.token("ES256")
        await verifier.verify(old)
        provider.add_key("next", "ES256")
        await verifier.verify(provider.token("next"))
        # It stays remembered, until the keys are fetched again and its own is no more.
        del provider.keys["ES256"]
        await verifier.verify(old)
        with monkeypatch.context() as patch:
            patch.setattr(issuer_module, "_FRESH_S", -1.0)
            await verifier.verify(old)
        fetches = provider.key_fetches
        async with asyncio.timeout(10):
            while provider.key_fetches == fetches or verifier._keys._fetching:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        with pytest.raises(InvalidCredentials, match="the token's key is not one of the issuer's"):
            await verifier.verify(old)

    with_verifier(provider, use)


def test_a_verified_token_is_remembered_until_it_expires(
    provider: Provider, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def use(verifier: TokenVerifier) -> None:
        token = provider.token("RS256")
        await verifier.verify(token)
        with monkeypatch.context() as patch:
            patch.setattr(jwt, "decode", None)
            assert (await verifier.verify(token)).id == "oauth:alice"
        now = time.time()
        monkeypatch.setattr(time, "time", lambda: now + 301)
        with pytest.raises(InvalidCredentials, match="it has expired"):
            await verifier.verify(token)

    with_verifier(provider, use)


def test_keys_outlast_an_outage_for_a_bounded_time(
    provider: Provider, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def use(verifier: TokenVerifier) -> None:
        known = provider.token("ES256")
        await verifier.verify(known)
        provider.broken = True
        monkeypatch.setattr(issuer_module, "_FRESH_S", 0.0)
        await verifier.verify(provider.token("ES256", sub="bob"))
        now = time.monotonic()
        monkeypatch.setattr(time, "monotonic", lambda: now + 61)
        for token in (known, provider.token("ES256", sub="carol")):
            with pytest.raises(Unavailable, match="the token's issuer cannot be reached"):
                await verifier.verify(token)

    with_verifier(provider, use, oauth_keys_max_age_s=60)
