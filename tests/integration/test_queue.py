"""The queue's promises on a real nats-server, without an engine."""

import asyncio
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from adapter.core.errors import (
    IdempotencyConflict,
    InvalidInput,
    JobNotFound,
    PayloadTooLarge,
    QueueFull,
    QueueUnavailable,
)
from adapter.core.types import JobError
from adapter.jobs import messages
from adapter.jobs.connection import Connection, message_size
from adapter.jobs.delivery import JetStreamDelivery
from adapter.jobs.runner import failure
from tests.integration.nats import Nats, answer, output, queue, ready, server, submission


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nats]:
    """A server for tests that use clients of their own and leave no job behind."""
    with server(tmp_path_factory.mktemp("nats")) as nats:
        yield nats


@pytest.fixture
def own(tmp_path: Path) -> Iterator[Nats]:
    """A server that may be harmed."""
    with server(tmp_path) as nats:
        yield nats


def test_a_job_goes_its_way(shared: Nats) -> None:
    async def check() -> None:
        async with queue(shared.url) as found:
            job_id = await found.submit(submission(b"\1\2"))
            waiting = await found.status("alice", job_id)
            assert (waiting.id, waiting.model, waiting.result) == (job_id, "m", None)
            [delivery] = await found.fetch(5, 1)
            assert delivery.job.id == job_id
            assert delivery.job.client == "alice"
            assert bytes(delivery.job.request.inputs[0].data) == b"\1\2"
            assert (delivery.attempt, delivery.deliveries) == (1, 1)
            assert delivery.job.deadline == pytest.approx(delivery.job.submitted + 60, abs=0.01)
            await delivery.finish(answer(delivery.job))
            ended = await found.status("alice", job_id)
            assert output(ended.result) == b"done"
            assert ended.timestamp >= ended.submitted == waiting.submitted
            assert await found.fetch(5, 0) == []
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


def test_the_first_result_stands(shared: Nats) -> None:
    async def check() -> None:
        async with queue(shared.url) as found:
            job_id = await found.submit(submission())
            [delivery] = await found.fetch(1, 1)
            await delivery.finish(answer(delivery.job, b"first"))
            await delivery.finish(answer(delivery.job, b"second"))
            assert output((await found.status("alice", job_id)).result) == b"first"
            assert await delivery.settled()

    asyncio.run(check())


def test_names_of_clients_never_become_subjects(shared: Nats) -> None:
    async def check() -> None:
        async with queue(shared.url) as found:
            for client in ("*", ">", "a.b", "ä\n\r\0", ""):
                job_id = await found.submit(submission(client=client))
                [delivery] = await found.fetch(1, 1)
                assert delivery.job.client == client
                await delivery.finish(answer(delivery.job))
                assert (await found.page(client, 10)).jobs[0].id == job_id
            assert (await found.page("*.*", 10)).jobs == ()

    asyncio.run(check())


def test_a_hundred_submits_with_one_key_are_one_job(own: Nats) -> None:
    async def check() -> None:
        async with queue(own.url) as one, queue(own.url) as other:
            calls = [found.submit(submission(key="k")) for found in (one, other) for _ in range(50)]
            [job_id] = set(await asyncio.gather(*calls))
            assert [delivery.job.id for delivery in await one.fetch(100, 1)] == [job_id]
            assert await other.fetch(100, 0) == []
            assert await one.submit(submission(key="k", client="bob")) != job_id
            with pytest.raises(IdempotencyConflict):
                await one.submit(submission(b"other", key="k"))
        own.kill()
        own.start()
        async with queue(own.url, ack_wait_s=1) as found:
            assert await found.submit(submission(key="k")) == job_id
            seen: list[str] = []
            while len(seen) < 2:
                for delivery in await found.fetch(1, 5):
                    await delivery.finish(answer(delivery.job))
                    seen.append(delivery.job.client)
            assert sorted(seen) == ["alice", "bob"]
            assert await found.submit(submission(key="k")) == job_id
            assert await found.fetch(1, 0.5) == []
            with pytest.raises(IdempotencyConflict):
                await found.submit(submission(b"other", key="k"))

    asyncio.run(check())


def test_a_key_whose_job_was_never_stored_is_used_again(own: Nats) -> None:
    async def check() -> None:
        async with queue(own.url, queue_max_jobs=1) as found:
            await found.submit(submission())
            with pytest.raises(QueueFull):
                await found.submit(submission(key="k"))
            [delivery] = await found.fetch(1, 1)
            await delivery.finish(answer(delivery.job))
            job_id = await found.submit(submission(key="k"))
            assert [delivery.job.id for delivery in await found.fetch(5, 1)] == [job_id]

    asyncio.run(check())


def test_a_full_queue_refuses_and_evicts_nothing(own: Nats) -> None:
    async def check() -> None:
        async with queue(own.url, queue_max_jobs=3) as found:
            stored = [await found.submit(submission()) for _ in range(3)]
            with pytest.raises(QueueFull, match="maximum messages exceeded"):
                await found.submit(submission())
            assert {delivery.job.id for delivery in await found.fetch(10, 1)} == set(stored)

    asyncio.run(check())


def test_a_queue_full_by_bytes_refuses_and_evicts_nothing(own: Nats) -> None:
    async def check() -> None:
        async with queue(own.url, queue_max_bytes=1 << 20) as found:
            stored = [await found.submit(submission(bytes(300_000))) for _ in range(3)]
            with pytest.raises(QueueFull, match="maximum bytes exceeded"):
                await found.submit(submission(bytes(300_000)))
            assert {delivery.job.id for delivery in await found.fetch(10, 1)} == set(stored)

    asyncio.run(check())


def test_payloads_around_the_brokers_limit(own: Nats) -> None:
    """Ten bytes below and ten above the server's `max_payload`, headers counted: nobody notices."""

    async def check() -> None:
        async with queue(own.url) as found:
            probe = await found.submit(submission(bytes(7_000_000)))
            [delivery] = await found.fetch(1, 1)
            payload, headers = messages.job_message(delivery.job)
            room = (8 << 20) - message_size(payload, headers)
            await delivery.finish(answer(delivery.job))
            assert probe
            for size in (-10, -1, 0, 1, 10):
                value = bytes(7_000_000 + room + size)
                job_id = await found.submit(submission(value))
                [delivery] = await found.fetch(1, 2)
                assert delivery.job.id == job_id
                assert bytes(delivery.job.request.inputs[0].data) == value
                payload, headers = messages.result_message(
                    delivery.job, answer(delivery.job, b""), time.time()
                )
                big = bytes((8 << 20) - message_size(payload, headers) + size - 60)
                await delivery.finish(answer(delivery.job, big))
                assert output((await found.status("alice", job_id)).result) == big
            connection = found._connection
            assert (await connection.api("STREAM.INFO.MIAAS_INPUTS"))["state"]["messages"] == 0

    asyncio.run(check())


def test_a_result_over_the_limit_is_refused(shared: Nats) -> None:
    async def check() -> None:
        async with queue(shared.url, result_max_bytes=10_000_000) as found:
            job_id = await found.submit(submission())
            [delivery] = await found.fetch(1, 1)
            with pytest.raises(PayloadTooLarge):
                await delivery.finish(answer(delivery.job, bytes(10_000_001)))
            assert (await found.status("alice", job_id)).result is None
            await delivery.finish(answer(delivery.job, bytes(9_000_000)))
            assert output((await found.status("alice", job_id)).result) == bytes(9_000_000)

    asyncio.run(check())


def test_what_waits_is_cancelled_and_what_has_ended_is_not(shared: Nats) -> None:
    async def check() -> None:
        async with queue(shared.url) as found:
            waiting, small = bytes(9_000_000), b"x"
            for value in (waiting, small):
                job_id = await found.submit(submission(value))
                cancelled, ended = await found.cancel("alice", job_id)
                assert ended
                assert cancelled.result is not None
                assert cancelled.result.outcome == JobError("cancelled", "the request was cancelled")
                assert await found.fetch(1, 0.1) == []
                assert await found.cancel("alice", job_id) == (cancelled, False)
            job_id = await found.submit(submission())
            [delivery] = await found.fetch(1, 1)
            assert await delivery.finish(answer(delivery.job))
            done, ended = await found.cancel("alice", job_id)
            assert (output(done.result), ended) == (b"done", False)
            # One that runs when it is cancelled ends as cancelled, whatever its worker says.
            job_id = await found.submit(submission())
            [delivery] = await found.fetch(1, 1)
            assert (await found.cancel("alice", job_id))[1]
            assert not await delivery.finish(answer(delivery.job))
            last = (await found.status("alice", job_id)).result
            assert last is not None
            assert isinstance(last.outcome, JobError)

    asyncio.run(check())


def test_waiting_ends_with_the_result(shared: Nats) -> None:
    async def check() -> None:
        async with queue(shared.url) as api, queue(shared.url) as worker:
            job_id = await api.submit(submission())
            waiting = [asyncio.create_task(api.status("alice", job_id, 10)) for _ in range(500)]
            started = time.monotonic()
            assert (await api.status("alice", job_id, 0.2)).result is None
            assert 0.2 <= time.monotonic() - started < 1.5
            [delivery] = await worker.fetch(1, 1)
            finished = time.monotonic()
            await delivery.finish(answer(delivery.job))
            assert {output(status.result) for status in await asyncio.gather(*waiting)} == {b"done"}
            # Not by looking again, which is every two seconds.
            assert time.monotonic() - finished < 1.9
            assert api._notes._notes == {}
            assert output((await api.status("alice", job_id, 10)).result) == b"done"

    asyncio.run(check())


def test_a_list_is_newest_first_in_pages(own: Nats) -> None:
    async def check() -> None:
        async with queue(own.url) as found:
            ids = [await found.submit(submission(priority=n % 4)) for n in range(25)]
            await found.submit(submission(client="bob"))
            for delivery in await found.fetch(7, 1):
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


def test_a_silent_worker_loses_its_job_and_a_keeping_one_does_not(own: Nats) -> None:
    async def check() -> None:
        async with queue(own.url, ack_wait_s=1) as found:
            kept, lost = await found.submit(submission()), await found.submit(submission())
            mine = {delivery.job.id: delivery for delivery in await found.fetch(2, 1)}
            again: list[JetStreamDelivery] = []
            until = time.monotonic() + 4
            while time.monotonic() < until:
                await mine[kept].extend()
                again += await found.fetch(2, 0.3)
            assert {delivery.job.id for delivery in again} == {lost}
            assert [delivery.attempt for delivery in again] == list(range(2, 2 + len(again)))
            await again[-1].finish(answer(again[-1].job, b"second"))
            assert await mine[lost].settled()
            await mine[lost].finish(answer(mine[lost].job, b"late"))
            assert output((await found.status("alice", lost)).result) == b"second"
            await mine[kept].finish(answer(mine[kept].job))
            assert await found.fetch(2, 2) == []

    asyncio.run(check())


def test_an_excused_delivery_is_no_attempt(shared: Nats) -> None:
    async def check() -> None:
        async with queue(shared.url) as found:
            await found.submit(submission())
            for deliveries, attempt, excused in ((1, 1, True), (2, 1, False), (3, 2, True), (4, 2, True)):
                [delivery] = await found.fetch(1, 2)
                assert (delivery.deliveries, delivery.attempt) == (deliveries, attempt)
                await delivery.give_back(0, excused=excused)
            [delivery] = await found.fetch(1, 2)
            await delivery.give_back(0.5, excused=False)
            assert await found.fetch(1, 0.3) == []
            [delivery] = await found.fetch(1, 2)
            assert (delivery.deliveries, delivery.attempt) == (6, 3)
            await delivery.finish(answer(delivery.job))

    asyncio.run(check())


def test_ten_thousand_jobs_of_one_client_do_not_hold_up_the_single_one_of_another(own: Nats) -> None:
    async def check() -> None:
        async with queue(own.url) as found:
            for _ in range(50):
                await asyncio.gather(*(found.submit(submission(client="heavy")) for _ in range(200)))
            mine = await found.submit(submission(client="light"))
            before = 0
            while True:
                deliveries = await found.fetch(32, 1)
                for delivery in deliveries:
                    await delivery.finish(answer(delivery.job))
                if mine in {delivery.job.id for delivery in deliveries}:
                    break
                before += len(deliveries)
            assert before <= 64

    asyncio.run(check())


def test_urgent_jobs_go_first_and_low_ones_are_not_forgotten(own: Nats) -> None:
    async def check() -> None:
        async with queue(own.url) as found:
            for priority in (2, 0, 1):
                for _ in range(16):
                    await found.submit(submission(priority=priority, client=f"c{priority}"))
            order = []
            while deliveries := await found.fetch(4, 0.2):
                order += [delivery.job.client for delivery in deliveries]
                for delivery in deliveries:
                    await delivery.finish(answer(delivery.job))
            assert len(order) == 48
            assert order[:8].count("c1") >= 5
            assert "c2" in order[:40]
            mean = {client: sum(i for i, c in enumerate(order) if c == client) / 16 for client in set(order)}
            assert mean["c1"] < mean["c0"] < mean["c2"]

    asyncio.run(check())


def test_a_result_is_forgotten_after_its_time(own: Nats) -> None:
    async def check() -> None:
        async with queue(own.url, result_retention_s=1) as found:
            job_id = await found.submit(submission())
            [delivery] = await found.fetch(1, 1)
            await delivery.finish(answer(delivery.job))
            assert (await found.status("alice", job_id)).result is not None
            async with asyncio.timeout(10):
                while (await found.page("alice", 10)).jobs:  # noqa: ASYNC110 - nothing tells when it goes
                    await asyncio.sleep(0.1)
            with pytest.raises(JobNotFound):
                await found.status("alice", job_id)

    asyncio.run(check())


def test_without_nats_a_submit_fails_within_a_second_and_leaves_no_ghost(own: Nats) -> None:
    async def check() -> None:
        async with queue(own.url) as found:
            own.kill()
            for _ in range(2):
                started = time.monotonic()
                with pytest.raises(QueueUnavailable):
                    await found.submit(submission())
                assert time.monotonic() - started < 1
            own.start()
            await ready(found)
            assert await found.fetch(5, 0.5) == []

            # A server that hangs gets the message, and stores it when it goes on: it is taken back.
            own.signal(signal.SIGSTOP)
            started = time.monotonic()
            with pytest.raises(QueueUnavailable):
                await found.submit(submission())
            assert time.monotonic() - started < 1
            own.signal(signal.SIGCONT)
            await ready(found)
            async with asyncio.timeout(10):
                while found._submitter._doubtful:  # noqa: ASYNC110 - nothing tells when it is done
                    await asyncio.sleep(0.05)
            assert await found.fetch(5, 0.5) == []

    asyncio.run(check())


def test_a_call_in_flight_fails_when_the_server_dies(own: Nats) -> None:
    async def check() -> None:
        async with queue(own.url) as found:
            own.signal(signal.SIGSTOP)
            calls = [asyncio.create_task(found.submit(submission())) for _ in range(20)]
            await asyncio.sleep(0.1)
            started = time.monotonic()
            own.kill()
            outcomes = await asyncio.gather(*calls, return_exceptions=True)
            assert time.monotonic() - started < 0.5
            assert {type(outcome) for outcome in outcomes} == {QueueUnavailable}

    asyncio.run(check())


def test_what_was_accepted_is_there_after_kill_9(own: Nats) -> None:
    async def check() -> None:
        accepted: list[str] = []
        async with queue(own.url) as found:

            async def submit() -> None:
                while True:
                    try:
                        accepted.append(await found.submit(submission()))
                    except QueueUnavailable:
                        await asyncio.sleep(0.01)

            submitting = [asyncio.create_task(submit()) for _ in range(20)]
            for _ in range(3):
                await asyncio.sleep(0.3)
                own.kill()
                own.start()
                await ready(found)
            for task in submitting:
                task.cancel()
            await asyncio.gather(*submitting, return_exceptions=True)
            assert len(accepted) > 100
            done: set[str] = set()
            while deliveries := await found.fetch(256, 2):
                done |= {delivery.job.id for delivery in deliveries}
                await asyncio.gather(*(delivery.finish(answer(delivery.job)) for delivery in deliveries))
            assert set(accepted) - done == set()

    asyncio.run(check())


def test_a_small_disk_gets_small_streams(tmp_path: Path) -> None:
    """JetStream reserves what a stream may hold; more than there is would leave no queue at all."""
    with server(tmp_path) as nats:
        nats.kill()
        configuration = "jetstream {\n  store_dir: %s\n  max_file_store: 64MB\n}\n" % (tmp_path / "small")
        nats.more = configuration
        nats.start()

        async def check() -> None:
            async with queue(nats.url) as found:
                connection: Connection = found._connection
                sizes = [
                    (await connection.api(f"STREAM.INFO.{name}"))["config"]["max_bytes"]
                    for name in ("MIAAS_JOBS", "MIAAS_INPUTS")
                ]
                assert all(1 << 20 <= size <= 16 << 20 for size in sizes)
                await found.submit(submission())
            # What fitted the first time fits the second time.
            async with queue(nats.url) as found:
                [delivery] = await found.fetch(2, 1)
                await delivery.finish(answer(delivery.job))

        asyncio.run(check())


def test_the_input_of_a_failed_job_is_kept(shared: Nats) -> None:
    async def check() -> None:
        async with queue(shared.url) as found:
            for size in (10, 9_000_000):
                await found.submit(submission(bytes(size)))
                [delivery] = await found.fetch(1, 1)
                await delivery.finish(failure(delivery.job, "inference_failed", "no"))
                stored = await found._results.find("alice", delivery.job.id, direct=True)
                assert stored is not None
                name, count, length, _ = stored.headers[messages.INPUT].split(".")
                assert int(length) > size
                assert int(count) == (1 if size == 10 else 9)
                assert name

    asyncio.run(check())
