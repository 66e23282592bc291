"""A way of Triton's to be away that only those who can ask another one tell apart."""

from adapter.core.errors import EngineUnavailable


class Silent(EngineUnavailable):
    """It is connected and says nothing: it may be stopped, or cut off without a word."""
