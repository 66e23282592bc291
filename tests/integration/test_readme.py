"""Every example of README.md, docs/getting-started.md and docs/v2.md, run as it stands there."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import skimage.data
from PIL import Image

from tests.integration.conftest import ROOT, Up

BLOCK = re.compile(r"^```(bash|python|javascript)\n(.*?)^```", re.MULTILINE | re.DOTALL)
EXAMPLES = [
    pytest.param(language, code, id=f"{Path(page).stem}-{language}-{number}")
    for page in ("README.md", "docs/getting-started.md", "docs/v2.md")
    for number, (language, code) in enumerate(BLOCK.findall((ROOT / page).read_text()))
    if not code.startswith("export ")
]
COMMANDS = {
    "bash": ["bash", "-euo", "pipefail", "-c"],
    "python": [sys.executable, "-c"],
    "javascript": ["node", "--input-type=module", "-e"],
}
SHOWN = {
    "bash": r'"(predictions|data)":\[\[?1\.0,|"status":"queued"|"sklearn-iris"|expected a number \(FP32\)',
    "python": r"\[\[1\.0, [\s\S]*espresso|completed \[\[1\.0|\A\[\[1\.0, .*\]\]\n\Z",
    "javascript": r"\[ \[ 1, |completed \[",
}


def test_there_are_examples_in_every_language() -> None:
    assert {language for language, _ in (p.values for p in EXAMPLES)} == COMMANDS.keys()


@pytest.mark.parametrize(("language", "code"), EXAMPLES)
def test_example(up: Up, tmp_path: Path, language: str, code: str) -> None:
    Image.fromarray(skimage.data.coffee()).save(tmp_path / "coffee.jpg")
    environment = {"URL": up.facts["url"], "API_KEY": up.facts["api_key"], "PATH": os.environ["PATH"]}
    done = subprocess.run(
        [*COMMANDS[language], code],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    assert re.search(SHOWN[language], done.stdout), done.stdout
