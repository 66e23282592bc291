"""`miaas-adapter keys`, in processes of its own."""

import json
from pathlib import Path

import pytest

from adapter.security.keys import KeyStore
from tests.test_cli import run


def test_a_key_from_birth_to_death(tmp_path: Path) -> None:
    place = ("--state-dir", str(tmp_path))
    made = run("keys", "create", "alice", "--scopes", "infer,read", "--json", *place, cwd=tmp_path)
    assert (made.returncode, made.stderr) == (0, "")
    new = json.loads(made.stdout)
    assert {name: new[name] for name in ("name", "scopes", "expires")} == {
        "name": "alice",
        "scopes": ["infer", "read"],
        "expires": None,
    }
    store = KeyStore(tmp_path / "keys.json")
    assert store.authenticate(new["key"]).id == "alice"

    rotated = run("keys", "rotate", new["id"], "--json", *place, cwd=tmp_path)
    assert json.loads(rotated.stdout).keys() == new.keys()
    listed = run("keys", "list", "--json", *place, cwd=tmp_path)
    assert [key["name"] for key in json.loads(listed.stdout)] == ["alice", "alice"]
    assert new["key"].split("_", 2)[2] not in listed.stdout
    assert "digest" not in listed.stdout

    gone = run("keys", "revoke", "alice", "--json", *place, cwd=tmp_path)
    assert [key["id"] for key in json.loads(gone.stdout)["revoked"]] == [
        new["id"],
        json.loads(rotated.stdout)["id"],
    ]
    assert run("keys", "list", *place, cwd=tmp_path).stdout == ""


def test_for_people_the_key_alone_is_on_standard_output(tmp_path: Path) -> None:
    place = ("--state-dir", str(tmp_path))
    made = run("keys", "create", "bob", "--expires", "2999-01-01", "--rate-limit", "5", *place, cwd=tmp_path)
    key = made.stdout.strip()
    assert KeyStore(tmp_path / "keys.json").authenticate(key).rate_per_minute == 5
    assert "This is shown once." in made.stderr
    listed = run("keys", "list", *place, cwd=tmp_path).stdout.split()
    assert listed[1:] == ["bob", "infer,read", "until", "2999-01-01T00:00:00Z", "5/min"]


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("revoke", "nobody"), 1, "no key has the id or name 'nobody'\n"),
        (("create", "a b"), 1, "a name is 1 to 64 letters, digits and . _ @ + -, a letter or digit first\n"),
        (("create", "x", "--scopes", "root"), 1, "scopes are one or more of admin, infer, read\n"),
        (
            ("create", "x", "--expires", "soon"),
            2,
            "not a duration like 90d, nor an ISO 8601 time: 'soon'\n",
        ),
        (("create", "x", "--expires", "900000000d"), 1, "a key ends in the year 9999 at the latest\n"),
        (("rotate", "x", "--overlap", "1w"), 2, "not a duration like 30m, 12h or 7d: '1w'\n"),
    ],
)
def test_mistakes_are_one_line(tmp_path: Path, arguments: tuple[str, ...], code: int, message: str) -> None:
    done = run("keys", *arguments, "--state-dir", str(tmp_path), cwd=tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (code, "", message)
