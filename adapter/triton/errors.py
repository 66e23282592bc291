"""In which ways a Triton can be away: whether a request may be sent to another depends on it."""

from adapter.core.errors import EngineUnavailable


class Silent(EngineUnavailable):
    """It is connected and says nothing: it may be stopped, or cut off without a word."""
