"""`up`: tritonserver, nats-server, the queue's worker and the API under one supervisor."""

import asyncio
import json
import os
import signal
import ssl
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from rich.console import Console

from adapter.security.tls import grpc_credentials
from adapter.settings import Settings
from adapter.standalone import reaper
from adapter.standalone.child import Child
from adapter.standalone.children import FRONT_GRACE_S, Site, build, serves_docs
from adapter.standalone.display import Display, curl_command
from adapter.standalone.errors import StartError
from adapter.standalone.network import LOOPBACK, http_status, is_open, port_of
from adapter.standalone.repository import RepositoryWatcher, models
from adapter.standalone.state import api_key, locked, run_prefix, write_private
from adapter.standalone.storage import StorageWatcher
from adapter.standalone.triton import LoadLog
from adapter.triton.transport import GrpcTransport

BACK_GRACE_S = 4.0
"""How long the servers may take to end; tritonserver takes 3. With FRONT_GRACE_S under the 10 s promised."""
LOG_CHECK_S = 30.0
IMPATIENT_AFTER_S = 30.0


def up(settings: Settings, repository: Path, workers: int, tls: bool, console: Console) -> None:
    """Run everything until SIGINT, SIGTERM or SIGHUP. Raises `StartError` when it cannot start.

    `settings` must hold absolute paths; `tls` secures every connection with a CA of this machine's own.
    """
    if not repository.is_dir():
        raise StartError(f"the model repository {repository} is not a directory")
    if " " in str(settings.state_dir):
        raise StartError(
            f"the state directory {settings.state_dir!s} holds a blank, which Triton cannot take"
        )
    with locked(settings.state_dir):
        # What a killed `up` left, if its reaper was killed too or is not done yet; it may hold the port.
        reaper.sweep(run_prefix(settings.state_dir))
        with Site.open(settings, repository.resolve(), workers, tls) as site:
            asyncio.run(_Supervisor(site, Display(console)).run())


class _Supervisor:
    """One run of `up`."""

    def __init__(self, site: Site, display: Display) -> None:
        self._site = site
        self._display = display
        self._up_json = site.settings.state_dir / "up.json"
        self._up_json.unlink(missing_ok=True)
        self._api_key = api_key(site.settings.state_dir, site.settings.keys_path)
        self._children = build(site, display.warn, self._write_up_json)
        self._ready = False
        self._stop_asked = asyncio.Event()

    async def run(self) -> None:
        """Start everything, keep it running, and stop it when asked to."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            loop.add_signal_handler(number, self._ask_to_stop)
        async with reaper.standing_by(self._site.run):
            # None of these ends by itself but the last: an error in another is not to pass unnoticed.
            coroutines = (self._start(), self._trim_logs(), self._stop_asked.wait())
            steps = [asyncio.create_task(coroutine) for coroutine in coroutines]
            try:
                await _first_end(steps)
            finally:
                for step in steps:
                    step.cancel()
                await asyncio.wait(steps)
                await self._stop()

    def _ask_to_stop(self) -> None:
        if self._stop_asked.is_set():
            for child in self._children.all:
                child.kill()
        self._stop_asked.set()

    async def _start(self) -> None:
        """Bring everything up in order, then watch over the tasks of the children without end."""
        began = time.monotonic()
        site, server = self._site, self._children.triton
        watcher = RepositoryWatcher(
            site.repository,
            site.settings.state_dir / "run" / "models",
            self._connect_to_triton,
            lambda: server.pid,
            self._display.warn,
        )
        nats = self._children.nats
        storage = StorageWatcher(site.nats_store, site.nats_monitor_port, nats.restart, self._display.warn)
        for child in self._children.back:
            child.start()
        await self._wait_for_models()
        while not is_open(self._site.nats_port):  # noqa: ASYNC110 - there is no Event between processes
            await asyncio.sleep(0.05)
        for child in self._children.front:
            child.start()
        await self._wait_for_api()
        self._ready = True
        self._write_up_json()
        self._show_ready(time.monotonic() - began)
        watching = [asyncio.create_task(each.run()) for each in (watcher, storage)]
        try:
            await _first_end([*watching, *(child.task for child in self._children.all if child.task)])
        finally:
            for task in watching:
                task.cancel()

    def _connect_to_triton(self) -> GrpcTransport:
        tls = self._site.tls
        credentials = grpc_credentials(tls.ca, tls.client_key, tls.client) if tls else None
        return GrpcTransport(f"{LOOPBACK}:{self._site.triton_ports.grpc}", credentials)

    async def _wait_for_models(self) -> None:
        """Show how Triton loads the models until it serves, then report those that it could not load."""
        names = models(self._site.repository)
        log = LoadLog()
        with self._display.loading(len(names)) as show, self._children.triton.log.open("rb") as file:
            file.seek(0, os.SEEK_END)  # the child, just created, has not written yet
            serving = False
            patience = time.monotonic() + IMPATIENT_AFTER_S
            while not serving:
                await asyncio.sleep(0.1)
                if time.monotonic() > patience:
                    patience += IMPATIENT_AFTER_S
                    missing = sorted(set(names) - log.loaded - log.failed.keys())
                    self._display.warn(f"still loading {', '.join(missing)}; logs: {self._logs}")
                serving = is_open(self._site.triton_ports.grpc)
                log.read(file.read().decode(errors="replace"))
                show(log)
        for name, reason in sorted(log.failed.items()):
            self._display.warn(f"model {name} failed to load: {reason}")

    async def _wait_for_api(self) -> None:
        """Wait until one of its processes says that it is ready; each answers no request before it is."""
        site = self._site
        patience = time.monotonic() + IMPATIENT_AFTER_S
        # Only whether it is ready is asked, of a socket that this process holds: no certificate is checked.
        tls = ssl._create_unverified_context() if site.ops_secured else None  # noqa: S323 # nosec B323
        address = site.settings.ops_host, port_of(site.ops)
        while (status := await http_status(*address, "/readyz", tls=tls)) != 200:
            if time.monotonic() > patience:
                patience += IMPATIENT_AFTER_S
                answer = "does not answer" if status is None else f"answers {status}"
                self._display.warn(f"still waiting: {site.ops_url}/readyz {answer}; logs: {self._logs}")
            await asyncio.sleep(0.1)

    def _show_ready(self, seconds: float) -> None:
        site = self._site
        ca = site.tls.ca if site.tls else None
        curl = curl_command(site.url, self._api_key, models(site.repository), ca)
        self._display.ready(
            seconds, site.url, serves_docs(site.settings), self._api_key, curl, str(self._logs)
        )

    def _write_up_json(self) -> None:
        """Write what runs where, once all is ready; called again whenever a child's pid changes."""
        if not self._ready:
            return
        site = self._site
        content = {
            "url": site.url,
            "ops_url": site.ops_url,
            "api_key": self._api_key,
            **({} if site.tls else {"triton_http": f"{LOOPBACK}:{site.triton_ports.http}"}),
            "triton_grpc": f"{LOOPBACK}:{site.triton_ports.grpc}",
            "triton_metrics": f"http://{LOOPBACK}:{site.triton_ports.metrics}/metrics",
            "nats_url": site.nats_url,
            **({"ca_file": str(site.tls.ca)} if site.tls else {}),
            "pids": {"supervisor": [os.getpid()], **self._children.pids()},
        }
        try:
            write_private(self._up_json, json.dumps(content, indent=2) + "\n")
        except OSError as error:  # a full disk must not take the servers down
            self._display.warn(f"cannot write {self._up_json}: {error.strerror}")

    async def _trim_logs(self) -> None:
        while True:
            await asyncio.sleep(LOG_CHECK_S)
            for child in self._children.all:
                with suppress(OSError):
                    child.trim_log()

    async def _stop(self) -> None:
        """End all children, the adapter's own first, as they still need the servers."""
        self._ready = False
        self._up_json.unlink(missing_ok=True)
        self._display.line("stopping")
        await _stop_all(self._children.front, FRONT_GRACE_S)
        await _stop_all(self._children.back, BACK_GRACE_S)

    @property
    def _logs(self) -> Path:
        return self._children.triton.log.parent


async def _first_end(tasks: list[asyncio.Task[Any]]) -> None:
    """Wait until one of the tasks ends; raises what it raised. Unlike `gather` it never cancels them."""
    done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    for task in done:
        task.result()


async def _stop_all(children: list[Child], grace_s: float) -> None:
    await asyncio.gather(*(child.stop(grace_s) for child in children))
