"""Long work on the event loop in short turns."""

import asyncio
from time import perf_counter

_TURN_S = 0.001


class Turns:
    """Lets requests have their turn during work that takes longer than one of them should wait."""

    def __init__(self) -> None:
        self._since = perf_counter()

    async def give(self) -> None:
        """Once a millisecond of work is done, let others go on first."""
        if perf_counter() - self._since > _TURN_S:
            await asyncio.sleep(0)
            self._since = perf_counter()
