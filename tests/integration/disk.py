"""A small disk of its own for a test: a tmpfs that nobody else sees, and that needs no root to mount."""

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

_MOUNT = 'mount -t tmpfs -o size="$1" none "$0" && echo mounted && exec sleep infinity'


@contextmanager
def small_disk(place: Path, size: str) -> Iterator[Path]:
    """The path of an empty file system of that size (as in `32m`), which is there while inside."""
    place.mkdir()
    # It is mounted in a namespace of its own, kept by a process that sleeps, and is reached through /proc.
    command = ["unshare", "--map-root-user", "--mount", "sh", "-c", _MOUNT, str(place), size]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as keeper:
        try:
            assert keeper.stdout is not None
            assert keeper.stdout.readline() == b"mounted\n"
            yield Path(f"/proc/{keeper.pid}/root{place}")
        finally:
            keeper.kill()


@contextmanager
def filled(disk: Path) -> Iterator[None]:
    """While inside, somebody else's file takes all the room that there was."""
    filler = disk / "filler"
    with suppress(OSError), filler.open("wb", buffering=0) as file:
        while True:
            file.write(bytes(1 << 16))
    try:
        yield
    finally:
        filler.unlink()
