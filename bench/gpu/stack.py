"""`up` with the demo models: where their instances run, and whether a photograph gets the CPU's answer."""

import base64
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import tritonclient.grpc as triton

from bench.gpu.machine import query
from bench.gpu.pictures import photograph, preprocessing
from tests.integration.conftest import ROOT, start_up

PLACE = re.compile(r"(\S+) (runs on the GPU|is a GPU instance, but runs on the CPU)")


def examine(folder: Path, _kinds: tuple[str, ...], _draws: int) -> dict[str, Any]:
    """Load the demo models as they are, and ask for one picture."""
    repository = folder / "models"
    shutil.copytree(ROOT / "model_repository", repository)
    jpeg = photograph()
    with start_up(folder, repository) as up:
        body = {"instances": [{"image_bytes": {"b64": base64.b64encode(jpeg).decode()}}]}
        answer = up.predict("imagenet", body)
        answer.raise_for_status()
        best = answer.json()["predictions"][0]
        return {
            "instances": instances(up.facts["triton_grpc"]),
            "log": sorted(set(PLACE.findall((up.state_dir / "logs" / "triton.log").read_text()))),
            "processes": [row[1:] for row in query("compute-apps", "pid,process_name,used_memory")],
            "label": best["labels"][0],
            "difference": difference(jpeg, best["probabilities"]),
        }


def instances(address: str) -> dict[str, list[str]]:
    """Model → its instance groups, as Triton completed them: `2 x GPU 0`, `1 x CPU`."""
    client = triton.InferenceServerClient(address)
    groups: dict[str, list[str]] = {}
    for model in client.get_model_repository_index().models:
        config = client.get_model_config(model.name, as_json=True)["config"]
        groups[model.name] = [
            f"{group['count']} x {group['kind'].removeprefix('KIND_')}"
            + "".join(f" {number}" for number in group.get("gpus", []))
            for group in config.get("instance_group", [])
        ]
    client.close()
    return groups


def difference(jpeg: bytes, probabilities: list[float]) -> float:
    """How far the five best probabilities are from those of ONNX Runtime on the CPU, at most."""
    prepare = preprocessing()
    network = onnxruntime.InferenceSession(
        ROOT / "model_repository/efficientnet-lite0/1/model.onnx", providers=["CPUExecutionProvider"]
    )
    (scores,) = network.run(None, {"input": prepare.to_pixels(prepare.read_image(jpeg))[np.newaxis]})
    return float(np.abs(np.sort(scores[0])[::-1][: len(probabilities)] - probabilities).max())
