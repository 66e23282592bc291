"""How tritonserver is started, and how its log is read while it loads models."""

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from adapter.standalone.certificates import Certificates
from adapter.standalone.network import LOOPBACK
from adapter.standalone.wheels import Wheels


@dataclass(frozen=True)
class Ports:
    """The ports of one server, all on the loopback interface."""

    http: int
    grpc: int
    metrics: int


def command(
    wheels: Wheels,
    repository: Path,
    backends: Path,
    ports: Ports,
    run: str,
    tls: Certificates | None = None,
    models: Sequence[str] = ("*",),
) -> list[str]:
    """The command line: `models` of `repository`, backends of `backends`, shared memory named after `run`.

    With `tls` gRPC speaks TLS, to clients with a certificate of the same CA alone, and there is no HTTP: it
    would serve anybody on this machine.
    """
    secured = (
        [
            "--grpc-use-ssl-mutual=1",
            f"--grpc-server-cert={tls.server}",
            f"--grpc-server-key={tls.server_key}",
            f"--grpc-root-cert={tls.ca}",
            "--allow-http=false",
        ]
        if tls
        else []
    )
    return [
        str(wheels.tritonserver),
        f"--model-repository={repository}",
        # RepositoryWatcher follows what changes after the start.
        "--model-control-mode=explicit",
        *(f"--load-model={model}" for model in models),
        f"--backend-directory={backends}",
        f"--backend-config=python,shm-region-prefix-name={run}",
        f"--http-address={LOOPBACK}",
        f"--http-port={ports.http}",
        f"--grpc-address={LOOPBACK}",
        f"--grpc-port={ports.grpc}",
        f"--metrics-address={LOOPBACK}",
        f"--metrics-port={ports.metrics}",
        # A model that does not load is reported, and the others are served.
        "--exit-on-error=false",
        "--strict-readiness=false",
        "--exit-timeout-secs=3",
        *secured,
    ]


def trace_options(url: str) -> list[str]:
    """Have Triton send to `url` the spans of requests that come with a `traceparent`, and of no others."""
    options = ("mode=opentelemetry", f"opentelemetry,url={url}", "level=TIMESTAMPS", "rate=0", "count=-1")
    return [f"--trace-config={option}" for option in options]


NO_TELEMETRY = {"ORT_DISABLE_TELEMETRY": "1"}
"""Since 1.29 ONNX Runtime's wheels tell Microsoft which models they run, unless this is set."""


def environment(wheels: Wheels, python_bin: Path, inherited: Mapping[str, str]) -> dict[str, str]:
    """`inherited` with the paths on which the server's libraries and its stubs' packages are found."""
    libraries = [*map(str, wheels.libraries), *filter(None, [inherited.get("LD_LIBRARY_PATH")])]
    path = [str(python_bin), inherited.get("PATH", os.defpath)]
    paths = {"LD_LIBRARY_PATH": os.pathsep.join(libraries), "PATH": os.pathsep.join(path)}
    return {**NO_TELEMETRY, **inherited, **paths}


class LoadLog:
    """What Triton's log, as far as it was read, says about loading.

    Its endpoints, which could be asked, open after the last model alone.
    """

    _LOADED = re.compile(r"successfully loaded '([^'.][^']*)'")
    _FAILED = re.compile(
        r"(?:Poll failed for model directory|failed to load(?: model)?) '([^'.][^']*)'(?: version \d+)?: (.*)"
        r"|ensemble '([^']+)' (depends on .*)"
    )

    def __init__(self) -> None:
        self.loaded: set[str] = set()
        self.failed: dict[str, str] = {}
        """Model → reason, one line."""
        self._unfinished = ""

    @property
    def settled(self) -> int:
        """How many models were loaded or given up."""
        return len(self.loaded) + len(self.failed)

    def read(self, text: str) -> None:
        """Take in what was added to the log, which may end within a line."""
        *lines, self._unfinished = (self._unfinished + text).split("\n")
        for line in lines:
            self._read_line(line)

    def _read_line(self, line: str) -> None:
        if match := self._LOADED.search(line):
            self.loaded.add(match[1])
            self.failed.pop(match[1], None)
        elif match := self._FAILED.search(line):
            name, reason = match[1] or match[3], match[2] or match[4]
            self.loaded.discard(name)
            # The reason is quoted, its line breaks written \n; what follows the first is a traceback.
            first_line = reason.strip().strip('"').split(r"\n")[0]
            self.failed.setdefault(name, first_line.removeprefix("Internal: "))
