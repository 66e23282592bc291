"""The queue's lanes: who goes first, and how nobody is left behind.

A job travels in one of nine lanes: three priorities, and in each of them three bands. Of a client's jobs
that wait, the first few go to band 0, some more to band 1, the rest to band 2; so the single job of one
client does not stand behind the ten thousand of another. Lanes are served by weight, none of them never.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

_PRIORITIES: Final = ("urgent", "normal", "low")
_BANDS: Final = 3
_STEP: Final = 2
"""A lane is served 2 ** _STEP times as often as the next lower priority or band."""
_BAND_SIZES: Final = (16, 256)
"""Waiting jobs that one client may have in bands 0 and 1, in each priority and as one process sees it."""


@dataclass(frozen=True, slots=True)
class Lane:
    """One lane; `priority` and `band` count from 0, the most urgent."""

    priority: int
    band: int

    @property
    def tokens(self) -> str:
        """Its two tokens of a subject."""
        return f"{_PRIORITIES[self.priority]}.{self.band}"

    @property
    def consumer(self) -> str:
        """The name of its consumer."""
        return f"{_PRIORITIES[self.priority]}-{self.band}"

    @property
    def weight(self) -> int:
        """Its share when others have jobs as well."""
        return 1 << _STEP * (len(_PRIORITIES) - 1 - self.priority + _BANDS - 1 - self.band)


LANES: Final = tuple(Lane(priority, band) for priority in range(len(_PRIORITIES)) for band in range(_BANDS))
BY_CONSUMER: Final = {lane.consumer: lane for lane in LANES}


def priority_of(parameter: int) -> int:
    """A request's `priority`, as Triton counts: 1 is urgent, 0 (none) normal, 2 and more low."""
    return {1: 0, 0: 1}.get(parameter, 2)


class Shares:
    """Divides a worker's free slots among lanes by weight, and remembers who came off short."""

    def __init__(self) -> None:
        self._credit = dict.fromkeys(LANES, 0.0)

    def divide(self, lanes: Iterable[Lane], slots: int) -> dict[Lane, int]:
        """How many jobs to ask each of these lanes for, `slots` in all; lanes that get none are left out."""
        lanes = list(lanes)
        total = sum(lane.weight for lane in lanes)
        for lane in lanes:
            self._credit[lane] += slots * lane.weight / total
        given = {lane: max(0, math.floor(self._credit[lane])) for lane in lanes}
        for lane in sorted(lanes, key=lambda lane: given[lane] - self._credit[lane]):
            given[lane] += 1 if sum(given.values()) < slots else 0
        while (over := sum(given.values()) - slots) > 0:
            most = max(given, key=lambda lane: given[lane])
            given[most] -= min(over, given[most])
        for lane, count in given.items():
            self._credit[lane] -= count
        return {lane: count for lane, count in given.items() if count}

    def empty(self, lane: Lane) -> None:
        """This lane had less than it was asked for: it saves nothing up."""
        self._credit[lane] = 0.0


@dataclass(eq=False, slots=True)
class Place:
    """A job's place in its lane: the sequence number once it is stored."""

    client: str
    lane: Lane
    sequence: int | None = None


class Bands:
    """Which band a client's next job goes to, by what it has waiting as far as this process knows."""

    def __init__(self) -> None:
        self._waiting: dict[tuple[str, Lane], set[Place]] = {}

    def __bool__(self) -> bool:
        """Whether any job is being counted."""
        return bool(self._waiting)

    def take(self, client: str, priority: int) -> Place:
        """A place for one more job."""
        for band, size in enumerate(_BAND_SIZES):
            lane = Lane(priority, band)
            places = self._waiting.setdefault((client, lane), set())
            if len(places) < size:
                place = Place(client, lane)
                places.add(place)
                return place
        return Place(client, Lane(priority, _BANDS - 1))

    def leave(self, place: Place) -> None:
        """The job was not stored after all."""
        places = self._waiting.get((place.client, place.lane), set())
        places.discard(place)

    def delivered(self, lane: Lane, sequence: int) -> None:
        """Every job of the lane up to this sequence number has reached a worker."""
        for key in [key for key in self._waiting if key[1] == lane]:
            left = {p for p in self._waiting[key] if p.sequence is None or p.sequence > sequence}
            if left:
                self._waiting[key] = left
            else:
                del self._waiting[key]
