"""Keeps Triton in step with the model repository, and with its own models.

Triton runs in explicit model control: polling would load a folder while it is still being copied, try a
broken model again every few seconds, and forbid the load and unload calls. So the repository is watched from
here. Triton 2.51 also leaves a model whose Python stub died as it is, "ready" and failing every request; such
a model is loaded anew.
"""

import asyncio
import os
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path

from adapter.core.dataplane import MODEL_NAME
from adapter.core.errors import AdapterError, EngineUnavailable
from adapter.triton.transport import GrpcTransport

PERIOD_S = 1.0
LONGEST_REST_S = 30.0
STEADY_AFTER_S = 60.0

NO_NAME = "its name must be of letters, digits, '.', '_' and '-'"

Signature = frozenset[tuple[str, int, int]]
"""A model folder's files: path, size, time of change in nanoseconds."""


class RepositoryWatcher:
    """Loads models whose files changed, unloads those whose folder went, revives those that died."""

    def __init__(
        self,
        repository: Path,
        links: Path,
        connect: Callable[[], GrpcTransport],
        server_pid: Callable[[], int | None],
        report: Callable[[str], None],
    ) -> None:
        self._repository = repository
        self._links = links
        self._connect = connect
        self._server_pid = server_pid
        self._report = report
        # What Triton is taken to have loaded: it loads all there is when it starts.
        self._loaded = scan(repository)
        self._following: dict[str, asyncio.Task[None]] = {}
        self._stubs: Counter[str] = Counter()
        self._buried: set[int] = set()
        self._dead: set[str] = set()
        self._revived: dict[str, tuple[float, float]] = {}
        """Model → when it was revived last, and how long to leave it alone after that."""

    async def run(self) -> None:
        """Watch until cancelled."""
        transport = self._connect()
        before = self._loaded
        if (pid := self._server_pid()) is not None:
            # Who lives now: a stub that dies before the first look is missed otherwise.
            self._stubs, self._buried = await asyncio.to_thread(stubs, pid)
        try:
            while True:
                await asyncio.sleep(PERIOD_S)
                try:
                    now = await asyncio.to_thread(scan, self._repository)
                except OSError as error:
                    if before:
                        self._report(f"the model repository cannot be read: {error.strerror}")
                    before = {}
                    continue
                for name in sorted((now.keys() | self._loaded.keys()) - self._following.keys()):
                    # Files that still change are being copied.
                    if now.get(name) == before.get(name) != self._loaded.get(name):
                        # A model that takes its time must not hold up the others.
                        task = asyncio.create_task(self._follow(transport, name, now.get(name)))
                        self._following[name] = task
                        task.add_done_callback(partial(self._followed, name))
                before = now
                await self._revive_dead(transport)
        finally:
            for task in list(self._following.values()):
                task.cancel()
            await transport.close()

    def _followed(self, name: str, _: asyncio.Task[None]) -> None:
        del self._following[name]

    async def _follow(self, transport: GrpcTransport, name: str, signature: Signature | None) -> None:
        try:
            if signature is None:
                unlink(self._links, name)
                await transport.unload_model(name)
                self._report(f"model {name} unloaded: its folder is gone")
            elif link(self._repository, self._links, name):
                await transport.load_model(name)
                self._report(f"model {name} loaded: its files changed")
            else:
                self._report(f"model folder {name!r} left out: {NO_NAME}")
        except EngineUnavailable:
            return  # it loads what is there when it is back
        except AdapterError as error:
            what = "unload" if signature is None else "load"
            self._report(f"model {name} failed to {what}: {error.message.partition(chr(10))[0]}")
        if signature is None:
            self._loaded.pop(name, None)
        else:
            self._loaded[name] = signature

    async def _revive_dead(self, transport: GrpcTransport) -> None:
        pid = self._server_pid()
        if pid is None:
            self._stubs, self._buried, self._dead = Counter(), set(), set()
            return
        alive, dead = await asyncio.to_thread(stubs, pid)
        if dead - self._buried:
            self._dead |= {name for name, count in self._stubs.items() if alive[name] < count}
        # Triton keeps them as zombies until it ends, and a zombie no longer says which model it ran.
        self._buried = dead
        self._stubs = alive | Counter({name: self._stubs[name] for name in self._dead})
        for name in sorted(self._dead):
            last, rest = self._revived.get(name, (-STEADY_AFTER_S, 0.0))
            if time.monotonic() - last > rest:
                self._dead.discard(name)
                rest = 0.0 if time.monotonic() - last > STEADY_AFTER_S else rest
                with suppress(AdapterError):
                    await self._revive(transport, name)
                self._revived[name] = (time.monotonic(), min(max(PERIOD_S, rest * 2), LONGEST_REST_S))

    async def _revive(self, transport: GrpcTransport, name: str) -> None:
        index = await transport.repository_index()
        if any(model.name == name and model.state == "READY" for model in index.models):
            self._report(f"model {name}: its process died, it is loaded anew")
            await transport.unload_model(name)
            await transport.load_model(name)


def demo() -> Path:
    """The repository of the demo models: in a wheel the small ones lie here, a checkout has all."""
    packaged = Path(__file__).parent / "demo"
    return packaged if packaged.is_dir() else Path(__file__).parents[2] / "model_repository"


def link_all(repository: Path, links: Path) -> list[str]:
    """Link the repository's models into the new folder `links`; returns the folders that are left out.

    Triton is shown that folder: its Python backend cannot take a path with a blank in it, and a model whose
    name nobody could use need not be loaded.
    """
    links.mkdir()
    return [name for name in folders(repository) if not link(repository, links, name)]


def models(repository: Path) -> list[str]:
    """The names of the models in `repository`; folders whose name no model may have are left out."""
    return [name for name in folders(repository) if MODEL_NAME.match(name)]


def folders(repository: Path) -> list[str]:
    """The repository's folders, hidden ones left out. Raises OSError when it cannot be read."""
    with os.scandir(repository) as entries:
        return sorted(entry.name for entry in entries if entry.is_dir() and not entry.name.startswith("."))


def link(repository: Path, links: Path, name: str) -> bool:
    """Show one model to Triton; False when its name is none that a model may have."""
    if not MODEL_NAME.match(name):
        return False
    with suppress(FileExistsError):
        (links / name).symlink_to(repository / name)
    return True


def unlink(links: Path, name: str) -> None:
    """Hide one model from Triton."""
    (links / name).unlink(missing_ok=True)


def scan(repository: Path) -> dict[str, Signature]:
    """The model folders and what is in them; hidden files and Python's caches do not count.

    Raises OSError when the repository cannot be read; what goes away meanwhile is passed over.
    """
    return {name: frozenset(_files(repository / name)) for name in folders(repository)}


def _files(folder: Path) -> Iterator[tuple[str, int, int]]:
    for root, folders, files in os.walk(folder, followlinks=True):
        folders[:] = [name for name in folders if not name.startswith(".") and name != "__pycache__"]
        for name in files:
            path = Path(root, name)
            with suppress(OSError):
                if not name.startswith("."):
                    status = path.stat()
                    yield str(path.relative_to(folder)), status.st_size, status.st_mtime_ns


def stubs(server_pid: int) -> tuple[Counter[str], set[int]]:
    """Triton's Python stubs: how many live for each model, and the pids of those that died."""
    alive: Counter[str] = Counter()
    dead: set[int] = set()
    for entry in Path("/proc").iterdir():
        if not entry.name.isdecimal():
            continue
        with suppress(OSError):
            # pid (command) state ppid …; the command may hold blanks and parentheses.
            state, parent = (entry / "stat").read_text().rpartition(") ")[2].split()[:2]
            if int(parent) != server_pid:
                continue
            if state == "Z":
                dead.add(int(entry.name))
                continue
            command = (entry / "cmdline").read_bytes().decode(errors="replace").split("\0")
            if command[0].endswith("triton_python_backend_stub"):
                # Its first argument is <repository>/<model>/<version>/<file>.
                alive[Path(command[1]).parent.parent.name] += 1
    return alive, dead
