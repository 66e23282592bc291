"""The hot path compiled, as the container image has it: the same tests hold."""

import os
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from bench.package import SOURCES, Package
from bench.processes import BenchError
from scripts import compiled as compiling
from tests.shipping.files import ROOT, tool

pytestmark = [pytest.mark.compiled, pytest.mark.timeout(1200)]

CONFIG = tomllib.loads((ROOT / "pyproject.toml").read_text())
HOOK = CONFIG["tool"]["hatch"]["build"]["targets"]["wheel"]["hooks"]["mypyc"]
MODULES = [file.strip("/").removesuffix(".py").replace("/", ".") for file in HOOK["include"]]
TESTED = ["contracts", "core", "jobs", "security", "triton"]
TESTED += [f"test_{name}.py" for name in ("early_answers", "framing", "intake", "keep_alive", "logs", "ops")]
TESTED += [f"test_{name}.py" for name in ("pipelining", "processes", "protocol")]
TESTED += [
    f"integration/test_{name}.py" for name in ("hostile", "main_job", "queue", "v2_limits", "v2_differential")
]


@pytest.fixture(scope="module")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the package as a compiled wheel has it, and with all that its tests read."""
    tool("gcc", "gcc")
    folder = tmp_path_factory.mktemp("compiled")
    compiling.compile_into(folder)
    shutil.copytree(ROOT / "tests", folder / "tests", ignore=shutil.ignore_patterns("__pycache__"))
    for path in ROOT.iterdir():
        if path.name not in ("adapter", "tests", ".git") and not path.name.startswith(".venv"):
            (folder / path.name).symlink_to(path)
    return folder


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


def test_it_is_made_anew_only_when_the_sources_change(
    compiled: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    compiling.compile_into(compiled)
    assert (compiled / "tests").exists()
    shutil.copytree(ROOT / "adapter", tmp_path / "adapter")
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    monkeypatch.setattr(compiling, "ROOT", tmp_path)
    assert compiling.is_current(compiled)
    (tmp_path / "adapter/core/codec.py").write_text("")
    assert not compiling.is_current(compiled)


def test_benchmarks_run_it_from_the_checkout(compiled: Path) -> None:
    package = Package(compiled, "compiled", is_compiled=True)
    code = "import adapter.logs; print(flush=True); input()"
    with subprocess.Popen(
        [sys.executable, "-c", code],
        cwd=ROOT,
        env={**os.environ, **package.environment},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        package.check(process.pid)
        with pytest.raises(BenchError, match="does not run the adapter that is not compiled"):
            SOURCES.check(process.pid)
        process.communicate(b"\n")
    assert process.returncode == 0


def test_all_holds_that_holds_of_the_sources(compiled: Path) -> None:
    said = python(
        compiled, "-m", "pytest", "-q", "-p", "no:cacheprovider", *(f"tests/{each}" for each in TESTED)
    )
    assert " passed" in said
    assert "skipped" not in said
