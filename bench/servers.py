"""Every server of the comparison, on one Triton: the one that `miaas-adapter up` starts."""

import json
import os
import re
import shutil
import socket
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httpx

from adapter.sockets import listen
from bench.loads import IRIS, LOADS, write_img_model
from bench.package import ROOT, SOURCES, Package
from bench.processes import BenchError, program, tree, wait_for

PEERS = Path(__file__).with_name("peers")
_HOST = "127.0.0.1"
_START_S = 120.0
_UVICORN = [
    *(sys.executable, "-m", "uvicorn", "--port", "{port}", "--no-access-log"),
    *("--log-level", "warning", "--loop", "uvloop", "--http", "httptools"),
]
_MODELS = {load.name: load.model for load in LOADS}


@dataclass(frozen=True)
class Server:
    """One that answers: where, in which protocol, and by which processes."""

    key: str
    title: str
    url: str
    pids: tuple[int, ...]
    path: str = "/v1/models/{model}:predict"
    v2: bool = False
    headers: dict[str, str] = field(default_factory=dict)
    is_triton: bool = False
    answers: bool = True
    """Whether its answers depend on what is asked."""
    ops: str = ""
    """Of an adapter: its operations listener."""

    def url_of(self, load: str) -> str:
        """Where a load is posted to."""
        return self.url + self.path.format(model=_MODELS[load])


@dataclass
class Site:
    """A running `up` and what was started beside it."""

    folder: Path
    repository: Path
    facts: dict[str, str]
    """What `up.json` says."""
    triton: tuple[int, ...]
    """tritonserver and its models' processes."""
    http_threads: tuple[int, ...]
    stack: ExitStack
    package: Package
    """Of `up`, and of the adapters beside it unless they are given another."""

    @property
    def headers(self) -> dict[str, str]:
        """What the adapter asks of its clients."""
        return {"X-API-Key": self.facts["api_key"]}

    def environment(self, package: Package, **more: str) -> dict[str, str]:
        """For programs of ours: the adapter's settings are the defaults, but for where its servers are."""
        return {
            **_clean_environment(),
            **package.environment,
            "ADAPTER_TRITON_GRPC_URL": self.facts["triton_grpc"],
            "ADAPTER_NATS_URL": self.facts["nats_url"],
            "ADAPTER_STATE_DIR": str(self.folder / "state"),
            **more,
        }

    def adapter(
        self, key: str, title: str, processes: int = 1, package: Package | None = None, **settings: str
    ) -> Server:
        """Start `serve`, in as many processes on one port as asked for, keys and metrics as ever."""
        package = package or self.package
        api = self.stack.enter_context(listen(_HOST, 0, ""))
        ops = self.stack.enter_context(listen(_HOST, 0, ""))
        fds = [api.fileno(), ops.fileno()]
        command = [sys.executable, "-m", "adapter", "serve", "--fd", str(fds[0]), "--ops-fd", str(fds[1])]
        if processes > 1:
            settings["ADAPTER_METRICS_DIR"] = str(self.folder / f"metrics-{key}")
        env, log = self.environment(package, **settings), self.folder / f"{key}.log"
        running = [self.stack.enter_context(program(command, env, log, fds, ROOT)) for _ in range(processes)]
        url, ops_url = (f"http://{_HOST}:{listening.getsockname()[1]}" for listening in (api, ops))
        for process in running:
            wait_for(lambda: httpx.get(url + "/").status_code in (200, 401), process, log, _START_S)
            package.check(process.pid)
        pids = tuple(process.pid for process in running)
        return Server(key, title, url, pids, headers=self.headers, ops=ops_url)

    def peer(
        self, key: str, title: str, command: list[str], answers: bool = True, v2: bool = False
    ) -> Server:
        """Start another server; `{port}` and `{grpc}` in its command stand for its port and for Triton."""
        url, port = _free_url()
        command = [part.format(port=port, grpc=self.facts["triton_grpc"]) for part in command]
        env = {**_clean_environment(), "PYTHONPATH": str(ROOT), "TRITON_GRPC_URL": self.facts["triton_grpc"]}
        log = self.folder / f"{key}.log"
        process = self.stack.enter_context(program(command, env, log, cwd=ROOT))
        path = "/v2/models/{model}/infer" if v2 else "/v1/models/{model}:predict"
        server = Server(key, title, url, (process.pid,), path, v2, answers=answers)
        body = IRIS.body(IRIS.values(0), v2)
        ready = server.url_of("iris")
        wait_for(lambda: httpx.post(ready, content=body).status_code == 200, process, log, _START_S)
        return server

    def triton_http(self) -> Server:
        """Triton's own HTTP front end."""
        url, path = f"http://{self.facts['triton_http']}", "/v2/models/{model}/infer"
        return Server("triton", "Triton's own HTTP JSON", url, self.triton, path, True, is_triton=True)


@contextmanager
def start_site(folder: Path, package: Package = SOURCES) -> Iterator[Site]:
    """`up` with the models of the loads, its state in `folder`; everything ends with the context."""
    repository = folder / "models"
    shutil.copytree(ROOT / "model_repository" / IRIS.model, repository / IRIS.model)
    write_img_model(repository)
    command = [sys.executable, "-m", "adapter", "up", "--port", "0", "--ops-port", "0"]
    command += ["--state-dir", str(folder / "state"), "--model-repository", str(repository)]
    log, up_json = folder / "up.log", folder / "state" / "up.json"
    with ExitStack() as stack:
        env = {**_clean_environment(), **package.environment}
        process = stack.enter_context(program(command, env, log, cwd=ROOT))
        wait_for(up_json.exists, process, log, _START_S)
        facts = json.loads(up_json.read_text())
        for pid in facts["pids"]["api"]:
            package.check(pid)
        (triton,) = facts["pids"]["triton"]
        yield Site(folder, repository, facts, tree(triton), _epoll_threads(triton), stack, package)


def start_bare(site: Site) -> Server:
    """The floor."""
    return site.peer("bare", "bare ASGI on uvicorn", [*_UVICORN, "bench.peers.bare:app"], answers=False)


def start_naive(site: Site) -> Server:
    """The adapter that one would write in an hour."""
    title = "hand-written: FastAPI, json, numpy, tritonclient"
    return site.peer("naive", title, [*_UVICORN, "bench.peers.naive:app"])


def start_kserve(site: Site, python: Path) -> Server:
    """KServe's transformer: V1 in, V2 over gRPC out. Raises BenchError when it has no environment."""
    command = [_existing(python), str(PEERS / "kserve_transformer.py"), "--http_port", "{port}"]
    command += ["--predictor_host", "{grpc}", "--predictor_protocol", "grpc-v2"]
    command += ["--enable_grpc", "false", "--enable_latency_logging", "false"]
    return site.peer("kserve", "KServe 0.21 transformer, V1 to gRPC V2", command)


def start_mlserver(site: Site, python: Path) -> Server:
    """MLServer with a runtime that hands on to Triton. Raises BenchError when it has no environment."""
    command = [_existing(python), str(PEERS / "mlserver_runtime.py"), "{port}"]
    return site.peer("mlserver", "MLServer, a runtime that calls Triton by gRPC", command, v2=True)


def _existing(python: Path) -> str:
    if not python.exists():
        raise BenchError(f"there is no {python}")
    return str(python)


def _clean_environment() -> dict[str, str]:
    """This one without settings of the adapter's; its rate limit counts on, and is never reached.

    Nobody here writes a line for each request.
    """
    kept = {name: value for name, value in os.environ.items() if not name.startswith("ADAPTER_")}
    return {**kept, "ADAPTER_RATE_LIMIT_PER_MINUTE": str(10**9), "ADAPTER_ACCESS_LOG_SAMPLE": "0"}


def _free_url() -> tuple[str, int]:
    with socket.create_server((_HOST, 0)) as taken:
        port = taken.getsockname()[1]
    return f"http://{_HOST}:{port}", port


def _epoll_threads(pid: int) -> tuple[int, ...]:
    """The threads that wait for sockets: those of the HTTP and the gRPC front end."""
    tasks = Path(f"/proc/{pid}/task").iterdir()
    try:
        # By the kernel's name for where they sleep: ep_poll or do_epoll_wait.
        return tuple(
            int(task.name) for task in tasks if re.search("ep_poll|epoll", (task / "wchan").read_text())
        )
    except OSError:  # not everywhere may a user look
        return ()
