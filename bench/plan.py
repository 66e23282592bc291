"""How long a run takes: which points, how many draws of how many seconds."""

import random
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

from bench.loads import IMG, IRIS, IRIS64, LOADS, Load
from bench.servers import Server


class Point(NamedTuple):
    """A load at a number of connections, for so many seconds a draw."""

    load: Load
    connections: int
    seconds: int


@dataclass(frozen=True)
class Plan:
    """The points of a run and what is done for each."""

    points: tuple[Point, ...]
    draws: int
    checks: int
    """Concurrent requests whose answers are compared, of the small loads."""
    job_draws: int
    jobs: int

    def steps(self, servers: list[Server]) -> Iterator[tuple[int, Point, Server]]:
        """Every draw of the run. The servers take turns at a point, each time in another order, so that what
        drifts on the machine drifts for all of them."""
        order = random.Random(0)
        for number in range(self.draws):
            for point in self.points:
                for server in order.sample(servers, len(servers)):
                    yield number, point, server

    @property
    def checks_of(self) -> dict[str, int]:
        """Load → how many answers are compared."""
        return {load.name: self.checks if load is not IMG else max(self.checks // 20, 32) for load in LOADS}


FULL = Plan(
    points=(
        *(Point(IRIS, connections, 2) for connections in (1, 16, 64)),
        *(Point(IRIS64, connections, 1) for connections in (1, 16, 64)),
        *(Point(IMG, connections, seconds) for connections, seconds in ((1, 2), (16, 3), (64, 3))),
    ),
    draws=9,
    checks=2000,
    job_draws=5,
    jobs=4000,
)

QUICK = Plan(
    points=(
        *(Point(IRIS, connections, 1) for connections in (1, 16, 64)),
        Point(IRIS64, 16, 1),
        *(Point(IMG, connections, 1) for connections in (1, 16)),
    ),
    draws=3,
    checks=500,
    job_draws=1,
    jobs=2000,
)
