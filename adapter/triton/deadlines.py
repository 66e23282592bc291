"""Deadlines of many things, with one timer of the event loop for all of them.

A timer costs a request as much as reading its JSON, and nearly all of them are cancelled: here setting a
deadline and striking it off are a dictionary's, and the timer is set anew only for one that comes before all
others.
"""

import asyncio
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")

_NEVER = float("inf")
_TICK_S = 0.001
"""The event loop's clock counts milliseconds."""


class Deadlines(Generic[T]):
    """Calls `expired` with each thing whose time has come and that was not struck off before.

    Things are told apart by their hash; times are those of `loop.time()`.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, expired: Callable[[T], None]) -> None:
        self._loop = loop
        self._expired = expired
        self._times: dict[T, float] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._next = _NEVER

    def set(self, thing: T, time: float) -> None:
        """Its time comes then."""
        self._times[thing] = time
        if time < self._next:
            self._arm(time)

    def strike(self, thing: T) -> None:
        """It is done, or expired already."""
        self._times.pop(thing, None)

    def _arm(self, time: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._next = time
        self._timer = self._loop.call_at(time, self._look)

    def _look(self) -> None:
        self._timer, self._next = None, _NEVER
        now = self._loop.time() + _TICK_S
        for thing in [thing for thing, time in self._times.items() if time <= now]:
            if self._times.pop(thing, None) is not None:
                self._expired(thing)
        earliest = min(self._times.values(), default=_NEVER)
        if earliest < self._next:
            self._arm(earliest)
