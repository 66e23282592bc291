"""Inputs that are too large for a message: many at once, and none that is left behind."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from adapter.core.dataplane import DataPlane
from adapter.core.errors import AdapterError, QueueFull, QueueUnavailable
from adapter.core.metrics import Metrics
from adapter.core.types import JobError
from adapter.jobs.admin import QueueAdmin
from adapter.jobs.jetstream import JetStreamQueue
from adapter.jobs.runner import failure
from adapter.jobs.worker import Worker
from adapter.settings import Settings
from adapter.standalone.network import LOOPBACK
from tests.fakes import FakeEngine, model, tensor
from tests.integration.nats import Nats, answer, lend, output, queue, submission
from tests.integration.proxy import Proxy

LARGE = 9_000_000
CHUNKS = 9
"""What a large input takes."""


async def chunks(found: JetStreamQueue) -> int:
    """How many stand in the stream of inputs."""
    state = (await found._connection.api("STREAM.INFO.MIAAS_INPUTS"))["state"]
    return int(state["messages"])


async def left(found: JetStreamQueue, count: int) -> None:
    """Return when so many chunks are left."""
    async with asyncio.timeout(20):
        while await chunks(found) != count:  # noqa: ASYNC110 - nothing tells when they go
            await asyncio.sleep(0.05)


@asynccontextmanager
async def through(proxy: Proxy, **settings: Any) -> AsyncIterator[JetStreamQueue]:
    """A queue whose connection goes through the proxy."""
    with proxy.running():
        async with queue(f"nats://{proxy.address}", **settings) as found:
            yield found


def test_a_full_queue_keeps_nothing_of_what_it_refused(own_nats: Nats) -> None:
    async def check() -> None:
        async with queue(own_nats.url, queue_max_jobs=1) as found:
            waiting = await found.submit(submission(bytes(LARGE)))
            for key in ("", "k"):
                with pytest.raises(QueueFull):
                    await found.submit(submission(b"\1" * LARGE, key=key))
            await left(found, CHUNKS)
            [delivery] = await lend(found, 2, 1)
            assert delivery.job.id == waiting
            assert bytes(delivery.job.request.inputs[0].data) == bytes(LARGE)

    asyncio.run(check())


def test_an_input_for_which_there_is_no_room_leaves_nothing(own_nats: Nats) -> None:
    async def check() -> None:
        async with queue(own_nats.url, queue_max_bytes=LARGE - 2_000_000) as found:
            with pytest.raises(QueueFull):
                await found.submit(submission(bytes(LARGE)))
            await left(found, 0)

    asyncio.run(check())


def test_an_input_goes_with_its_job_when_nobody_knows_if_that_was_stored(own_nats: Nats) -> None:
    async def check() -> None:
        proxy = Proxy((LOOPBACK, own_nats.port), stop_before=b"PUB miaas.jobs.normal.")
        async with queue(own_nats.url) as direct, through(proxy) as found:
            with pytest.raises(QueueUnavailable):
                await found.submit(submission(bytes(LARGE)))
            await left(direct, 0)
            assert await lend(direct, 1, 0) == []
            # One with a key is not taken back, so its input stays until the job has ended.
            with pytest.raises(QueueUnavailable):
                await found.submit(submission(bytes(LARGE), key="k"))
            assert await chunks(direct) == CHUNKS
            await direct.submit(submission(bytes(LARGE), key="k"))
            [delivery] = await lend(direct, 2, 1)
            await delivery.finish(answer(delivery.job))
            assert await chunks(direct) == 0

    asyncio.run(check())


def test_submits_with_one_key_leave_one_input(own_nats: Nats) -> None:
    async def check() -> None:
        async with queue(own_nats.url) as one, queue(own_nats.url) as other:
            calls = [found.submit(submission(bytes(LARGE), key="k")) for found in (one, other) * 2]
            [job_id] = set(await asyncio.gather(*calls))
            await left(one, CHUNKS)
            [delivery] = await lend(one, 5, 1)
            assert delivery.job.id == job_id
            assert bytes(delivery.job.request.inputs[0].data) == bytes(LARGE)

    asyncio.run(check())


@pytest.mark.parametrize(("size", "count"), [(10, 1), (LARGE, CHUNKS)])
def test_the_input_of_a_failed_job_is_kept_for_as_long_as_its_result(
    own_nats: Nats, size: int, count: int
) -> None:
    async def check() -> None:
        kept = {"result_retention_s": 4, "job_timeout_s": 1}
        async with queue(own_nats.url, **kept) as found:
            admin = QueueAdmin(found._connection, Settings())
            await found.submit(submission(bytes(size)))
            for _ in range(2):
                [delivery] = await lend(found, 1, 1)
                assert bytes(delivery.job.request.inputs[0].data) == bytes(size)
                await delivery.finish(failure(delivery.job, "inference_failed", "no"))
                assert await chunks(found) == count
                stored = await found._results.find("alice", delivery.job.id, direct=True)
                assert stored is not None
                assert await admin.requeue(stored, 60)
            [delivery] = await lend(found, 1, 1)
            await left(found, 0)
            # By now the failed result is gone as well.
            assert await delivery.finish(answer(delivery.job))
            assert output((await found.status("alice", delivery.job.id)).result) == b"done"

    asyncio.run(check())


def test_another_s_kept_input_is_left_alone(own_nats: Nats) -> None:
    """Of two workers that run the same job one fails it, and the other completes it too late."""

    async def check() -> None:
        async with queue(own_nats.url, ack_wait_s=1) as found:
            await found.submit(submission(bytes(LARGE)))
            [silent] = await lend(found, 1, 1)
            [second] = await lend(found, 1, 10)
            assert await second.finish(failure(second.job, "inference_failed", "no"))
            assert not await silent.finish(answer(silent.job))
            assert await chunks(found) == CHUNKS

    asyncio.run(check())


def test_an_input_goes_with_its_job_that_another_had_finished(own_nats: Nats) -> None:
    """Its first worker died between the result and the acknowledgement."""

    async def check() -> None:
        proxy = Proxy((LOOPBACK, own_nats.port), stop_before=b"PUB miaas.done.")
        async with queue(own_nats.url, ack_wait_s=1) as found:
            await found.submit(submission(bytes(LARGE)))
            async with through(proxy, ack_wait_s=1) as dying:
                [delivery] = await lend(dying, 1, 1)
                with pytest.raises(QueueUnavailable):
                    await delivery.finish(answer(delivery.job))
            [again] = await lend(found, 1, 10)
            assert await again.settled()
            assert await chunks(found) == 0

    asyncio.run(check())


@pytest.mark.parametrize("size", [LARGE, 7_900_000])
def test_many_large_inputs_over_a_slow_line(own_nats: Nats, size: int) -> None:
    """All in flight together would each be late, so would the sign of life that is asked for then, and the
    server would hang up on a client that reads too slowly. A small one waits for none of them.
    """
    engine = FakeEngine(model(tensor("x", "UINT8", -1), outputs=[tensor("y", "UINT8", -1)]))

    async def check() -> None:
        slow = Proxy((LOOPBACK, own_nats.port), bytes_per_s=20e6)
        # Reading them takes longer than a silent worker keeps its jobs.
        async with queue(own_nats.url, ack_wait_s=3) as direct, through(slow, ack_wait_s=3) as found:
            values = [bytes([n]) * size for n in range(10)] + [b"small"]
            ids = [await direct.submit(submission(value)) for value in values]
            worker = Worker(found, DataPlane(engine), Metrics(), Settings(ack_wait_s=3))
            running = asyncio.create_task(worker.run())
            ended = await asyncio.gather(*(direct.status("alice", job_id, 60) for job_id in ids))
            worker.stop()
            await running
            assert [output(status.result) for status in ended] == values
            assert len(engine.requests) == len(ids)
            assert bytes(engine.requests[0].inputs[0].data) == b"small"

    asyncio.run(check())


def test_a_job_whose_input_is_damaged_fails_at_once(own_nats: Nats) -> None:
    async def check() -> None:
        async with queue(own_nats.url) as found:
            await found.submit(submission(bytes(LARGE)))
            [name] = await _names(found)
            original = await found._connection.last("MIAAS_INPUTS", name, direct=True)
            assert original is not None
            await found._connection.publish(name, b"\1" * len(original.payload), {})
            [delivery] = await lend(found, 1, 1)
            assert delivery.lost == JobError(
                "input_lost", "the request's input is damaged where it was stored"
            )
            assert await delivery.finish(failure(delivery.job, *delivery.lost))
            assert await chunks(found) == 0

    asyncio.run(check())


def test_an_input_that_was_not_read_in_time_is_there_when_its_job_is_queued_again(own_nats: Nats) -> None:
    async def check() -> None:
        async with queue(own_nats.url) as found:
            await found.submit(submission(bytes(LARGE)))
            [unread] = await found.fetch(1, 1)
            await unread.finish(failure(unread.job, "deadline_exceeded", "too late"))
            stored = await found._results.find("alice", unread.job.id, direct=True)
            assert stored is not None
            assert await QueueAdmin(found._connection, Settings()).requeue(stored, 60)
            [delivery] = await lend(found, 1, 1)
            assert bytes(delivery.job.request.inputs[0].data) == bytes(LARGE)

    asyncio.run(check())


def test_a_damaged_result_is_an_error_of_ours(own_nats: Nats) -> None:
    """To ask again, as a client does that is told 503, would never help."""

    async def check() -> None:
        async with queue(own_nats.url) as found:
            job_id = await found.submit(submission())
            [delivery] = await lend(found, 1, 1)
            await delivery.finish(answer(delivery.job, bytes(LARGE)))
            info = await found._connection.api("STREAM.INFO.MIAAS_RESULTS", {"subjects_filter": ">"})
            name = max(info["state"]["subjects"])
            original = await found._connection.last("MIAAS_RESULTS", name, direct=True)
            assert original is not None
            await found._connection.publish(name, b"\1" * len(original.payload), {})
            with pytest.raises(AdapterError, match="damaged") as raised:
                await found.status("alice", job_id)
            assert raised.value.code == "internal"

    asyncio.run(check())


async def _names(found: JetStreamQueue) -> list[str]:
    """The subjects of all first chunks."""
    info = await found._connection.api(
        "STREAM.INFO.MIAAS_INPUTS", {"subjects_filter": "miaas.inputs.*.*.*.0"}
    )
    return list(info["state"]["subjects"])
