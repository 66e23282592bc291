"""Who goes first, and that nobody is left behind."""

import asyncio

from tests.integration.nats import Nats, answer, queue, submission


def test_ten_thousand_jobs_of_one_client_do_not_hold_up_the_single_one_of_another(own_nats: Nats) -> None:
    async def check() -> None:
        async with queue(own_nats.url) as found:
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


def test_urgent_jobs_go_first_and_low_ones_are_not_forgotten(own_nats: Nats) -> None:
    async def check() -> None:
        async with queue(own_nats.url) as found:
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
