"""The adapter's image without an engine: its Dockerfile's steps run here; what they make runs as nobody."""

import ast
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from adapter import __version__
from adapter.standalone.network import hold_port, port_of
from tests.integration.certificates import Files
from tests.shipping.files import ADAPTER, BIN, DOCKER, ROOT, TRITON, tool

pytestmark = [pytest.mark.compiled, pytest.mark.timeout(600)]
NOBODY = 65534


@dataclass(frozen=True)
class Container:
    """The adapter's image as far as it can be had without an engine."""

    folder: Path
    environment: dict[str, str]

    @property
    def python(self) -> str:
        return str(self.folder / "opt/adapter/bin/python")

    @property
    def healthcheck(self) -> list[str]:
        return [self.python, "-I", str(self.folder / "healthcheck.py")]

    def start(self, *command: str, **environment: str) -> subprocess.Popen[str]:
        """A command as nobody, in a folder where nothing may be written."""
        nobody: dict[str, Any] = {"user": NOBODY, "group": NOBODY, "extra_groups": []}
        return subprocess.Popen(
            command,
            cwd=self.folder / "empty",
            env=self.environment | environment,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            **(nobody if os.geteuid() == 0 else {}),
        )

    def run(self, *command: str, **environment: str) -> tuple[int, str]:
        """Its exit status, and what it printed."""
        process = self.start(*command, **environment)
        output, _ = process.communicate(timeout=60)
        return process.returncode, output

    @contextmanager
    def serving(self, **environment: str) -> Iterator[subprocess.Popen[str]]:
        """The image's own command, once it listens."""
        process = self.start(
            *json.loads(ADAPTER.last("ENTRYPOINT")), *json.loads(ADAPTER.last("CMD")), **environment
        )
        assert process.stdout is not None
        try:
            assert any('"serving"' in line for line in process.stdout), "serve ended"
            yield process
        finally:
            process.kill()
            process.communicate(timeout=10)


@pytest.fixture(scope="module")
def container() -> Iterator[Container]:
    """What the first stage's steps make of the files that it copies, in an empty environment."""
    tool("gcc", "gcc")
    # pytest's own folders are shut to others.
    with tempfile.TemporaryDirectory() as name, hold_port() as ops:
        folder = Path(name)
        folder.chmod(0o755)
        (folder / "empty").mkdir(mode=0o555)
        build(folder / "src", folder / "opt/adapter")
        shutil.copy(DOCKER / "healthcheck.py", folder)
        environment = dict(pair.split("=", 1) for pair in ADAPTER.last("ENV").split())
        environment |= {
            "PATH": f"{folder}/opt/adapter/bin:/usr/bin:/bin",
            "ADAPTER_STATE_DIR": str(folder / "state"),
            "ADAPTER_PORT": "0",
            "ADAPTER_OPS_PORT": str(port_of(ops)),
        }
        yield Container(folder, environment)


def build(source: Path, home: Path) -> None:
    """Run the first stage with `source` as its folder and `home` in the place of /opt/adapter."""
    for step in (step for step in ADAPTER.steps if step.stage == 0):
        if step.instruction == "COPY":
            *files, target = step.text.split()
            for file in files:
                copy(ROOT / file, source / (target if target != "./" else file))
        elif step.instruction == "RUN":
            words = shlex.split(step.text.replace("/opt/adapter", str(home)).replace("/src", str(source)))
            environment = dict(word.split("=", 1) for word in words if "=" in word and word[0].isupper())
            if "PIP_CONSTRAINT" in environment:
                environment["UV_BUILD_CONSTRAINT"] = environment.pop("PIP_CONSTRAINT")
            subprocess.run(with_uv(words), cwd=source, env=os.environ | environment, check=True, timeout=500)


def copy(file: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    if file.is_dir():
        shutil.copytree(file, target, ignore=shutil.ignore_patterns("__pycache__"))
    else:
        shutil.copy(file, target)


def with_uv(words: list[str]) -> list[str]:
    """The same step by uv in the place of venv and pip, which take a minute."""
    words = [word for word in words if not word.startswith("--mount") and not word[0].isupper()]
    if words[:3] == ["python", "-m", "venv"]:
        return [str(BIN / "uv"), "venv", "--quiet", "--python", interpreter(), *words[3:]]
    pip, install, option, *rest = words
    assert (Path(pip).name, install, option) == ("pip", "install", "--disable-pip-version-check")
    return [str(BIN / "uv"), "pip", "install", "--quiet", "--python", str(Path(pip).parent / "python"), *rest]


def interpreter() -> str:
    """A Python that others than its owner may run."""
    for path in (Path(sys.executable).resolve(), Path("/usr/bin/python3").resolve()):
        if path.exists() and (os.geteuid() != 0 or all(p.stat().st_mode & 0o001 for p in path.parents)):
            return str(path)
    assert "CI" not in os.environ, "continuous integration has Debian's Python"
    pytest.skip("root alone may run the Pythons here")


def test_the_entry_point_answers(container: Container) -> None:
    assert json.loads(ADAPTER.last("CMD")) == ["serve"]
    code, output = container.run(*json.loads(ADAPTER.last("ENTRYPOINT")), "--help")
    assert code == 0
    assert all(command in output for command in ("serve", "worker", "keys"))


def test_what_is_installed_is_what_is_locked(container: Container) -> None:
    listed = "import importlib.metadata as m; [print(d.name, d.version) for d in m.distributions()]"
    _, output = container.run(container.python, "-c", listed)
    installed = {normal(name): version for name, version in map(str.split, output.splitlines())}
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    locked = {
        (normal(name), version) for name, version in (line.split(" ;")[0].split("==") for line in lines)
    }
    assert installed.pop("miaas-adapter") == __version__
    assert installed.items() <= locked
    wanted = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    assert {normal(re.split(r"[\[>=<]", one)[0]) for one in wanted} <= installed.keys()


def normal(name: str) -> str:
    """A package's name as PEP 503 has it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def test_it_refuses_to_listen_in_plain_text_unless_a_proxy_ends_tls(container: Container) -> None:
    code, output = container.run("miaas-adapter", "serve")
    assert code == 1
    assert "ADAPTER_TLS_ENDED_BY_PROXY=true" in output


def test_it_serves_as_nobody_and_tells_its_health(container: Container) -> None:
    with container.serving(ADAPTER_TLS_ENDED_BY_PROXY="true") as process:
        assert container.run(*container.healthcheck) == (0, "")
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0
    code, output = container.run(*container.healthcheck)
    assert code == 1
    assert "no answer from 127.0.0.1" in output


def test_health_is_told_over_tls_too(container: Container) -> None:
    files = Files(container.folder)
    if os.geteuid() == 0:
        os.chown(files.key, NOBODY, NOBODY)
    given = {f"ADAPTER_{name}": value for name, value in files.settings.items()}
    with container.serving(**given):
        assert container.run(*container.healthcheck, **given) == (0, "")
        assert container.run(*container.healthcheck)[0] == 1


def test_keys_are_made_in_the_state_folder_alone(container: Container) -> None:
    state = container.folder / "state"
    state.mkdir(mode=0o700)
    if os.geteuid() == 0:
        os.chown(state, NOBODY, NOBODY)
    started = time.time()
    code, output = container.run("miaas-adapter", "keys", "create", "alice")
    assert code == 0
    assert output.startswith("miaas_")
    assert {path.name for path in state.iterdir()} >= {"keys.json", "keys.secret"}
    newer = [path for path in container.folder.rglob("*") if path.stat().st_mtime > started]
    assert [path for path in newer if state not in (path, *path.parents)] == []


def test_tritons_image_has_what_the_models_in_python_import(tmp_path: Path) -> None:
    words = shlex.split(TRITON.last("RUN").replace("/tmp/constraints.txt", str(ROOT / "constraints.txt")))
    command = with_uv([word for word in words if word != "--break-system-packages"])
    # Not into the environment that runs this test, and for the Python of NVIDIA's image.
    place = command.index("--python")
    command[place : place + 2] = ["--target", str(tmp_path), "--python-version", "3.12"]
    subprocess.run(command, check=True, timeout=100)
    # NVIDIA's image has numpy, and the python backend its own module.
    there = {"numpy", "triton_python_backend_utils", *(path.name for path in tmp_path.iterdir())}
    for model in sorted((ROOT / "model_repository").rglob("*.py")):
        tree = ast.parse(model.read_text())
        modules = {
            alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names
        }
        modules |= {node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
        assert {name.partition(".")[0] for name in modules} - sys.stdlib_module_names <= there, model
