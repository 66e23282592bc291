"""Which build of the adapter a benchmark runs: its sources, or compiled as in the container image."""

import re
from dataclasses import dataclass
from pathlib import Path

from bench.processes import BenchError
from scripts import compiled

ROOT = Path(__file__).resolve().parents[1]
_COMPILED = ROOT / "build" / "compiled"
# In /proc/PID/maps, of a module that is compiled: the folder that its package is in.
_COMPILED_MODULE = re.compile(r"(/.+)/adapter/(?:\w+/)*\w+\.cpython-[\w-]+\.so$", re.MULTILINE)


@dataclass(frozen=True)
class Package:
    """A folder with the package `adapter`."""

    folder: Path
    words: str
    """How it was made, for people."""
    is_compiled: bool = False

    @property
    def environment(self) -> dict[str, str]:
        """With these variables Python takes this `adapter`, whatever the working directory holds."""
        return {"PYTHONPATH": str(self.folder), "PYTHONSAFEPATH": "1"}

    def check(self, pid: int) -> None:
        """Raises BenchError unless the process runs this build: compiled modules are files that it maps."""
        found = set(_COMPILED_MODULE.findall(Path(f"/proc/{pid}/maps").read_text()))
        if found != ({str(self.folder)} if self.is_compiled else set()):
            raise BenchError(f"process {pid} does not run the adapter that is {self.words}")


SOURCES = Package(ROOT, "not compiled")


def compiled_package() -> Package:
    """The compiled one, made anew when the sources have changed; where nothing can be compiled, the sources.

    Raises BenchError when compiling fails.
    """
    if lacking := compiled.missing():
        return Package(ROOT, f"not compiled: {lacking}")
    if not compiled.is_current(_COMPILED):
        print("compiling the adapter's hot path, which takes a few minutes")
    try:
        compiled.compile_into(_COMPILED)
    except compiled.CompileError as error:
        raise BenchError(str(error)) from None
    return Package(_COMPILED, "hot path compiled by mypyc", is_compiled=True)
