"""Several Tritons as one: what two real ones do not show, or not often."""

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, cast

import pytest
from tritonclient.grpc import service_pb2 as pb

from adapter.core.errors import (
    AdapterError,
    DeadlineExceeded,
    EngineUnavailable,
    EngineUnreached,
    InferenceFailed,
    InvalidInput,
    ModelCrashed,
    ModelNotFound,
)
from adapter.core.metrics import Metrics
from adapter.triton.balancer import Balancer
from adapter.triton.errors import Silent
from adapter.triton.names import Address, Names
from adapter.triton.statistics import total
from adapter.triton.transport import GrpcTransport

Line = tuple[str, str, str, str]


class FakeTransport:
    """A Triton whose answers a test chooses."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.lines: list[Line] = [("m", "1", "READY", "")]
        self.away: AdapterError | None = None
        self.outcome: AdapterError | asyncio.Event | None = None
        self.asked = 0

    async def repository_index(self, timeout_s: float) -> Any:
        if self.away:
            raise self.away
        keys = ("name", "version", "state", "reason")
        return pb.RepositoryIndexResponse(models=[dict(zip(keys, line, strict=True)) for line in self.lines])

    async def infer(self, request: Sequence[bytes], timeout_s: float, trace: object = None) -> bytes:
        self.asked += 1
        if isinstance(self.outcome, AdapterError):
            raise self.outcome
        if self.outcome:
            await self.outcome.wait()
        return self.name.encode()

    async def load_model(self, name: str) -> None:
        if isinstance(self.outcome, AdapterError):
            raise self.outcome

    async def close(self) -> None:
        pass


class Tritons:
    """Those of these names behind a balancer."""

    def __init__(self, names: str) -> None:
        self.all = {name: FakeTransport(name) for name in names}
        urls = ",".join(f"{name}:1" for name in names)
        self.metrics = Metrics()

        def connect(address: Address) -> GrpcTransport:
            return cast(GrpcTransport, self.all[address.target.partition(":")[0]])

        self.balancer = Balancer(Names(urls), connect, self.metrics)

    async def ask(self, version: str = "", sequence: object = None, timeout_s: float = 5) -> str:
        """The name of the server that answered."""
        answer = await self.balancer.infer(
            "m", version, sequence, lambda each, left_s: each.infer([b""], left_s), timeout_s
        )
        return bytes(answer).decode()

    async def askers(self, count: int = 12, version: str = "") -> set[str]:
        """Who answers."""
        return {await self.ask(version) for _ in range(count)}

    async def crashes(self, count: int) -> int:
        """How many of so many requests are told that the model's process died."""
        crashed = 0
        for _ in range(count):
            try:
                await self.ask()
            except ModelCrashed:
                crashed += 1
        return crashed


async def until(look: Callable[[], bool]) -> None:
    """Let others run until it is so."""
    async with asyncio.timeout(5):
        while not look():  # noqa: ASYNC110 - looks at what other tasks do
            await asyncio.sleep(0)


def run(names: str, scenario: Callable[[Tritons], Coroutine[Any, Any, None]], **away: AdapterError) -> None:
    async def main() -> None:
        tritons = Tritons(names)
        for name, error in away.items():
            tritons.all[name].away = error
        await tritons.balancer.repository_index()
        try:
            await scenario(tritons)
        finally:
            await tritons.balancer.close()

    asyncio.run(main())


def test_without_a_version_only_those_are_asked_that_have_the_latest() -> None:
    async def scenario(tritons: Tritons) -> None:
        tritons.all["b"].lines = [("m", "9", "READY", ""), ("m", "10", "READY", "")]
        await tritons.balancer.repository_index()
        assert await tritons.askers() == {"b"}
        assert await tritons.askers(version="1") == {"a", "c"}
        assert tritons.balancer.spread("m", "1") == 2
        tritons.all["b"].lines.pop()
        await tritons.balancer.repository_index()
        assert await tritons.askers() == {"b"}
        tritons.all["b"].away = EngineUnreached("Triton cannot be reached")
        await tritons.balancer.repository_index()
        assert await tritons.askers() == {"a", "c"}

    run("abc", scenario)


def test_servers_that_cannot_be_reached_are_passed_over() -> None:
    async def scenario(tritons: Tritons) -> None:
        for name in "abc":
            tritons.all[name].outcome = EngineUnreached("Triton cannot be reached")
        assert await tritons.askers(4) == {"d"}
        assert [tritons.all[name].asked for name in "abc"] == [1, 1, 1]
        assert tritons.metrics.triton_failovers.labels().value == 3
        assert tritons.balancer.servers == {
            **{f"{name}:1": "cannot be reached" for name in "abc"},
            "d:1": "ok",
        }

    run("abcd", scenario)


def test_a_request_under_which_two_servers_went_is_sent_to_no_third() -> None:
    async def scenario(tritons: Tritons) -> None:
        for triton in tritons.all.values():
            triton.outcome = EngineUnavailable("Triton cannot be reached")
        with pytest.raises(
            EngineUnavailable, match=r"^Triton cannot be reached: [abcd]:1, [abcd]:1$"
        ) as caught:
            await tritons.ask()
        assert caught.type is EngineUnavailable
        assert sum(triton.asked for triton in tritons.all.values()) == 2

    run("abcd", scenario)


@pytest.mark.parametrize(
    "error",
    [
        DeadlineExceeded("late"),
        InvalidInput("wrong"),
        InferenceFailed("broken"),
        ModelCrashed("the stub process is not healthy"),
    ],
)
def test_what_another_would_not_do_better_is_asked_once(error: AdapterError) -> None:
    async def scenario(tritons: Tritons) -> None:
        for triton in tritons.all.values():
            triton.outcome = error
        with pytest.raises(type(error)):
            await tritons.ask()
        assert sum(triton.asked for triton in tritons.all.values()) == 1
        assert set(tritons.balancer.servers.values()) == {"ok"}

    run("ab", scenario)


def test_a_model_that_went_is_asked_for_elsewhere() -> None:
    async def scenario(tritons: Tritons) -> None:
        tritons.all["a"].outcome = ModelNotFound("Request for unknown model: 'm' has no available versions")
        assert await tritons.askers() == {"b"}
        assert tritons.all["a"].asked == 1
        tritons.all["b"].outcome = tritons.all["a"].outcome
        with pytest.raises(ModelNotFound):
            await tritons.ask()

    run("ab", scenario)


def test_a_model_that_was_found_dead_is_asked_for_elsewhere() -> None:
    async def scenario(tritons: Tritons) -> None:
        tritons.all["a"].outcome = ModelCrashed("the stub process is not healthy")
        assert await tritons.crashes(3) == 1
        # It is asked again after a moment; by then it is known.
        await asyncio.sleep(1.01)
        assert await tritons.askers() == {"b"}
        assert tritons.all["a"].asked == 2

    run("ab", scenario)


def test_a_model_that_was_loaded_anew_is_not_known_to_be_dead() -> None:
    """Who kills it then is not sent on, to kill the next one."""

    async def scenario(tritons: Tritons) -> None:
        a = tritons.all["a"]
        a.outcome = ModelCrashed("the stub process is not healthy")
        for crashes in (1, 2):
            assert (await tritons.crashes(4), a.asked) == (1, crashes)
            for state in ("LOADING", "READY"):
                a.lines = [("m", "1", state, "")]
                await tritons.balancer.repository_index()
            await asyncio.sleep(1.01)

    run("ab", scenario)


def test_a_request_that_found_two_dead_processes_is_sent_to_no_third() -> None:
    async def scenario(tritons: Tritons) -> None:
        for triton in tritons.all.values():
            triton.outcome = ModelCrashed("the stub process is not healthy")
        for asked in (1, 2, 3, 4):
            with pytest.raises(ModelCrashed):
                await tritons.ask()
            assert sum(triton.asked for triton in tritons.all.values()) == asked
        await asyncio.sleep(1.01)
        with pytest.raises(ModelCrashed):
            await tritons.ask()
        assert sum(triton.asked for triton in tritons.all.values()) == 6

    run("abcd", scenario)


def test_one_that_falls_silent_is_waited_for_when_there_is_no_other() -> None:
    async def scenario(tritons: Tritons) -> None:
        going_on = asyncio.Event()
        for triton in tritons.all.values():
            triton.outcome = going_on
        task = asyncio.create_task(tritons.ask())
        await until(lambda: any(triton.asked for triton in tritons.all.values()))
        first = next(name for name in "ab" if tritons.all[name].asked)
        tritons.all[first].away = Silent("Triton does not answer")
        await tritons.balancer.repository_index()
        await until(lambda: all(triton.asked for triton in tritons.all.values()))
        (second,) = {"a", "b"} - {first}
        tritons.all[second].away = Silent("Triton does not answer")
        with pytest.raises(EngineUnavailable):
            await tritons.balancer.repository_index()
        assert [triton.asked for triton in tritons.all.values()] == [1, 1]
        going_on.set()
        assert await task == second

    run("ab", scenario)


def test_only_the_sequences_of_one_that_is_gone_move() -> None:
    async def homes(names: str, **away: AdapterError) -> dict[int, str]:
        tritons = Tritons(names)
        await tritons.balancer.repository_index()
        found = {sequence: await tritons.ask(sequence=sequence) for sequence in range(1, 200)}
        await tritons.balancer.close()
        return found

    three, other_order, two = (asyncio.run(homes(names)) for names in ("abc", "cab", "ab"))
    assert three == other_order
    assert set(three.values()) == {"a", "b", "c"}
    assert {sequence: home for sequence, home in three.items() if home != "c"}.items() <= two.items()


def test_what_several_say_of_a_model_is_one_line() -> None:
    async def scenario(tritons: Tritons) -> None:
        a, b, c = tritons.all.values()
        a.lines = [("m", "1", "LOADING", ""), ("x", "", "", ""), ("only-a", "1", "READY", "")]
        b.lines = [("m", "1", "READY", ""), ("x", "1", "UNAVAILABLE", "the file is bad")]
        c.lines = [("m", "1", "READY", ""), ("n", "", "", "")]
        await tritons.balancer.repository_index()
        a.away = EngineUnreached("Triton cannot be reached")
        await tritons.balancer.repository_index()
        index = (await tritons.balancer.repository_index()).models
        assert [(line.name, line.version, line.state, line.reason) for line in index] == [
            ("m", "1", "READY", ""),
            ("only-a", "1", "UNAVAILABLE", "Triton is away: a:1 cannot be reached"),
            ("x", "1", "UNAVAILABLE", "the file is bad"),
            ("n", "", "", ""),
        ]

    run("abc", scenario)


def test_where_a_model_did_not_load_is_named() -> None:
    async def scenario(tritons: Tritons) -> None:
        tritons.all["b"].outcome = InferenceFailed("failed to load 'm'")
        with pytest.raises(InferenceFailed, match=r"^b:1: failed to load 'm'$"):
            await tritons.balancer.load_model("m")

    run("ab", scenario)


def test_one_that_is_away_at_the_start_is_named() -> None:
    async def scenario(tritons: Tritons) -> None:
        assert tritons.balancer.servers == {"a:1": "does not answer", "b:1": "ok"}
        assert await tritons.askers() == {"b"}

    run("ab", scenario, a=Silent("Triton does not answer"))


def test_statistics_are_added_up_throughout() -> None:
    def answer(factor: int) -> Any:
        duration = {"count": factor, "ns": 100 * factor}
        return pb.ModelStatisticsResponse(
            model_stats=[
                {
                    "name": "m",
                    "version": "1",
                    "last_inference": 50 // factor,
                    "inference_count": factor,
                    "inference_stats": {"success": duration, "fail": {}},
                    "batch_stats": [{"batch_size": size, "compute_infer": duration} for size in (factor, 8)],
                    "memory_usage": [{"type": "GPU", "id": 0, "byte_size": factor}],
                    "response_stats": {"0": {"success": duration}, str(factor): {"fail": duration}},
                }
            ]
        )

    (sums,) = total([answer(1), answer(2)]).model_stats
    assert (sums.last_inference, sums.inference_count) == (50, 3)
    assert (sums.inference_stats.success.count, sums.inference_stats.success.ns) == (3, 300)
    assert sums.inference_stats.HasField("fail")
    assert not sums.inference_stats.HasField("queue")
    batches = {batch.batch_size: batch.compute_infer.ns for batch in sums.batch_stats}
    assert batches == {1: 100, 8: 300, 2: 200}
    assert [(usage.type, usage.id, usage.byte_size) for usage in sums.memory_usage] == [("GPU", 0, 3)]
    assert sums.response_stats["0"].success.ns == 300
    assert sums.response_stats["2"].fail.ns == 200
