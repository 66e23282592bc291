"""Looks the locked dependencies up in the database of known vulnerabilities, by pip-audit.

Where the database cannot be reached, that is said, and nothing is claimed.
"""

import subprocess
import sys
import tempfile
from pathlib import Path

LOCK = Path(__file__).parents[1] / "constraints.txt"
EXCEPTIONS: dict[str, str] = {}
"""Id of a vulnerability that does not concern us → why."""


def pip_audit(requirements: Path, *options: str) -> subprocess.CompletedProcess[str]:
    """Run pip-audit on pinned requirements; it installs nothing."""
    command = [sys.executable, "-m", "pip_audit", "--no-deps", "--disable-pip", "--progress-spinner=off"]
    return subprocess.run([*command, "-r", str(requirements), *options], capture_output=True, text=True)


def reachable() -> bool:
    """Whether the database answers, tried on one package instead of all of them in vain."""
    with tempfile.TemporaryDirectory() as folder:
        one = Path(folder) / "one.txt"
        one.write_text(next(line for line in LOCK.read_text().splitlines() if line.startswith("pyjwt==")))
        done = pip_audit(one)
    return "could not be audited" not in done.stdout and "Traceback" not in done.stderr


def main() -> int:
    """0 when nothing is known against any of them, or nobody could be asked."""
    if not reachable():
        print(
            "the database of vulnerabilities cannot be reached from here: the dependencies were not audited"
        )
        return 0
    done = pip_audit(LOCK, *(f"--ignore-vuln={vulnerability}" for vulnerability in EXCEPTIONS))
    print(done.stdout, done.stderr, sep="")
    for vulnerability, reason in EXCEPTIONS.items():
        print(f"excepted: {vulnerability}: {reason}")
    return done.returncode


if __name__ == "__main__":
    sys.exit(main())
