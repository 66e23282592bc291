"""API keys: `miaas_<id>_<secret>`, of which only a keyed digest is ever stored."""

import hmac
import re
import secrets
import time
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from hashlib import blake2b
from pathlib import Path

import structlog

from adapter.core.errors import ExpiredCredentials, InvalidCredentials
from adapter.core.types import Client
from adapter.security.keyfile import KeyFile, KeyFileError, StoredKey

_log = structlog.get_logger()

PREFIX = "miaas_"
SCOPES = frozenset({"infer", "read", "admin"})
MOST_LIVE_KEYS = 2
"""Of one client: the one in use, and the one that takes over."""
_FORM = re.compile(r"miaas_([0-9a-f]{16})_([0-9A-Za-z_-]{43})\Z")
# No colon: the clients of access tokens hold one.
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@+-]{0,63}\Z")
_LAST_S = datetime(9999, 12, 31, tzinfo=UTC).timestamp()
"""No date can be told of a key that ends later."""
_RELOAD_S = 1.0
_NOBODY = b"\0" * 32
_UNKNOWN = "the API key is not known, or not valid any more"


class ChangeRefused(Exception):
    """A change of the keys that cannot be made; the message says why."""


@dataclass(frozen=True, slots=True)
class NewKey:
    """A key as its owner gets it, once; `expires` is in epoch seconds."""

    id: str
    name: str
    key: str = field(repr=False)
    scopes: tuple[str, ...]
    expires: float | None
    rate_per_minute: int | None = None


class KeyStore:
    """The keys in one file, shared by processes: each looks for changes at most once a second."""

    def __init__(self, path: Path) -> None:
        self._file = KeyFile(path)
        self._secret = b""
        self._keys: dict[str, StoredKey] = {}
        self._seen: object = None
        self._told: object = None
        """The broken file that the log speaks of."""
        self._next_look = 0.0

    def authenticate(self, key: str) -> Client:
        """Whose key this is. Raises InvalidCredentials; how long that takes tells nothing about ids."""
        self._reload()
        form = _FORM.match(key)
        if form is None:
            raise InvalidCredentials(_UNKNOWN)
        key_id, secret = form.groups()
        if not self._knows(key_id, secret):
            # It may have been made a moment ago; a wrong secret takes as long as an unknown id.
            self._next_look = 0.0
            self._reload()
            if not self._knows(key_id, secret):
                raise InvalidCredentials(_UNKNOWN)
        stored = self._keys[key_id]
        if not stored.live(time.time()):
            raise ExpiredCredentials(_UNKNOWN)
        return Client(stored.name, frozenset(stored.scopes), stored.rate_per_minute)

    def all(self) -> list[StoredKey]:
        """Every key that was not revoked, the newest last. Raises KeyFileError."""
        return sorted(self._file.read().keys.values(), key=lambda key: key.created)

    def create(
        self,
        name: str,
        scopes: Iterable[str],
        expires: float | None = None,
        rate_per_minute: int | None = None,
    ) -> NewKey:
        """Make a key for the client `name`, whose second live one it may be.

        Raises ChangeRefused for a name, scope or time that cannot be, or a third key; KeyFileError.
        """
        wanted = tuple(sorted(set(scopes)))
        if not _NAME.match(name):
            raise ChangeRefused("a name is 1 to 64 letters, digits and . _ @ + -, a letter or digit first")
        if not wanted or set(wanted) - SCOPES:
            raise ChangeRefused(f"scopes are one or more of {', '.join(sorted(SCOPES))}")
        now = time.time()
        if expires is not None and expires <= now:
            raise ChangeRefused("the key would have expired already")
        if expires is not None and expires > _LAST_S:
            raise ChangeRefused("a key ends in the year 9999 at the latest")
        with self._file.changing("created") as change:
            _check_room(change.keys, name, now)
            new, stored = _make(change.secret, name, wanted, expires, rate_per_minute)
            change.put(stored)
        self._next_look = 0.0
        return new

    def revoke(self, which: str) -> list[StoredKey]:
        """Revoke a key by its id, or all keys of a client by its name; returns them.

        Raises ChangeRefused when there is none, KeyFileError.
        """
        with self._file.changing("revoked") as change:
            gone = _named(change.keys, which)
            for key in gone:
                change.remove(key)
        self._next_look = 0.0
        return gone

    def rotate(self, which: str, overlap_s: float) -> NewKey:
        """Make a key that takes over from the one with this id, or from a client's only one.

        The new key has the same name, scopes, rate and length of life; the old one lives for `overlap_s`
        more at most. Raises ChangeRefused, KeyFileError.
        """
        now = time.time()
        with self._file.changing("rotated") as change:
            found = [key for key in _named(change.keys, which) if key.live(now)]
            if len(found) != 1:
                raise ChangeRefused(f"{which!r} has {len(found)} live keys; say which one by its id")
            old = found[0]
            if overlap_s > 0:
                _check_room(change.keys, old.name, now)
            expires = None if old.expires is None else min(_LAST_S, now + (old.expires - old.created))
            new, stored = _make(change.secret, old.name, old.scopes, expires, old.rate_per_minute)
            ends = min(old.expires or _LAST_S, now + overlap_s)
            change.put(stored)
            if overlap_s > 0:
                change.put(replace(old, expires=ends))
            else:
                change.remove(old)
        self._next_look = 0.0
        return new

    def _knows(self, key_id: str, secret: str) -> bool:
        stored = self._keys.get(key_id)
        expected = bytes.fromhex(stored.digest) if stored else _NOBODY
        return hmac.compare_digest(_digest(self._secret, key_id, secret), expected) and stored is not None

    def _reload(self) -> None:
        """Take in a changed file; one that cannot be read leaves the keys as they were."""
        now = time.monotonic()
        if now < self._next_look:
            return
        self._next_look = now + _RELOAD_S
        stamp = self._file.stamp()
        if stamp == self._seen:
            return
        try:
            content = self._file.read()
        except KeyFileError as error:
            if stamp != self._told:
                self._told = stamp
                _log.error("key file not readable, the old keys stay", reason=str(error))
            return
        self._seen = stamp
        added, removed = content.keys.keys() - self._keys.keys(), self._keys.keys() - content.keys.keys()
        self._secret, self._keys = content.secret, content.keys
        if added or removed:
            _log.info("keys changed", added=sorted(added), removed=sorted(removed))


def _digest(store_secret: bytes, key_id: str, secret: str) -> bytes:
    return blake2b(f"{key_id}:{secret}".encode(), key=store_secret, digest_size=32).digest()


def _make(
    store_secret: bytes,
    name: str,
    scopes: tuple[str, ...],
    expires: float | None,
    rate_per_minute: int | None,
) -> tuple[NewKey, StoredKey]:
    key_id, secret = secrets.token_hex(8), secrets.token_urlsafe(32)
    digest = _digest(store_secret, key_id, secret).hex()
    stored = StoredKey(key_id, name, digest, scopes, time.time(), expires, rate_per_minute)
    return NewKey(key_id, name, f"{PREFIX}{key_id}_{secret}", scopes, expires, rate_per_minute), stored


def _check_room(keys: dict[str, StoredKey], name: str, now: float) -> None:
    live = [key.id for key in keys.values() if key.name == name and key.live(now)]
    if len(live) >= MOST_LIVE_KEYS:
        raise ChangeRefused(f"{name!r} has {len(live)} live keys ({', '.join(live)}); revoke one first")


def _named(keys: dict[str, StoredKey], which: str) -> list[StoredKey]:
    found = [key for key in keys.values() if which in (key.id, key.name)]
    if not found:
        raise ChangeRefused(f"no key has the id or name {which!r}")
    return found
