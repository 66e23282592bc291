"""Lanes: shares by weight, and a client's jobs spread over bands."""

from collections import Counter

import pytest

from adapter.core.errors import JobNotFound
from adapter.jobs.ids import lane_of, new_id, submitted_at
from adapter.jobs.lanes import LANES, Bands, Lane, Shares, priority_of


@pytest.mark.parametrize("slots", [1, 2, 7, 32, 500])
def test_no_more_is_asked_for_than_there_are_slots(slots: int) -> None:
    shares = Shares()
    for turn in range(50):
        given = shares.divide(LANES[turn % 3 :], slots)
        assert sum(given.values()) == slots
        assert all(count > 0 for count in given.values())


def test_lanes_are_served_by_weight_and_none_never() -> None:
    shares = Shares()
    served: Counter[Lane] = Counter()
    for _ in range(4410):
        served.update(shares.divide(LANES, 1))
    # 441 is the sum of the weights.
    assert {lane: served[lane] / 10 for lane in LANES} == {
        lane: pytest.approx(lane.weight, abs=1) for lane in LANES
    }


def test_a_lane_saves_nothing_up_while_it_is_empty() -> None:
    shares, low, urgent = Shares(), LANES[-1], LANES[0]
    for _ in range(1000):
        shares.divide([low, urgent], 1)
        shares.empty(low)
    given: Counter[Lane] = Counter()
    for _ in range(100):
        given.update(shares.divide([low, urgent], 1))
    assert given[low] <= 1


def test_the_first_jobs_of_a_client_go_first() -> None:
    bands = Bands()
    heavy = [bands.take("heavy", 1) for _ in range(1000)]
    assert Counter(place.lane.band for place in heavy) == {0: 16, 1: 256, 2: 728}
    assert bands.take("light", 1).lane == Lane(1, 0)
    assert bands.take("heavy", 0).lane == Lane(0, 0)
    for sequence, place in enumerate(heavy):
        place.sequence = sequence
    bands.delivered(Lane(1, 0), 3)
    assert [bands.take("heavy", 1).lane.band for _ in range(5)] == [0, 0, 0, 0, 2]


def test_what_was_not_stored_does_not_count() -> None:
    bands = Bands()
    for _ in range(100):
        bands.leave(bands.take("c", 1))
    assert bands.take("c", 1).lane.band == 0
    bands = Bands()
    place = bands.take("c", 1)
    place.sequence = 7
    assert bands
    bands.delivered(place.lane, 7)
    assert not bands


def test_priority_counts_as_tritons() -> None:
    assert [priority_of(value) for value in (1, 0, 2, 3, 99)] == [0, 1, 2, 2, 2]


def test_an_id_tells_its_lane_and_its_time() -> None:
    for lane in LANES:
        job_id = new_id(lane, 1_800_000_000.25)
        assert lane_of(job_id) == lane
        assert submitted_at(job_id) == 1_800_000_000.25
    assert len({new_id(LANES[0], 1.0) for _ in range(1000)}) == 1000
    assert new_id(LANES[0], 1_800_000_000.25) > new_id(LANES[8], 1_800_000_000.2499)


@pytest.mark.parametrize(
    "text", ["", "*", "a.b", "0" * 39, "0" * 41, "0" * 13 + "30" + "0" * 25, "0" * 39 + "\n"]
)
def test_what_is_no_id_has_no_lane(text: str) -> None:
    with pytest.raises(JobNotFound):
        lane_of(text)
