"""The search for secrets that ends every run finds what it searches for."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from adapter.security.keys import KeyStore
from tests.leaks import CANARY, leaks
from tests.security.oidc import Provider


@pytest.fixture
def log(tmp_path: Path) -> Iterator[Path]:
    """A log that is gone when the run is searched."""
    path = tmp_path / "state" / "logs" / "api-1.log"
    path.parent.mkdir(parents=True)
    yield path
    path.unlink()


def test_each_kind_of_secret_is_found(log: Path, tmp_path: Path) -> None:
    with Provider().running() as provider:
        provider.add_key("one", "EdDSA")
        token = provider.token("one")
    secrets = {
        "a canary": f"password={CANARY}",
        "an API key": KeyStore(tmp_path / "keys.json").create("alice", ["read"]).key,
        "a token": f"Bearer {token}",
        "a private key": "-----BEGIN EC PRIVATE KEY-----",
        "an nkey seed": "SUAMK2FG4MI6UE3ACF3FK3OIQBCEIEZV7NSWFFEW63UXMRLFM2XLAXK4GY",
    }
    for what, secret in secrets.items():
        log.write_text(f"2026-01-01 [warning] refused value={secret}\n")
        assert leaks(tmp_path) == [f"{what} in {log}"]
    log.write_text("2026-01-01 [warning] refused key=miaas_0123456789abcdef_… sub=alice\n")
    assert leaks(tmp_path) == []
