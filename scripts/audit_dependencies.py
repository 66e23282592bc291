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


def trouble() -> str:
    """Why the database does not answer, tried on one package instead of all of them; "" when it does."""
    with tempfile.TemporaryDirectory() as folder:
        one = Path(folder) / "one.txt"
        one.write_text(next(line for line in LOCK.read_text().splitlines() if line.startswith("pyjwt==")))
        done = pip_audit(one)
    for said, sign in ((done.stdout, "could not be audited"), (done.stderr, "Traceback")):
        if sign in said:
            return said.strip().splitlines()[-1]
    return ""


def main() -> int:
    """0 when each was looked up and nothing is known against it, or when nobody could be asked."""
    if why := trouble():
        print("THE DEPENDENCIES WERE NOT AUDITED: the database of vulnerabilities cannot be asked from here:")
        print(f"  {why}")
        return 0
    # With --strict one that the database does not know fails it too.
    done = pip_audit(LOCK, "--strict", *(f"--ignore-vuln={vulnerability}" for vulnerability in EXCEPTIONS))
    print(done.stdout, done.stderr, sep="")
    for vulnerability, reason in EXCEPTIONS.items():
        print(f"excepted: {vulnerability}: {reason}")
    return done.returncode


if __name__ == "__main__":
    sys.exit(main())
