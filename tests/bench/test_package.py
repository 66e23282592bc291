"""Which build of the adapter is measured, and what is said where nothing can be compiled."""

import os
import sysconfig
from pathlib import Path

import pytest

from bench.package import ROOT, SOURCES, Package, compiled_package
from bench.processes import BenchError
from scripts import compiled
from scripts.compiled import CompileError, compile_into


@pytest.fixture
def no_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CC", "no-such-cc -O2")


@pytest.mark.usefixtures("no_compiler")
def test_without_a_compiler_the_sources_are_measured_and_that_is_said() -> None:
    assert compiled_package() == Package(ROOT, "not compiled: no C compiler (no-such-cc)")


def test_without_pythons_headers_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CC", "true")
    monkeypatch.setattr(sysconfig, "get_path", lambda name: str(tmp_path / name))
    version = sysconfig.get_python_version()
    assert compiled_package() == Package(ROOT, f"not compiled: no Python.h of Python {version}")


def test_a_process_of_another_build_is_refused(tmp_path: Path) -> None:
    SOURCES.check(os.getpid())
    with pytest.raises(BenchError, match=f"process {os.getpid()} does not run the adapter that is compiled"):
        Package(tmp_path, "compiled", is_compiled=True).check(os.getpid())


@pytest.mark.usefixtures("no_compiler")
def test_without_a_compiler_nothing_is_made(tmp_path: Path) -> None:
    with pytest.raises(CompileError, match=r"^no C compiler \(no-such-cc\); Debian: apt-get install gcc "):
        compile_into(tmp_path / "new")
    assert list(tmp_path.iterdir()) == []


def test_a_folder_of_something_else_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "letters").write_text("dear")
    with pytest.raises(CompileError, match="holds something else"):
        compile_into(tmp_path)
    assert (tmp_path / "letters").read_text() == "dear"


def test_a_build_that_fails_says_so_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "sources").mkdir()
    (tmp_path / "sources/pyproject.toml").write_text("no TOML")
    monkeypatch.setattr(compiled, "missing", lambda: "")
    monkeypatch.setattr(compiled, "ROOT", tmp_path / "sources")
    with pytest.raises(CompileError, match=r"^the build failed:\n.*\n.*Failed to parse .*pyproject\.toml"):
        compile_into(tmp_path / "new")
    assert [path.name for path in tmp_path.iterdir()] == ["sources"]
