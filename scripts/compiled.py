"""The package as the container image has it, its hot path compiled: `python -m scripts.compiled FOLDER`.

FOLDER then goes into PYTHONPATH. Where it holds already what these sources make, that is left as it is.
"""

import argparse
import hashlib
import os
import shlex
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
_LOCKED = ROOT / "constraints.txt"
_STAMP = ".compiled-from"


class CompileError(Exception):
    """There is no compiled package; the message says why."""


def missing() -> str:
    """What this machine lacks for compiling, in a few words; "" where it lacks nothing."""
    compiler = shlex.split(os.environ.get("CC") or sysconfig.get_config_var("CC") or "cc")[0]
    if shutil.which(compiler) is None:
        return f"no C compiler ({compiler})"
    if not Path(sysconfig.get_path("include"), "Python.h").exists():
        return f"no Python.h of Python {sysconfig.get_python_version()}"
    return ""


def is_current(folder: Path) -> bool:
    """Whether `folder` holds what these sources make on this Python."""
    stamp = folder / _STAMP
    return stamp.exists() and stamp.read_text() == _sources()


def compile_into(folder: Path) -> None:
    """Make `folder` hold what these sources' compiled wheel holds, in minutes; nothing is done where it does.

    Raises CompileError, with `folder` as it was, when that holds something else, when a compiler is missing,
    and when the build fails.
    """
    if is_current(folder):
        return
    if folder.exists() and any(folder.iterdir()) and not (folder / _STAMP).exists():
        raise CompileError(f"{folder} holds something else")
    if lacking := missing():
        raise CompileError(f"{lacking}; Debian: apt-get install gcc libc6-dev python3-dev")
    made_of = _sources()
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}-") as scratch:
        # By way of the sdist: in a checkout the compiler would leave what it makes beside the sources.
        command = [sys.executable, "-m", "build", "--installer", "uv"]
        command += ["--outdir", f"{scratch}/dist", str(ROOT)]
        environment = {**os.environ, "HATCH_BUILD_HOOK_ENABLE_MYPYC": "1", "UV_CONSTRAINT": str(_LOCKED)}
        done = subprocess.run(command, env=environment, capture_output=True, text=True)
        if done.returncode:
            raise CompileError(f"the build failed:\n{done.stdout}{done.stderr}")
        (wheel,) = Path(scratch, "dist").glob("*.whl")
        package = Path(scratch, "package")
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(package)
        (package / _STAMP).write_text(made_of)
        shutil.rmtree(folder, ignore_errors=True)
        package.rename(folder)


def _sources() -> str:
    """A digest of all that decides what is made."""
    digest = hashlib.sha256(str(sysconfig.get_config_var("SOABI")).encode() + _LOCKED.read_bytes())
    for path in [ROOT / "pyproject.toml", *sorted((ROOT / "adapter").rglob("*.py"))]:
        digest.update(f"\n{path.relative_to(ROOT)}\n".encode() + path.read_bytes())
    return digest.hexdigest()


def main() -> None:
    """Compile unless it is done already; ends with 1 and the reason where that cannot be."""
    parser = argparse.ArgumentParser(prog="python -m scripts.compiled", description=__doc__)
    parser.add_argument("folder", type=Path)
    folder: Path = parser.parse_args().folder.resolve()
    try:
        compile_into(folder)
    except CompileError as error:
        sys.exit(f"not compiled: {error}")


if __name__ == "__main__":
    main()
