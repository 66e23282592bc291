"""Where API keys are kept: a JSON file, the digests' own key beside it, and an audit log of every change."""

import fcntl
import os
import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import orjson

_SECRET_BYTES = 32


class KeyFileError(Exception):
    """The key file, or its secret, cannot be read or written; the message says why."""


@dataclass(frozen=True, slots=True)
class StoredKey:
    """What the key file holds of a key; `name` is the client's, times are in epoch seconds."""

    id: str
    name: str
    digest: str
    scopes: tuple[str, ...]
    created: float
    expires: float | None = None
    rate_per_minute: int | None = None

    def live(self, now: float) -> bool:
        """Whether it has not expired."""
        return self.expires is None or now < self.expires


@dataclass(frozen=True, slots=True)
class Content:
    """The keys by id, and the key of their digests."""

    secret: bytes = field(repr=False)
    keys: dict[str, StoredKey]


@dataclass(frozen=True, slots=True)
class Change:
    """Keys while they are being changed."""

    secret: bytes = field(repr=False)
    keys: dict[str, StoredKey]
    touched: list[StoredKey] = field(default_factory=list)

    def put(self, key: StoredKey) -> None:
        """Add a key, or put it in the place of the one with its id."""
        self.keys[key.id] = key
        self.touched.append(key)

    def remove(self, key: StoredKey) -> None:
        """Take a key away."""
        del self.keys[key.id]
        self.touched.append(key)


class KeyFile:
    """The files at `path`: `keys.json`, beside it `.secret`, `.lock`, `.audit.log`; for their owner alone."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._secret_path = path.with_suffix(".secret")

    def stamp(self) -> object:
        """Something that differs whenever the file has changed; None when there is no file."""
        try:
            status = self._path.stat()
        except OSError:
            return None
        return status.st_mtime_ns, status.st_ino, status.st_size

    def read(self) -> Content:
        """What the files hold; no file means no keys. Raises KeyFileError, and nothing was read."""
        try:
            if not self._path.exists():
                return Content(b"", {})
            keys = [_key(entry) for entry in orjson.loads(self._path.read_bytes())["keys"]]
            secret = self._secret_path.read_bytes()
        except (OSError, ValueError, TypeError, KeyError) as error:
            raise KeyFileError(f"cannot use the API keys in {self._path}: {error}") from error
        if len(secret) != _SECRET_BYTES:
            raise KeyFileError(f"cannot use the API keys in {self._path}: {self._secret_path} is damaged")
        return Content(secret, {key.id: key for key in keys})

    @contextmanager
    def changing(self, action: str) -> Iterator[Change]:
        """The keys, to be changed; written back as a whole while no other process does so, and audited.

        Nothing is written when the block raises. Raises KeyFileError.
        """
        try:
            self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            with open(self._path.with_suffix(".lock"), "w") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX)
                content = self.read()
                if not content.secret:
                    content = Content(secrets.token_bytes(_SECRET_BYTES), {})
                    _write(self._secret_path, content.secret)
                change = Change(content.secret, content.keys)
                yield change
                # First the audit: a change that leaves no trace is worse than a trace of a failed one.
                self._audit(action, change.touched)
                _write(self._path, orjson.dumps({"keys": [asdict(key) for key in change.keys.values()]}))
        except OSError as error:
            raise KeyFileError(f"cannot use the API keys in {self._path}: {error.strerror}") from error

    def _audit(self, action: str, keys: list[StoredKey]) -> None:
        """A line of JSON per key that was changed: when, what, which key, by which user of this machine."""
        fd = os.open(
            self._path.with_suffix(".audit.log"), os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600
        )
        with os.fdopen(fd, "ab") as log:
            for key in keys:
                line = {
                    "time": datetime.fromtimestamp(time.time(), UTC).isoformat(timespec="milliseconds"),
                    "event": f"key {action}",
                    "id": key.id,
                    "name": key.name,
                    "scopes": key.scopes,
                    "expires": key.expires,
                    "rate_per_minute": key.rate_per_minute,
                    "uid": os.getuid(),
                }
                log.write(orjson.dumps(line) + b"\n")
            log.flush()
            os.fsync(log.fileno())


def _key(entry: dict[str, Any]) -> StoredKey:
    """A key as the file has it. Raises ValueError, TypeError or KeyError for what is none."""
    if len(bytes.fromhex(entry["digest"])) != _SECRET_BYTES:
        raise ValueError("a digest is of the wrong length")
    expires, rate = entry.get("expires"), entry.get("rate_per_minute")
    return StoredKey(
        **{
            **entry,
            "scopes": tuple(entry["scopes"]),
            "created": float(entry["created"]),
            "expires": None if expires is None else float(expires),
            "rate_per_minute": None if rate is None else int(rate),
        }
    )


def _write(path: Path, content: bytes) -> None:
    """Replace the file as a whole, readable by its owner alone."""
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
