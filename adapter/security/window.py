"""Counting in a sliding window, in this process alone."""

WINDOW_S = 60
"""The protocol's unit: requests per minute."""


class SlidingWindow:
    """How many of something happened in the last 60 s, to the second; a burst never counts for less."""

    __slots__ = ("_newest", "_seconds", "total")

    def __init__(self) -> None:
        # One more than the window: the second that is running, and 60 whole ones before it.
        self._seconds = [0] * (WINDOW_S + 1)
        self._newest = 0
        self.total = 0

    def add(self, now: float, count: int = 1) -> None:
        """`count` of them happen at `now`, in seconds of a clock that never goes back."""
        self.forget(now)
        self._seconds[self._newest % len(self._seconds)] += count
        self.total += count

    def forget(self, now: float) -> None:
        """Bring `total` to `now`."""
        second = int(now)
        if second <= self._newest:
            return
        gone = min(second - self._newest, len(self._seconds))
        for passed in range(second - gone + 1, second + 1):
            slot = passed % len(self._seconds)
            self.total -= self._seconds[slot]
            self._seconds[slot] = 0
        self._newest = second

    def wait(self, now: float) -> int:
        """Whole seconds until one that is counted now is forgotten; at least 1."""
        self.forget(now)
        oldest = self._newest - WINDOW_S
        for second in range(oldest, self._newest + 1):
            if self._seconds[second % len(self._seconds)]:
                return second - oldest + 1
        return 1
