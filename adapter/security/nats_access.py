"""What gets the adapter into NATS: TLS and a login."""

import re
import ssl
from pathlib import Path
from typing import Any

import nkeys  # type: ignore[import-untyped]

from adapter.security.tls import TlsError, reason
from adapter.settings import Settings

_JWT = re.compile(rb"-BEGIN NATS USER JWT-+\s+(\S+)\s+-+END")
_SEED = re.compile(rb"\bSU[A-Z2-7]{56}\b")


class NkeyLogin:
    """A NATS user's nkey, and the JWT that an operator signed for it, if one did.

    `file` holds both (`.creds`), or the nkey's seed alone. Raises TlsError when it holds neither.
    """

    def __init__(self, file: Path) -> None:
        self._file = file
        self.read()

    def read(self) -> tuple[nkeys.KeyPair, bytes]:
        """The key pair and the JWT, b"" without one, as they are now: what expires is renewed in its file.

        Raises TlsError.
        """
        try:
            content = self._file.read_bytes()
        except OSError as error:
            raise self._unusable(reason(error)) from error
        seed, jwt = _SEED.search(content), _JWT.search(content)
        if seed is None:
            raise self._unusable("it holds no nkey seed of a user")
        try:
            return nkeys.from_seed(bytearray(seed[0])), jwt[1] if jwt else b""
        except nkeys.NkeysError:
            raise self._unusable("its nkey seed is none") from None

    def _unusable(self, why: str) -> TlsError:
        return TlsError(f"the NATS credentials in {self._file} cannot be used: {why}")


def is_tls(settings: Settings) -> bool:
    """Whether NATS is to be spoken to over TLS alone."""
    secured = any(url.strip().startswith("tls://") for url in settings.nats_url.split(","))
    return secured or bool(settings.nats_ca_file or settings.nats_cert_file)


def login(settings: Settings) -> NkeyLogin | None:
    """The login with an nkey, where one is set. Raises TlsError."""
    return NkeyLogin(settings.nats_credentials_file) if settings.nats_credentials_file else None


def connect_options(settings: Settings) -> dict[str, Any]:
    """What nats-py's `connect` is given beside the address: TLS, a user and a password. Raises TlsError."""
    options: dict[str, Any] = {}
    if settings.nats_ca_file or settings.nats_cert_file:
        try:
            context = ssl.create_default_context(cafile=settings.nats_ca_file)
            context.minimum_version = ssl.TLSVersion.TLSv1_2
            if settings.nats_cert_file:
                context.load_cert_chain(settings.nats_cert_file, settings.nats_key_file)
        except (OSError, ssl.SSLError) as error:
            raise TlsError(f"the TLS files for NATS cannot be used: {reason(error)}") from error
        options["tls"] = context
    if settings.nats_user:
        options["user"] = settings.nats_user
        options["password"] = settings.nats_password.get_secret_value() if settings.nats_password else ""
    return options
