"""Shared-memory regions that one Triton has mapped: made when they are missed, lent, and given back.

A request never waits for a region: without one it goes as bytes, and one of its size is made meanwhile. Only
a region whose call was answered is lent again. After any other end Triton may still write into it: it is
given up, and forgotten by Triton when that is done with it.
"""

import asyncio
import mmap
import time
from collections import OrderedDict, deque
from collections.abc import Coroutine
from contextlib import suppress
from typing import Any

import structlog

from adapter.core.errors import AdapterError, EngineUnavailable, NotSupported
from adapter.core.instruments import Value
from adapter.triton import segments
from adapter.triton.segments import Segment
from adapter.triton.transport import GrpcTransport

_log = structlog.get_logger()

_FIRST_SAFE = 2, 51
"""From this Triton on (24.10) a region is not taken from under a request that uses it."""
_PAUSE_S = 30.0
"""Before it is tried again what has failed."""
_AGAIN_S = 1.0
_CLOSE_WITHIN_S = 1.0
_CLOSE_AGAIN_S = 0.02


class Regions:
    """Those of one Triton, of at most `most_bytes` together; `in_use` tells how many bytes there are."""

    def __init__(self, transport: GrpcTransport, server: str, most_bytes: int, in_use: Value) -> None:
        self._transport = transport
        self._server = server
        self._most_bytes = most_bytes
        self._in_use = in_use
        self._bytes = 0
        self._known: dict[str, Segment] = {}
        """Those that are not given up."""
        self._registered: set[str] = set()
        """The names that Triton has not forgotten yet."""
        self._free: OrderedDict[int, list[Segment]] = OrderedDict()
        """By size, that which was asked for last behind."""
        self._returned: deque[Segment] = deque()
        self._tasks: set[asyncio.Task[None]] = set()
        self._working: asyncio.Task[None] | None = None
        self._accepted = False
        self._told: str | None = None
        self._not_before = 0.0
        self._closed = False

    def open(self) -> None:
        """Triton answers: see whether it offers shared memory, unless that is known."""
        if not self._accepted:
            self._work(self._begin())

    def take(self, size: int) -> tuple[str, memoryview] | None:
        """A region of at least so many bytes, and a view of it, while which is in use the region is lent."""
        while self._returned:
            segment = self._returned.popleft()
            if self.has(segment.name):
                self._free.setdefault(segment.size, []).append(segment)
        # Four sizes between a power of two and the next: a body is a little longer than its tensors.
        step = max(1 << size.bit_length() >> 3, mmap.PAGESIZE)
        size = -(-size // step) * step
        free = self._free.get(size)
        if free is not None:
            self._free.move_to_end(size)
        if free:
            segment = free.pop()
            return segment.name, segment.lend(self._returned.append)
        if self._accepted and size <= self._most_bytes:
            self._work(self._make(size))
        return None

    def has(self, name: str) -> bool:
        """Whether Triton may be asked to use the region."""
        return name in self._known

    def give_up(self, name: str) -> None:
        """Never lend the region again."""
        if not self._closed and (segment := self._known.pop(name, None)):
            self._start(self._end(segment))

    def forget(self) -> None:
        """Triton knows a region no more: it was started anew, and knows none."""
        if not self._accepted:
            return
        self._accepted, self._not_before = False, 0.0
        self._free.clear()
        for name in list(self._known):
            self.give_up(name)
        self.open()

    def _start(self, coroutine: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    def _work(self, coroutine: Coroutine[Any, Any, None]) -> None:
        """Do it, unless something is being done, or has failed a moment ago."""
        busy = self._working is not None and not self._working.done()
        if busy or self._closed or time.monotonic() < self._not_before:
            coroutine.close()
        else:
            self._working = self._start(self._try(coroutine))

    async def _try(self, coroutine: Coroutine[Any, Any, None]) -> None:
        try:
            await coroutine
        except EngineUnavailable:
            # That it is away others tell.
            self._not_before = time.monotonic() + _AGAIN_S
        except (OSError, AdapterError) as error:
            self._not_before = time.monotonic() + _PAUSE_S
            self._tell(error.message if isinstance(error, AdapterError) else error.strerror or str(error))

    def _tell(self, trouble: str) -> None:
        """Log what keeps shared memory from being used, or with "" that it is, when that is new."""
        if self._told != trouble:
            self._told = trouble
            event = "shared memory not used" if trouble else "shared memory in use"
            _log.info(event, server=self._server, **({"reason": trouble} if trouble else {}))

    async def _begin(self) -> None:
        """See whether this Triton can do it, and let go of what killed processes left."""
        server = await self._transport.server_metadata()
        if "system_shared_memory" not in server.extensions or not _is_safe(server.version):
            raise NotSupported(f"Triton {server.version} is older than {'.'.join(map(str, _FIRST_SAFE))}")
        self._most_bytes = min(self._most_bytes, segments.most_bytes())
        for name in (await self._transport.memory("system", "Status")).regions:
            if name.startswith(segments.prefix()) and not segments.is_held(name):
                self._start(self._unregister(name))
        segments.sweep()
        self._accepted = True

    async def _make(self, size: int) -> None:
        """One more region of this size, in the place of such as were not asked for of late."""
        while self._bytes + size > self._most_bytes:
            segment = self._least_used()
            if segment is None:
                return
            del self._known[segment.name]
            await self._end(segment)
        segment = await asyncio.to_thread(Segment, size)
        self._count(size)
        self._known[segment.name] = segment
        self._registered.add(segment.name)
        place = {"key": f"/{segment.name}", "offset": 0, "byte_size": size}
        try:
            await self._transport.memory("system", "Register", name=segment.name, **place)
        except EngineUnavailable:
            self.give_up(segment.name)
            raise
        except AdapterError as error:
            self.give_up(segment.name)
            raise NotSupported("Triton cannot open what lies in this /dev/shm") from error
        self._tell("")
        self._returned.append(segment)

    def _least_used(self) -> Segment | None:
        return next((free.pop() for free in self._free.values() if free), None)

    async def _end(self, segment: Segment) -> None:
        segment.unlink()
        await self._unregister(segment.name)
        self._count(-segment.size)

    async def _unregister(self, name: str, again_s: float = _AGAIN_S) -> None:
        """Have Triton forget a region, which it refuses while a request that is late uses it."""
        while True:
            try:
                await self._transport.memory("system", "Unregister", name=name)
            except AdapterError:
                await asyncio.sleep(again_s)
            else:
                self._registered.discard(name)
                return

    def _count(self, size: int) -> None:
        self._bytes += size
        self._in_use.inc(size)

    async def close(self) -> None:
        """Unregister all; what Triton still uses, or cannot be told, the next process lets go of."""
        self._closed = True
        if self._working is not None:
            # A segment that is being made in a thread would stay for a while.
            await asyncio.wait([self._working], timeout=_CLOSE_WITHIN_S)
        for task in self._tasks:
            task.cancel()
        for segment in self._known.values():
            segment.unlink()
        # A request that was answered this moment may not have let go of its region yet.
        calls = [self._unregister(name, _CLOSE_AGAIN_S) for name in self._registered]
        with suppress(TimeoutError):
            await asyncio.wait_for(asyncio.gather(*calls), _CLOSE_WITHIN_S)


def _is_safe(version: str) -> bool:
    numbers = version.split(".")[:2]
    return all(map(str.isdigit, numbers)) and tuple(map(int, numbers)) >= _FIRST_SAFE
