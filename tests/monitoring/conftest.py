"""Prometheus's own tools, which Debian's package `prometheus` brings."""

import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

Promtool = Callable[..., subprocess.CompletedProcess[str]]


def needs(program: str) -> str:
    """Where a program of Prometheus is; skips the test without it, but for continuous integration."""
    path = shutil.which(program)
    if path is None:
        assert "CI" not in os.environ, "continuous integration installs Prometheus"
        pytest.skip(f"no {program} here (Debian: apt-get install prometheus)")
    return path


@pytest.fixture(scope="session")
def promtool() -> Promtool:
    """Runs promtool."""
    path = needs("promtool")

    def run(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
        return subprocess.run([path, *map(str, arguments)], capture_output=True, text=True, timeout=100)

    return run
