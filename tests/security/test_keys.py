"""API keys in their file: made, used, rotated, revoked, and what happens when the file is not well."""

import hmac
import json
import os
import stat
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from adapter.core.errors import InvalidCredentials
from adapter.core.types import Client
from adapter.security.keyfile import KeyFile, KeyFileError
from adapter.security.keys import ChangeRefused, KeyStore


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state" / "keys.json"


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Seconds that are added to both clocks."""
    ahead = [0.0]
    wall, steady = time.time, time.monotonic
    monkeypatch.setattr(time, "time", lambda: wall() + ahead[0])
    monkeypatch.setattr(time, "monotonic", lambda: steady() + ahead[0])
    return ahead


def refused(store: KeyStore, key: str) -> bool:
    try:
        store.authenticate(key)
    except InvalidCredentials as error:
        return error.message == "the API key is not known, or not valid any more"
    return False


def test_a_key_names_its_client_in_every_process(path: Path) -> None:
    other = KeyStore(path)
    assert refused(other, f"miaas_{'0' * 16}_{'a' * 43}")
    new = KeyStore(path).create("alice", ["read", "infer"], rate_per_minute=50)
    assert other.authenticate(new.key) == Client("alice", frozenset({"infer", "read"}), 50)


def test_a_key_has_256_bits_and_only_its_digest_is_kept(path: Path) -> None:
    new = KeyStore(path).create("alice", ["infer"])
    prefix, key_id, secret = new.key.split("_", 2)
    assert (prefix, key_id, len(secret)) == ("miaas", new.id, 43)
    for file in path.parent.iterdir():
        assert secret.encode() not in file.read_bytes()
        if file.suffix != ".lock":
            assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


def test_what_holds_a_secret_does_not_show_it(path: Path) -> None:
    new = KeyStore(path).create("alice", ["infer"])
    with KeyFile(path).changing("looked at") as change:
        shown = repr([new, KeyFile(path).read(), change])
    assert new.id in shown
    assert new.key.split("_", 2)[2] not in shown
    assert repr(path.with_suffix(".secret").read_bytes()) not in shown


def test_what_is_nearly_a_key_is_none(path: Path) -> None:
    store = KeyStore(path)
    key = store.create("alice", ["infer"]).key
    for wrong in (key[:-1], key + "x", key[:-1] + ("A" if key[-1] != "A" else "B"), key.upper(), key + "\n"):
        assert refused(store, wrong)
    other = store.create("bob", ["infer"])
    assert refused(store, f"miaas_{other.id}_{key.split('_', 2)[2]}")


def test_an_unknown_id_costs_what_a_wrong_secret_costs(
    path: Path, clock: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    store = KeyStore(path)
    known = store.create("alice", ["infer"]).id
    assert refused(store, f"miaas_{known}_{'a' * 43}")
    done: list[str] = []

    def noted(name: str, real: Callable[..., object], *given: object) -> object:
        done.append(name)
        return real(*given)

    for owner, name in ((store._file, "stamp"), (hmac, "compare_digest")):
        monkeypatch.setattr(owner, name, partial(noted, name, getattr(owner, name)))
    for key_id in (known, "0" * 16):
        done.clear()
        assert refused(store, f"miaas_{key_id}_{'a' * 43}")
        assert done == ["compare_digest", "stamp", "compare_digest"]


def test_a_key_that_expires(path: Path, clock: list[float]) -> None:
    store = KeyStore(path)
    key = store.create("alice", ["infer"], expires=time.time() + 60).key
    assert not refused(store, key)
    clock[0] = 61
    assert refused(store, key)


@pytest.mark.parametrize(
    ("name", "scopes", "expires"),
    [
        ("", ["infer"], None),
        ("a b", ["infer"], None),
        ("oauth:alice", ["infer"], None),
        ("x" * 65, ["infer"], None),
        ("a\n", ["infer"], None),
        ("alice", [], None),
        ("alice", ["infer", "root"], None),
        ("alice", ["infer"], 1.0),
        ("alice", ["infer"], 253_402_300_800.0),
    ],
)
def test_keys_that_cannot_be(path: Path, name: str, scopes: list[str], expires: float | None) -> None:
    with pytest.raises(ChangeRefused):
        KeyStore(path).create(name, scopes, expires)
    assert not path.exists()


def test_a_client_has_at_most_two_live_keys(path: Path, clock: list[float]) -> None:
    store = KeyStore(path)
    first = store.create("alice", ["infer"], expires=time.time() + 60)
    store.create("alice", ["infer"])
    with pytest.raises(ChangeRefused, match=f"'alice' has 2 live keys .*{first.id}"):
        store.create("alice", ["infer"])
    clock[0] = 61
    store.create("alice", ["infer"])


def test_rotation_keeps_the_client_and_lets_the_old_key_run_out(path: Path, clock: list[float]) -> None:
    store = KeyStore(path)
    old = store.create("alice", ["admin", "read"], rate_per_minute=7)
    new = store.rotate("alice", overlap_s=60)
    assert store.authenticate(old.key) == store.authenticate(new.key)
    assert (new.scopes, new.rate_per_minute, new.expires) == (("admin", "read"), 7, None)
    with pytest.raises(ChangeRefused, match="say which one by its id"):
        store.rotate("alice", overlap_s=60)
    clock[0] = 61
    assert refused(store, old.key)
    assert not refused(store, new.key)
    last = store.rotate(new.id, overlap_s=0)
    clock[0] = 63
    assert refused(store, new.key)
    assert not refused(store, last.key)


def test_no_key_ends_later_than_a_date_can_tell(path: Path, clock: list[float]) -> None:
    store = KeyStore(path)
    last = 253_402_214_400.0
    store.create("alice", ["infer"], expires=last)
    clock[0] = 60
    assert store.rotate("alice", overlap_s=1e12).expires == last
    assert [key.expires for key in store.all()] == [last, last]


def test_revocation_reaches_other_processes_within_five_seconds(path: Path, clock: list[float]) -> None:
    store, other = KeyStore(path), KeyStore(path)
    keys = [store.create("alice", ["infer"]).key for _ in range(2)]
    assert not refused(other, keys[0])
    assert [key.name for key in store.revoke("alice")] == ["alice", "alice"]
    clock[0] = 5
    assert refused(other, keys[0])
    assert refused(other, keys[1])
    with pytest.raises(ChangeRefused, match="no key has the id or name 'alice'"):
        store.revoke("alice")


@pytest.mark.parametrize("damage", ["[", '{"keys": [{}]}', '{"keys": 7}', '{"keys": [{"digest": "x"}]}', ""])
def test_a_broken_file_keeps_the_old_keys_and_says_so(
    path: Path, clock: list[float], damage: str, capsys: pytest.CaptureFixture[str]
) -> None:
    store = KeyStore(path)
    key = store.create("alice", ["infer"]).key
    assert not refused(store, key)
    good = path.read_bytes()
    path.write_text(damage)
    clock[0] = 2
    assert not refused(store, key)
    clock[0] = 3
    assert refused(store, f"miaas_{'0' * 16}_{'a' * 43}")
    assert "".join(capsys.readouterr()).count("key file not readable, the old keys stay") == 1
    with pytest.raises(KeyFileError):
        store.create("bob", ["infer"])
    assert path.read_text() == damage
    path.write_bytes(good)
    clock[0] = 4
    bob = KeyStore(path).create("bob", ["infer"]).key
    assert not refused(store, bob)


@pytest.mark.parametrize(
    ("member", "value"), [("expires", "soon"), ("created", None), ("rate_per_minute", "7x")]
)
def test_a_file_in_which_one_key_is_damaged_is_not_taken_in(
    path: Path, clock: list[float], member: str, value: object
) -> None:
    store = KeyStore(path)
    key = store.create("alice", ["infer"]).key
    assert not refused(store, key)
    kept = json.loads(path.read_text())
    kept["keys"][0][member] = value
    path.write_text(json.dumps(kept))
    clock[0] = 2
    assert not refused(store, key)
    with pytest.raises(KeyFileError, match="cannot use the API keys"):
        store.all()


def test_times_and_rates_may_be_whole_numbers_in_the_file(path: Path) -> None:
    key = KeyStore(path).create("alice", ["infer"], expires=time.time() + 60, rate_per_minute=7).key
    kept = json.loads(path.read_text())
    kept["keys"][0] |= {"created": 1, "expires": int(time.time()) + 60, "rate_per_minute": 9}
    path.write_text(json.dumps(kept))
    store = KeyStore(path)
    assert store.authenticate(key) == Client("alice", frozenset({"infer"}), 9)
    assert store.rotate("alice", 0).rate_per_minute == 9


def test_a_lost_secret_keeps_the_old_keys_and_opens_no_door(path: Path, clock: list[float]) -> None:
    store = KeyStore(path)
    key = store.create("alice", ["infer"]).key
    assert not refused(store, key)
    path.with_suffix(".secret").unlink()
    os.utime(path)
    clock[0] = 2
    assert not refused(store, key)
    assert refused(KeyStore(path), key)
    path.with_suffix(".secret").write_bytes(b"")
    assert refused(KeyStore(path), key)


def test_without_the_file_there_are_no_keys(path: Path, clock: list[float]) -> None:
    store = KeyStore(path)
    key = store.create("alice", ["infer"]).key
    assert not refused(store, key)
    path.unlink()
    clock[0] = 2
    assert refused(store, key)


def test_every_change_is_audited_without_its_secret(path: Path) -> None:
    store = KeyStore(path)
    first = store.create("alice", ["infer"])
    second = store.rotate(first.id, overlap_s=0)
    store.revoke(second.id)
    lines = [json.loads(line) for line in path.with_suffix(".audit.log").read_text().splitlines()]
    assert [(line["event"], line["id"]) for line in lines] == [
        ("key created", first.id),
        ("key rotated", second.id),
        ("key rotated", first.id),
        ("key revoked", second.id),
    ]
    assert {line["uid"] for line in lines} == {os.getuid()}
