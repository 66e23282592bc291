"""`miaas-adapter models check` on a real Triton of its own."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from adapter.standalone import reaper
from tests.integration.conftest import ROOT, eventually, make_repository
from tests.models.generate import Tensor, write_model
from tests.models.onnx_models import double, write
from tests.test_cli import run

LIAR = """
import numpy as np, triton_python_backend_utils as pb
class TritonPythonModel:
    def execute(self, requests):
        return [pb.InferenceResponse([pb.Tensor("y", np.zeros((1, 3), np.float32))]) for _ in requests]
"""


def test_the_demo_models_are_right(tmp_path: Path) -> None:
    done = run("models", "check", str(ROOT / "model_repository"), "--json", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(done.stdout) == {
        "problems": [],
        "notes": [],
        "answered": [
            *("digits@1", "efficientnet-lite0@1", "imagenet@1", "imagenet-postprocess@1"),
            *("imagenet-preprocess@1", "sklearn-iris@1", "sklearn-iris@2"),
        ],
    }


def liar(folder: Path) -> None:
    """Says that it batches, and answers one row."""
    write_model(folder, "echo.py", 8, [Tensor("x", "FP32", (3,))], [Tensor("y", "FP32", (3,))])
    (folder / "1" / "model.py").write_text(LIAR)


def test_what_a_trial_brings_to_light(tmp_path: Path) -> None:
    repository = make_repository(tmp_path, "broken", "running-sum", "two-io", "sklearn-iris")
    liar(repository / "liar")
    write_model(
        repository / "talker",
        "echo.py",
        0,
        [Tensor("x", "FP32", (1,))],
        [Tensor("y", "FP32", (1,))],
        "model_transaction_policy { decoupled: true }",
    )
    write_model(
        repository / "unloadable", "echo.py", 0, [Tensor("x", "FP32", (1,))], [Tensor("y", "FP32", (1,))]
    )
    (repository / "unloadable" / "1" / "model.py").write_text("raise RuntimeError('no such file')")
    write(repository / "elsewhere" / "1" / "model.onnx", double("n", 2))
    (repository / "elsewhere" / "config.pbtxt").write_text('platform: "pytorch_libtorch"\ninput: 1\n')
    write(repository / "foreign" / "1" / "model.pt", double("n", 2))
    (repository / "foreign" / "config.pbtxt").write_text('platform: "pytorch_libtorch"')
    done = run("models", "check", str(repository), cwd=tmp_path)
    assert (done.returncode, done.stderr) == (1, "")
    said = done.stdout.replace(f"{repository}/", "").splitlines()
    assert said == [
        "wrong: elsewhere/config.pbtxt:2:8: 'input: 1': Expected \"{\".",
        "wrong: unloadable: does not load: RuntimeError: no such file",
        "wrong: broken/1: asked with x FP32 [1]: Failed to process the request(s) for model 'broken_0_0', "
        "message: ValueError: this model always fails",
        "wrong: liar/1: asked with x FP32 [2, 3]: output 'y' should be FP32 [2, 3], and came as FP32 [1, 3]",
        "note: foreign: not asked, `up` has no backend 'pytorch'",
        "note: talker/1: decoupled models answer as often as they like: not asked",
        *(
            "answers: running-sum@1",
            "answers: sklearn-iris@1",
            "answers: sklearn-iris@2",
            "answers: two-io@1",
        ),
        "models: 9, problems: 4",
    ]


def test_only_some_and_only_the_files(tmp_path: Path) -> None:
    repository = make_repository(tmp_path, "broken", "sklearn-iris")
    done = run("models", "check", str(repository), "sklearn-iris", cwd=tmp_path)
    assert (done.returncode, done.stdout.splitlines()) == (
        0,
        ["answers: sklearn-iris@1", "answers: sklearn-iris@2", "models: 1, problems: 0"],
    )
    done = run("models", "check", str(repository), "--no-trial", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (0, "models: 2, problems: 0\n")
    done = run("models", "check", str(repository), "none", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (1, f"{repository}: there is no model 'none'\n")
    done = run("models", "check", "nowhere", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (1, "nowhere: No such file or directory\n")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_an_ended_check_leaves_nothing_running(tmp_path: Path, number: signal.Signals) -> None:
    repository = make_repository(tmp_path, "sklearn-iris")
    process = subprocess.Popen(
        [sys.executable, "-m", "adapter", "models", "check", str(repository)],
        env={**os.environ, "TMPDIR": str(tmp_path)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    server = eventually(
        lambda: next(
            (child for child in psutil.Process(process.pid).children() if child.name() == "tritonserver"),
            None,
        )
    )
    run_name = server.environ()[reaper.RUN_VARIABLE]
    process.send_signal(number)
    process.wait(30)
    eventually(lambda: not reaper.processes(run_name))
    eventually(lambda: not list(reaper.SHARED_MEMORY.glob(f"{run_name}*")))
