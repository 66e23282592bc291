"""A connection to NATS that breaks, or worse: that does not break."""

import asyncio
import time
from pathlib import Path

import pytest

from adapter.core.errors import QueueUnavailable
from adapter.standalone.network import LOOPBACK
from tests.integration.nats import queue, ready, server, submission
from tests.integration.proxy import Proxy


@pytest.mark.parametrize("size", [10, 6_000_000])
def test_a_connection_that_went_mute_is_left_at_once(tmp_path: Path, size: int) -> None:
    """Packets get lost on the way: nothing breaks, and nothing comes. Large ones stay in our own buffers."""

    async def refused(url: str) -> None:
        async with queue(url) as found:
            with proxy.frozen():
                for within_s in (1.2, 0.5):
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

    with server(tmp_path) as nats, Proxy((LOOPBACK, nats.port)).running() as proxy:
        asyncio.run(refused(f"nats://{proxy.address}"))
