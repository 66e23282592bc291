"""What the figures were measured on."""

import os
import platform
import shutil
import subprocess
from importlib import metadata
from pathlib import Path
from typing import Any

PACKAGES = (
    "nvidia-pytriton",
    "onnxruntime",
    "onnxruntime-gpu",
    "numpy",
    "pillow",
    "cupy-cuda13x",
    "tritonclient",
)


def has_gpu() -> bool:
    """Whether NVIDIA's driver shows a GPU."""
    return bool(query("gpu", "name"))


def query(about: str, fields: str) -> list[list[str]]:
    """Rows that `nvidia-smi --query-…` prints; none where there is no such program or no GPU."""
    if shutil.which("nvidia-smi") is None:
        return []
    command = ["nvidia-smi", f"--query-{about}={fields}", "--format=csv,noheader"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    return [line.split(", ") for line in done.stdout.splitlines()] if done.returncode == 0 else []


def describe() -> dict[str, Any]:
    """Hardware, versions, and how busy the machine is; later loads are to follow."""
    names = [line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
    versions = {name: version for name in PACKAGES if (version := installed(name))}
    return {
        "gpus": [", driver ".join(row) for row in query("gpu", "name,driver_version")],
        "cpu": names[0].partition(": ")[2],
        "cores": os.cpu_count(),
        "loads": [round(os.getloadavg()[0], 1)],
        "versions": {"python": platform.python_version(), **versions},
    }


def installed(package: str) -> str | None:
    """The version of a package, where it is installed."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None
