"""Into a real nats-server: over TLS or not at all, by a password, an nkey, a JWT of an operator."""

import time
from pathlib import Path

import httpx
import pytest

from tests.integration.certificates import Files
from tests.integration.nats import server
from tests.integration.nats_users import Nkey, Operator
from tests.integration.serving import SHARED, make_key, run, serving, wait_for
from tests.leaks import CANARY

REFUSED = "nats: 'Authorization Violation'"


@pytest.mark.parametrize("asked_by", ["scheme", "ca"])
def test_nats_without_tls_is_told_nothing(tmp_path: Path, asked_by: str) -> None:
    with server(tmp_path) as nats:
        named = {"NATS_URL": nats.url.replace("nats:", "tls:")}
        if asked_by == "ca":
            named = {"NATS_URL": nats.url, "NATS_CA_FILE": str(Files(tmp_path).ca_file)}
        with serving(tmp_path, **named) as api:
            wait_for(lambda: api.says("secure connection required"))
            headers = make_key(tmp_path, "alice")
            assert httpx.get(f"{api.url}/", headers=headers).status_code == 200
            assert not api.says(SHARED)
            assert list((tmp_path / "store").rglob("MIAAS*")) == []


@pytest.mark.parametrize("password", [CANARY, f"wrong-{CANARY}"])
def test_nats_asks_for_a_password(tmp_path: Path, password: str) -> None:
    users = f'authorization {{ user: "adapter", password: "{CANARY}" }}'
    with server(tmp_path, users) as nats:
        named = {"NATS_URL": nats.url, "NATS_USER": "adapter", "NATS_PASSWORD": password}
        enters(tmp_path, named, password == CANARY)


@pytest.mark.parametrize("known", [True, False])
def test_nats_asks_for_an_nkey(tmp_path: Path, known: bool) -> None:
    user = Nkey()
    (tmp_path / "user.nk").write_text(f"{user.seed}\n")
    users = f"authorization {{ users: [{{ nkey: {user.public if known else Nkey().public} }}] }}"
    with server(tmp_path, users) as nats:
        enters(tmp_path, {"NATS_URL": nats.url, "NATS_CREDENTIALS_FILE": str(tmp_path / "user.nk")}, known)


@pytest.mark.parametrize("known", [True, False])
def test_nats_asks_for_a_jwt_of_its_operator(tmp_path: Path, known: bool) -> None:
    operator = Operator()
    (operator if known else Operator()).write_creds(tmp_path / "user.creds")
    with server(tmp_path, operator.configuration) as nats:
        enters(tmp_path, {"NATS_URL": nats.url, "NATS_CREDENTIALS_FILE": str(tmp_path / "user.creds")}, known)


def enters(folder: Path, settings: dict[str, str], let_in: bool) -> None:
    """Whether it is let in; if not, the log says why, and it serves all the same."""
    with serving(folder, **settings) as api:
        wait_for(lambda: api.says(SHARED if let_in else REFUSED))
        assert httpx.get(f"{api.url}/", headers=make_key(folder, "alice")).status_code == 200
        assert api.says(SHARED) == let_in


def test_a_login_that_expires_is_renewed_in_its_file(tmp_path: Path) -> None:
    operator, creds = Operator(), tmp_path / "user.creds"
    operator.write_creds(creds)
    with (
        server(tmp_path, operator.configuration) as nats,
        serving(tmp_path, NATS_URL=nats.url, NATS_CREDENTIALS_FILE=str(creds)) as api,
    ):
        wait_for(lambda: api.says(SHARED))
        # Only now does its time begin to run: to start all this may take long.
        nats.kill()
        operator.write_creds(creds, exp=int(time.time()) + 6)
        nats.start()
        wait_for(lambda: api.log.read_text().count(SHARED) == 2)
        wait_for(lambda: api.says("nats: 'user authentication expired'"))
        wait_for(lambda: api.says(REFUSED))
        creds.unlink()
        wait_for(lambda: api.says(f"the NATS credentials in {creds} cannot be used: No such file"))
        operator.write_creds(creds)
        wait_for(lambda: api.log.read_text().count(SHARED) == 3)


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (None, "No such file or directory"),
        ("", "it holds no nkey seed of a user"),
        ("-----BEGIN NATS USER JWT-----\n", "it holds no nkey seed of a user"),
        (Nkey().public, "it holds no nkey seed of a user"),
    ],
)
def test_credentials_that_cannot_be_used_are_told_at_the_start(
    tmp_path: Path, content: str | None, why: str
) -> None:
    file = tmp_path / "user.creds"
    if content is not None:
        file.write_text(content)
    for command in (["serve", "--port", "0"], ["worker"], ["queue", "status"]):
        done = run(tmp_path, *command, ADAPTER_OPS_PORT="0", ADAPTER_NATS_CREDENTIALS_FILE=str(file))
        assert (done.returncode, done.stdout) == (1, "")
        assert done.stderr.endswith(f"the NATS credentials in {file} cannot be used: {why}\n")
