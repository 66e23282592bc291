"""What the figures were measured on, in words."""

import os
import platform
import re
import subprocess
from importlib import metadata
from pathlib import Path

from bench.wrk import find

_PACKAGES = ("uvicorn", "uvloop", "fastapi", "grpcio", "orjson", "numpy", "onnxruntime", "nvidia-pytriton")


def describe(kserve_python: Path, mlserver_python: Path) -> dict[str, str]:
    """Name of a fact → the fact."""
    facts = {
        "CPU": f"{os.cpu_count()} cores, {_cpu_model()}",
        "Memory": f"{os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / 2**30:.0f} GiB",
        "System": f"{platform.system()} {platform.release()}, {' '.join(platform.libc_ver())}",
        "Python": platform.python_version(),
        "Adapter": f"{metadata.version('miaas-adapter')}{_commit()}",
        "Packages": ", ".join(f"{name} {metadata.version(name)}" for name in _PACKAGES),
        "Triton": "tritonserver 2.51.0 of nvidia-pytriton, python-based ONNX Runtime backend, CPU",
        "Generator": f"{_first_line([find(), '--version'])[:40].strip()}, one thread",
    }
    for name, python in (("kserve", kserve_python), ("mlserver", mlserver_python)):
        if python.exists():
            facts[f"Peer {name}"] = _version_in(python, name)
    return facts


def load_average() -> float:
    """How many programs want a core, the minute's mean."""
    return os.getloadavg()[0]


def _cpu_model() -> str:
    found = re.search(r"^model name\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    return found[1] if found else platform.machine()


def _commit() -> str:
    commit = _first_line(["git", "describe", "--always", "--dirty"])
    return f", commit {commit}" if commit else ""


def _version_in(python: Path, package: str) -> str:
    code = f"from importlib.metadata import version; print(version({package!r}))"
    return _first_line([str(python), "-c", code])


def _first_line(command: list[str]) -> str:
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=20, check=False, cwd=Path(__file__).parent
        )
    except OSError:
        return ""
    return next(iter((done.stdout or done.stderr).splitlines()), "")
