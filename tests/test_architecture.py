"""The house as docs draw it: imports point one way, and a file can be held in the head."""

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
FILES = sorted((ROOT / "adapter").rglob("*.py"))

# What each folder may import beside the standard library, itself, the settings and the version.
ALLOWED = {
    "core": {"numpy"},
    "contracts": {"adapter.core", "numpy", "orjson", "simdjson", "fastapi", "starlette", "structlog"},
    "models": {
        *("adapter.core", "adapter.standalone", "adapter.triton", "google.protobuf", "joblib", "onnx"),
        *("onnxruntime", "onnxscript", "skl2onnx", "sklearn", "torch", "tritonclient", "numpy"),
    },
    "triton": {"adapter.core", "structlog", "google.protobuf", "grpc", "hpack", "numpy", "tritonclient"},
    "jobs": {"adapter.core", "adapter.nats", "structlog", "nats", "orjson"},
    "security": {
        *("adapter.core", "adapter.nats", "cryptography", "grpc", "httpx", "jwt", "nats", "nkeys"),
        *("orjson", "starlette", "structlog"),
    },
}
# The composition roots see everything; so do the modules beside app.py, which these are made of.
ROOTS = {"jobs/worker.py"}


def imported(file: Path) -> Iterator[str]:
    """The modules that a file imports, wherever in it the import stands."""
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}: imports are written in full"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def inside(module: str, packages: set[str]) -> bool:
    return any(module == package or module.startswith(f"{package}.") for package in packages)


@pytest.mark.parametrize("folder", ALLOWED)
def test_imports_point_one_way(folder: str) -> None:
    allowed = ALLOWED[folder] | {f"adapter.{folder}"}
    if folder != "core":
        allowed |= {"adapter.settings", "adapter.__version__"}
    files = sorted((ROOT / "adapter" / folder).rglob("*.py"))
    assert files
    for file in files:
        if f"{folder}/{file.name}" in ROOTS:
            continue
        for module in imported(file):
            standard = module.partition(".")[0] in sys.stdlib_module_names
            assert standard or inside(module, allowed), f"{file.relative_to(ROOT)} imports {module}"


def test_only_the_composition_roots_know_which_engine_and_queue_there_are() -> None:
    seeing = {
        str(file.relative_to(ROOT / "adapter"))
        for file in FILES
        if any(inside(module, {"adapter.triton", "adapter.jobs"}) for module in imported(file))
    }
    inner = {name for name in seeing if name.split("/")[0] not in ("triton", "jobs", "standalone", "models")}
    assert inner <= {"app.py", "server.py", "cli.py", "cli_models.py", "cli_queue.py"}


def test_every_file_can_be_held_in_the_head() -> None:
    long = {str(file): lines for file in FILES if (lines := len(file.read_text().splitlines())) > 400}
    assert long == {}
