"""Three nats-servers that replicate: many want one place at once, and leaders are killed under load."""

import asyncio
from collections import Counter
from collections.abc import Iterator

import pytest

from adapter.core.errors import AdapterError, QueueUnavailable
from adapter.jobs.connection import Connection
from adapter.jobs.jetstream import JetStreamQueue
from tests.integration.nats import Nats, answer, cluster, output, queue, submission


async def leader(connection: Connection, nodes: list[Nats]) -> Nats | None:
    """The server that leads the stream of jobs."""
    try:
        found = await connection.api("STREAM.INFO.MIAAS_JOBS")
    except AdapterError:
        return None
    name = (found.get("cluster") or {}).get("leader", "")
    return next((nodes[n] for n in range(3) if name == f"n{n}"), None)


@pytest.fixture(scope="module")
def nodes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Nats]]:
    with cluster(tmp_path_factory.mktemp("cluster")) as started:
        yield started


def urls(nodes: list[Nats]) -> str:
    return ",".join(node.url for node in nodes)


def test_of_many_at_once_one_is_first_and_none_is_refused(nodes: list[Nats]) -> None:
    """A leader does not say who is first until the others have the message as well."""

    async def check() -> None:
        async with (
            queue(urls(nodes), queue_replicas=3) as one,
            queue(urls(nodes), queue_replicas=3) as other,
        ):
            calls = [found.submit(submission(key="k", client="bob")) for found in (one, other) * 10]
            [job_id] = set(await asyncio.gather(*calls))
            [delivery] = await one.fetch(5, 5)
            assert delivery.job.id == job_id
            results = [answer(delivery.job, bytes([n])) for n in range(20)]
            saved = await asyncio.gather(*(other._results.save(delivery.job, each) for each in results))
            assert sorted(saved) == [False] * 19 + [True]
            status = await one.status("bob", job_id)
            assert output(status.result) == bytes([saved.index(True)])
            await delivery.finish(results[0])

    asyncio.run(check())


@pytest.mark.timeout(300)  # elections, one after the other
def test_leaders_die_and_nothing_is_lost(nodes: list[Nats]) -> None:
    accepted: list[str] = []
    done: Counter[str] = Counter()

    async def submit(found: JetStreamQueue) -> None:
        while True:
            try:
                accepted.append(await found.submit(submission(key=f"k{len(accepted)}")))
            except AdapterError:
                await asyncio.sleep(0.05)
            await asyncio.sleep(0.005)

    async def work(found: JetStreamQueue) -> None:
        while True:
            try:
                for delivery in await found.fetch(16, 0.5):
                    if delivery.deliveries > 1 and await delivery.settled():
                        continue
                    done[delivery.job.id] += 1
                    await delivery.finish(answer(delivery.job, delivery.job.id.encode()))
            except AdapterError:
                await asyncio.sleep(0.05)

    async def check() -> None:
        async with (
            queue(urls(nodes), queue_replicas=3, ack_wait_s=2) as api,
            queue(urls(nodes), queue_replicas=3) as worker,
        ):
            tasks = [asyncio.create_task(submit(api)), asyncio.create_task(work(worker))]
            for _ in range(3):
                before = len(accepted)
                async with asyncio.timeout(60):
                    while (first := await leader(api._connection, nodes)) is None:  # noqa: ASYNC110
                        await asyncio.sleep(0.05)
                    first.kill()
                    # Two of three go on.
                    while len(accepted) < before + 20:  # noqa: ASYNC110 - counts what another task does
                        await asyncio.sleep(0.02)
                await asyncio.to_thread(first.start)
            tasks[0].cancel()
            assert len(accepted) >= 60
            async with asyncio.timeout(60):
                for job_id in accepted:
                    while True:
                        try:
                            status = await api.status("alice", job_id, 5)
                        except QueueUnavailable:
                            continue
                        if status.result is not None:
                            break
                    assert output(status.result) == job_id.encode()
            tasks[1].cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            assert set(accepted) <= done.keys()

    asyncio.run(check())
