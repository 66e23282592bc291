"""API keys: `miaas_<id>_<secret>`, of which only a keyed digest is ever stored."""

import fcntl
import hmac
import os
import re
import secrets
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Any

import orjson
import structlog

from adapter.core.errors import Unauthenticated
from adapter.core.types import Client

_log = structlog.get_logger()

SCOPES = frozenset({"infer", "read", "admin"})
_FORM = re.compile(r"miaas_([0-9a-f]{16})_([0-9A-Za-z_-]{43})\Z")
_RELOAD_S = 1.0
_NOBODY = b"\0" * 32
_UNKNOWN = "the API key is not known, or not valid any more"


@dataclass(frozen=True, slots=True)
class StoredKey:
    """What the key file holds of a key; `name` is the client's, `expires` is in epoch seconds."""

    id: str
    name: str
    digest: str
    scopes: tuple[str, ...]
    created: float
    expires: float | None = None


@dataclass(frozen=True, slots=True)
class NewKey:
    """A key as its owner gets it, once."""

    id: str
    name: str
    key: str
    scopes: tuple[str, ...]
    expires: float | None


class KeyStore:
    """The keys in one file, shared by processes: each looks for changes at most once a second.

    Beside `path` stands a file with the digests' key. Both are readable by their owner alone.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._secret_path = path.with_suffix(".secret")
        self._secret = b""
        self._keys: dict[str, StoredKey] = {}
        self._seen: tuple[int, int] | None = None
        self._next_look = 0.0

    def authenticate(self, key: str) -> Client:
        """Whose key this is. Raises Unauthenticated; how long that takes tells nothing about ids."""
        self._reload()
        form = _FORM.match(key)
        if form is None:
            raise Unauthenticated(_UNKNOWN)
        key_id, secret = form.groups()
        stored = self._keys.get(key_id)
        expected = bytes.fromhex(stored.digest) if stored else _NOBODY
        if not hmac.compare_digest(self._digest(key_id, secret), expected) or stored is None:
            raise Unauthenticated(_UNKNOWN)
        if stored.expires is not None and stored.expires <= time.time():
            raise Unauthenticated(_UNKNOWN)
        return Client(stored.name, frozenset(stored.scopes))

    def create(self, name: str, scopes: Iterable[str], expires: float | None = None) -> NewKey:
        """Make a key for the client `name` and store its digest. Raises ValueError for an unknown scope."""
        wanted = tuple(sorted(set(scopes)))
        if unknown := set(wanted) - SCOPES:
            raise ValueError(f"unknown scope {min(unknown)!r}; there are {', '.join(sorted(SCOPES))}")
        key_id, secret = secrets.token_hex(8), secrets.token_urlsafe(32)
        with self._locked() as keys:
            digest = self._digest(key_id, secret).hex()
            keys[key_id] = StoredKey(key_id, name, digest, wanted, time.time(), expires)
        return NewKey(key_id, name, f"miaas_{key_id}_{secret}", wanted, expires)

    def _digest(self, key_id: str, secret: str) -> bytes:
        return blake2b(f"{key_id}:{secret}".encode(), key=self._secret, digest_size=32).digest()

    def _reload(self) -> None:
        """Take in a changed file; one that cannot be read leaves the keys as they were."""
        now = time.monotonic()
        if now < self._next_look:
            return
        self._next_look = now + _RELOAD_S
        try:
            status = self._path.stat()
            if (status.st_mtime_ns, status.st_ino) != self._seen:
                self._read()
                self._seen = (status.st_mtime_ns, status.st_ino)
        except FileNotFoundError:
            self._keys, self._seen = {}, None
        except (OSError, ValueError, TypeError, KeyError) as error:
            _log.error("key file not readable, the old keys stay", path=str(self._path), error=repr(error))

    def _read(self) -> None:
        entries: list[dict[str, Any]] = orjson.loads(self._path.read_bytes())["keys"]
        keys = [StoredKey(**{**entry, "scopes": tuple(entry["scopes"])}) for entry in entries]
        self._secret = self._secret_path.read_bytes()
        self._keys = {key.id: key for key in keys}

    @contextmanager
    def _locked(self) -> Iterator[dict[str, StoredKey]]:
        """The keys, to be changed; written back as a whole while no other process does so."""
        self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with open(self._path.with_suffix(".lock"), "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if self._path.exists():
                self._read()
            else:
                self._keys, self._secret = {}, secrets.token_bytes(32)
                _write(self._secret_path, self._secret)
            yield self._keys
            _write(self._path, orjson.dumps({"keys": [asdict(key) for key in self._keys.values()]}))
            self._next_look = 0.0


def _write(path: Path, content: bytes) -> None:
    """Replace the file as a whole, readable by its owner alone."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
