"""Secrets in logs: of what the processes of a test run wrote, all is searched when the run is over."""

import os
import re
from collections.abc import Iterator
from pathlib import Path

CANARY = "canary4711"
"""Part of the passwords that tests set, and of the keys and tokens that they make up."""

_SECRETS = {
    "a canary": CANARY,
    "an API key": r"miaas_[0-9a-f]{16}_[A-Za-z0-9_-]{43}",
    "a token": r"eyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{8,}",
    "a private key": r"-----BEGIN [A-Z ]*PRIVATE KEY-----",
    "an nkey seed": r"\bS[AOU][A-Z2-7]{56}\b",
}
# `up` shows its key to whoever started it, on the terminal that a test writes into this file.
_TERMINAL = "up.log"
_SHOWN = re.compile(r"^(  API key  |curl ).*$", re.MULTILINE)


def logs(folder: Path) -> Iterator[Path]:
    """Every log below a folder."""
    for place, _, names in os.walk(folder):
        yield from (Path(place) / name for name in names if ".log" in name)


def leaks(folder: Path) -> list[str]:
    """What secret stands in which log below `folder`."""
    found = []
    for path in logs(folder):
        text = path.read_text(errors="replace")
        if path.name.endswith(_TERMINAL):
            text = _SHOWN.sub("", text)
        found += [f"{what} in {path}" for what, secret in _SECRETS.items() if re.search(secret, text)]
    return found
