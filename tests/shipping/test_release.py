"""A release: the wheel runs alone; docs/models.md from an empty environment on, step by step."""

import json
import os
import re
import signal
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
from onnx import helper

from adapter import __version__
from adapter.standalone import wheels
from tests.integration.conftest import eventually
from tests.models.onnx_models import model, value, write
from tests.shipping.files import BIN, ROOT

pytestmark = [
    pytest.mark.timeout(600),
    pytest.mark.skipif(sys.version_info[:2] not in wheels.PYTHONS, reason="`up` needs Python 3.11 or 3.12"),
]

STEP = re.compile(r"^```(bash|python)\n(.*?)^```", re.MULTILINE | re.DOTALL)
WALK = (ROOT / "docs/models.md").read_text().partition("\n## What can be added")[0]
# uv in the place of pip, which takes a minute; it would take an older build of the same sources for this one.
UV_PIP = f"{BIN}/uv pip install --quiet --refresh-package miaas-adapter"
START_S = 120.0


@dataclass(frozen=True)
class Installed:
    """The adapter in an environment of its own, and a folder for what is done with it."""

    folder: Path
    environment: dict[str, str]

    def run(self, *command: str, cwd: Path | None = None) -> str:
        """What the command prints on both outputs; fails when it does."""
        done = subprocess.run(
            command,
            cwd=cwd or self.folder,
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=300,
        )
        assert done.returncode == 0, done.stdout
        return done.stdout

    def bash(self, code: str, cwd: Path | None = None) -> str:
        """What the lines print."""
        return self.run("bash", "-euo", "pipefail", "-c", code, cwd=cwd)

    @contextmanager
    def up(self, *options: str) -> Iterator[tuple[httpx.Client, Path]]:
        """A running `miaas-adapter up`: a client of its API, and what it says."""
        says, up_json = self.folder / "up.log", Path(self.environment["ADAPTER_STATE_DIR"], "up.json")
        with says.open("w") as log:
            command = ["miaas-adapter", "up", *options]
            process = subprocess.Popen(command, cwd=self.folder, env=self.environment, stdout=log, stderr=log)
        try:
            eventually(lambda: up_json.exists() or process.poll() is not None, START_S)
            assert process.poll() is None, says.read_text()
            facts = json.loads(up_json.read_text())
            self.environment.update(URL=facts["url"], API_KEY=facts["api_key"])
            headers = {"X-API-Key": facts["api_key"]}
            with httpx.Client(base_url=facts["url"], headers=headers, timeout=30) as client:
                yield client, says
        finally:
            process.send_signal(signal.SIGINT)
            assert process.wait(20) == 0


def installed(home: Path, folder: Path) -> Installed:
    """`folder` with the environment in its `venv`, and `home` as the user's own; both are made."""
    folder.mkdir(parents=True)
    settings = {"STATE_DIR": str(home / "state"), "PORT": "0", "OPS_PORT": "0", "METADATA_TTL_S": "0.2"}
    # Nothing that leads to the sources or to another environment.
    ours = ("ADAPTER_", "PYTHON", "VIRTUAL_ENV")
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
    cache = subprocess.run([BIN / "uv", "cache", "dir"], check=True, capture_output=True, text=True)
    environment = {
        **inherited,
        "HOME": str(home),
        "NO_COLOR": "1",
        "PATH": f"{folder}/venv/bin:{sys.base_prefix}/bin:{os.environ['PATH']}",
        "UV_CACHE_DIR": cache.stdout.strip(),
        "VIRTUAL_ENV": f"{folder}/venv",
    }
    return Installed(folder, environment | {f"ADAPTER_{name}": value for name, value in settings.items()})


@pytest.fixture(scope="module")
def dist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What `make release` makes."""
    folder = tmp_path_factory.mktemp("release") / "dist"
    (command,) = re.findall(r"\$\(BIN\)/python (-m build.*)", (ROOT / "Makefile").read_text())
    command = [sys.executable, *command.split(), "--outdir", folder]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True, timeout=300)
    return folder


@pytest.fixture(scope="module")
def wheel(dist: Path, tmp_path_factory: pytest.TempPathFactory) -> Installed:
    """The wheel alone, with what `up` needs and nothing else."""
    home = tmp_path_factory.mktemp("wheel")
    place = installed(home, home / "anywhere")
    place.run(sys.executable, "-m", "venv", "--without-pip", "venv")
    (file,) = dist.glob("*.whl")
    place.bash(f"{UV_PIP} --constraint {ROOT}/constraints.txt '{file}[standalone]'")
    return place


def test_a_release_is_a_wheel_and_the_sources(dist: Path) -> None:
    assert sorted(path.name for path in dist.glob("miaas*")) == [
        f"miaas_adapter-{__version__}-py3-none-any.whl",
        f"miaas_adapter-{__version__}.tar.gz",
    ]


def test_the_sources_are_whole(dist: Path) -> None:
    with tarfile.open(dist / f"miaas_adapter-{__version__}.tar.gz") as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    rules = "rules/alerts.yml"
    assert names >= {f"docker/prometheus/{rules}", f"docker/helm/miaas-adapter/{rules}"}
    assert names >= {".ci/run", "Makefile", "SECURITY.md", "docs/models.md", "tests/shipping/test_release.py"}
    # Whoever builds it may have fetched the weights.
    assert "model_repository/efficientnet-lite0/1/model.onnx" not in names


def test_nothing_of_the_sources_is_needed(wheel: Installed) -> None:
    where = "import adapter, pathlib; print(pathlib.Path(adapter.__file__).parents[1].name)"
    assert wheel.run("python", "-c", where) == "site-packages\n"
    assert wheel.run("miaas-adapter", "--version") == f"{__version__}\n"


def test_a_repository_that_is_named(wheel: Installed, tmp_path: Path) -> None:
    """A plain folder with an ONNX file; its outputs are in an order that no sorting has."""
    nodes = [
        helper.make_node(kind, ["x", "x"], [name])
        for kind, name in (("Add", "twice"), ("Mul", "squared"), ("Sub", "zero"), ("Div", "one"))
    ]
    outputs = [value(node.output[0], "rows", 2) for node in nodes]
    write(tmp_path / "sums" / "1" / "model.onnx", model(nodes, [value("x", "rows", 2)], outputs))
    with wheel.up("--model-repository", str(tmp_path)) as (client, _):
        answer = client.post("/v1/models/sums:predict", json={"instances": [[2, 3]]})
        assert answer.text == (
            '{"predictions":[{"twice":[4.0,6.0],"squared":[4.0,9.0],"zero":[0.0,0.0],"one":[1.0,1.0]}]}'
        )


def test_without_a_repository_up_serves_the_demo_models(wheel: Installed) -> None:
    with wheel.up() as (client, says):
        body = {"instances": [[5.1, 3.5, 1.4, 0.2]]}
        assert client.post("/v1/models/sklearn-iris:predict", json=body).status_code == 200
        models = {model["name"] for model in client.get("/v1/models").json()["models"]}
        assert models == {"digits", "sklearn-iris"}
        assert says.read_text().startswith("no folder model_repository here: these are the demo models; ")
    assert {path.name for path in wheel.folder.iterdir()} == {"up.log", "venv"}


def test_the_walk_from_an_estimator_to_its_second_version(tmp_path: Path) -> None:
    wine = installed(tmp_path, tmp_path / "wine")
    steps = iter(STEP.findall(WALK))

    def take(*shown: str) -> None:
        """Run the next step as it stands there; what it prints holds each of these."""
        language, code = next(steps)
        printed = wine.bash(code) if language == "bash" else wine.run("python", "-c", code)
        for text in shown:
            assert text in printed

    language, install = next(steps)
    assert (language, "pip install" in install) == ("bash", True)
    wine.bash(install.replace("pip install", UV_PIP), cwd=ROOT)
    take()  # train
    take("added wine@1", "feature names  │ alcohol, malic_acid, ash")
    take("answers: wine@1", "models: 1, problems: 0")
    with wine.up() as (client, _):
        take('["class_0"]', '["class_1"]')
        assert next(steps)[1].startswith("export URL=")
        take('{"predictions":[{"label":["class_0"],"probabilities":[')
        take('"status":"completed","result":{"predictions":[{"label":["class_0"],"probabilities":[')
        take()  # train again
        take("added wine@2")
        eventually(lambda: client.get("/v1/models/wine").json().get("versions") == ["1", "2"])
        take('["class_0"]')
        take("deprecated since", "sunset", "1: 2039-12-31")
        eventually(lambda: "Deprecation" in client.get("/v1/models/wine@1").headers)
        take("HTTP/1.1 200 OK", "deprecation: @", "sunset: Sat, 31 Dec 2039 00:00:00 GMT")
        assert "deprecation" not in client.get("/v1/models/wine").headers
    assert next(steps, None) is None
