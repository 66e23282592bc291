"""Certificates of a CA that a test may renew."""

import ssl
from datetime import datetime
from pathlib import Path

import trustme


class Files:
    """A CA, and a server's certificate in files that a test may renew."""

    def __init__(self, folder: Path) -> None:
        self.ca = trustme.CA()
        self.folder = folder
        self.certificate, self.key, self.ca_file = (
            folder / name for name in ("cert.pem", "key.pem", "ca.pem")
        )
        self.ca.cert_pem.write_to_path(self.ca_file)
        self.issue("localhost", "127.0.0.1")

    def issue(self, *names: str, until: datetime | None = None) -> None:
        """A new certificate in the place of the old one; it ends at `until`, or after many years."""
        issued = self.ca.issue_cert(*names, not_after=until)
        for path, blobs in ((self.key, [issued.private_key_pem]), (self.certificate, issued.cert_chain_pems)):
            new = path.with_suffix(".new")
            new.write_bytes(b"".join(blob.bytes() for blob in blobs))
            new.replace(path)

    @property
    def settings(self) -> dict[str, str]:
        return {"TLS_CERT_FILE": str(self.certificate), "TLS_KEY_FILE": str(self.key)}

    def trust(self) -> ssl.SSLContext:
        return ssl.create_default_context(cafile=str(self.ca_file))
