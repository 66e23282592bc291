"""Prometheus's own tool, which checks what Prometheus reads."""

import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

Promtool = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="session")
def promtool() -> Promtool:
    """Runs promtool."""
    path = shutil.which("promtool")
    if path is None:
        assert "CI" not in os.environ, "continuous integration installs Prometheus"
        pytest.skip("no promtool here (Debian: apt-get install prometheus)")

    def run(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
        return subprocess.run([path, *map(str, arguments)], capture_output=True, text=True, timeout=100)

    return run
