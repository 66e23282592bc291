"""What becomes of a job when its model or Triton dies: the guilty fails, the others are answered."""

import asyncio
import time
from collections.abc import Mapping, Sequence
from typing import Any

import pytest

from adapter.core.dataplane import DataPlane
from adapter.core.errors import (
    AdapterError,
    DeadlineExceeded,
    EngineUnavailable,
    EngineUnreached,
    InferenceFailed,
    InvalidInput,
    ModelCrashed,
    ModelGone,
    ModelNotReady,
    QueueUnavailable,
)
from adapter.core.types import (
    InferRequest,
    InferResponse,
    Job,
    JobError,
    JobResult,
    ModelMetadata,
)
from adapter.jobs import backoff
from adapter.jobs.quarantine import Quarantine
from adapter.jobs.runner import Retry, Runner
from tests.fakes import FakeEngine, model

ANSWER = InferResponse("m", "1", ())


class Engine(FakeEngine):
    """Stands for a Triton whose model dies of every request with the parameter `poison`."""

    def __init__(self) -> None:
        super().__init__()
        self.error: AdapterError | None = None
        self.statistics_error: AdapterError | None = None
        self.away = False
        self.dead = False
        self.failed = 0
        self.takes_s = 0.0
        self.gates: dict[str, asyncio.Event] = {}
        self.ran: list[str] = []
        self.at_once = self.most_at_once = 0

    async def metadata(self, name: str, version: str = "") -> ModelMetadata:
        if self.away:
            raise EngineUnavailable("away")
        return model(name=name)

    async def infer(self, request: InferRequest, timeout_s: float) -> InferResponse:
        self.ran.append(request.id)
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        await asyncio.sleep(self.takes_s)
        if gate := self.gates.get(request.id):
            await gate.wait()
        self.at_once -= 1
        if self.error:
            raise self.error
        if self.dead or "poison" in request.parameters:
            self.dead = True
            self.failed += 1
            raise ModelCrashed("not healthy")
        return ANSWER

    async def statistics(self, name: str = "", version: str = "") -> Sequence[Mapping[str, Any]]:
        if self.statistics_error:
            raise self.statistics_error
        return [{"inference_stats": {"fail": {"count": self.failed}}}]

    def revive(self) -> None:
        self.dead, self.failed = False, 0


class Delivery:
    """A job that was lent some times; the runner does nothing with it but read."""

    def __init__(self, name: str, attempt: int = 1, *, poison: bool = False, left_s: float = 60) -> None:
        request = InferRequest("m", "", (), id=name, parameters={"poison": True} if poison else {})
        now = time.time()
        self.job = Job(name, "c", request, "names", False, now, now + left_s)
        self.deliveries = self.attempt = attempt
        self.lost: JobError | None = None
        self.unreadable = False

    async def read(self) -> None:
        if self.unreadable:
            raise QueueUnavailable("no answer")

    async def extend(self) -> None: ...

    async def settled(self) -> bool:
        return False

    async def finish(self, result: JobResult) -> bool:
        raise NotImplementedError

    async def give_back(self, delay_s: float, *, excused: bool) -> None: ...


def runner(engine: Engine, attempts: int = 5) -> Runner:
    return Runner(DataPlane(engine), attempts, 60.0)


def run(engine: Engine, delivery: Delivery) -> JobResult | Retry:
    return asyncio.run(runner(engine).run(delivery))


def code(outcome: JobResult | Retry) -> str:
    assert isinstance(outcome, JobResult)
    assert isinstance(outcome.outcome, JobError)
    return outcome.outcome.code


def test_an_answer_is_the_result() -> None:
    outcome = run(Engine(), Delivery("a"))
    assert isinstance(outcome, JobResult)
    assert outcome.outcome is ANSWER


@pytest.mark.parametrize("error", [InvalidInput("x"), InferenceFailed("x")])
def test_what_can_never_succeed_fails_at_once(error: AdapterError) -> None:
    engine = Engine()
    engine.error = error
    assert code(run(engine, Delivery("a"))) == error.code


@pytest.mark.parametrize(
    "error", [EngineUnavailable("x"), ModelCrashed("x"), ModelGone("x"), DeadlineExceeded("x")]
)
def test_what_may_be_the_jobs_doing_is_tried_again_for_a_while(error: AdapterError) -> None:
    engine = Engine()
    engine.error = error
    for attempt in (1, 2, 3, 4):
        assert run(engine, Delivery("a", attempt)) == Retry(0.5 * 2**attempt, excused=False)
    failed = run(engine, Delivery("a", 5))
    assert code(failed) == error.code
    assert isinstance(failed, JobResult)
    assert isinstance(failed.outcome, JobError)
    assert failed.outcome.message == "given up after 5 attempts: x"


def test_a_model_that_is_not_ready_excuses_the_job() -> None:
    engine = Engine()
    engine.error = ModelNotReady("x")
    assert run(engine, Delivery("a", 5)) == Retry(16.0, excused=True)


def test_triton_away_excuses_the_job() -> None:
    engine = Engine()
    engine.away = True
    assert run(engine, Delivery("a", 5)) == Retry(16.0, excused=True)
    assert engine.ran == []


def test_a_triton_that_was_not_reached_excuses_the_job() -> None:
    async def check() -> None:
        engine = Engine()
        runs = runner(engine)
        engine.error = EngineUnreached("Triton cannot be reached")
        assert await runs.run(Delivery("a", 5)) == Retry(16.0, excused=True)
        # Nobody died: others run side by side.
        engine.error = None
        both = await asyncio.gather(runs.run(Delivery("x")), runs.run(Delivery("y")))
        assert all(isinstance(outcome, JobResult) for outcome in both)
        assert engine.most_at_once == 2

    asyncio.run(check())


def test_past_its_deadline_a_job_does_not_run() -> None:
    engine = Engine()
    assert code(run(engine, Delivery("a", left_s=-1))) == "deadline_exceeded"
    engine.error = DeadlineExceeded("late")
    assert code(run(engine, Delivery("a", left_s=-1))) == "deadline_exceeded"
    assert engine.ran == []


def test_a_job_whose_input_is_gone_fails() -> None:
    delivery = Delivery("a")
    delivery.lost = JobError("input_lost", "the request's input is not there any more")
    outcome = run(Engine(), delivery)
    assert isinstance(outcome, JobResult)
    assert outcome.outcome == delivery.lost


def test_a_job_that_cannot_be_read_comes_again_until_its_deadline() -> None:
    async def read(delivery: Delivery) -> JobResult | Retry | None:
        return await runner(Engine()).read(delivery)

    delivery = Delivery("a", 7)
    assert asyncio.run(read(delivery)) is None
    delivery.unreadable = True
    assert asyncio.run(read(delivery)) == Retry(30.0, excused=True)
    late = Delivery("a", 7, left_s=-1)
    late.unreadable = True
    outcome = asyncio.run(read(late))
    assert isinstance(outcome, JobResult)
    assert outcome.outcome == JobError(
        "deadline_exceeded", "the deadline passed before the request could be read: no answer"
    )


def test_a_job_that_killed_its_workers_does_not_run_again() -> None:
    engine = Engine()
    assert code(run(engine, Delivery("a", 6))) == "attempts_exhausted"
    assert engine.ran == []


def test_the_guilty_fails_and_the_innocent_are_answered() -> None:
    """Twenty jobs and one that kills the model, on a model that is revived now and then."""

    async def check() -> None:
        engine = Engine()
        runs = runner(engine)
        waiting = [Delivery(f"good{n}") for n in range(20)]
        waiting.insert(3, Delivery("bad", poison=True))
        ended: dict[str, JobResult] = {}
        for turn in range(400):
            if turn % 5 == 4:
                engine.revive()
            outcomes = await asyncio.gather(*(runs.run(delivery) for delivery in waiting))
            for delivery, outcome in zip(list(waiting), outcomes, strict=True):
                if isinstance(outcome, JobResult):
                    ended[delivery.job.id] = outcome
                    waiting.remove(delivery)
                else:
                    delivery.deliveries += 1
                    delivery.attempt += not outcome.excused
            if not waiting:
                break
        assert code(ended.pop("bad")) == "model_crashed"
        assert len(ended) == 20
        assert all(result.outcome is ANSWER for result in ended.values())

    asyncio.run(check())


def test_a_dead_model_is_not_asked_before_it_is_revived() -> None:
    async def check() -> None:
        engine = Engine()
        runs = runner(engine)
        assert await runs.run(Delivery("bad", poison=True)) == Retry(1.0, excused=False)
        for n in range(5):
            assert await runs.run(Delivery(f"good{n}")) == Retry(1.0, excused=True)
        assert engine.ran == ["bad"]
        engine.revive()
        assert isinstance(await runs.run(Delivery("good")), JobResult)
        # Now the model is trusted again, and they run side by side.
        both = await asyncio.gather(runs.run(Delivery("x")), runs.run(Delivery("y")))
        assert all(isinstance(outcome, JobResult) for outcome in both)

    asyncio.run(check())


def test_suspects_run_one_after_the_other_and_nobody_beside_them() -> None:
    async def check() -> None:
        engine = Engine()
        runs = runner(engine)
        deliveries = [Delivery("a", 3), Delivery("b", 3), Delivery("new", 1)]
        outcomes = await asyncio.gather(*map(runs.run, deliveries))
        assert all(isinstance(outcome, JobResult) for outcome in outcomes)
        assert (engine.ran, engine.most_at_once) == (["a", "b", "new"], 1)

    asyncio.run(check())


def test_a_suspect_does_not_keep_its_slot_for_long() -> None:
    async def check() -> None:
        engine = Engine()
        runs = runner(engine)
        assert await runs.run(Delivery("bad", poison=True)) == Retry(1.0, excused=False)
        engine.revive()
        engine.takes_s = 1.5
        first, second = await asyncio.gather(runs.run(Delivery("a", 3)), runs.run(Delivery("b", 3)))
        assert isinstance(first, JobResult)
        assert isinstance(second, Retry)
        assert second.excused
        assert engine.ran == ["bad", "a"]

    asyncio.run(check())


def test_who_is_slow_keeps_nobody_out() -> None:
    async def check() -> None:
        engine = Engine()
        runs = runner(engine)
        gates = engine.gates = {"slow": asyncio.Event(), "slower": asyncio.Event()}
        slow = [asyncio.create_task(runs.run(Delivery(name, 3))) for name in gates]
        async with asyncio.timeout(30):
            while engine.at_once < 2:  # noqa: ASYNC110 - looks at what other tasks do
                await asyncio.sleep(0.01)
            others = await asyncio.gather(*(runs.run(Delivery(f"other{n}")) for n in range(20)))
        assert all(isinstance(outcome, JobResult) for outcome in others)
        assert not any(task.done() for task in slow)
        for gate in gates.values():
            gate.set()
        assert all(isinstance(outcome, JobResult) for outcome in await asyncio.gather(*slow))

    asyncio.run(check())


@pytest.mark.parametrize("error", [InferenceFailed("no statistics"), DeadlineExceeded("late")])
def test_statistics_that_cannot_be_had_say_nothing_of_a_job(error: AdapterError) -> None:
    async def check() -> None:
        engine = Engine()
        runs = runner(engine)
        assert await runs.run(Delivery("bad", poison=True)) == Retry(1.0, excused=False)
        engine.statistics_error = error
        assert await runs.run(Delivery("a")) == Retry(1.0, excused=True)

    asyncio.run(check())


def test_a_suspect_is_excused_while_its_model_is_loaded_anew() -> None:
    async def check() -> None:
        engine = Engine()
        runs = runner(engine)
        assert await runs.run(Delivery("bad", poison=True)) == Retry(1.0, excused=False)
        engine.revive()
        engine.error = ModelGone("x")
        assert await runs.run(Delivery("a", 5)) == Retry(1.0, excused=True)

    asyncio.run(check())


@pytest.mark.parametrize(("dead_s", "rest_s"), [(0.0, 1.0), (7.0, 7.0), (3600.0, 30.0)])
def test_the_longer_a_model_is_dead_the_longer_it_rests(
    monkeypatch: pytest.MonkeyPatch, dead_s: float, rest_s: float
) -> None:
    quarantine = Quarantine(DataPlane(Engine()))
    clock = iter([100.0, 100.0 + dead_s, 100.0 + dead_s])
    monkeypatch.setattr("adapter.jobs.quarantine.time.monotonic", lambda: next(clock))
    quarantine.died("m")
    quarantine.died("m")
    assert quarantine.rest_s("m") == rest_s


def test_however_often_a_job_came_its_delay_can_be_told() -> None:
    assert [backoff.delay_s(deliveries) for deliveries in (1, 2, 5, 6, 10**6)] == [1, 2, 16, 30, 30]


def test_a_delay_has_an_end() -> None:
    engine = Engine()
    engine.error = ModelNotReady("x")
    delivery = Delivery("a")
    delivery.deliveries = 10_000
    assert run(engine, delivery) == Retry(30.0, excused=True)
