"""Kills, stops and restarts of every process, under a queue that must lose nothing."""

import signal
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import httpx
import psutil
import pytest

from adapter.standalone.network import LOOPBACK
from tests.integration.conftest import eventually
from tests.integration.proxy import Proxy
from tests.integration.site import Site, echoed, job, open_site


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """Two APIs, two workers; every test leaves all of them up.

    A worker that merely had to wait for this machine for seconds is not taken for dead.
    """
    with open_site(tmp_path_factory.mktemp("site"), apis=2, workers=2, ack_wait_s=5) as running:
        yield running


_values = iter(range(1, 10_000_000))


def submit(site: Site, count: int, **parameters: Any) -> dict[str, int]:
    """Accepted jobs: id → value."""
    values = [next(_values) for _ in range(count)]
    return submit_values(site, values, **parameters)


def submit_values(site: Site, values: list[int], **parameters: Any) -> dict[str, int]:
    """The same for values of one's own."""
    bodies = [job(value, **parameters) for value in values]
    answer = site.clients[0].post("/inference/batch", json=bodies)
    assert answer.status_code == 202, answer.text
    return {line["request_id"]: value for line, value in zip(answer.json(), values, strict=True)}


def ended(site: Site, job_id: str, within_s: float = 60) -> dict[str, Any]:
    """The job's end, through whatever API answers."""

    def look() -> dict[str, Any] | None:
        for client in site.clients:
            try:
                answer = client.get(f"/inference/{job_id}", headers={"Prefer": "wait=5"})
            except httpx.TransportError:
                continue
            if answer.status_code == 200 and answer.json()["status"] != "processing":
                status: dict[str, Any] = answer.json()
                return status
            assert answer.status_code in (200, 503), answer.text
        return None

    return eventually(look, within_s)


def check(site: Site, jobs: dict[str, int], *, most_executions: int) -> None:
    """All of them completed, each with its own value, and few ran more than once."""
    assert {echoed(ended(site, job_id)) for job_id in jobs} == set(jobs.values())
    counts = Counter(site.executed())
    assert min(counts[value] for value in jobs.values()) >= 1
    assert max(counts[value] for value in jobs.values()) <= most_executions


def test_without_a_fault_each_job_runs_once(site: Site) -> None:
    check(site, submit(site, 1000), most_executions=1)


def test_the_api_dies_after_it_accepted(site: Site) -> None:
    jobs = submit(site, 50)
    site.apis[0].kill()
    check(site, jobs, most_executions=1)
    site.apis[0].start().wait_up()
    check(site, jobs, most_executions=1)


def test_workers_die_before_the_result(site: Site) -> None:
    slow = 1_000_000_000 + next(_values)
    jobs = submit_values(site, [slow])
    eventually(lambda: slow in site.executed())
    for worker in site.workers:
        worker.kill()
        worker.start()
    check(site, jobs, most_executions=2)
    assert Counter(site.executed())[slow] == 2


def test_a_worker_dies_between_the_result_and_its_acknowledgement(site: Site) -> None:
    for worker in site.workers:
        worker.stop()
    port = int(site.nats.address.rpartition(":")[2])
    # It is told that there is a result once that is stored, and only then is the job struck off.
    with Proxy((LOOPBACK, port), stop_before=b"PUB miaas.done.").running() as between:
        env = {**site.env, "ADAPTER_NATS_URL": f"nats://{between.address}"}
        victim = replace(site.workers[0], name="victim", env=env, log=site.stage.folder / "victim.log")
        victim.start().wait_up()
        jobs = submit(site, 1)
        assert between.stopped.wait(30)
        victim.kill()
    # The result stands, and so does the job.
    [job_id] = jobs
    first = site.clients[0].get(f"/inference/{job_id}").json()
    assert echoed(first) == jobs[job_id]
    assert site.cli("queue", "status")["streams"]["MIAAS_JOBS"]["messages"] == 1
    for worker in site.workers:
        worker.start().wait_up()
    eventually(lambda: site.cli("queue", "status")["streams"]["MIAAS_JOBS"]["messages"] == 0)
    check(site, jobs, most_executions=1)
    assert site.clients[1].get(f"/inference/{job_id}").json() == first


def test_a_worker_is_stopped_for_longer_than_ack_wait(site: Site) -> None:
    site.workers[0].signal(signal.SIGSTOP)
    jobs = submit(site, 100)
    check(site, jobs, most_executions=2)
    site.workers[0].signal(signal.SIGCONT)
    check(site, submit(site, 100), most_executions=1)


def test_nats_dies_again_and_again(site: Site) -> None:
    jobs: dict[str, int] = {}
    for _ in range(4):
        jobs |= submit(site, 100)
        site.nats.restart()
        for api in site.apis:
            api.wait_up()
    check(site, jobs, most_executions=5)


def test_nats_is_away_for_ten_seconds(site: Site) -> None:
    jobs = submit(site, 100)
    site.nats.kill()
    started = time.monotonic()
    answer = site.clients[0].post("/inference", json=job(next(_values)))
    assert time.monotonic() - started < 1
    assert answer.status_code == 503
    assert answer.json()["error"]["code"] == "queue_unavailable"
    assert answer.headers["Retry-After"] == "1"
    time.sleep(10)
    site.nats.start().wait_up()
    check(site, jobs, most_executions=2)


def test_triton_dies_with_jobs_in_flight(site: Site) -> None:
    jobs = submit(site, 200)
    site.triton.restart()
    check(site, jobs, most_executions=3)


def test_triton_stands_still(site: Site) -> None:
    jobs = submit(site, 100)
    site.triton.signal(signal.SIGSTOP)
    time.sleep(3)
    site.triton.signal(signal.SIGCONT)
    check(site, jobs, most_executions=2)


def test_everything_is_rolled_under_load(site: Site) -> None:
    jobs: dict[str, int] = {}
    for worker in site.workers * 2:
        jobs |= submit(site, 100)
        assert worker.stop() == 0
        worker.start().wait_up()
    jobs |= submit(site, 100)
    assert site.apis[1].stop() == 0
    site.apis[1].start().wait_up()
    check(site, jobs, most_executions=2)


def test_a_key_means_one_job_through_a_restart_of_everything(site: Site) -> None:
    value = next(_values)
    headers = {"Idempotency-Key": f"key-{value}"}
    client, other = site.clients
    first = client.post("/inference", json=job(value), headers=headers).json()["request_id"]
    assert other.post("/inference", json=job(value), headers=headers).json()["request_id"] == first
    assert other.post("/inference", json=job(value + 1), headers=headers).status_code == 422
    check(site, {first: value}, most_executions=1)
    for service in site.services:
        service.kill()
    for service in site.services:
        service.start()
    for service in site.services:
        service.wait_up()
    again = client.post("/inference", json=job(value), headers=headers)
    assert (again.status_code, again.json()["request_id"]) == (202, first)
    assert echoed(client.get(f"/inference/{first}").json()) == value
    assert Counter(site.executed())[value] == 1


def test_file_descriptors_and_consumers_stay_as_they_are(site: Site) -> None:
    check(site, submit(site, 100), most_executions=1)
    before = [psutil.Process(service.pid).num_fds() for service in [*site.apis, *site.workers]]
    for _ in range(5):
        check(site, submit(site, 100), most_executions=1)
    after = [psutil.Process(service.pid).num_fds() for service in [*site.apis, *site.workers]]
    assert all(late <= early + 3 for early, late in zip(before, after, strict=True))
