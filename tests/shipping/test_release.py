"""The wheel alone, in an empty environment: `up` without the sources, and docs/models.md step by step."""

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from adapter import __version__
from adapter.standalone import wheels
from tests.integration.conftest import eventually
from tests.shipping.files import BIN, ROOT

pytestmark = [
    pytest.mark.timeout(600),
    pytest.mark.skipif(sys.version_info[:2] not in wheels.PYTHONS, reason="`up` needs Python 3.11 or 3.12"),
]

STEP = re.compile(r"^```(bash|python)\n(.*?)^```", re.MULTILINE | re.DOTALL)
WALK = (ROOT / "docs/models.md").read_text().partition("\n## What can be added")[0]
INSTALL, *STEPS = STEP.findall(WALK)
START_S = 120.0


@dataclass(frozen=True)
class Installed:
    """The wheel in an environment of its own, and a folder for what is done with it."""

    folder: Path
    environment: dict[str, str]

    def run(self, *command: str) -> str:
        """What the command prints on both outputs."""
        done = subprocess.run(
            command,
            cwd=self.folder,
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=300,
        )
        assert done.returncode == 0, done.stdout
        return done.stdout

    def step(self, language: str, code: str) -> str:
        """Run a step of the document as it stands there."""
        return self.run(
            *{"bash": ("bash", "-euo", "pipefail", "-c"), "python": ("python", "-c")}[language], code
        )

    @contextmanager
    def up(self) -> Iterator[tuple[httpx.Client, Path]]:
        """A running `miaas-adapter up` without an option: a client of its API, and what it says."""
        says, up_json = self.folder / "up.log", Path(self.environment["ADAPTER_STATE_DIR"], "up.json")
        with says.open("w") as log:
            process = subprocess.Popen(
                ["miaas-adapter", "up"], cwd=self.folder, env=self.environment, stdout=log, stderr=log
            )
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


@pytest.fixture(scope="module")
def dist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What `make release` makes."""
    folder = tmp_path_factory.mktemp("release") / "dist"
    (command,) = re.findall(r"\$\(BIN\)/python (-m build.*)", (ROOT / "Makefile").read_text())
    command = [sys.executable, *command.split(), "--outdir", folder]
    environment = {**os.environ, "PATH": f"{BIN}:{os.environ['PATH']}"}
    subprocess.run(command, cwd=ROOT, env=environment, check=True, capture_output=True, timeout=300)
    return folder


@pytest.fixture(scope="module")
def home(dist: Path) -> Path:
    """The folder where the document's first step has installed the wheel."""
    language, code = INSTALL
    assert (language, "pip install" in code) == ("bash", True)
    # uv in the place of pip, which takes a minute; at the versions that are locked.
    code = code.replace("pip install", f"{BIN}/uv pip install --quiet --constraint {ROOT}/constraints.txt")
    environment = {**clean(), "PATH": f"{BIN}:{os.environ['PATH']}"}
    subprocess.run(
        ["bash", "-euo", "pipefail", "-c", code], cwd=dist.parent, env=environment, check=True, timeout=500
    )
    return dist.parent


@pytest.fixture
def installed(home: Path, tmp_path: Path) -> Installed:
    folder = tmp_path / "anywhere"
    folder.mkdir()
    settings = {"STATE_DIR": str(tmp_path / "state"), "PORT": "0", "OPS_PORT": "0", "METADATA_TTL_S": "0.2"}
    environment = {**clean(), "NO_COLOR": "1", "PATH": f"{home}/venv/bin:/usr/local/bin:/usr/bin:/bin"}
    return Installed(folder, environment | {f"ADAPTER_{name}": value for name, value in settings.items()})


def clean() -> dict[str, str]:
    """This process's environment without what leads to the sources or to another environment."""
    ours = ("ADAPTER_", "PYTHON", "VIRTUAL_ENV")
    return {name: value for name, value in os.environ.items() if not name.startswith(ours)}


def test_a_release_is_a_wheel_and_the_sources(dist: Path) -> None:
    assert sorted(path.name for path in dist.glob("miaas*")) == [
        f"miaas_adapter-{__version__}-py3-none-any.whl",
        f"miaas_adapter-{__version__}.tar.gz",
    ]


def test_nothing_of_the_sources_is_needed(installed: Installed) -> None:
    where = "import adapter, pathlib; print(pathlib.Path(adapter.__file__).parents[1].name)"
    assert installed.run("python", "-c", where) == "site-packages\n"
    assert installed.run("miaas-adapter", "--version") == f"{__version__}\n"


def test_without_a_repository_up_serves_the_demo_models(installed: Installed) -> None:
    with installed.up() as (client, says):
        body = {"instances": [[5.1, 3.5, 1.4, 0.2]]}
        assert client.post("/v1/models/sklearn-iris:predict", json=body).status_code == 200
        models = {model["name"] for model in client.get("/v1/models").json()["models"]}
        assert models == {"digits", "sklearn-iris"}
        assert says.read_text().startswith("no folder model_repository here: these are the demo models; ")
    assert list(installed.folder.iterdir()) == [installed.folder / "up.log"]


def test_the_walk_from_an_estimator_to_its_second_version(installed: Installed) -> None:
    steps = iter(STEPS)

    def take(*shown: str) -> None:
        """Run the next step; what it prints holds each of these."""
        printed = installed.step(*next(steps))
        for text in shown:
            assert text in printed

    take()  # train
    take("added wine@1", "feature names    │ alcohol, malic_acid, ash")
    take("answers: wine@1", "models: 1, problems: 0")
    with installed.up() as (client, _):
        take('["class_0"]', '["class_1"]')
        assert next(steps)[1].startswith("export URL=")
        take('{"predictions":[{"label":["class_0"],"probabilities":[')
        take('"status":"completed","result":{"predictions":[{"label":["class_0"],')
        take()  # train again
        take("added wine@2")
        eventually(lambda: client.get("/v1/models/wine").json()["versions"] == ["1", "2"])
        take('["class_0"]')
        take("deprecated since", "sunset", "1: 2039-12-31")
        eventually(lambda: "Deprecation" in client.get("/v1/models/wine@1").headers)
        take("HTTP/1.1 200 OK", "deprecation: @", "sunset: Sat, 31 Dec 2039 00:00:00 GMT")
        assert "deprecation" not in client.get("/v1/models/wine").headers
    assert next(steps, None) is None
