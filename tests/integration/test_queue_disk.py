"""A disk that is full: jobs are refused, none that was accepted is lost, and all goes on with room."""

import asyncio
import signal
from contextlib import suppress
from pathlib import Path

import pytest

from adapter.core.errors import QueueFull
from tests.integration.conftest import Up, eventually, start_up
from tests.integration.disk import filled, small_disk
from tests.integration.nats import Nats, answer, output, queue, server, submission
from tests.integration.site import echoed, job
from tests.models.generate import write_count_model


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


def test_a_disk_that_others_filled_is_survived(tmp_path: Path) -> None:
    executions = tmp_path / "executions"
    write_count_model(tmp_path / "models" / "count", executions)
    (tmp_path / "state").mkdir()
    with small_disk(tmp_path / "disk", "64m") as disk:
        (tmp_path / "state" / "nats").symlink_to(disk)
        with start_up(tmp_path, tmp_path / "models", ADAPTER_ACK_WAIT_S="3") as up:
            # They wait for a worker that stands still, and is killed when nothing can be written any more.
            up.kill("worker", signal.SIGSTOP)
            accepted = [up.client.post("/inference", json=job(value)) for value in range(1, 21)]
            assert {answer.status_code for answer in accepted} == {202}
            with filled(disk):
                for value in range(101, 106):
                    # Larger than what may be left of a block that is there already.
                    refused = up.client.post("/inference", json=job(value, note="x" * 10_000))
                    assert refused.status_code == 503
                    assert refused.json()["error"]["code"] == "queue_unavailable"
                    assert refused.headers["Retry-After"] == "1"
                up.kill("worker", signal.SIGKILL)
                eventually(
                    lambda: set(range(1, 21)) <= {int(line) for line in executions.read_text().split()}
                )
                eventually(lambda: "nats cannot write" in (tmp_path / "up.log").read_text())
            again = eventually(lambda: submitted(up, 21))
            ids = [answer.json()["request_id"] for answer in accepted]
            assert [echoed(up.result(job_id)) for job_id in [*ids, again]] == [*range(1, 22)]
            assert not {*range(101, 106)} & {int(line) for line in executions.read_text().split()}


def submitted(up: Up, value: int) -> str | None:
    """The id of a job that was accepted."""
    answer = up.client.post("/inference", json=job(value))
    assert answer.status_code in (202, 503)
    return str(answer.json()["request_id"]) if answer.status_code == 202 else None
