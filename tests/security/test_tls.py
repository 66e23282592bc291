"""Renewed certificates, as the process that looks for them sees their files."""

from pathlib import Path

import pytest

from adapter.security.tls import ServerTls
from adapter.settings import Settings
from tests.integration.certificates import Files

KEPT = "renewed certificate not usable, the old one stays"


def test_halves_that_do_not_fit_are_told_of_once_and_taken_when_they_do(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files = Files(tmp_path)
    tls = ServerTls(Settings(tls_cert_file=files.certificate, tls_key_file=files.key))
    first, old_key = tls.context, files.key.read_bytes()
    files.issue("localhost")
    new_key = files.key.read_bytes()
    for half in (old_key, new_key[: len(new_key) // 2], b""):
        files.key.write_bytes(half)
        for _ in range(3):
            tls.reload()
        assert "".join(capsys.readouterr()).count(KEPT) == 1
        assert tls.context is first
    files.key.write_bytes(new_key)
    tls.reload()
    second = tls.context
    assert second is not first
    tls.reload()
    assert tls.context is second
    files.certificate.unlink()
    tls.reload()
    tls.reload()
    assert "".join(capsys.readouterr()).count(KEPT) == 1
    assert tls.context is second
