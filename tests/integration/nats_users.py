"""Users that a real nats-server knows by their nkeys, alone or through an operator's signature (JWT)."""

import os
import time
from pathlib import Path
from secrets import token_hex
from typing import Any

import nkeys  # type: ignore[import-untyped]

from tests.security.oidc import b64

UNLIMITED = {
    "wildcards": True,
    **dict.fromkeys(("subs", "data", "payload", "imports", "exports", "conn", "leaf"), -1),
    **dict.fromkeys(("mem_storage", "disk_storage", "streams", "consumer"), -1),
}


class Nkey:
    """A key pair of a user, an account or an operator."""

    def __init__(self, role: int = nkeys.PREFIX_BYTE_USER) -> None:
        self.seed: str = nkeys.encode_seed(os.urandom(32), role).decode()
        self.pair = nkeys.from_seed(bytearray(self.seed.encode()))
        self.public: str = self.pair.public_key.decode()

    def sign(self, subject: "Nkey", kind: str, **claims: Any) -> str:
        """A JWT of this key for another: an `operator`, an `account` or a `user`."""
        content = {**claims.pop("nats", {}), "type": kind, "version": 2}
        body = {
            **{"jti": token_hex(16), "iat": int(time.time()), "iss": self.public, "sub": subject.public},
            **{"name": kind, "nats": content, **claims},
        }
        text = f"{b64({'typ': 'JWT', 'alg': 'ed25519-nkey'})}.{b64(body)}"
        return f"{text}.{b64(self.pair.sign(text.encode()))}"


class Operator:
    """An operator and its account, whose users a server knows by their JWTs; another is the server's own."""

    def __init__(self) -> None:
        self._operator = Nkey(nkeys.PREFIX_BYTE_OPERATOR)
        self._account, self._system = Nkey(nkeys.PREFIX_BYTE_ACCOUNT), Nkey(nkeys.PREFIX_BYTE_ACCOUNT)

    @property
    def configuration(self) -> str:
        """What a server's configuration must hold."""
        operator = self._operator.sign(self._operator, "operator")
        account = self._operator.sign(self._account, "account", nats={"limits": UNLIMITED})
        system = self._operator.sign(self._system, "account")
        return (
            f"operator: {operator}\nsystem_account: {self._system.public}\nresolver: MEMORY\n"
            f"resolver_preload: {{\n{self._account.public}: {account}\n{self._system.public}: {system}\n}}\n"
        )

    def write_creds(self, file: Path, **claims: Any) -> Nkey:
        """A new user's credentials in `file`."""
        user = Nkey()
        jwt = self._account.sign(user, "user", nats={"subs": -1, "data": -1, "payload": -1}, **claims)
        new = file.with_suffix(".new")
        new.write_text(
            f"-----BEGIN NATS USER JWT-----\n{jwt}\n------END NATS USER JWT------\n\n"
            f"-----BEGIN USER NKEY SEED-----\n{user.seed}\n------END USER NKEY SEED------\n"
        )
        new.replace(file)
        return user
