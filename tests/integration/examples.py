"""The examples of a document, run as they stand there."""

import os
import re
import subprocess

from tests.integration.conftest import ROOT, Up

_BLOCK = re.compile(r"^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)


def blocks(document: str, language: str) -> list[str]:
    """The code of every block in this language of a file in docs/."""
    found = _BLOCK.findall((ROOT / "docs" / document).read_text())
    return [code for name, code in found if name == language]


def run_bash(code: str, up: Up, **environment: str) -> str:
    """What the code prints, with URL and API_KEY set; fails when it does."""
    environment |= {"URL": up.facts["url"], "API_KEY": up.facts["api_key"], "PATH": os.environ["PATH"]}
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", code],
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout
