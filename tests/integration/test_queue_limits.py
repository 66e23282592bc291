"""What does not fit: full queues, small disks, payloads and results over a limit."""

import asyncio
import time
from pathlib import Path

import pytest

from adapter.core.errors import (
    PayloadTooLarge,
    QueueFull,
)
from adapter.jobs import messages
from adapter.jobs.connection import Connection, message_size
from tests.integration.nats import Nats, answer, lend, output, queue, server, submission


def test_a_full_queue_refuses_and_evicts_nothing(own_nats: Nats) -> None:
    async def check() -> None:
        async with queue(own_nats.url, queue_max_jobs=3) as found:
            stored = [await found.submit(submission()) for _ in range(3)]
            with pytest.raises(QueueFull, match="maximum messages exceeded"):
                await found.submit(submission())
            assert {delivery.job.id for delivery in await lend(found, 10, 1)} == set(stored)

    asyncio.run(check())


def test_settings_that_changed_hold_from_the_next_start_on(own_nats: Nats) -> None:
    async def check() -> None:
        async with queue(own_nats.url) as found:
            stored = await found.submit(submission())
        async with queue(own_nats.url, queue_max_jobs=1, ack_wait_s=1) as found:
            with pytest.raises(QueueFull, match="maximum messages exceeded"):
                await found.submit(submission())
            [first] = await lend(found, 1, 1)
            [again] = await lend(found, 1, 5)
            assert first.job.id == again.job.id == stored
            assert again.attempt == 2

    asyncio.run(check())


def test_a_queue_full_by_bytes_refuses_and_evicts_nothing(own_nats: Nats) -> None:
    async def check() -> None:
        async with queue(own_nats.url, queue_max_bytes=1 << 20) as found:
            stored = [await found.submit(submission(bytes(300_000))) for _ in range(3)]
            with pytest.raises(QueueFull, match="maximum bytes exceeded"):
                await found.submit(submission(bytes(300_000)))
            assert {delivery.job.id for delivery in await lend(found, 10, 1)} == set(stored)

    asyncio.run(check())


def test_payloads_around_the_limit_of_a_message(own_nats: Nats) -> None:
    """Ten bytes below and ten above, headers counted: nobody notices."""

    async def check() -> None:
        async with queue(own_nats.url) as found:
            limit = found._connection.max_payload
            probe = await found.submit(submission(bytes(900_000)))
            [delivery] = await lend(found, 1, 1)
            payload, headers = messages.job_message(delivery.job)
            room = limit - message_size(payload, headers)
            await delivery.finish(answer(delivery.job))
            assert probe
            for size in (-10, -1, 0, 1, 10):
                value = bytes(900_000 + room + size)
                job_id = await found.submit(submission(value))
                [delivery] = await lend(found, 1, 2)
                assert delivery.job.id == job_id
                assert bytes(delivery.job.request.inputs[0].data) == value
                payload, headers = messages.result_message(
                    delivery.job, answer(delivery.job, b""), time.time()
                )
                big = bytes(limit - message_size(payload, headers) + size - 60)
                await delivery.finish(answer(delivery.job, big))
                assert output((await found.status("alice", job_id)).result) == big
            connection = found._connection
            assert (await connection.api("STREAM.INFO.MIAAS_INPUTS"))["state"]["messages"] == 0

    asyncio.run(check())


def test_a_result_over_the_limit_is_refused(shared_nats: Nats) -> None:
    async def check() -> None:
        async with queue(shared_nats.url, result_max_bytes=10_000_000) as found:
            job_id = await found.submit(submission())
            [delivery] = await lend(found, 1, 1)
            with pytest.raises(PayloadTooLarge):
                await delivery.finish(answer(delivery.job, bytes(10_000_001)))
            assert (await found.status("alice", job_id)).result is None
            await delivery.finish(answer(delivery.job, bytes(9_000_000)))
            assert output((await found.status("alice", job_id)).result) == bytes(9_000_000)

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
                [delivery] = await lend(found, 2, 1)
                await delivery.finish(answer(delivery.job))

        asyncio.run(check())


def test_many_who_ask_for_a_large_result_at_once_all_get_it(own_nats: Nats) -> None:
    """The server hangs up on a client for which more waits than it can take."""

    async def check() -> None:
        async with queue(own_nats.url) as found:
            value = bytes(1_000_000)
            job_id = await found.submit(submission())
            [delivery] = await lend(found, 1, 1)
            await delivery.finish(answer(delivery.job, value))
            asked = await asyncio.gather(*(found.status("alice", job_id) for _ in range(300)))
            assert {output(status.result) for status in asked} == {value}
            assert found._connection._nats.stats["reconnects"] == 0

    asyncio.run(check())


def test_a_list_reads_no_large_results(own_nats: Nats) -> None:
    async def check() -> None:
        async with queue(own_nats.url) as found:
            job_id = await found.submit(submission())
            [delivery] = await lend(found, 1, 1)
            await delivery.finish(answer(delivery.job, bytes(9_000_000)))
            before = found._connection._nats.stats["in_bytes"]
            [line] = (await found.page("alice", 10)).jobs
            assert (line.id, line.state) == (job_id, "completed")
            assert found._connection._nats.stats["in_bytes"] - before < 100_000

    asyncio.run(check())
