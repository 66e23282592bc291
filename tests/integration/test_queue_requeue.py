"""A failed job that an operator queued again, on a real nats-server."""

import asyncio
import os
import subprocess

from adapter.jobs import messages
from adapter.jobs.admin import QueueAdmin
from adapter.jobs.cancelling import cancel
from adapter.jobs.runner import failure
from adapter.settings import Settings
from tests.integration.nats import Nats, answer, lend, output, queue, submission
from tests.integration.services import PROGRAM


def test_a_job_that_is_queued_again_has_all_its_attempts_and_no_more(shared_nats: Nats) -> None:
    def requeue(job_id: str) -> None:
        environment = {**os.environ, "ADAPTER_NATS_URL": shared_nats.url}
        subprocess.run([*PROGRAM, "queue", "requeue", job_id], env=environment, check=True, timeout=30)

    async def check() -> None:
        async with queue(shared_nats.url) as found:
            job_id = await found.submit(submission())
            for _ in range(3):
                [delivery] = await lend(found, 1, 5)
                await delivery.give_back(0, excused=True)
            [delivery] = await lend(found, 1, 5)
            assert (delivery.deliveries, delivery.attempt) == (4, 1)
            await delivery.finish(failure(delivery.job, "model_crashed", "given up"))
            await asyncio.to_thread(requeue, job_id)
            for attempt in (1, 2):
                [delivery] = await lend(found, 1, 5)
                assert (delivery.deliveries, delivery.attempt) == (attempt, attempt)
                await delivery.give_back(0, excused=False)
            [delivery] = await lend(found, 1, 5)
            await delivery.finish(answer(delivery.job))

    asyncio.run(check())


def test_a_cancel_that_comes_too_late_leaves_alone_what_is_queued_again(own_nats: Nats) -> None:
    async def check() -> None:
        async with queue(own_nats.url) as found:
            connection, value = found._connection, bytes(9_000_000)
            job_id = await found.submit(submission(value))
            seen = await connection.last("MIAAS_JOBS", messages.job_subject("alice", job_id), direct=True)
            assert seen is not None
            [delivery] = await lend(found, 1, 1)
            await delivery.finish(failure(delivery.job, "model_crashed", "given up"))
            failed = await found._results.find("alice", job_id, direct=True)
            assert failed is not None
            assert await QueueAdmin(connection, Settings()).requeue(failed, 60)
            assert not await cancel(connection, found._results, seen, "too late")
            [again] = await lend(found, 1, 1)
            assert bytes(again.job.request.inputs[0].data) == value
            await again.finish(answer(again.job))
            assert output((await found.status("alice", job_id)).result) == b"done"

    asyncio.run(check())
