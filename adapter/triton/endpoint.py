"""One of several Tritons: whether it can be asked, what it serves, and how much is on it."""

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, TypeVar

import structlog

from adapter.core.errors import AdapterError, EngineUnavailable
from adapter.triton.errors import Silent
from adapter.triton.transport import GrpcTransport

_log = structlog.get_logger()

T = TypeVar("T")

_EVERY_S = 1.0
"""It is looked at so often."""
_LOOK_TIMEOUT_S = 3.0
"""After so long it is silent."""
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.25, 1.0
"""Between looks while it is away; each pause is twice as long as the one before."""
_DOUBT_S = 1.0
_DEAD_S = 15.0
"""After so long a model's process may be another one."""


class Endpoint:
    """One Triton of several.

    It is in rotation while it answers when it is asked for its models, every second. A call or a look that
    finds it away takes it out at once; a look that is answered takes it in again. `changed` is called when it
    goes, comes, or serves other models.
    """

    def __init__(self, address: str, transport: GrpcTransport, changed: Callable[[], None]) -> None:
        self.address = address
        self.transport = transport
        self.fault = "was not asked yet"
        """What keeps it out of rotation; "" while it is in."""
        self.index: Sequence[Any] = ()
        """Models of its repository, with their states, as it told last."""
        self.silence = asyncio.get_running_loop().create_future()
        """Done while it is connected and answers nothing."""
        self.ready: frozenset[tuple[str, str]] = frozenset()
        """Names and versions that were ready when it told last."""
        self.models: frozenset[str] = frozenset()
        """Names of those."""
        self._changed = changed
        self._calls: set[asyncio.Task[Any]] = set()
        self._looks: set[asyncio.Task[None]] = set()
        self._doubts: dict[str, float] = {}
        self._died: dict[str, tuple[float, float]] = {}
        """Model → when its process was found dead first and last."""
        self._seen = 0.0
        self._watching: asyncio.Task[None] | None = None

    def knows(self, model: str) -> bool:
        """Whether its repository has the model, loaded or not."""
        return any(line.name == model for line in self.index)

    @property
    def in_flight(self) -> int:
        """Calls that have not ended, those that nobody waits for any more included."""
        return len(self._calls)

    async def open(self) -> None:
        """Return once it was looked at, and look again and again from then on."""
        await self.look()
        self._watching = asyncio.create_task(self._watch())

    async def _watch(self) -> None:
        pause_s = _FIRST_PAUSE_S
        while True:
            await asyncio.sleep(pause_s if self.fault else _EVERY_S)
            await self.look()
            pause_s = min(2 * pause_s, _LONGEST_PAUSE_S) if self.fault else _FIRST_PAUSE_S

    def begin_look(self) -> asyncio.Task[None]:
        """Ask which models it has."""
        task = asyncio.create_task(self.look())
        self._looks.add(task)
        task.add_done_callback(self._looks.discard)
        return task

    async def look(self) -> None:
        """Ask which models it has; whatever comes of it, nothing is raised."""
        began = asyncio.get_running_loop().time()
        try:
            answer = await self.transport.repository_index(_LOOK_TIMEOUT_S)
        except AdapterError as error:
            if isinstance(error, Silent) and not self.silence.done():
                self.silence.set_result(None)
            self._leave(error)
            return
        if began < self._seen:
            # A later look was answered sooner.
            return
        self._seen = began
        self._take_in(answer.models)

    def _take_in(self, index: Sequence[Any]) -> None:
        self.index = index
        ready = frozenset((line.name, line.version) for line in index if line.state == "READY")
        if self.silence.done():
            self.silence = asyncio.get_running_loop().create_future()
        if self.fault:
            _log.info("triton in rotation", server=self.address)
        if self.fault or ready != self.ready:
            self.fault, self.ready = "", ready
            self.models = frozenset(name for name, _ in ready)
            # One that was gone has a new process.
            self._died = {model: at for model, at in self._died.items() if model in self.models}
            self._changed()

    def _leave(self, error: AdapterError) -> None:
        before, self.fault = self.fault, error.message.removeprefix("Triton ")
        if before != self.fault:
            _log.warning("triton out of rotation", server=self.address, reason=self.fault)
        if not before:
            self._changed()

    def begin(self, call: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        """Start a call of its transport, which runs to its end even if nobody waits for it.

        Cancelled calls have crashed Tritons.
        """
        task = asyncio.create_task(call)
        self._calls.add(task)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._calls.discard(task)
        if not task.cancelled() and isinstance(error := task.exception(), EngineUnavailable):
            self._leave(error)

    def doubt(self, model: str) -> None:
        """Ask the others for this model for a moment: it is said to be ready, and is not."""
        self._doubts[model] = asyncio.get_running_loop().time() + _DOUBT_S

    def died(self, model: str, asked: float) -> bool:
        """The model's process was found dead by a call of that time; whether it was known before."""
        now = asyncio.get_running_loop().time()
        first, last = self._died.get(model, (now, now))
        if now - last > _DEAD_S:
            first = now
        self._died[model] = first, now
        return first < asked

    def works(self, model: str) -> None:
        """The model answered."""
        self._died.pop(model, None)

    def doubts(self, model: str) -> bool:
        """Whether the model is in doubt here."""
        until = self._doubts.get(model)
        if until is not None and until < asyncio.get_running_loop().time():
            del self._doubts[model]
            return False
        return until is not None

    async def retire(self) -> None:
        """Let the calls in flight end, then let go of it."""
        if self._watching:
            self._watching.cancel()
        try:
            if self._calls:
                await asyncio.wait(self._calls)
        finally:
            await self.transport.close()

    async def close(self) -> None:
        """Let go of it now."""
        if self._watching:
            self._watching.cancel()
        await self.transport.close()
