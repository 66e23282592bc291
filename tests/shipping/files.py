"""What docker/ holds, as tests read it."""

import os
import re
import shutil
import sysconfig
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DOCKER = ROOT / "docker"
BIN = Path(sysconfig.get_path("scripts"))


@dataclass(frozen=True)
class Step:
    """An instruction of a Dockerfile and what follows it, on one line, in its stage."""

    stage: int
    instruction: str
    text: str


class Dockerfile:
    """A Dockerfile's steps."""

    def __init__(self, path: Path) -> None:
        lines = [line for line in path.read_text().splitlines() if not line.lstrip().startswith("#")]
        self.steps: list[Step] = []
        for line in filter(str.strip, re.sub(r"\\\n\s*", "", "\n".join(lines)).splitlines()):
            instruction, _, text = line.partition(" ")
            stage = (self.steps[-1].stage if self.steps else -1) + (instruction == "FROM")
            self.steps.append(Step(stage, instruction, text.strip()))

    def all(self, instruction: str) -> list[str]:
        """What follows each of these instructions."""
        return [step.text for step in self.steps if step.instruction == instruction]

    def last(self, instruction: str) -> str:
        """What follows the one that holds."""
        return self.all(instruction)[-1]

    @property
    def copied(self) -> list[str]:
        """The paths of this repository that go into the image."""
        texts = [text for text in self.all("COPY") if not text.startswith("--from")]
        return [source for text in texts for source in text.split()[:-1]]


ADAPTER = Dockerfile(DOCKER / "adapter.Dockerfile")
TRITON = Dockerfile(DOCKER / "triton.Dockerfile")


def tool(name: str, package: str) -> str:
    """The path of a program that continuous integration installs."""
    path = shutil.which(name)
    if path is None:
        assert "CI" not in os.environ, f"continuous integration installs {package}"
        pytest.skip(f"no {name} here (Debian: apt-get install {package})")
    return path


def pinned(image: str) -> bool:
    """Whether an image's tag names one release."""
    _, _, tag = image.rpartition(":")
    return re.fullmatch(r"v?\d+(\.\d+)+(-[a-z0-9.-]+)?", tag) is not None
