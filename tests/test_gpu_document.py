"""docs/gpu.md holds the figures of docs/gpu.json and no others."""

import json
import re
from pathlib import Path

from adapter.models.config import parse
from bench.gpu.report import CONFIGURATION, DOCS, document

MODEL = Path(__file__).parents[1] / "model_repository" / "efficientnet-lite0" / "config.pbtxt"


def test_the_document_is_what_its_figures_make() -> None:
    figures = json.loads((DOCS / "gpu.json").read_text())
    assert document(figures) == (DOCS / "gpu.md").read_text(), "run `python -m bench.gpu.report`"


def test_without_a_gpu_it_says_so() -> None:
    figures = json.loads((DOCS / "gpu.json").read_text())
    figures["machine"]["gpus"] = []
    assert "Nothing on this page has been run on a GPU yet" in document(figures)


def test_a_part_that_failed_is_not_yet_measured() -> None:
    figures = json.loads((DOCS / "gpu.json").read_text())
    figures["memory"] = {"error": "RuntimeError: no room"}
    assert "Not yet measured. It was tried: RuntimeError: no room" in document(figures)


def test_the_configuration_fits_the_demos_model() -> None:
    (written,) = re.findall(r"```protobuf\n(.*?)```", CONFIGURATION, re.DOTALL)
    lines = MODEL.read_text().splitlines(keepends=True)
    config = parse("".join(line for line in lines if "instance_group" not in line) + written, MODEL)
    (accelerator,) = config.optimization.execution_accelerators.gpu_execution_accelerator
    assert accelerator.name == "tensorrt"
    (warmup,) = config.model_warmup
    assert (warmup.batch_size, warmup.inputs.keys()) == (config.max_batch_size, {config.input[0].name})
    assert warmup.inputs["input"].dims == config.input[0].dims
