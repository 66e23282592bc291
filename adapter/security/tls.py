"""TLS: of the API's listener, with certificates that may be renewed, and towards Triton."""

import asyncio
import ipaddress
import os
import ssl
from pathlib import Path

import grpc
import structlog
from cryptography import x509

from adapter.settings import Settings

_log = structlog.get_logger()

_LOOK_EVERY_S = 1.0


class TlsError(Exception):
    """Certificates that cannot be used, or plain text where it is refused; one line says which and why."""


class ServerTls:
    """The listener's TLS, from `tls_cert_file`, `tls_key_file` and `tls_client_ca_file`.

    `watch` puts a new `context` in the place of the old one when it saw new files: no session of the old one
    is resumed, so that a CA that was taken out is trusted no longer. Raises TlsError when the files cannot be
    used.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self.context = _server_context(settings)
        """For connections from now on."""
        self.expires = expiry(settings.tls_cert_file)
        """When the certificate in use ends."""
        self._seen = self._told = self._stamp()
        """The files in use, and those that the log speaks of."""

    async def watch(self) -> None:
        """Look for renewed files without end. Files that do not fit together leave the old ones in use."""
        while True:
            await asyncio.sleep(_LOOK_EVERY_S)
            self.reload()

    def reload(self) -> None:
        """Take in the files when they have changed."""
        stamp = self._stamp()
        if stamp == self._seen:
            return
        try:
            self.context = _server_context(self._settings)
            self.expires = expiry(self._settings.tls_cert_file)
        except TlsError as error:
            # One half may be renewed a moment after the other: they are tried again, and told of once.
            if stamp != self._told:
                self._told = stamp
                _log.error("renewed certificate not usable, the old one stays", reason=str(error))
            return
        self._seen = stamp
        _log.info("certificate renewed", file=str(self._settings.tls_cert_file))

    def _stamp(self) -> list[tuple[int, int, int] | None]:
        files = (self._settings.tls_cert_file, self._settings.tls_key_file, self._settings.tls_client_ca_file)
        return [_stat(file) for file in files]


def _stat(file: Path | None) -> tuple[int, int, int] | None:
    try:
        status = os.stat(file) if file else None
    except OSError:
        return None
    return (status.st_mtime_ns, status.st_ino, status.st_size) if status else None


def _server_context(settings: Settings) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    # RFC 9325: nothing below 1.2.
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        context.load_cert_chain(str(settings.tls_cert_file), settings.tls_key_file, password=lambda: b"")
        if settings.tls_client_ca_file:
            context.load_verify_locations(settings.tls_client_ca_file)
            context.verify_mode = ssl.CERT_REQUIRED
    except (OSError, ssl.SSLError) as error:
        raise TlsError(f"the TLS certificate or its key cannot be used: {reason(error)}") from error
    return context


def reason(error: OSError) -> str:
    """An error of a file or of OpenSSL in a few words."""
    return getattr(error, "reason", None) or error.strerror or type(error).__name__


def expiry(file: Path | None) -> float | None:
    """When the first certificate of a PEM file ends, in epoch seconds; None without a file that tells."""
    try:
        chain = x509.load_pem_x509_certificates(file.read_bytes()) if file else []
    except (OSError, ValueError):
        # Whoever needs the file says what is wrong with it.
        return None
    return min((each.not_valid_after_utc.timestamp() for each in chain), default=None)


def server_tls(settings: Settings, clients: bool = True) -> ServerTls | None:
    """The listener's TLS, or None when no certificate is set; with `clients` as the settings demand of them.

    Raises TlsError.
    """
    if not clients:
        settings = settings.model_copy(update={"tls_client_ca_file": None})
    return ServerTls(settings) if settings.tls_cert_file else None


def refuse_plain_text(host: str, tls: bool, settings: Settings) -> None:
    """Raise TlsError when `host` is off loopback, and neither we nor a proxy speaks TLS there."""
    if tls or settings.tls_ended_by_proxy or is_loopback(host):
        return
    raise TlsError(
        f"refused to listen in plain text on {host}: set ADAPTER_TLS_CERT_FILE and ADAPTER_TLS_KEY_FILE, or "
        "ADAPTER_TLS_ENDED_BY_PROXY=true when a proxy in front ends TLS"
    )


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches an address; a name counts when it is `localhost`."""
    try:
        return ipaddress.ip_address(host.partition("%")[0]).is_loopback
    except ValueError:
        return host == "localhost"


def channel_credentials(settings: Settings) -> grpc.ChannelCredentials | None:
    """What the gRPC channel to Triton is secured with, or None for plain text. Raises TlsError."""
    if not settings.triton_tls:
        return None
    return grpc_credentials(settings.triton_ca_file, settings.triton_key_file, settings.triton_cert_file)


def grpc_credentials(*files: Path | None) -> grpc.ChannelCredentials:
    """Credentials from the files of the CA, the key and the certificate. Raises TlsError."""
    try:
        ca, key, certificate = (file.read_bytes() if file else None for file in files)
    except OSError as error:
        raise TlsError(f"Triton's TLS files cannot be read: {error.filename}: {error.strerror}") from error
    return grpc.ssl_channel_credentials(ca, key, certificate)
