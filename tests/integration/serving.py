"""API processes of a test's own, without Triton: what security does needs none."""

import asyncio
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import psutil

from adapter.security.keys import KeyStore
from adapter.sockets import listen
from adapter.standalone.network import port_of

SHARED = "rate limit shared through NATS"


def wait_for(look: Callable[[], object], within_s: float = 20.0) -> None:
    """Return once `look` is true; fails when it is not in time."""
    deadline = time.monotonic() + within_s
    while not look():
        assert time.monotonic() < deadline, f"nothing within {within_s} s"
        time.sleep(0.02)


@dataclass
class Api:
    """One `serve` process."""

    process: subprocess.Popen[bytes]
    url: str
    ops_url: str
    log: Path

    def rss(self) -> int:
        """Its memory now, in bytes."""
        memory: int = psutil.Process(self.process.pid).memory_info().rss
        return memory

    def peak(self) -> int:
        """The most memory that it ever had, in bytes."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        found = re.search(r"VmHWM:\s+(\d+) kB", status)
        assert found
        return int(found[1]) * 1024

    def says(self, text: str) -> bool:
        """Whether its log holds a text."""
        return text in self.log.read_text()


@contextmanager
def serving(folder: Path, **settings: str) -> Iterator[Api]:
    """Start `serve` with its state in `folder`; settings are named without `ADAPTER_`."""
    with ExitStack() as stack:
        host = settings.get("HOST", "127.0.0.1")
        api, ops = (stack.enter_context(listen(host, 0, "")) for _ in range(2))
        log = folder / f"api-{port_of(api)}.log"
        environment = {name: value for name, value in os.environ.items() if not name.startswith("ADAPTER_")}
        environment |= {"ADAPTER_STATE_DIR": str(folder), "ADAPTER_TRITON_GRPC_URL": "127.0.0.1:1"}
        environment |= {"ADAPTER_NATS_URL": "nats://127.0.0.1:1", "ADAPTER_SHUTDOWN_TIMEOUT_S": "1"}
        environment |= {"ADAPTER_LOG_LEVEL": "debug"}
        environment |= {f"ADAPTER_{name}": value for name, value in settings.items()}
        command = [sys.executable, "-m", "adapter", "serve"]
        command += ["--fd", str(api.fileno()), "--ops-fd", str(ops.fileno())]
        with log.open("wb") as output:
            process = subprocess.Popen(
                command, stdout=output, stderr=output, env=environment, pass_fds=[api.fileno(), ops.fileno()]
            )
        scheme = "https" if "TLS_CERT_FILE" in settings else "http"
        try:
            url, ops_url = (f"{scheme}://127.0.0.1:{port_of(listening)}" for listening in (api, ops))
            running = Api(process, url, ops_url.replace("https", "http"), log)
            wait_for(lambda: running.says("serving") or process.poll() is not None)
            assert process.poll() is None, log.read_text()
            yield running
        finally:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def run(folder: Path, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run a command to its end, with its state in `folder`."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("ADAPTER_")}
    return subprocess.run(
        [sys.executable, "-m", "adapter", *arguments],
        env={**inherited, "ADAPTER_STATE_DIR": str(folder), **variables},
        capture_output=True,
        text=True,
        timeout=60,
    )


def make_key(folder: Path, name: str, scopes: str = "infer,read", rate: int | None = None) -> dict[str, str]:
    """A new key, as the header that carries it."""
    key = KeyStore(folder / "keys.json").create(name, scopes.split(","), rate_per_minute=rate)
    return {"X-API-Key": key.key}


async def paced(count: int, seconds: float, call: Callable[[int], Awaitable[None]]) -> None:
    """Make `count` calls, evenly spread over `seconds`, without one waiting for another."""
    started = asyncio.get_running_loop().time()
    async with asyncio.TaskGroup() as group:
        for number in range(count):
            delay = started + number * seconds / count - asyncio.get_running_loop().time()
            await asyncio.sleep(max(0.0, delay))
            group.create_task(_as_coroutine(call, number))


async def _as_coroutine(call: Callable[[int], Awaitable[None]], number: int) -> None:
    await call(number)


class Statuses:
    """Counts the statuses of answers to `GET /` by two or more API processes in turn."""

    def __init__(self, client: httpx.AsyncClient, apis: list[Api], headers: dict[str, str]) -> None:
        self.counts: dict[int, int] = {}
        self.last: httpx.Response | None = None
        self._client, self._apis, self._headers = client, apis, headers

    async def __call__(self, number: int) -> None:
        """Make one request."""
        api = self._apis[number % len(self._apis)]
        answer = await self._client.get(f"{api.url}/", headers=self._headers)
        self.counts[answer.status_code] = self.counts.get(answer.status_code, 0) + 1
        if self.last is None or self.last.status_code < answer.status_code:
            self.last = answer
