"""When a model's process died: which job did it, found out without harm to the others.

Whoever was on the model when its process died is suspect. A dead process and a job that kills it answer
alike; so on such a model jobs run one at a time, and each on a process of which no request has failed yet.
Whoever kills that did it; whoever is answered is cleared, and the model with it.
"""

import asyncio
import time
from collections import defaultdict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from adapter.core.dataplane import DataPlane
from adapter.core.errors import AdapterError, ModelNotFound

_PATIENCE_S = 15.0
"""After so long a process is tried that was not seen to be new: some servers mend it in place."""
_TURN_S = 1.0
"""So long a job waits for its turn: it keeps a slot that jobs on other models could use.

So long nobody runs beside it, while nobody died: who takes longer is slow rather than a killer.
"""
_SHORTEST_REST_S = 1.0
_LONGEST_REST_S = 30.0


class Quarantine:
    """What one worker knows of the models."""

    def __init__(self, dataplane: DataPlane) -> None:
        self._dataplane = dataplane
        self._died: dict[str, tuple[float, float]] = {}
        """Model → when it died first and last since it answered."""
        self._turns: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)
        self._begun: dict[str, float] = {}
        """Model → when the turn began that somebody has on it."""

    def died(self, model: str) -> None:
        """The model's process died, or was found dead."""
        now = time.monotonic()
        first, _ = self._died.get(model, (now, now))
        self._died[model] = first, now

    def answered(self, model: str) -> None:
        """The model answered a job."""
        self._died.pop(model, None)

    def dead(self, model: str) -> bool:
        """Whether the model's process died, and has not answered since."""
        return model in self._died

    def watches(self, model: str) -> bool:
        """Whether jobs on the model run one at a time."""
        return self.dead(model) or time.monotonic() - self._begun.get(model, -_TURN_S) < _TURN_S

    @asynccontextmanager
    async def alone(self, model: str) -> AsyncIterator[bool]:
        """Be the only suspect on the model when it is one's turn; gives False where that takes too long."""
        turn = self._turns[model]
        try:
            async with asyncio.timeout(_TURN_S):
                await turn.acquire()
        except TimeoutError:
            yield False
            return
        self._begun[model] = time.monotonic()
        try:
            yield True
        finally:
            del self._begun[model]
            turn.release()

    def rest_s(self, model: str) -> float:
        """How long to leave the model alone: the longer it has been dead, the longer it may stay so."""
        now = time.monotonic()
        first, _ = self._died.get(model, (now, now))
        return min(max(_SHORTEST_REST_S, now - first), _LONGEST_REST_S)

    async def recovered(self, model: str) -> bool:
        """Whether whoever dies on the model now has killed it. Raises ModelNotFound."""
        if not self.dead(model):
            return True
        _, last = self._died[model]
        if time.monotonic() - last > _PATIENCE_S:
            return True
        try:
            statistics = await self._dataplane.statistics(model)
        except ModelNotFound:
            raise
        except AdapterError:
            return False
        return sum(int(version["inference_stats"]["fail"]["count"]) for version in statistics) == 0
