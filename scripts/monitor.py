"""`make monitor`: Prometheus with the rules of docker/prometheus beside a running `make up`."""

import json
import shutil
import signal
import subprocess
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import urlsplit

import typer
import yaml

from adapter.cli_common import fail, read_settings
from adapter.sockets import ListenError, listen

HOST = "127.0.0.1"
PORT = 9095
"""Not 9090: Debian's package starts a Prometheus of its own there."""
_LOOK_S = 1.0
_SHIPPED = Path(__file__).parents[1] / "docker" / "prometheus"


def main(
    state_dir: Annotated[Path | None, typer.Option(help="State directory of the `up` to watch.")] = None,
    port: Annotated[
        int, typer.Option(min=0, max=65535, help="Port of Prometheus; 0 takes a free one.")
    ] = PORT,
) -> None:
    """Watch a running `make up` with Prometheus and its alerts, until Ctrl-C.

    What Prometheus reads and stores lies in the state directory. When `up` is started anew it is found again;
    when it ends, it is seen to be down.
    """
    prometheus = shutil.which("prometheus")
    if prometheus is None:
        fail("Prometheus is not installed here; on Debian and Ubuntu: apt-get install prometheus", 1)
    state = read_settings(state_dir=state_dir).state_dir.absolute()
    up_json, folder = state / "up.json", state / "prometheus"
    if not up_json.exists():
        fail(f"no `up` runs on {state}: start one with `make up`, or name another with --state-dir", 1)
    try:
        with listen(HOST, port, "--port") as free:
            port = free.getsockname()[1]
    except ListenError as error:
        fail(str(error), 1)
    write_configuration(folder, json.loads(up_json.read_text()))
    log = folder / "prometheus.log"
    with log.open("a") as output:
        process = subprocess.Popen(command(prometheus, folder, port), stdout=output, stderr=output)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: process.terminate())
    typer.echo(f"Prometheus  http://{HOST}:{port}")
    typer.echo(f"Alerts      http://{HOST}:{port}/alerts; docs/operations.md has a section for each")
    typer.echo("Ctrl-C stops it.")
    if code := _follow(process, up_json, folder):
        fail(f"Prometheus ended with code {code}; {log} says why", 1)


def write_configuration(folder: Path, facts: dict[str, Any]) -> None:
    """Write what Prometheus reads: docker/prometheus's files, with the targets that `up.json` names."""
    shutil.copytree(_SHIPPED / "rules", folder / "rules", dirs_exist_ok=True)
    configuration = yaml.safe_load((_SHIPPED / "prometheus.yml").read_text())
    if "ca_file" in facts:
        configuration["scrape_configs"][0]["tls_config"] = {"ca_file": facts["ca_file"]}
    (folder / "prometheus.yml").write_text(yaml.safe_dump(configuration))
    write_targets(folder, facts)


def write_targets(folder: Path, facts: dict[str, Any]) -> None:
    """Write who is scraped, if that has changed."""
    targets = []
    for job, url in (("adapter", facts["ops_url"]), ("triton", facts["triton_metrics"])):
        parts = urlsplit(url)
        targets.append({"targets": [parts.netloc], "labels": {"job": job, "__scheme__": parts.scheme}})
    file, text = folder / "targets.yml", yaml.safe_dump(targets)
    if not file.exists() or file.read_text() != text:
        # Prometheus is to see it as a whole.
        whole = file.with_suffix(".new")
        whole.write_text(text)
        whole.replace(file)


def command(prometheus: str, folder: Path, port: int) -> list[str]:
    """The command line of Prometheus on the configuration in `folder`."""
    return [
        prometheus,
        f"--config.file={folder / 'prometheus.yml'}",
        f"--storage.tsdb.path={folder / 'data'}",
        f"--web.listen-address={HOST}:{port}",
        "--enable-feature=exemplar-storage",
    ]


def _follow(process: subprocess.Popen[bytes], up_json: Path, folder: Path) -> int:
    """Keep the targets up to date until Prometheus ends; returns its code."""
    while True:
        with suppress(subprocess.TimeoutExpired):
            return process.wait(_LOOK_S)
        with suppress(FileNotFoundError):
            write_targets(folder, json.loads(up_json.read_text()))


if __name__ == "__main__":
    typer.run(main)
