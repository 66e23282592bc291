"""Many deadlines on one timer."""

import asyncio

import pytest

from adapter.triton.deadlines import Deadlines


def test_what_is_not_struck_off_expires_in_its_time_and_once() -> None:
    async def scenario() -> list[tuple[str, bool]]:
        loop = asyncio.get_running_loop()
        began, seen = loop.time(), []
        done = asyncio.Event()

        def expired(name: str) -> None:
            seen.append((name, loop.time() - began >= times[name] - 0.002))
            if name == "late":
                done.set()

        times = {"late": 0.12, "early": 0.04, "struck": 0.06, "moved": 0.08}
        deadlines = Deadlines(loop, expired)
        deadlines.set("moved", began + 0.01)
        for name, after in times.items():
            deadlines.set(name, began + after)
        deadlines.strike("struck")
        deadlines.strike("unknown")
        await done.wait()
        return seen

    assert asyncio.run(scenario()) == [("early", True), ("moved", True), ("late", True)]


def test_what_expires_may_set_and_strike_others() -> None:
    async def scenario() -> list[str]:
        loop, seen, done = asyncio.get_running_loop(), [], asyncio.Event()

        def expired(name: str) -> None:
            seen.append(name)
            if name == "first":
                deadlines.strike("second")
                deadlines.set("third", loop.time() + 0.01)
            else:
                done.set()

        deadlines = Deadlines(loop, expired)
        deadlines.set("first", loop.time())
        deadlines.set("second", loop.time())
        await done.wait()
        return seen

    assert asyncio.run(scenario()) == ["first", "third"]


def test_a_thousand_deadlines_that_are_struck_off_take_one_timer(monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario() -> int:
        loop, timers = asyncio.get_running_loop(), []
        set_timer = loop.call_at
        monkeypatch.setattr(loop, "call_at", lambda *args: timers.append(set_timer(*args)))
        deadlines = Deadlines[int](loop, lambda _: None)
        for number in range(1000):
            deadlines.set(number, loop.time() + 60)
            deadlines.strike(number)
        return len(timers)

    assert asyncio.run(scenario()) == 1
