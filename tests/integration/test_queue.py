"""The queue's promises on a real nats-server, without an engine."""

import asyncio
import time

import pytest

from adapter.core.errors import (
    InvalidInput,
    JobNotFound,
)
from adapter.core.types import JobError
from adapter.jobs import jetstream, messages
from adapter.jobs.delivery import JetStreamDelivery
from adapter.jobs.runner import failure
from tests.integration.nats import Nats, answer, lend, output, queue, submission


def test_a_job_goes_its_way(shared_nats: Nats) -> None:
    async def check() -> None:
        async with queue(shared_nats.url) as found:
            job_id = await found.submit(submission(b"\1\2"))
            waiting = await found.status("alice", job_id)
            assert (waiting.id, waiting.model, waiting.result) == (job_id, "m", None)
            [delivery] = await lend(found, 5, 1)
            assert delivery.job.id == job_id
            assert delivery.job.client == "alice"
            assert bytes(delivery.job.request.inputs[0].data) == b"\1\2"
            assert (delivery.attempt, delivery.deliveries) == (1, 1)
            assert delivery.job.deadline == pytest.approx(delivery.job.submitted + 60, abs=0.01)
            await delivery.finish(answer(delivery.job))
            ended = await found.status("alice", job_id)
            assert output(ended.result) == b"done"
            assert ended.timestamp >= ended.submitted == waiting.submitted
            assert await lend(found, 5, 0) == []
            # Another's, unknown, and no ids at all: none of them exists.
            for client, other in (
                ("bob", job_id),
                ("alice", "0" * 40),
                ("alice", "*"),
                ("alice", ">"),
                ("alice", ""),
            ):
                with pytest.raises(JobNotFound):
                    await found.status(client, other)
                with pytest.raises(JobNotFound):
                    await found.cancel(client, other)

    asyncio.run(check())


def test_the_first_result_stands(shared_nats: Nats) -> None:
    async def check() -> None:
        async with queue(shared_nats.url) as found:
            job_id = await found.submit(submission())
            [delivery] = await lend(found, 1, 1)
            await delivery.finish(answer(delivery.job, b"first"))
            await delivery.finish(answer(delivery.job, b"second"))
            assert output((await found.status("alice", job_id)).result) == b"first"
            assert await delivery.settled()

    asyncio.run(check())


def test_names_of_clients_never_become_subjects(shared_nats: Nats) -> None:
    async def check() -> None:
        async with queue(shared_nats.url) as found:
            for client in ("*", ">", "a.b", "ä\n\r\0", ""):
                job_id = await found.submit(submission(client=client))
                [delivery] = await lend(found, 1, 1)
                assert delivery.job.client == client
                await delivery.finish(answer(delivery.job))
                assert (await found.page(client, 10)).jobs[0].id == job_id
            assert (await found.page("*.*", 10)).jobs == ()

    asyncio.run(check())


def test_what_waits_is_cancelled_and_what_has_ended_is_not(shared_nats: Nats) -> None:
    async def check() -> None:
        async with queue(shared_nats.url) as found:
            waiting, small = bytes(9_000_000), b"x"
            for value in (waiting, small):
                job_id = await found.submit(submission(value))
                cancelled, ended = await found.cancel("alice", job_id)
                assert ended
                assert cancelled.result is not None
                assert cancelled.result.outcome == JobError("cancelled", "the request was cancelled")
                assert await lend(found, 1, 0.1) == []
                assert await found.cancel("alice", job_id) == (cancelled, False)
            job_id = await found.submit(submission())
            [delivery] = await lend(found, 1, 1)
            assert await delivery.finish(answer(delivery.job))
            done, ended = await found.cancel("alice", job_id)
            assert (output(done.result), ended) == (b"done", False)
            # One that runs when it is cancelled ends as cancelled, whatever its worker says.
            job_id = await found.submit(submission())
            [delivery] = await lend(found, 1, 1)
            assert (await found.cancel("alice", job_id))[1]
            assert not await delivery.finish(answer(delivery.job))
            last = (await found.status("alice", job_id)).result
            assert last is not None
            assert isinstance(last.outcome, JobError)

    asyncio.run(check())


def test_waiting_ends_with_the_result(shared_nats: Nats, monkeypatch: pytest.MonkeyPatch) -> None:
    # Only a note tells in time.
    monkeypatch.setattr(jetstream, "_LOOK_AGAIN_S", 60.0)

    async def check() -> None:
        async with queue(shared_nats.url) as api, queue(shared_nats.url) as worker:
            job_id = await api.submit(submission())
            started = time.monotonic()
            assert (await api.status("alice", job_id, 0.2)).result is None
            assert 0.2 <= time.monotonic() - started < 1.5
            waiting = [asyncio.create_task(api.status("alice", job_id, 60)) for _ in range(500)]
            async with asyncio.timeout(20):
                while [note.waiting for note in api._notes._notes.values()] != [500]:  # noqa: ASYNC110
                    await asyncio.sleep(0.01)
                await api.ping()  # NATS knows by now who waits for the note
                [delivery] = await worker.fetch(1, 1)
                await delivery.finish(answer(delivery.job))
                assert {output(status.result) for status in await asyncio.gather(*waiting)} == {b"done"}
            assert api._notes._notes == {}
            assert output((await api.status("alice", job_id, 10)).result) == b"done"

    asyncio.run(check())


def test_a_list_is_newest_first_in_pages(own_nats: Nats) -> None:
    async def check() -> None:
        async with queue(own_nats.url) as found:
            ids = [await found.submit(submission(priority=n % 4)) for n in range(25)]
            await found.submit(submission(client="bob"))
            for delivery in await lend(found, 7, 1):
                await delivery.finish(answer(delivery.job))
            ids.reverse()
            seen, cursor = [], ""
            for expected in (10, 10, 5):
                page = await found.page("alice", 10, cursor)
                assert len(page.jobs) == expected
                seen += [job.id for job in page.jobs]
                cursor = page.next
            assert seen == ids
            assert cursor == ""
            assert (await found.page("alice", 25)).next == ""
            assert [j.id for j in (await found.page("alice", 24)).jobs] == ids[:24]
            with pytest.raises(InvalidInput, match="cursor"):
                await found.page("alice", 10, "*")

    asyncio.run(check())


def test_a_silent_worker_loses_its_job_and_a_keeping_one_does_not(own_nats: Nats) -> None:
    async def check() -> None:
        async with queue(own_nats.url, ack_wait_s=3) as found:
            kept, lost = await found.submit(submission()), await found.submit(submission())
            mine = {delivery.job.id: delivery for delivery in await lend(found, 2, 1)}
            again: list[JetStreamDelivery] = []
            async with asyncio.timeout(60):
                while len(again) < 2:
                    await mine[kept].extend()
                    again += await lend(found, 2, 0.3)
            assert {delivery.job.id for delivery in again} == {lost}
            assert [delivery.attempt for delivery in again] == [2, 3]
            await again[-1].finish(answer(again[-1].job, b"second"))
            assert await mine[lost].settled()
            await mine[lost].finish(answer(mine[lost].job, b"late"))
            assert output((await found.status("alice", lost)).result) == b"second"
            await mine[kept].finish(answer(mine[kept].job))
            assert (await found._connection.api("STREAM.INFO.MIAAS_JOBS"))["state"]["messages"] == 0

    asyncio.run(check())


def test_an_excused_delivery_is_no_attempt(shared_nats: Nats) -> None:
    async def check() -> None:
        async with queue(shared_nats.url) as found:
            await found.submit(submission())
            for deliveries, attempt, excused in ((1, 1, True), (2, 1, False), (3, 2, True), (4, 2, True)):
                [delivery] = await lend(found, 1, 2)
                assert (delivery.deliveries, delivery.attempt) == (deliveries, attempt)
                await delivery.give_back(0, excused=excused)
            [delivery] = await lend(found, 1, 2)
            given_back = time.monotonic()
            await delivery.give_back(1, excused=False)
            [delivery] = await lend(found, 1, 10)
            assert time.monotonic() - given_back >= 1
            assert (delivery.deliveries, delivery.attempt) == (6, 3)
            await delivery.finish(answer(delivery.job))

    asyncio.run(check())


def test_a_result_is_forgotten_after_its_time(own_nats: Nats) -> None:
    async def check() -> None:
        async with queue(own_nats.url, result_retention_s=1) as found:
            job_id = await found.submit(submission())
            [delivery] = await lend(found, 1, 1)
            await delivery.finish(answer(delivery.job))
            assert (await found.status("alice", job_id)).result is not None
            async with asyncio.timeout(10):
                while (await found.page("alice", 10)).jobs:  # noqa: ASYNC110 - nothing tells when it goes
                    await asyncio.sleep(0.1)
            with pytest.raises(JobNotFound):
                await found.status("alice", job_id)

    asyncio.run(check())


def test_the_input_of_a_failed_job_is_kept(shared_nats: Nats) -> None:
    async def check() -> None:
        async with queue(shared_nats.url) as found:
            for size in (10, 9_000_000):
                await found.submit(submission(bytes(size)))
                [delivery] = await lend(found, 1, 1)
                await delivery.finish(failure(delivery.job, "inference_failed", "no"))
                stored = await found._results.find("alice", delivery.job.id, direct=True)
                assert stored is not None
                name, count, length, _ = stored.headers[messages.INPUT].split(".")
                assert int(length) > size
                assert int(count) == (1 if size == 10 else 9)
                assert name

    asyncio.run(check())


def test_a_job_whose_input_is_gone_says_so(own_nats: Nats) -> None:
    async def check() -> None:
        async with queue(own_nats.url) as found:
            await found.submit(submission(bytes(9_000_000)))
            await found._connection.purge("MIAAS_INPUTS", "miaas.inputs.>")
            [delivery] = await lend(found, 1, 1)
            assert delivery.lost == JobError("input_lost", "the request's input is not there any more")
            assert await delivery.finish(failure(delivery.job, *delivery.lost))
            assert await lend(found, 1, 0.1) == []
            stored = await found._results.find("alice", delivery.job.id, direct=True)
            assert stored is not None
            assert messages.INPUT not in stored.headers

    asyncio.run(check())
