"""What a run measures, and how long that takes."""

from collections import Counter

import pytest

from bench.plan import FULL, QUICK, Plan
from bench.servers import Server

SERVERS = [Server(f"server-{number}", "", "", ()) for number in range(9)]


@pytest.mark.parametrize(("plan", "draws"), [(FULL, 9), (QUICK, 3)])
def test_every_server_is_drawn_as_often_at_every_point(plan: Plan, draws: int) -> None:
    steps = Counter((number, point, server.key) for number, point, server in plan.steps(SERVERS))
    assert set(steps.values()) == {1}
    assert len(steps) == draws * len(plan.points) * len(SERVERS)


@pytest.mark.parametrize(("plan", "seconds"), [(FULL, 23 * 60), (QUICK, 3 * 60)])
def test_the_draws_leave_time_for_all_else(plan: Plan, seconds: int) -> None:
    """Of half an hour and five minutes: for starting, checking, asynchronous jobs, and a compiler."""
    assert sum(point.seconds for _, point, _ in plan.steps(SERVERS)) <= seconds
