"""Several processes' metrics in one folder: what any of them answers, while they live and after some died.

A process that is killed leaves its file as it is and its locks open for others; here that is one whose locks
are closed without a word.
"""

import asyncio
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson
import pytest

from adapter.core.metrics import Metrics
from adapter.processes import DEAD_AFTER_S, MetricsFolderError, Processes


class Process:
    """What a process has of it all."""

    running: "list[Process]" = []  # noqa: RUF012 - all of a test

    def __init__(self, folder: Path | None, role: str = "serve") -> None:
        self.metrics = Metrics()
        self.processes = Processes(self.metrics, role, folder)
        self.metrics.processes.labels(role).set(1)
        if folder is not None:
            self.running.append(self)

    def request(self, times: int = 1) -> None:
        for _ in range(times):
            self.metrics.request_seconds.labels("v1", "m", "1", "200").observe(0.01)

    def write(self) -> None:
        asyncio.run(self.processes.write())

    def kill(self) -> None:
        if self in self.running:
            self.running.remove(self)
            os.close(self.processes._lock)

    def total(self) -> Metrics:
        return asyncio.run(self.processes.total())

    def counted(self) -> int:
        return self.total().request_seconds.labels("v1", "m", "1", "200").count

    def living(self, role: str = "serve") -> float | None:
        series = self.total().processes.series.get((role,))
        return series.value if series else None

    def restarts(self, role: str = "serve") -> float:
        return self.total().process_restarts.labels(role).value


@pytest.fixture(autouse=True)
def _end() -> Iterator[None]:
    yield
    for process in list(Process.running):
        process.kill()


def age(file: Path, seconds: float) -> None:
    """Have the file be as old as if its process had been silent for so long."""
    then = time.time() - seconds
    os.utime(file, (then, then))


def files(folder: Path) -> set[str]:
    return {file.name for file in folder.glob("*.json")}


def test_whichever_is_asked_answers_for_all(tmp_path: Path) -> None:
    one, other, worker = Process(tmp_path), Process(tmp_path), Process(tmp_path, "worker")
    one.request(3)
    other.request(4)
    worker.metrics.jobs.labels("completed").inc(5)
    for process in (one, other, worker):
        process.write()
    for process in (one, other, worker):
        assert process.counted() == 7
        assert process.total().jobs.labels("completed").value == 5
        assert (process.living(), process.living("worker")) == (2, 1)


def test_what_a_dead_process_counted_stays_counted_its_gauges_do_not(tmp_path: Path) -> None:
    dead, left = Process(tmp_path), Process(tmp_path)
    dead.request(3)
    dead.metrics.requests_in_flight.labels("v1").inc()
    dead.write()
    left.request(4)
    assert left.total().requests_in_flight.labels("v1").value == 1
    dead.kill()
    age(tmp_path / "serve-1.json", DEAD_AFTER_S + 1)
    assert left.counted() == 7
    assert left.living() == 1
    assert left.total().requests_in_flight.labels("v1").value == 0


def test_whoever_takes_a_dead_ones_place_goes_on_from_there(tmp_path: Path) -> None:
    left = Process(tmp_path)
    for _ in range(3):
        process = Process(tmp_path)
        process.request(10)
        process.write()
        process.kill()
    assert files(tmp_path) == {"serve-1.json", "serve-2.json"}
    assert left.counted() == 30
    assert left.restarts() == 2
    again = Process(tmp_path)
    again.request()
    assert again.counted() == 31
    assert left.restarts() == 3


def test_a_process_that_ends_well_is_gone_at_once(tmp_path: Path) -> None:
    left, ended = Process(tmp_path), Process(tmp_path, "worker")
    ended.request(2)
    asyncio.run(ended.processes.close())
    Process.running.remove(ended)
    assert left.living("worker") == 0
    assert left.counted() == 2
    # Whoever is started later was not started in the place of one that died.
    again = Process(tmp_path, "worker")
    again.request()
    assert again.counted() == 3
    assert (left.restarts("worker"), left.living("worker")) == (0, 1)


def test_a_counter_never_falls_whoever_is_asked_and_whoever_dies(tmp_path: Path) -> None:
    one, other = Process(tmp_path), Process(tmp_path)
    seen = 0
    for number in range(20):
        one.request()
        other.request(2)
        asked = (one, other)[number % 2]
        count = asked.counted()
        assert count >= seen
        seen = count
        if number % 5 == 4:
            # What it counted since it last wrote is lost; what was ever shown is not.
            asked.request()
            asked.kill()
            one, other = (Process(tmp_path), other) if asked is one else (one, Process(tmp_path))
    one.write()
    assert other.counted() == 60


def test_one_leads_and_another_takes_over(tmp_path: Path) -> None:
    worker, api = Process(tmp_path, "worker"), Process(tmp_path)
    assert [process.processes.leads() for process in (worker, api, worker, api)] == [False, True, False, True]
    # One that is stuck cannot lead, even if it is not dead.
    age(tmp_path / "serve-1.json", DEAD_AFTER_S + 1)
    assert worker.processes.leads()
    api.write()
    assert not worker.processes.leads()


def test_another_versions_metrics_are_left_out(tmp_path: Path) -> None:
    old, new = Process(tmp_path), Process(tmp_path)
    old.request()
    old.write()
    file = tmp_path / "serve-1.json"
    content: dict[str, Any] = orjson.loads(file.read_bytes())
    file.write_bytes(orjson.dumps({**content, "declared": "otherwise"}))
    (tmp_path / "serve-7.json").write_bytes(b"{half a fi")
    new.request()
    assert new.counted() == 1
    old.kill()
    assert Process(tmp_path).counted() == 1


def test_without_a_folder_a_process_answers_for_itself() -> None:
    alone = Process(None)
    alone.request()
    assert alone.total() is alone.metrics
    assert alone.processes.leads()


def test_a_folder_that_cannot_be_used_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(MetricsFolderError, match=r"cannot keep metrics in .*/file/metrics: Not a directory"):
        Process(tmp_path / "file" / "metrics")


def test_a_full_disk_stops_nobody(tmp_path: Path) -> None:
    process = Process(tmp_path)
    (tmp_path / "serve-1.new").mkdir()  # nothing can be written there
    process.request()
    process.write()
    assert process.counted() == 0
    (tmp_path / "serve-1.new").rmdir()
    assert process.counted() == 1
