"""What `up` keeps in its state directory: the lock, the API key, `up.json`."""

import fcntl
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from hashlib import sha256
from pathlib import Path

from adapter.core.errors import Unauthenticated
from adapter.security.keyfile import KeyFileError
from adapter.security.keys import ChangeRefused, KeyStore
from adapter.standalone.errors import StartError

KEY_NAME = "up"
KEY_SCOPES = ("infer", "read")


@contextmanager
def locked(state_dir: Path) -> Iterator[None]:
    """Make the state directory, and own it; the lock ends with this process, however it ends.

    Raises `StartError` when it cannot be made, or another `up`, which is named, owns it.
    """
    path = state_dir / "up.lock"
    try:
        state_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise StartError(f"cannot use the state directory {state_dir}: {error.strerror}") from error
    try:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            pid = os.read(fd, 20).decode().strip()
            raise StartError(
                f"another `up` (pid {pid}) runs on {state_dir}; choose another directory with --state-dir"
            ) from None
        os.truncate(fd, 0)
        os.write(fd, f"{os.getpid()}\n".encode())
        yield
    finally:
        os.close(fd)


def write_private(path: Path, text: str) -> None:
    """Replace the file at once, as a whole, by one that only this user can read."""
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(fd, "w") as file:
            file.write(text)
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def api_key(state_dir: Path, keys_path: Path) -> str:
    """The key that `up` prints: the one of the last time as long as it is valid, else a new one.

    Raises `StartError` when the keys cannot be read or written.
    """
    store, path = KeyStore(keys_path), state_dir / "up.key"
    try:
        with suppress(FileNotFoundError, Unauthenticated):
            key = path.read_text(errors="replace").strip()
            store.authenticate(key)
            return key
        # The old one, if there is one, was lost: nobody is to find it and use it.
        with suppress(ChangeRefused):
            store.revoke(KEY_NAME)
        key = store.create(KEY_NAME, KEY_SCOPES).key
        write_private(path, f"{key}\n")
    except (OSError, KeyFileError) as error:
        raise StartError(str(error)) from error
    return key


def run_prefix(state_dir: Path) -> str:
    """What the names of all runs on this state directory start with."""
    return f"miaas-{sha256(str(state_dir).encode()).hexdigest()[:8]}-"
