"""The hot path compiled, as the container image has it: the same tests hold."""

import os
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

from tests.shipping.files import ROOT, tool

pytestmark = pytest.mark.timeout(600)

CONFIG = tomllib.loads((ROOT / "pyproject.toml").read_text())
HOOK = CONFIG["tool"]["hatch"]["build"]["targets"]["wheel"]["hooks"]["mypyc"]
MODULES = [file.strip("/").removesuffix(".py").replace("/", ".") for file in HOOK["include"]]
TESTED = ["contracts", "core", "integration/test_v2_limits.py", "security/test_gateway.py", "test_logs.py"]
TESTED += ["triton/test_batcher.py"]


@pytest.fixture(scope="module")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the package as a compiled wheel has it, and with all that its tests read."""
    tool("gcc", "gcc")
    folder = tmp_path_factory.mktemp("compiled")
    command = [sys.executable, "-m", "build", "--installer", "uv", "--outdir", str(folder / "dist")]
    environment = {**os.environ, "HATCH_BUILD_HOOK_ENABLE_MYPYC": "1"}
    # By way of the sdist: in a checkout the compiler would leave what it makes beside the sources.
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=500)
    assert done.returncode == 0, done.stdout + done.stderr
    (wheel,) = (folder / "dist").glob("*.whl")
    assert f"cp3{sys.version_info.minor}-" in wheel.name
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder / "all")
    shutil.copytree(ROOT / "tests", folder / "all/tests", ignore=shutil.ignore_patterns("__pycache__"))
    for path in ROOT.iterdir():
        if path.name not in ("adapter", "tests", ".git") and not path.name.startswith(".venv"):
            (folder / "all" / path.name).symlink_to(path)
    return folder / "all"


def python(folder: Path, *command: str) -> str:
    """What this Python prints, with the folder's own package."""
    environment = {**os.environ, "PYTHONPATH": str(folder)}
    done = subprocess.run(
        [sys.executable, *command], cwd=folder, env=environment, capture_output=True, text=True, timeout=500
    )
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-5000:]
    return done.stdout


def test_mypy_compiles_in_the_version_that_checks() -> None:
    (version,) = (line for line in HOOK["dependencies"] if line.startswith("mypy=="))
    assert version in (ROOT / "constraints.txt").read_text().splitlines()


def test_what_is_named_is_compiled(compiled: Path) -> None:
    code = "import importlib, sys; print(*(importlib.import_module(name).__file__ for name in sys.argv[1:]))"
    files = python(compiled, "-c", code, *MODULES).split()
    assert len(files) == len(MODULES)
    assert all(file.startswith(f"{compiled}/adapter/") and file.endswith(".so") for file in files), files


def test_all_holds_that_holds_of_the_sources(compiled: Path) -> None:
    said = python(
        compiled, "-m", "pytest", "-q", "-p", "no:cacheprovider", *(f"tests/{each}" for each in TESTED)
    )
    assert " passed" in said
    assert "skipped" not in said
