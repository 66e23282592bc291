"""The local CA of `up --tls`, and what it issued: enough to try TLS everywhere on one machine."""

from dataclasses import dataclass
from pathlib import Path
from typing import Self

from adapter.standalone.errors import StartError
from adapter.standalone.network import LOOPBACK
from adapter.standalone.state import write_private

INSTALL = "pip install 'miaas-adapter[standalone]'"


@dataclass(frozen=True)
class Certificates:
    """PEM files: the CA that clients trust, the servers' certificate, the adapter's own as their client."""

    ca: Path
    server: Path
    server_key: Path
    client: Path
    client_key: Path

    @classmethod
    def within(cls, folder: Path) -> Self:
        """Where they are in the folder that `issue` was given."""
        names = ("ca", "server", "server-key", "client", "client-key")
        return cls(*(folder / f"{name}.pem" for name in names))


def issue(folder: Path, host: str) -> Certificates:
    """Certificates in `folder` for servers on this machine and on `host`; the CA is made once and kept.

    Raises `StartError` when they cannot be made.
    """
    try:
        import trustme
    except ImportError:
        raise StartError(f"`up --tls` needs the package trustme: {INSTALL}") from None
    files = Certificates.within(folder)
    ca_key = folder / "ca-key.pem"
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        if ca_key.exists() and files.ca.exists():
            ca = trustme.CA.from_pem(files.ca.read_bytes(), ca_key.read_bytes())
        else:
            ca = trustme.CA(organization_name="miaas-adapter on this machine")
            write_private(ca_key, ca.private_key_pem.bytes().decode())
            write_private(files.ca, ca.cert_pem.bytes().decode())
        for certificate, key, hosts in (
            (files.server, files.server_key, dict.fromkeys(["localhost", LOOPBACK, "::1", host])),
            (files.client, files.client_key, ["miaas-adapter"]),
        ):
            issued = ca.issue_cert(*hosts)
            write_private(key, issued.private_key_pem.bytes().decode())
            write_private(certificate, "".join(blob.bytes().decode() for blob in issued.cert_chain_pems))
    except (OSError, ValueError) as error:
        raise StartError(f"cannot make certificates in {folder}: {error}") from error
    return files
