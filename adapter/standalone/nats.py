"""How nats-server is started: its configuration file and command line."""

import json
from pathlib import Path

from adapter.standalone.certificates import Certificates
from adapter.standalone.network import LOOPBACK

# `sync_interval: always` stands on a line of its own, or it is not read: without it an acknowledged job
# reaches the disk up to two minutes later.
CONFIGURATION = """\
listen: "{host}:{port}"
max_payload: 8MB
jetstream {{
  store_dir: {store}
  sync_interval: always
}}
"""
MONITOR = """\
http: "{host}:{port}"
"""
TLS = """\
tls {{
  cert_file: {certificate}
  key_file: {key}
  ca_file: {ca}
  verify: true
}}
"""


def write_configuration(
    path: Path, port: int, store: Path, monitor_port: int | None = None, tls: Certificates | None = None
) -> None:
    """Write to `path` the configuration of a server on `port` of the loopback interface, files in `store`.

    On `monitor_port` it tells over HTTP how it is. With `tls` it speaks TLS on `port`, to clients with a
    certificate of the same CA alone.
    """
    text = CONFIGURATION.format(host=LOOPBACK, port=port, store=json.dumps(str(store)))
    if monitor_port:
        text += MONITOR.format(host=LOOPBACK, port=monitor_port)
    if tls:
        files = {"certificate": tls.server, "key": tls.server_key, "ca": tls.ca}
        text += TLS.format(**{name: json.dumps(str(file)) for name, file in files.items()})
    path.write_text(text)


def command(nats_server: Path, configuration: Path) -> list[str]:
    """The command line."""
    return [str(nats_server), "--config", str(configuration)]


def url(port: int, tls: bool = False) -> str:
    """What a client is told to connect to."""
    return f"{'tls' if tls else 'nats'}://{LOOPBACK}:{port}"
