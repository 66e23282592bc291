"""Files in /dev/shm that two processes map: each is locked as long as the process lives that made it.

So whoever comes later can tell what a killed process left behind. Segments are allocated when they are made:
the page of a file that was only made longer (tritonclient's and multiprocessing's way) is a SIGBUS when the
machine has none left.
"""

import errno
import fcntl
import mmap
import os
import secrets
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from hashlib import blake2b
from pathlib import Path
from weakref import finalize

import numpy as np

from adapter.core.types import OWN_REGIONS

# Not a temporary file of ours, but where POSIX regions show.
_FOLDER = Path("/dev/shm")  # noqa: S108 # nosec B108
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


class Segment:
    """`size` bytes, for nobody but this user. Raises OSError, also when too little room would be left."""

    def __init__(self, size: int) -> None:
        _leave_room(size)
        self.size = size
        self.name = f"{prefix()}{os.getpid()}-{secrets.token_hex(8)}"
        path = _FOLDER / self.name
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
        self.unlink = finalize(self, path.unlink, missing_ok=True)
        """Takes its name away, as the end of this object does; the memory goes with its last mapping."""
        try:
            # The mapping keeps the open file, and so the lock, until nobody uses it any more.
            fcntl.flock(fd, fcntl.LOCK_EX)
            os.posix_fallocate(fd, 0, size)
            self._mapping = mmap.mmap(fd, size)
            if not os.fstat(fd).st_nlink:
                raise OSError(errno.ENOENT, "swept before it was locked")
        finally:
            os.close(fd)

    def lend(self, returned: Callable[["Segment"], object]) -> memoryview:
        """All of it; `returned` is called, in any thread, once neither this view nor a part of it is left."""
        # A memoryview keeps the array that it looks into, and an array can be watched.
        array = np.frombuffer(self._mapping, np.uint8).view(_Lent)
        array.segment = self
        finalize(array, returned, self).atexit = False
        return array.data


class _Lent(np.ndarray[tuple[int], np.dtype[np.uint8]]):
    """The bytes of a segment."""

    segment: Segment


def place_of(data: bytes | memoryview) -> tuple[Segment, int] | None:
    """The segment that a view or a part of it was lent of, and where in that it begins."""
    array = data.obj if type(data) is memoryview else None
    if not isinstance(array, _Lent):
        return None
    return array.segment, _address(np.frombuffer(data, np.uint8)) - _address(array)


def _address(array: np.ndarray[tuple[int], np.dtype[np.uint8]]) -> int:
    address: int = array.__array_interface__["data"][0]
    return address


@cache
def prefix() -> str:
    """How segments of this /dev/shm begin: a Triton that is reached through a tunnel may know of others."""
    place = _BOOT_ID.read_text() + str(_FOLDER.stat().st_dev)
    return f"{OWN_REGIONS}{blake2b(place.encode(), digest_size=4).hexdigest()}-"


def is_held(name: str) -> bool:
    """Whether a segment's process lives; also where that cannot be told."""
    try:
        fd = os.open(_FOLDER / name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except FileNotFoundError:
        return False
    except OSError:
        return True
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
        return False
    except BlockingIOError:
        return True
    finally:
        os.close(fd)


def sweep() -> None:
    """Unlink the segments of processes that were killed."""
    for path in _FOLDER.glob(f"{prefix()}*"):
        if not is_held(path.name):
            with suppress(OSError):
                path.unlink(missing_ok=True)


def most_bytes() -> int:
    """Half of /dev/shm: Triton's Python models need it too."""
    room = os.statvfs(_FOLDER)
    return room.f_blocks * room.f_frsize // 2


def _leave_room(size: int) -> None:
    """Raise OSError where less than half of /dev/shm would be left."""
    room = os.statvfs(_FOLDER)
    if room.f_bavail * room.f_frsize - size < most_bytes():
        raise OSError(errno.ENOSPC, "less than half of /dev/shm would be left")
