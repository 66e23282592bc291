"""One key, one job: whoever sends it, however often, whatever died in between."""

import asyncio

import pytest

from adapter.core.errors import IdempotencyConflict, JobNotFound, QueueFull
from adapter.jobs.jetstream import JetStreamQueue
from tests.integration.nats import Nats, answer, queue, submission


def test_a_hundred_submits_with_one_key_are_one_job(own_nats: Nats) -> None:
    async def check() -> None:
        async with queue(own_nats.url) as one, queue(own_nats.url) as other:
            calls = [found.submit(submission(key="k")) for found in (one, other) for _ in range(50)]
            [job_id] = set(await asyncio.gather(*calls))
            assert [delivery.job.id for delivery in await one.fetch(100, 1)] == [job_id]
            assert await other.fetch(100, 0) == []
            assert await one.submit(submission(key="k", client="bob")) != job_id
            with pytest.raises(IdempotencyConflict):
                await one.submit(submission(b"other", key="k"))
        own_nats.kill()
        own_nats.start()
        async with queue(own_nats.url, ack_wait_s=1) as found:
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


def test_a_key_whose_job_was_never_stored_is_used_again(own_nats: Nats) -> None:
    async def check() -> None:
        async with queue(own_nats.url, queue_max_jobs=1) as found:
            await found.submit(submission())
            with pytest.raises(QueueFull):
                await found.submit(submission(key="k"))
            [delivery] = await found.fetch(1, 1)
            await delivery.finish(answer(delivery.job))
            job_id = await found.submit(submission(key="k"))
            assert [delivery.job.id for delivery in await found.fetch(5, 1)] == [job_id]

    asyncio.run(check())


def test_a_key_that_outlives_its_result_means_a_new_request(own_nats: Nats) -> None:
    """Under an id of its own: the first one never comes to mean another result."""

    async def forgotten(found: JetStreamQueue, job_id: str) -> bool:
        try:
            await found.status("alice", job_id)
        except JobNotFound:
            return True
        return False

    async def check() -> None:
        async with queue(own_nats.url, result_retention_s=1) as one:
            first = await one.submit(submission(key="k"))
            [delivery] = await one.fetch(1, 1)
            await delivery.finish(answer(delivery.job))
            async with asyncio.timeout(20):
                while not await forgotten(one, first):  # noqa: ASYNC110 - nothing tells when it expires
                    await asyncio.sleep(0.05)
            [second] = set(await asyncio.gather(*(one.submit(submission(key="k")) for _ in range(20))))
            assert second != first
            [delivery] = await one.fetch(5, 1)
            assert delivery.job.id == second
            assert await forgotten(one, first)
            with pytest.raises(IdempotencyConflict):
                await one.submit(submission(b"other", key="k"))

    asyncio.run(check())
