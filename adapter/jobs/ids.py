"""Request ids: unguessable, in order of submission, and telling the lane, so that look-ups need no search.

Forty hexadecimal digits: 13 of the microseconds since the epoch, one each of priority and band, 25 at random.
"""

import re
import secrets
from hashlib import blake2b

from adapter.core.errors import JobNotFound
from adapter.jobs.lanes import Lane

_ID = re.compile(r"[0-9a-f]{13}[0-2][0-2][0-9a-f]{25}\Z")
_TIME_DIGITS = 13
_RANDOM_BITS = 100


def new_id(lane: Lane, seconds: float) -> str:
    """An id for a job that was submitted at `seconds` since the epoch."""
    moment = int(seconds * 1_000_000)
    return f"{moment:013x}{lane.priority}{lane.band}{secrets.randbits(_RANDOM_BITS):025x}"


def lane_of(job_id: str) -> Lane:
    """The lane that the job travels in. Raises JobNotFound for what is no id of ours."""
    if not _ID.match(job_id):
        raise JobNotFound(f"no request with the id {job_id[:64]}")
    return Lane(int(job_id[_TIME_DIGITS]), int(job_id[_TIME_DIGITS + 1]))


def submitted_at(job_id: str) -> float:
    """When the job was submitted, in seconds since the epoch."""
    return int(job_id[:_TIME_DIGITS], 16) / 1_000_000


def token(text: str) -> str:
    """A client's words as a subject's token, which must not hold `.`, `*`, `>` or blanks."""
    return blake2b(text.encode(), digest_size=16).hexdigest()
