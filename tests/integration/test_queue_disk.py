"""A disk that is full: jobs are refused, none that was accepted is lost, and all goes on with room."""

import asyncio
from contextlib import suppress
from pathlib import Path

import pytest

from adapter.core.errors import QueueFull
from tests.integration.nats import Nats, answer, output, queue, server, submission


@pytest.fixture
def small(tmp_path: Path) -> str:
    """A limit as JetStream sets it from the disk's free space, small enough to be reached."""
    store = f'store_dir: "{tmp_path / "small"}"'
    return f"jetstream {{\n  {store}\n  sync_interval: always\n  max_file_store: 24MB\n}}\n"


def test_a_full_disk_refuses_and_recovers(tmp_path: Path, small: str) -> None:
    async def check(nats: Nats) -> None:
        async with queue(nats.url) as found:
            stored = []
            with suppress(QueueFull):
                while True:
                    stored.append(await found.submit(submission(bytes(500_000))))
            assert stored
            with pytest.raises(QueueFull):
                await found.submit(submission(bytes(500_000)))
            for expected in range(len(stored), 0, -1):
                deliveries = await found.fetch(1, 2)
                assert len(deliveries) == 1, expected
                await deliveries[0].finish(answer(deliveries[0].job))
            for job_id in stored:
                assert output((await found.status("alice", job_id)).result) == b"done"
            await found.submit(submission(bytes(500_000)))

    with server(tmp_path) as nats:
        nats.kill()
        nats.more = small
        nats.start()
        asyncio.run(check(nats))
