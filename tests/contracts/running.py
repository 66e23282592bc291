"""The whole app on a loopback port, on a fake engine and a fake queue; what its tests share."""

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date
from typing import Any

import httpx
import uvicorn

from adapter import listener
from adapter.app import Services, create_app
from adapter.core.types import InferRequest, InferResponse
from adapter.settings import Settings
from tests.fakes import FakeEngine, FakeQueue, model, tensor

PATH = "/v1/models/sklearn-iris"
ROW = [5.1, 3.5, 1.4, 0.2]
NAMED = {"sepal_length": 5.1, "sepal_width": 3.5, "petal_length": 1.4, "petal_width": 0.2}
SUBMISSION = {"model_id": "sklearn-iris", "input_data": {"instances": [ROW]}}

MODELS = [
    model(
        tensor("input", "FP32", -1, 4),
        outputs=[tensor("output", "FP32", -1, 4)],
        name="sklearn-iris",
        version=version,
        versions=("1", "2"),
        max_batch_size=8,
        feature_names=("sepal_length", "sepal_width", "petal_length", "petal_width"),
        labels={"stable": "1"},
        deprecated_since={"1": date(2026, 6, 30)},
        sunset={"1": date(2027, 1, 31)},
    )
    for version in ("1", "2")
]
PHOTO = model(tensor("image_bytes", "BYTES", -1, 1), name="photo", max_batch_size=8)
TWO = model(tensor("a", "FP32", -1, 2), tensor("b", "INT64", -1, 1), name="two", max_batch_size=4)


@dataclass
class Api:
    """A running app: its address, what it runs on, and clients of it."""

    url: str
    port: int
    engine: FakeEngine
    queue: FakeQueue
    services: Services
    keys: dict[str, str]

    def call(self, method: str, path: str, who: str = "alice", **options: Any) -> httpx.Response:
        """One request, with the key of `who`; "" sends none."""
        headers = {"X-API-Key": self.keys[who]} if who else {}
        headers |= options.pop("headers", {})
        return httpx.request(method, self.url + path, headers=headers, trust_env=False, **options)

    def get(self, path: str, who: str = "alice", **options: Any) -> httpx.Response:
        return self.call("GET", path, who, **options)

    def post(self, path: str, json: Any = None, who: str = "alice", **options: Any) -> httpx.Response:
        body = {} if "content" in options else {"json": json}
        return self.call("POST", path, who, **body, **options)

    def count(self, **labels: str) -> float:
        """Requests answered with these labels, so far."""
        family = self.services.metrics.request_seconds
        names = list(family.label_values)
        return sum(
            series.count
            for values, series in family.series.items()
            if labels.items() <= dict(zip(names, values, strict=True)).items()
        )

    def counts(self, value: float, **labels: str) -> bool:
        """Whether so many are counted soon: an answer is counted once it is sent, so after it is read."""
        end = time.monotonic() + 5
        while self.count(**labels) != value and time.monotonic() < end:
            time.sleep(0.005)
        return self.count(**labels) == value

    def reset(self) -> None:
        """Engine and queue as new."""
        self.engine.reset(*MODELS, PHOTO, TWO)
        self.engine.not_ready["loading"] = "it is being loaded"
        self.queue.reset()


@contextmanager
def running(settings: Settings) -> Iterator[Api]:
    """The app on a free port, until the block ends."""
    engine, queue = FakeEngine(), FakeQueue()
    services = Services(settings, engine, queue)
    clients = {"alice": ["infer", "read"], "bob": ["infer", "read"], "reader": ["read"], "sender": ["infer"]}
    keys = {name: services.keys.create(name, scopes).key for name, scopes in clients.items()}
    server = uvicorn.Server(
        listener.config(create_app(settings, services), settings, None, services.metrics.refused)
    )
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
        thread.start()
        try:
            while not server.started:
                assert thread.is_alive()
                time.sleep(0.005)
            yield Api(f"http://127.0.0.1:{port}", port, engine, queue, services, keys)
        finally:
            server.should_exit = True
            thread.join()


def assert_error(response: httpx.Response, status: int, code: str, form: str, message: str = "") -> None:
    """An error of exactly the contract's form; `message` is what it begins with."""
    assert response.status_code == status
    assert response.headers["content-type"] == "application/json"
    body = response.json()
    assert body.keys() == {"error"}
    if form == "v1":
        assert type(body["error"]) is str
        assert body["error"].startswith(message)
    else:
        assert body["error"].keys() <= {"code", "message", "details"}
        assert body["error"]["code"] == code
        assert body["error"]["message"].startswith(message)


def raising(error: Exception) -> Callable[[InferRequest], InferResponse]:
    def run(_: InferRequest) -> InferResponse:
        raise error

    return run
