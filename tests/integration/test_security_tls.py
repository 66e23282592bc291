"""TLS of the listener alone: renewed certificates, certificates of clients, plain text that is refused."""

import re
import select
import socket
import ssl
from contextlib import ExitStack, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest
import trustme

from tests.integration.certificates import Files
from tests.integration.serving import Api, make_key, run, serving, wait_for


@pytest.fixture
def files(tmp_path: Path) -> Files:
    return Files(tmp_path)


def names(files: Files, url: str) -> set[str]:
    """The names in the certificate that the server shows now."""
    address = httpx.URL(url)
    trust = files.trust()
    trust.check_hostname = False
    with (
        socket.create_connection((address.host, address.port or 0), timeout=10) as plain,
        trust.wrap_socket(plain) as secured,
    ):
        shown = secured.getpeercert()
        assert shown is not None
        listed: Any = shown["subjectAltName"]
        return {value for _, value in listed}


def test_a_renewed_certificate_is_taken_in_and_a_broken_one_is_not(files: Files, tmp_path: Path) -> None:
    with serving(tmp_path, **files.settings) as api:
        assert names(files, api.url) == {"localhost", "127.0.0.1"}
        with httpx.Client(verify=files.trust(), headers=make_key(tmp_path, "alice")) as client:
            assert client.get(f"{api.url}/").status_code == 200
            files.issue("localhost", "127.0.0.1", "renewed.example")
            wait_for(lambda: names(files, api.url) == {"localhost", "127.0.0.1", "renewed.example"})
            # Whoever was connected stays so.
            assert client.get(f"{api.url}/").status_code == 200
            good = files.key.read_bytes()
            files.key.write_bytes(files.ca.issue_cert("other").private_key_pem.bytes())
            wait_for(lambda: api.says("renewed certificate not usable, the old one stays"))
            assert "renewed.example" in names(files, api.url)
            files.key.write_bytes(good)
        assert good.decode().splitlines()[1] not in api.log.read_text()


def test_until_when_the_certificate_in_use_is_good_is_told(files: Files, tmp_path: Path) -> None:
    first, second = (datetime(year, 1, 1, tzinfo=UTC) for year in (2031, 2032))
    files.issue("localhost", "127.0.0.1", until=first)

    def expires(api: Api) -> float:
        text = httpx.get(f"{api.ops_url}/metrics").text
        found = re.search(r'^adapter_certificate_expiry_timestamp_seconds{file="server"} (.+)$', text, re.M)
        return float(found[1]) if found else 0

    with serving(tmp_path, **files.settings) as api:
        wait_for(lambda: expires(api) == first.timestamp())
        # A renewed one that cannot be used is not in use.
        good = files.key.read_bytes()
        files.issue("localhost", "127.0.0.1", until=second)
        renewed = files.key.read_bytes()
        files.key.write_bytes(good)
        wait_for(lambda: api.says("renewed certificate not usable, the old one stays"))
        assert expires(api) == first.timestamp()
        files.key.write_bytes(renewed)
        wait_for(lambda: expires(api) == second.timestamp())


def test_clients_show_a_certificate_when_a_ca_for_them_is_set(files: Files, tmp_path: Path) -> None:
    clients = trustme.CA()
    clients.cert_pem.write_to_path(tmp_path / "clients.pem")
    mine, others = clients.issue_cert("client"), files.ca.issue_cert("client")
    headers = make_key(tmp_path, "alice")
    with serving(tmp_path, **files.settings, TLS_CLIENT_CA_FILE=str(tmp_path / "clients.pem")) as api:
        for certificate in (None, others):
            trust = files.trust()
            if certificate:
                certificate.configure_cert(trust)
            with pytest.raises(httpx.TransportError):
                httpx.get(f"{api.url}/", headers=headers, verify=trust)
        trust = files.trust()
        mine.configure_cert(trust)
        assert httpx.get(f"{api.url}/", headers=headers, verify=trust).status_code == 200
        # It stands beside the key, not in its place.
        assert httpx.get(f"{api.url}/", verify=trust).status_code == 401


class Client:
    """One that shows a certificate, and connects again with the session of the first time."""

    def __init__(
        self, files: Files, url: str, certificate: trustme.LeafCert, version: ssl.TLSVersion
    ) -> None:
        address = httpx.URL(url)
        self._address = address.host, address.port or 0
        self._trust = files.trust()
        self._trust.minimum_version = self._trust.maximum_version = version
        certificate.configure_cert(self._trust)
        self._session: ssl.SSLSession | None = None

    def is_let_in(self) -> bool:
        """Whether a request over TLS is answered: without a key by 401."""
        plain = socket.create_connection(self._address, timeout=10)
        try:
            with self._trust.wrap_socket(plain, server_hostname="localhost", session=self._session) as tls:
                tls.sendall(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
                answer = tls.recv(100)
                self._session = tls.session
                return answer.startswith(b"HTTP/1.1 401 ")
        except (ssl.SSLError, ConnectionResetError):
            return False
        finally:
            plain.close()


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_a_renewed_ca_for_clients_takes_the_place_of_the_old_one(
    files: Files, tmp_path: Path, version: ssl.TLSVersion
) -> None:
    old, new, file = trustme.CA(), trustme.CA(), tmp_path / "clients.pem"
    old.cert_pem.write_to_path(file)
    with serving(tmp_path, **files.settings, TLS_CLIENT_CA_FILE=str(file)) as api:
        before, after = (Client(files, api.url, ca.issue_cert("client"), version) for ca in (old, new))
        assert (before.is_let_in(), before.is_let_in(), after.is_let_in()) == (True, True, False)
        new.cert_pem.write_to_path(file)
        wait_for(after.is_let_in)
        # Its session is of no use either.
        assert not before.is_let_in()


def test_handshakes_that_never_end_do_not_hold_up_others(files: Files, tmp_path: Path) -> None:
    headers = make_key(tmp_path, "alice")
    with serving(tmp_path, **files.settings, HEADER_TIMEOUT_S="2") as api, ExitStack() as stack:
        address = httpx.URL(api.url)
        half_open = [
            stack.enter_context(socket.create_connection((address.host, address.port or 0), timeout=20))
            for _ in range(500)
        ]
        for connection in half_open[::2]:
            connection.sendall(b"\x16\x03\x01\x02\x00\x01")
        for _ in range(20):
            answer = httpx.get(f"{api.url}/", headers=headers, verify=files.trust(), timeout=2)
            assert answer.status_code == 200
        # As those that take too long for a request's headers they are hung up on.
        for connection in half_open:
            with suppress(ConnectionResetError):
                assert connection.recv(1) == b""


def test_more_handshakes_than_allowed_connections_are_hung_up_on(files: Files, tmp_path: Path) -> None:
    settings = {**files.settings, "HEADER_TIMEOUT_S": "3", "MAX_CONNECTIONS": "50"}
    with serving(tmp_path, **settings) as api, ExitStack() as stack:
        address = httpx.URL(api.url)
        half_open = [
            stack.enter_context(socket.create_connection((address.host, address.port or 0), timeout=2))
            for _ in range(80)
        ]
        for connection in half_open[50:]:
            with suppress(ConnectionResetError):
                assert connection.recv(1) == b""
        assert select.select(half_open[:50], [], [], 0)[0] == []
        told = httpx.get(f"{api.ops_url}/metrics").text
        assert 'adapter_refusals_total{reason="too_many_connections"} 30.0\n' in told
        for connection in half_open:
            connection.close()
        with httpx.Client(verify=files.trust(), headers=make_key(tmp_path, "alice")) as client:
            wait_for(lambda: is_answered(client, api.url))


def is_answered(client: httpx.Client, url: str) -> bool:
    try:
        return client.get(f"{url}/").status_code == 200
    except httpx.TransportError:
        return False


REFUSAL = (
    "refused to listen in plain text on 0.0.0.0: set ADAPTER_TLS_CERT_FILE and ADAPTER_TLS_KEY_FILE, or "
    "ADAPTER_TLS_ENDED_BY_PROXY=true when a proxy in front ends TLS\n"
)


@pytest.mark.parametrize(
    "arguments",
    [
        ("serve", "--host", "0.0.0.0", "--port", "0", "--ops-port", "0"),
        ("serve", "--ops-host", "0.0.0.0", "--port", "0", "--ops-port", "0"),
        ("up", "--host", "0.0.0.0", "--port", "0", "--ops-port", "0", "--model-repository", "."),
    ],
)
def test_plain_text_is_refused_off_loopback(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    done = run(tmp_path, *arguments)
    assert (done.returncode, done.stdout, done.stderr) == (1, "", REFUSAL)


@pytest.mark.parametrize("settings", [{"TLS_ENDED_BY_PROXY": "true"}, None])
def test_off_loopback_it_is_tls_or_a_proxys_business(
    files: Files, tmp_path: Path, settings: dict[str, str] | None
) -> None:
    with serving(tmp_path, HOST="0.0.0.0", **(settings or files.settings)) as api:
        answer = httpx.get(f"{api.url}/", headers=make_key(tmp_path, "alice"), verify=files.trust())
        assert answer.status_code == 200


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ({"TLS_CERT_FILE": "x"}, "Value error, ADAPTER_TLS_CERT_FILE needs ADAPTER_TLS_KEY_FILE\n"),
        (
            {"TLS_CERT_FILE": "/x", "TLS_KEY_FILE": "/x"},
            "the TLS certificate or its key cannot be used: No such file or directory\n",
        ),
        ({"TRITON_CA_FILE": "/x"}, "Value error, ADAPTER_TRITON_CA_FILE needs ADAPTER_TRITON_TLS\n"),
        (
            {"TRITON_CA_FILE": "/x", "TRITON_TLS": "true"},
            "Triton's TLS files cannot be read: /x: No such file or directory\n",
        ),
        (
            {"NATS_CA_FILE": "/x"},
            "the TLS files for NATS cannot be used: No such file or directory\n",
        ),
        ({"NATS_CERT_FILE": "/x"}, "Value error, ADAPTER_NATS_CERT_FILE needs ADAPTER_NATS_KEY_FILE\n"),
        ({"OAUTH_ISSUER": "https://x"}, "Value error, ADAPTER_OAUTH_ISSUER needs ADAPTER_OAUTH_AUDIENCE\n"),
        (
            {"OAUTH_ISSUER": "http://x", "OAUTH_AUDIENCE": "x"},
            "ADAPTER_OAUTH_ISSUER: http://x is not https\n",
        ),
        (
            {"NATS_URL": "nats://user:hunter2@x:4222"},
            "ADAPTER_NATS_URL: Value error, holds credentials; put them into ADAPTER_NATS_USER and "
            "ADAPTER_NATS_PASSWORD\n",
        ),
        (
            {"OAUTH_ALGORITHMS": "none"},
            "ADAPTER_OAUTH_ALGORITHMS: Value error, holds an algorithm that is none of ES256, EdDSA, RS256\n",
        ),
    ],
)
def test_settings_that_cannot_be(tmp_path: Path, variables: dict[str, str], message: str) -> None:
    named = {f"ADAPTER_{name}": value for name, value in variables.items()}
    done = run(tmp_path, "serve", "--port", "0", "--ops-port", "0", **named)
    assert (done.returncode, done.stdout) in ((1, ""), (2, ""))
    assert done.stderr == message
