"""EfficientNet-Lite0 on CPU and GPU instances, through V1 and V2."""

import base64
import http.client
import json
import os
import shutil
import statistics
import threading
import time
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np

from bench.gpu.machine import query
from bench.gpu.pictures import photograph, preprocessing
from tests.integration.conftest import ROOT, start_up
from tests.integration.v2 import message

CONCURRENCIES = (1, 4, 16)
BATCHES = (1, 8)
WARM_UP_S, WINDOW_S = 1.0, 2.5
CORES = os.cpu_count() or 1
INSTANCES = {"CPU": (1, CORES), "GPU": (1, 2)}


@dataclass(frozen=True)
class Load:
    """One request, to be sent again and again."""

    contract: str
    path: str
    body: bytes
    headers: dict[str, str]


def variants(kinds: tuple[str, ...]) -> list[tuple[str, int]]:
    """Kinds of instances, and how many of each."""
    return [(kind, count) for kind in kinds for count in sorted(set(INSTANCES[kind]))]


def write_models(folder: Path, kind: str, count: int) -> None:
    """The demo's network and its ensemble under names that tell their instances."""
    demo, tag = ROOT / "model_repository", f"{kind.lower()}{count}"
    for name, old, new in (
        ("efficientnet-lite0", "[{ count: 1 }]", f"[{{ kind: KIND_{kind} count: {count} }}]"),
        ("imagenet", '"efficientnet-lite0"', f'"efficientnet-lite0-{tag}"'),
    ):
        target = folder / f"{name}-{tag}"
        shutil.copytree(demo / name, target)
        config = (target / "config.pbtxt").read_text()
        assert old in config, f"{name}/config.pbtxt has no {old}"
        (target / "config.pbtxt").write_text(config.replace(old, new))


def write_repository(folder: Path, kinds: tuple[str, ...]) -> None:
    """Every variant, and enough instances of what stands around the network to keep it fed."""
    for name in ("imagenet-preprocess", "imagenet-postprocess"):
        shutil.copytree(ROOT / "model_repository" / name, folder / name)
        config = folder / name / "config.pbtxt"
        config.write_text(config.read_text().replace("KIND_CPU", f"KIND_CPU count: {CORES}"))
    for kind, count in variants(kinds):
        write_models(folder, kind, count)


def loads(tag: str, batch: int) -> list[Load]:
    """A batch of one photograph: as a binary tensor over V2, as numbers and as a file over V1."""
    jpeg, prepare = photograph(), preprocessing()
    pixels = np.repeat(prepare.to_pixels(prepare.read_image(jpeg))[np.newaxis], batch, axis=0)
    tensor: dict[str, Any] = {"name": "input", "datatype": "FP32", "shape": list(pixels.shape)}
    tensor["parameters"] = {"binary_data_size": pixels.nbytes}
    outputs = [{"name": "probabilities", "parameters": {"binary_data": True}}]
    binary, headers = message({"inputs": [tensor], "outputs": outputs}, pixels.tobytes())
    files = [{"image_bytes": {"b64": base64.b64encode(jpeg).decode()}}] * batch
    network, ensemble = f"efficientnet-lite0-{tag}", f"imagenet-{tag}"
    numbers = json.dumps({"instances": pixels.tolist()}).encode()
    return [
        Load("V2, binary", f"/v2/models/{network}/infer", binary, headers),
        Load("V1, numbers", f"/v1/models/{network}:predict", numbers, {}),
        Load(
            "V1, photograph", f"/v1/models/{ensemble}:predict", json.dumps({"instances": files}).encode(), {}
        ),
    ]


def draw(address: str, key: str, load: Load, concurrency: int) -> dict[str, float]:
    """One draw: requests a second, and percentiles of the latency in milliseconds.

    It lasts until every client has two answers, however slow they come.
    """
    begin = time.perf_counter() + WARM_UP_S
    taken: list[float] = []
    failed: list[str] = []

    def going_on() -> bool:
        return not failed and (time.perf_counter() < begin + WINDOW_S or len(taken) < 2 * concurrency)

    def send() -> None:
        connection = http.client.HTTPConnection(address, timeout=60)
        try:
            while going_on():
                sent = time.perf_counter()
                connection.request("POST", load.path, load.body, {"X-API-Key": key, **load.headers})
                response = connection.getresponse()
                content = response.read()
                if response.status != 200:
                    failed.append(f"{response.status}: {content[:200]!r}")
                elif sent >= begin:
                    taken.append(time.perf_counter() - sent)
        except OSError as error:
            failed.append(str(error))
        finally:
            connection.close()

    threads = [threading.Thread(target=send) for _ in range(concurrency)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    seconds = time.perf_counter() - begin
    if failed:
        raise RuntimeError(f"{load.path}: {failed[0]}")
    p50, p90, p99 = (float(np.percentile(taken, share)) * 1000 for share in (50, 90, 99))
    return {"rate": len(taken) / seconds, "p50": p50, "p90": p90, "p99": p99}


def measure(folder: Path, kinds: tuple[str, ...], draws: int) -> dict[str, Any]:
    """Every contract, batch and concurrency on every variant by turns; medians of the draws."""
    write_repository(folder / "models", kinds)
    rows: dict[tuple[object, ...], list[dict[str, float]]] = {}
    failed: list[str] = []
    with start_up(folder, folder / "models", ADAPTER_RATE_LIMIT_PER_MINUTE="0") as up:
        address, key = up.facts["url"].removeprefix("http://"), up.facts["api_key"]
        for _, batch, (kind, count) in product(range(draws), BATCHES, variants(kinds)):
            for load, concurrency in product(loads(f"{kind.lower()}{count}", batch), CONCURRENCIES):
                point = (kind, count, load.contract, batch, concurrency)
                try:
                    rows.setdefault(point, []).append(draw(address, key, load, concurrency))
                except RuntimeError as error:
                    failed.append(f"{point}: {error}")
        processes = [row[1:] for row in query("compute-apps", "pid,process_name,used_memory")]
    names = ("kind", "instances", "contract", "batch", "concurrency")
    return {
        "processes": processes,
        "failed": failed,
        "rows": [
            dict(zip(names, point, strict=True))
            | {figure: statistics.median(seen[figure] for seen in drawn) for figure in drawn[0]}
            | {"rates": [seen["rate"] for seen in drawn]}
            for point, drawn in rows.items()
            if drawn
        ],
    }
