"""Clients that hang up before their answer: nothing goes on for nobody."""

import json
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from tests.contracts.running import PATH, ROW, SUBMISSION, Api
from tests.integration.serving import wait_for

_PREDICT = {"instances": [ROW]}
_INFER = {"inputs": [{"name": "input", "datatype": "FP32", "shape": [1, 4], "data": ROW}]}


@contextmanager
def asked(api: Api, method: str, path: str, body: object = None, headers: str = "") -> Iterator[None]:
    """A request that is not answered yet; with the block its client is gone."""
    content = json.dumps(body) if body else ""
    head = f"{method} {path} HTTP/1.1\r\nHost: x\r\nX-API-Key: {api.keys['alice']}\r\n{headers}"
    with socket.create_connection(("127.0.0.1", api.port)) as connection:
        connection.sendall(f"{head}Content-Length: {len(content)}\r\n\r\n{content}".encode())
        yield


@pytest.fixture
def left(api: Api, caplog: pytest.LogCaptureFixture) -> Iterator[Callable[[str], bool]]:
    """Whether one more request of a contract counts as left, and nothing was logged as an error."""
    before = {form: api.count(contract=form, code="499") for form in ("v1", "v2", "miaas")}
    yield lambda form: api.counts(before[form] + 1, contract=form, code="499") and not caplog.records
    api.reset()


@pytest.mark.parametrize(
    ("path", "body", "form"),
    [
        (f"{PATH}:predict", _PREDICT, "v1"),
        ("/v2/models/sklearn-iris/infer", _INFER, "v2"),
    ],
)
def test_an_inference_ends_with_its_client(
    api: Api, left: Callable[[str], bool], path: str, body: object, form: str
) -> None:
    api.engine.pause_s = 60
    with asked(api, "POST", path, body):
        wait_for(lambda: api.engine.running == 1)
    wait_for(lambda: api.engine.cancelled == 1)
    assert left(form)


def test_who_waits_for_a_result_and_leaves_waits_no_longer(api: Api, left: Callable[[str], bool]) -> None:
    queued = api.post("/inference", SUBMISSION)
    api.queue.holds = True
    with asked(api, "GET", queued.headers["Location"], headers="Prefer: wait=60\r\n"):
        wait_for(lambda: api.queue.waiting == 1)
    wait_for(lambda: api.queue.waiting == 0, within_s=5)
    assert left("miaas")


def test_what_was_queued_stays_when_its_client_no_longer_waits(api: Api, left: Callable[[str], bool]) -> None:
    api.queue.holds = True
    with asked(api, "POST", "/inference", SUBMISSION, "Prefer: wait=60\r\n"):
        wait_for(lambda: api.queue.waiting == 1)
    wait_for(lambda: api.queue.waiting == 0, within_s=5)
    assert left("miaas")
    [job_id] = api.queue.jobs
    assert api.get(f"/inference/{job_id}").json()["status"] == "processing"
