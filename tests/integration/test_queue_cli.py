"""`miaas-adapter queue` on a real service."""

import subprocess
from collections.abc import Iterator

import pytest

from tests.integration.conftest import eventually
from tests.integration.services import PROGRAM
from tests.integration.site import Site, job, open_site


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with open_site(tmp_path_factory.mktemp("site")) as running:
        yield running


def test_an_operator_sees_requeues_and_purges(site: Site) -> None:
    client = site.clients[0]
    done = client.post("/inference", json=job(1), headers={"Prefer": "wait=20"}).json()["request_id"]
    # Without a worker jobs wait, and one misses its deadline.
    assert site.workers[0].stop() == 0
    late = client.post("/inference", json=job(2, timeout_s=0.01)).json()["request_id"]
    waiting = client.post("/inference", json=job(3)).json()["request_id"]
    status = site.cli("queue", "status")
    assert status["streams"]["MIAAS_JOBS"]["messages"] == 2
    assert status["lanes"]["normal-0"] == {"waiting": 2, "running": 0, "delivered_again": 0}
    listed = site.cli("queue", "list", "waiting")
    assert [line["request_id"] for line in listed] == [late, waiting]
    assert {line["model"] for line in listed} == {"count"}
    assert site.cli("queue", "list", "waiting", "--model", "other") == []
    assert site.cli("queue", "purge", "--yes", "--model", "other") == {"cancelled": []}

    site.workers[0].start().wait_up()
    eventually(lambda: client.get(f"/inference/{waiting}").json()["status"] == "completed")
    error = eventually(lambda: client.get(f"/inference/{late}").json().get("error"))
    assert error["code"] == "deadline_exceeded"
    failed = site.cli("queue", "list", "failed")
    assert [line["request_id"] for line in failed] == [late]
    assert failed[0]["error"].startswith("deadline_exceeded: ")
    assert {line["request_id"] for line in site.cli("queue", "list", "ended")} == {done, late, waiting}

    assert site.cli("queue", "requeue", late, "no-such-id") == {
        "requeued": [late],
        "without_input": [],
        "unknown": ["no-such-id"],
    }
    ended = eventually(
        lambda: found if (found := client.get(f"/inference/{late}").json())["status"] == "completed" else None
    )
    assert ended["result"] == {"echo": [[2]]}
    assert site.cli("queue", "list", "failed") == []

    assert site.workers[0].stop() == 0
    gone = client.post("/inference", json=job(4)).json()["request_id"]
    assert site.cli("queue", "purge", "--yes") == {"cancelled": [gone]}
    assert client.get(f"/inference/{gone}").json()["error"] == {
        "code": "cancelled",
        "message": "the request was cancelled by an operator",
    }
    assert site.executed() == [1, 3, 2]

    plain = subprocess.run([*PROGRAM, "queue", "status"], env=site.env, capture_output=True, text=True)
    assert "MIAAS_JOBS" in plain.stdout
    site.nats.kill()
    away = subprocess.run([*PROGRAM, "queue", "status"], env=site.env, capture_output=True, text=True)
    assert (away.returncode, away.stderr.strip()) == (1, "NATS cannot be reached")
