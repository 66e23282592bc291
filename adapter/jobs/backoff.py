"""How long a job rests before it is tried again."""

_FIRST_S = 0.5
_LONGEST_S = 30.0
_MOST_DOUBLINGS = 10


def delay_s(deliveries: int) -> float:
    """Seconds after so many deliveries: twice as long after each, half a minute at most."""
    return min(_FIRST_S * 2.0 ** min(deliveries, _MOST_DOUBLINGS), _LONGEST_S)
