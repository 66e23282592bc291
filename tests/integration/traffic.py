"""What clients do all day: every contract, several models, good requests and bad ones, at a steady pace."""

import asyncio
import base64
import io
import itertools
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx
import skimage.data
from PIL import Image

TICK_S = 0.1
_MOST_IN_FLIGHT = 400
IRIS = {"instances": [[5.1, 3.5, 1.4, 0.2]]}
_DIGIT = {"inputs": [{"name": "input", "shape": [1, 64], "datatype": "FP32", "data": [0.0] * 64}]}


def _picture() -> dict[str, Any]:
    file = io.BytesIO()
    Image.fromarray(skimage.data.coffee()).save(file, "JPEG")
    image = {"b64": base64.b64encode(file.getvalue()).decode()}
    return {"model_id": "imagenet", "input_data": {"instances": [{"image_bytes": image}]}}


_PICTURE = _picture()
_JOB = {"model_id": "sklearn-iris", "input_data": IRIS}
_PREDICT = "/v1/models/sklearn-iris:predict"

_DAY: list[tuple[int, int, str, Any]] = [
    # every so many ticks, so many at once
    (1, 2, _PREDICT, IRIS),
    (1, 1, "/v2/models/digits/infer", _DIGIT),
    (3, 1, "/inference", _JOB),
    (20, 16, _PREDICT, IRIS),
    (15, 1, "/inference", _PICTURE),
    (30, 1, _PREDICT, {"instances": [["none"]]}),
    (40, 1, "/v1/models/nobody:predict", IRIS),
]


@contextmanager
def traffic(url: str, headers: dict[str, str]) -> Iterator[None]:
    """Clients call while inside, whatever they are answered."""
    stopping = threading.Event()
    thread = threading.Thread(target=lambda: asyncio.run(_run(url, headers, stopping)))
    thread.start()
    try:
        yield
    finally:
        stopping.set()
        thread.join()


async def _run(url: str, headers: dict[str, str], stopping: threading.Event) -> None:
    running: set[asyncio.Task[None]] = set()
    limits = httpx.Limits(max_connections=None)
    async with httpx.AsyncClient(base_url=url, headers=headers, timeout=30, limits=limits) as client:
        for tick in itertools.count():
            if stopping.is_set():
                break
            for every, at_once, path, body in _DAY:
                if tick % every or len(running) >= _MOST_IN_FLIGHT:
                    continue
                for _ in range(at_once):
                    task = asyncio.create_task(_call(client, path, body))
                    running.add(task)
                    task.add_done_callback(running.discard)
            await asyncio.sleep(TICK_S)
        await asyncio.gather(*running)


async def _call(client: httpx.AsyncClient, path: str, body: Any) -> None:
    """One request; of a job its result too."""
    answer = await client.post(path, json=body)
    if answer.status_code == 202:
        await client.get(f"/inference/{answer.json()['request_id']}", headers={"Prefer": "wait=5"})
