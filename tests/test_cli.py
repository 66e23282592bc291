"""The command line, in processes of its own."""

import os
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest


def run(*arguments: str, cwd: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("ADAPTER_")}
    return subprocess.run(
        [sys.executable, "-m", "adapter", *arguments],
        cwd=cwd,
        env={**inherited, "NO_COLOR": "1", "TERM": "dumb", **variables},
        capture_output=True,
        text=True,
        timeout=60,
    )


def test_version(tmp_path: Path) -> None:
    done = run("--version", cwd=tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (0, metadata.version("miaas-adapter") + "\n", "")


def test_help_names_the_commands_and_hides_the_file_descriptors(tmp_path: Path) -> None:
    done = run("--help", cwd=tmp_path)
    assert done.returncode == 0
    assert [name for name in ("up", "serve", "worker") if f" {name} " in done.stdout] == [
        "up",
        "serve",
        "worker",
    ]
    assert "--fd" not in run("serve", "--help", cwd=tmp_path).stdout


@pytest.mark.parametrize("command", ["up", "serve", "worker"])
def test_a_wrong_variable_is_one_line_each(tmp_path: Path, command: str) -> None:
    done = run(command, cwd=tmp_path, ADAPTER_PORT="secret", ADAPTER_WORKER_SLOTS="0")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == (
        "ADAPTER_PORT: Input should be a valid integer, unable to parse string as an integer\n"
        "ADAPTER_WORKER_SLOTS: Input should be greater than or equal to 1\n"
    )


def test_an_option_goes_before_its_variable(tmp_path: Path) -> None:
    done = run("up", "--port", "0", "--model-repository", "none", cwd=tmp_path, ADAPTER_PORT="secret")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "the model repository none is not a directory\n"


def test_a_model_repository_that_is_not_there(tmp_path: Path) -> None:
    missing = tmp_path / "missing"
    done = run("up", "--model-repository", str(missing), "--state-dir", str(tmp_path / "state"), cwd=tmp_path)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == f"the model repository {missing} is not a directory\n"
    assert not (tmp_path / "state").exists()


def test_a_state_directory_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    state_dir = tmp_path / "file" / "state"
    done = run("up", "--model-repository", str(tmp_path), "--state-dir", str(state_dir), cwd=tmp_path)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == f"cannot use the state directory {state_dir}: Not a directory\n"


def test_the_command_line_loads_nothing_heavy(tmp_path: Path) -> None:
    code = (
        "import sys, adapter.cli\n"
        "print(sorted({'fastapi', 'grpc', 'nats', 'numpy', 'pydantic'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=60
    )
    assert (done.stdout, done.stderr) == ("[]\n", "")
