"""Lines written to a file descriptor by a thread, so that whoever logs never waits for who reads."""

import atexit
import os
import select
import threading
import time
from collections.abc import Callable
from queue import SimpleQueue

_GATHER_S = 0.02
"""How long a line may wait for others: one write for many, and few hand-overs between the threads.

As much is missing from the end of the log of a process that is killed.
"""
_MOST_WAITING = 20_000
_LAST_LINES_S = 1.0


class LineWriter:
    """Writes lines in their order until the process ends.

    A pipe that nobody empties blocks whoever writes to it. The event loop, and every request with it, must
    not stand still for that: here a thread does, and once very many lines wait, more are dropped and counted.
    When there is room again `lost` is called with their number.
    """

    def __init__(self, fd: int, lost: Callable[[int], None]) -> None:
        self._fd = fd
        self._tell_lost = lost
        self._lost = 0
        # Its `put` may be interrupted by another one in the same thread: of a finalizer that logs.
        self._lines: SimpleQueue[bytes | None] = SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="log", daemon=True)
        self._thread.start()
        atexit.register(self.close)

    def write(self, line: bytes) -> None:
        """Write the line, and a line break, soon; never blocks."""
        if self._lines.qsize() < _MOST_WAITING:
            self._lines.put(line)
        else:
            self._lost += 1

    def close(self) -> None:
        """Write what is left, unless that takes too long."""
        self._lines.put(None)
        self._thread.join(_LAST_LINES_S)

    def _run(self) -> None:
        told = 0
        lines: list[bytes | None] = []
        while None not in lines:
            lines = [self._lines.get()]
            time.sleep(_GATHER_S)
            while not self._lines.empty():
                lines.append(self._lines.get())
            self._write(b"".join(line + b"\n" for line in lines if line is not None))
            if lost := self._lost - told:
                told += lost
                self._tell_lost(lost)

    def _write(self, content: bytes) -> None:
        left = memoryview(content)
        while left:
            try:
                left = left[os.write(self._fd, left) :]
            except BlockingIOError:
                # Whoever gave it to us may have made it so.
                select.select((), (self._fd,), ())
            except OSError:
                # Nobody can read it any more.
                return
