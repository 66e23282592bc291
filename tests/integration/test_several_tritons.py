"""Two tritonservers behind one engine: who is asked, and what becomes of requests when a server goes."""

import asyncio
import signal
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import pytest

from adapter.core.errors import (
    AdapterError,
    DeadlineExceeded,
    EngineUnavailable,
    ModelCrashed,
    ModelNotFound,
    ModelNotReady,
    NotSupported,
)
from adapter.core.metrics import Metrics
from adapter.settings import Settings
from adapter.triton.client import TritonEngine
from tests.integration.services import open_stage
from tests.integration.tritons import FATAL, SLOW, Asker, Tritons, run


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tritons]:
    """Every test leaves both up."""
    with open_stage(tmp_path_factory.mktemp("pair")) as stage:
        pair = Tritons(stage)
        stage.start()
        yield pair


class Load:
    """Eight clients that ask without a pause."""

    def __init__(self, asker: Asker) -> None:
        self._asker = asker
        self.answered = 0
        self.failed: list[AdapterError] = []

    async def client(self) -> None:
        while True:
            value = next(self._asker.tritons.values)
            try:
                assert await self._asker.ask(value) == value
                self.answered += 1
            except AdapterError as error:
                self.failed.append(error)

    async def more(self, count: int = 50) -> None:
        """Return when so many more were answered."""
        until = self.answered + count
        async with asyncio.timeout(30):
            while self.answered < until:  # noqa: ASYNC110 - counts what other tasks do
                await asyncio.sleep(0.01)


@asynccontextmanager
async def under_load(asker: Asker) -> AsyncIterator[Load]:
    load = Load(asker)
    clients = [asyncio.create_task(load.client()) for _ in range(8)]
    try:
        await load.more()
        yield load
        await load.more()
    finally:
        for client in clients:
            client.cancel()
        await asyncio.gather(*clients, return_exceptions=True)


def test_requests_go_to_each_in_turn_and_past_a_busy_one(pair: Tritons) -> None:
    async def scenario(asker: Asker) -> None:
        assert min(await pair.shares(asker.ask_often(40))) > 15
        slow = asyncio.create_task(asker.ask(SLOW))
        while not any(SLOW in values for values in pair.executed()):  # noqa: ASYNC110
            await asyncio.sleep(0.01)

        async def ask_meanwhile() -> None:
            while not slow.done():
                await asker.ask()

        shares = await pair.shares(ask_meanwhile())
        [(busy, other)] = [
            (shares[n], shares[1 - n]) for n, values in enumerate(pair.executed()) if SLOW in values
        ]
        # The last may find the slow one done between being asked for and being sent.
        assert busy <= 1
        assert other > 5
        assert await slow == SLOW

    run(pair, scenario)


def test_a_model_that_one_has_is_asked_there(pair: Tritons) -> None:
    async def scenario(asker: Asker) -> None:
        lines = {(line.name, line.version, line.ready) for line in await asker.engine.models()}
        assert lines == {("count", "1", True), ("running-sum", "1", True), ("rare", "1", True)}
        assert [await asker.ask(n, "rare") for n in range(20)] == list(range(20))
        with pytest.raises(ModelNotFound):
            await asker.ask(1, "none")

        pair.servers[1].kill()
        await asker.until("ok", "cannot")
        asker.engine.forget()
        told = f"^Model rare is not ready: Triton is away: {pair.addresses[1]} cannot be reached$"
        with pytest.raises(ModelNotReady, match=told):
            await asker.ask(1, "rare")
        pair.servers[1].start()
        await asker.until("ok", "ok")

    run(pair, scenario)


def test_no_request_fails_when_one_is_killed_under_load(pair: Tritons) -> None:
    async def scenario(asker: Asker) -> None:
        async with under_load(asker) as load:
            pair.servers[0].kill()
            await asker.until("cannot be reached", "ok")
            await load.more()
            pair.servers[0].start()
            await asker.until("ok", "ok")
            # It answers before it has loaded its models.
            async with asyncio.timeout(30):
                while not (await pair.shares(load.more()))[0]:
                    pass
        assert load.failed == []

    run(pair, scenario)


def test_no_request_fails_when_one_after_the_other_is_restarted_under_load(pair: Tritons) -> None:
    async def scenario(asker: Asker) -> None:
        async with under_load(asker) as load:
            for n, server in enumerate(pair.servers):
                await asyncio.to_thread(server.stop)
                await asker.until(*("" if each == n else "ok" for each in range(2)))
                server.start()
                await asker.until("ok", "ok")
        assert load.failed == []

    run(pair, scenario)


def test_what_a_stopped_one_had_is_asked_of_the_other_within_the_deadline(pair: Tritons) -> None:
    async def scenario(asker: Asker) -> None:
        first = pair.servers[0]
        await asker.ask_often(2)
        first.signal(signal.SIGSTOP)
        try:
            values = [next(pair.values) for _ in range(10)]
            answers = await asyncio.gather(
                *(asker.ask(value, timeout_s=0.5) for value in values), return_exceptions=True
            )
            late = {value for value, answer in zip(values, answers, strict=True) if value != answer}
            assert {type(answers[values.index(value)]) for value in late} == {DeadlineExceeded}
            patient = [next(pair.values) for _ in range(10)]
            assert await asyncio.gather(*map(asker.ask, patient)) == patient
            await asker.until("does not answer", "ok")
            assert not late & set(pair.executed()[1])
            assert set(patient) <= set(pair.executed()[1])
        finally:
            first.signal(signal.SIGCONT)
        await asker.until("ok", "ok")
        assert (await pair.shares(asker.ask_often(10)))[0] >= 5

    run(pair, scenario)


def test_when_all_are_away_the_error_names_them(pair: Tritons) -> None:
    async def scenario(asker: Asker) -> None:
        await asker.ask()
        for server in pair.servers:
            server.kill()
        late = Asker(pair)
        with pytest.raises(EngineUnavailable):
            await late.ask()
        told = "; ".join(f"{address} cannot be reached" for address in pair.addresses)
        try:
            with pytest.raises(EngineUnavailable):
                await asker.ask()
            await asker.until("cannot", "cannot")
            asker.engine.forget()
            with pytest.raises(EngineUnavailable, match=f"^Triton is away: {told}$"):
                await asker.engine.models()
        finally:
            for server in pair.servers:
                server.start()
        for each in (asker, late):
            await each.until("ok", "ok")
            await each.ask()
        await late.engine.close()

    run(pair, scenario)


def test_a_sequence_stays_on_one_server_whoever_asks(pair: Tritons) -> None:
    async def scenario(asker: Asker) -> None:
        other = Asker(pair, ",".join(reversed(pair.addresses)))
        for sequence in (*range(1, 20), "a", "b"):
            await asker.ask(1, "running-sum", sequence_id=sequence, sequence_start=True)
            assert await other.ask(2, "running-sum", sequence_id=sequence) == 3
            assert await asker.ask(3, "running-sum", sequence_id=sequence, sequence_end=True) == 6
        await other.engine.close()

        pair.servers[0].kill()
        await asker.until("cannot", "ok")
        told = set()
        for sequence in range(1, 100):
            try:
                await asker.ask(
                    1, "running-sum", sequence_id=sequence, sequence_start=True, sequence_end=True
                )
            except EngineUnavailable as error:
                told.add(error.message)
        address = pair.addresses[0]
        assert told == {f"Triton is away: {address} cannot be reached; the sequence's state is there"}
        pair.servers[0].start()
        await asker.until("ok", "ok")

    run(pair, scenario)


def test_a_request_that_kills_the_model_is_sent_to_one_server_alone(pair: Tritons) -> None:
    async def scenario(asker: Asker) -> None:
        with pytest.raises(ModelCrashed):
            await asker.ask(FATAL)
        assert sum(values.count(FATAL) for values in pair.executed()) == 1
        # Triton says that the model is ready where it died; nobody notices.
        until = asyncio.get_running_loop().time() + 2.5
        while asyncio.get_running_loop().time() < until:
            await asyncio.gather(*(asker.ask() for _ in range(4)))
        await asker.engine.unload("count", dependents=False)
        with pytest.raises(AdapterError):
            await asker.ask()
        await asker.engine.load("count")
        await asyncio.sleep(1)
        assert min(await pair.shares(asker.ask_often(40))) > 15

    run(pair, scenario)


def test_models_are_loaded_and_unloaded_everywhere(pair: Tritons) -> None:
    async def scenario(asker: Asker) -> None:
        await asker.engine.unload("count", dependents=False)
        assert "count" not in {line.name for line in await asker.engine.models() if line.ready}
        await asker.engine.load("count")
        assert min(await pair.shares(asker.ask_often(40))) > 15
        await asker.engine.load("rare")
        assert await asker.ask(7, "rare") == 7

        pair.servers[0].kill()
        await asker.until("cannot", "ok")
        told = f"^Triton is away: {pair.addresses[0]} cannot be reached; done on all others$"
        with pytest.raises(EngineUnavailable, match=told):
            await asker.engine.load("count")
        pair.servers[0].start()
        await asker.until("ok", "ok")

    run(pair, scenario)


async def _statistics_of_all_and_each(
    asker: Asker, pair: Tritons
) -> tuple[Mapping[str, Any], list[Mapping[str, Any]]]:
    """Triton counts a request a moment after it has answered it: here nothing was counted in between."""
    while True:
        before = await asker.engine.statistics("count")
        each: list[Mapping[str, Any]] = []
        for address in pair.addresses:
            one = TritonEngine(Settings(triton_grpc_url=address), Metrics())
            each += await one.statistics("count")
            await one.close()
        if await asker.engine.statistics("count") == before:
            (count,) = before
            return count, each


def test_statistics_are_added_up(pair: Tritons) -> None:
    async def scenario(asker: Asker) -> None:
        await asker.ask_often(10)
        count, each = await _statistics_of_all_and_each(asker, pair)
        assert len(each) == 2
        assert (count["name"], count["version"]) == ("count", "1")
        assert count["inference_count"] == sum(one["inference_count"] for one in each)
        assert count["last_inference"] == max(one["last_inference"] for one in each)
        for name, duration in count["inference_stats"].items():
            assert duration["ns"] == sum(one["inference_stats"][name]["ns"] for one in each)
        ones = [
            batch["compute_infer"]["count"]
            for one in each
            for batch in one["batch_stats"]
            if batch["batch_size"] == 1
        ]
        (one,) = [batch for batch in count["batch_stats"] if batch["batch_size"] == 1]
        assert one["compute_infer"]["count"] == sum(ones)
        assert [line["name"] for line in await asker.engine.statistics()] == ["count", "running-sum", "rare"]
        assert [line["name"] for line in await asker.engine.statistics("rare")] == ["rare"]
        with pytest.raises(ModelNotReady):
            await asker.engine.statistics("none")

    run(pair, scenario)


def test_shared_memory_is_refused(pair: Tritons) -> None:
    with pytest.raises(ValueError, match="ADAPTER_V2_SHARED_MEMORY needs one Triton"):
        Settings(triton_grpc_url=",".join(pair.addresses), v2_shared_memory=True)

    async def scenario(asker: Asker) -> None:
        with pytest.raises(NotSupported, match="shared memory needs one Triton"):
            await asker.engine.regions("system")

    run(pair, scenario)
