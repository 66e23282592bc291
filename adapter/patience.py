"""How long a connection waits for its client: to send headers, a body, another request, and to take answers.

uvicorn bounds only the time to another request. The timers here look at a connection now and then, so that no
request costs one.
"""

import asyncio
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from adapter.cycle import Cycle

LEAST_PACE = 1024
"""Bytes per second that a body must come at, on average, once the grace is over."""
GRACE_S = 10.0
_LOOK_EVERY_S = 2.0
_TICK_S = 0.001
"""The event loop's clock counts milliseconds."""
READ_WITHIN_S = 60.0
"""How long a client may take nothing of an answer that waits for it."""
END_WITHIN_S = 10.0
"""How long a client may go on sending what nobody reads."""


class PatientProtocol(HttpToolsProtocol):
    """A connection with its timers; who inherits from it tells it how far the client is."""

    cycle: Cycle | None  # type: ignore[assignment]

    def __init__(self, header_timeout_s: float, **uvicorns: Any) -> None:
        super().__init__(**uvicorns)
        self._header_timeout_s = header_timeout_s
        self._timer: asyncio.TimerHandle | None = None
        self._writing: asyncio.TimerHandle | None = None
        self._idling: asyncio.TimerHandle | None = None
        self._idle_since = 0.0
        self._since = 0.0
        self._in_headers = True
        """Between requests, or within one's headers."""
        self._in_message = False
        self._body_bytes = 0

    def too_slow(self) -> None:
        """A request does not come in time."""
        raise NotImplementedError

    def connection_lost(self, exc: Exception | None) -> None:
        for timer in (self._timer, self._writing, self._idling):
            _stop(timer)
        super().connection_lost(exc)

    def wait(self) -> None:
        """From now on headers, or a body, are waited for."""
        self._since = self.loop.time()
        if self._in_headers:
            self._look_at_headers()
        else:
            self._timer = self.loop.call_later(_LOOK_EVERY_S, self._look_at_body)

    def waited(self) -> None:
        """They came, or are waited for no longer."""
        _stop(self._timer)
        self._timer = None

    def wait_for_end(self) -> None:
        """From now on it is only waited for the client to hang up."""
        _stop(self._timer)
        _stop(self._idling)
        self._timer = self.loop.call_later(END_WITHIN_S, self.transport.close)

    def _look_at_headers(self) -> None:
        """Whether they are still in time, which begins anew while it is we who do not read."""
        now = self.loop.time()
        if self.flow.read_paused:
            self._since = now
        left = self._since + self._header_timeout_s - now
        if left > _TICK_S:
            self._timer = self.loop.call_later(min(left, _LOOK_EVERY_S), self._look_at_headers)
        elif self._in_message:
            self.too_slow()
        else:
            self.transport.close()

    def _look_at_body(self) -> None:
        """Whether the body comes fast enough; what time we do not read does not count."""
        if self.flow.read_paused:
            self._since += _LOOK_EVERY_S
        elapsed = self.loop.time() - self._since
        if self._body_bytes < (elapsed - GRACE_S) * LEAST_PACE:
            self.too_slow()
        else:
            self._timer = self.loop.call_later(_LOOK_EVERY_S, self._look_at_body)

    def idle(self) -> None:
        """From now on nothing is asked of us, unless the answer came before the body's end."""
        self._idle_since = self.loop.time()
        if self._idling is None:
            self._idling = self.loop.call_later(self.timeout_keep_alive, self._look_whether_idle)

    def _look_whether_idle(self) -> None:
        """Close a connection on which nothing came for so long since the last answer."""
        self._idling = None
        cycle, left = self.cycle, self._idle_since + self.timeout_keep_alive - self.loop.time()
        if self._in_message or (cycle is not None and not cycle.response_complete):
            return
        if left > _TICK_S:
            self._idling = self.loop.call_later(left, self._look_whether_idle)
        elif not self.transport.is_closing():
            self.transport.close()

    def pause_writing(self) -> None:
        super().pause_writing()
        self._watch_reader()

    def resume_writing(self) -> None:
        _stop(self._writing)
        super().resume_writing()

    def _watch_reader(self) -> None:
        left = self.transport.get_write_buffer_size()
        self._writing = self.loop.call_later(READ_WITHIN_S, self._look_at_reader, left)

    def _look_at_reader(self, left: int) -> None:
        """Whether the client has taken something of what was left; a large answer may take it a while."""
        if self.transport.get_write_buffer_size() < left:
            self._watch_reader()
        else:
            self.transport.abort()


def _stop(timer: asyncio.TimerHandle | None) -> None:
    if timer is not None:
        timer.cancel()
