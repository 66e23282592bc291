"""W3C Trace Context (https://www.w3.org/TR/trace-context/): which trace something is part of, in headers."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

_TRACEPARENT = re.compile(
    r"(?!ff)([0-9a-f]{2})-(?!0{32})([0-9a-f]{32})-(?!0{16})([0-9a-f]{16})-([0-9a-f]{2})(-.*)?\Z"
)
_KEY = r"(?:[a-z][a-z0-9_*/-]{0,255}|[a-z0-9][a-z0-9_*/-]{0,240}@[a-z][a-z0-9_*/-]{0,13})"
_MEMBER = re.compile(rf"({_KEY})=[ -+\--<>-~]{{0,255}}[!-+\--<>-~]\Z")
_MOST_MEMBERS = 32
_LONGEST_STATE = 512
"""As much has to be passed on; of more than that nothing is, as whoever made it cannot count on it."""
_SAMPLED, _KNOWN_FLAGS = 0x01, 0x03


@dataclass(frozen=True, slots=True)
class TraceContext:
    """A span's place: its trace (32 hex digits), itself (16), and whether it is recorded.

    `state` is the `tracestate` that goes along; `remote` says that another process told us of it.
    """

    trace_id: str
    span_id: str
    flags: int
    state: str = ""
    remote: bool = False

    @property
    def sampled(self) -> bool:
        """Whether somebody keeps this trace."""
        return bool(self.flags & _SAMPLED)

    @property
    def traceparent(self) -> str:
        """The header of that name."""
        return f"00-{self.trace_id}-{self.span_id}-{self.flags:02x}"


def read_trace_context(traceparents: Sequence[str], tracestates: Sequence[str] = ()) -> TraceContext | None:
    """The context that the headers of these names tell of; None where the standard says to start anew.

    That is without a `traceparent`, with several, and with one that is malformed. A later version's is read
    as far as it looks like ours. A malformed `tracestate` is left out.
    """
    if len(traceparents) != 1 or not (match := _TRACEPARENT.match(traceparents[0].strip(" \t"))):
        return None
    version, trace_id, span_id, flags, more = match.groups()
    if version == "00" and more:
        return None
    return TraceContext(trace_id, span_id, int(flags, 16) & _KNOWN_FLAGS, _state(tracestates), remote=True)


def _state(tracestates: Sequence[str]) -> str:
    """The headers as one, or "" when any of it breaks the rules."""
    members = [member.strip(" \t") for part in tracestates for member in part.split(",")]
    members = [member for member in members if member]
    keys = [match[1] for member in members if (match := _MEMBER.match(member))]
    state = ",".join(members)
    well_formed = len(keys) == len(members) == len(set(keys)) <= _MOST_MEMBERS
    return state if well_formed and len(state) <= _LONGEST_STATE else ""
