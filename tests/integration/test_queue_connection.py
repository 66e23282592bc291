"""A connection to NATS that breaks, or worse: that does not break."""

import asyncio
import signal
import time

import pytest

from adapter.core.errors import QueueUnavailable
from adapter.jobs.connection import SLOW_TIMEOUT_S, TIMEOUT_S
from adapter.jobs.jetstream import JetStreamQueue
from adapter.standalone.network import LOOPBACK
from tests.integration.nats import Nats, answer, queue, ready, submission
from tests.integration.proxy import Proxy


@pytest.mark.parametrize("size", [10, 6_000_000, 9_000_000])
def test_a_connection_that_went_mute_is_left_at_once(own_nats: Nats, size: int) -> None:
    """Packets get lost on the way: nothing breaks, and nothing comes. Large ones stay in our own buffers."""

    async def refused(url: str) -> None:
        async with queue(url) as found:
            with proxy.frozen():
                # The second time it is known.
                for within_s in (2 * TIMEOUT_S, TIMEOUT_S):
                    started = time.monotonic()
                    calls = (found.submit(submission(bytes(size))) for _ in range(4))
                    outcomes = await asyncio.gather(*calls, return_exceptions=True)
                    assert {type(outcome) for outcome in outcomes} == {QueueUnavailable}
                    assert time.monotonic() - started < within_s
                    async with asyncio.timeout(0.8):
                        while found._connection.ready:  # noqa: ASYNC110 - nothing tells when it is left
                            await asyncio.sleep(0.01)
            await ready(found)
            job_id = await found.submit(submission(bytes(size)))
            assert [delivery.job.id for delivery in await found.fetch(10, 1)] == [job_id]

    with Proxy((LOOPBACK, own_nats.port)).running() as proxy:
        asyncio.run(refused(f"nats://{proxy.address}"))


def test_without_nats_a_submit_fails_after_one_timeout_and_leaves_no_ghost(own_nats: Nats) -> None:
    async def check() -> None:
        async with queue(own_nats.url) as found:
            own_nats.kill()
            for _ in range(2):
                started = time.monotonic()
                with pytest.raises(QueueUnavailable):
                    await found.submit(submission())
                assert time.monotonic() - started < 2 * TIMEOUT_S
            own_nats.start()
            await ready(found)
            assert await found.fetch(5, 0.5) == []

            # A server that hangs gets the message, and stores it when it goes on: it is taken back.
            own_nats.signal(signal.SIGSTOP)
            started = time.monotonic()
            with pytest.raises(QueueUnavailable):
                await found.submit(submission())
            assert time.monotonic() - started < 2 * TIMEOUT_S
            own_nats.signal(signal.SIGCONT)
            await ready(found)
            async with asyncio.timeout(10):
                while found._submitter._left:  # noqa: ASYNC110 - nothing tells when it is done
                    await asyncio.sleep(0.05)
            assert await found.fetch(5, 0.5) == []

    asyncio.run(check())


def test_a_call_in_flight_fails_when_the_server_dies(own_nats: Nats) -> None:
    async def check() -> None:
        async with queue(own_nats.url) as found:
            own_nats.signal(signal.SIGSTOP)
            calls = [asyncio.create_task(found.submit(submission())) for _ in range(20)]
            await asyncio.sleep(0.1)
            started = time.monotonic()
            own_nats.kill()
            outcomes = await asyncio.gather(*calls, return_exceptions=True)
            assert time.monotonic() - started < 0.5
            assert {type(outcome) for outcome in outcomes} == {QueueUnavailable}

    asyncio.run(check())


def test_a_connection_is_lost_at_the_moment_of_a_timeout(own_nats: Nats) -> None:
    async def check() -> None:
        async with queue(own_nats.url) as found:
            own_nats.signal(signal.SIGSTOP)
            call = asyncio.create_task(found._connection.api("INFO", timeout_s=0.05))
            await asyncio.sleep(0)  # it has begun
            loop = asyncio.get_running_loop()
            lost = loop.create_future()

            def lose() -> None:
                try:
                    found._connection.lose()
                    lost.set_result(None)
                except Exception as error:
                    lost.set_exception(error)

            loop.call_later(0.06, lose)
            time.sleep(0.1)  # noqa: ASYNC251 - both are due now, the timeout first
            await lost
            with pytest.raises(QueueUnavailable):
                await call

    asyncio.run(check())


def test_what_a_stream_was_too_slow_to_store_does_not_run_later(
    own_nats: Nats, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Others sent so much that JetStream answers too late: what was refused then is stored all the same."""
    monkeypatch.setattr("adapter.jobs.connection.TIMEOUT_S", 0.02)
    monkeypatch.setattr("adapter.jobs.submitting._COUNT_EVERY_S", 0.02)
    others = 8000

    async def stored(found: JetStreamQueue, pattern: str) -> int:
        content = {"subjects_filter": pattern}
        info = await found._connection.api("STREAM.INFO.MIAAS_JOBS", content, SLOW_TIMEOUT_S)
        return len(info["state"].get("subjects") or {})

    async def check() -> None:
        async with queue(own_nats.url) as found, queue(own_nats.url) as flood:
            for number in range(others):
                await flood._connection.send(f"miaas.jobs.normal.0.others.{number}", bytes(1000))
            await flood._connection._nats.flush(30)
            submits = (found.submit(submission()) for _ in range(3))
            refused = await asyncio.gather(*submits, return_exceptions=True)
            assert [type(error) for error in refused] == [QueueUnavailable] * 3
            async with asyncio.timeout(30):
                while found._submitter._left:  # noqa: ASYNC110 - nothing tells when they go
                    await asyncio.sleep(0.05)
            await flood._connection.settle("miaas.jobs.none")
            assert await stored(flood, "miaas.jobs.>") == others

    asyncio.run(check())


def test_what_was_accepted_is_there_after_kill_9(own_nats: Nats) -> None:
    async def check() -> None:
        accepted: list[str] = []
        async with queue(own_nats.url) as found:

            async def submit() -> None:
                while True:
                    try:
                        accepted.append(await found.submit(submission()))
                    except QueueUnavailable:
                        await asyncio.sleep(0.01)

            submitting = [asyncio.create_task(submit()) for _ in range(20)]
            for _ in range(3):
                await asyncio.sleep(0.3)
                own_nats.kill()
                own_nats.start()
                await ready(found)
            for task in submitting:
                task.cancel()
            await asyncio.gather(*submitting, return_exceptions=True)
            assert len(accepted) > 100
            done: set[str] = set()
            while deliveries := await found.fetch(64, 2):
                done |= {delivery.job.id for delivery in deliveries}
                await asyncio.gather(*(delivery.finish(answer(delivery.job)) for delivery in deliveries))
            assert set(accepted) - done == set()

    asyncio.run(check())
