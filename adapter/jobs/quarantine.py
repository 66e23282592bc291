"""When a model's process died: which job did it, found out without harm to the others.

Whoever was on the model when its process died is suspect. A dead process and a job that kills it answer
alike; so on such a model jobs run one at a time, and each on a process of which no request has failed yet.
Whoever kills that did it; whoever is answered is cleared, and the model with it.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager

from adapter.core.dataplane import DataPlane

_PATIENCE_S = 15.0
"""After so long a process is tried that was not seen to be new: some servers mend it in place."""


class Quarantine:
    """What one worker knows of the models."""

    def __init__(self, dataplane: DataPlane) -> None:
        self._dataplane = dataplane
        self._died: dict[str, float] = {}
        self._occupied: set[str] = set()

    def died(self, model: str) -> None:
        """The model's process died, or was found dead."""
        self._died[model] = time.monotonic()

    def answered(self, model: str) -> None:
        """The model answered a job."""
        self._died.pop(model, None)

    def watches(self, model: str) -> bool:
        """Whether jobs on the model run one at a time."""
        return model in self._died

    def occupied(self, model: str) -> bool:
        """Whether a job is alone on the model now."""
        return model in self._occupied

    @contextmanager
    def alone(self, model: str) -> Iterator[None]:
        """Be the only suspect on the model; it must not be occupied."""
        self._occupied.add(model)
        try:
            yield
        finally:
            self._occupied.discard(model)

    async def recovered(self, model: str) -> bool:
        """Whether whoever dies on the model now has killed it. Raises EngineUnavailable, ModelNotFound."""
        died = self._died.get(model)
        if died is None or time.monotonic() - died > _PATIENCE_S:
            return True
        statistics = await self._dataplane.statistics(model)
        return sum(int(version["inference_stats"]["fail"]["count"]) for version in statistics) == 0
