"""How nats-server is started: its configuration file and command line."""

import json
from pathlib import Path

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


def write_configuration(path: Path, port: int, store: Path) -> None:
    """Write to `path` the configuration of a server on `port` of the loopback interface, files in `store`."""
    path.write_text(CONFIGURATION.format(host=LOOPBACK, port=port, store=json.dumps(str(store))))


def command(nats_server: Path, configuration: Path) -> list[str]:
    """The command line."""
    return [str(nats_server), "--config", str(configuration)]


def url(port: int) -> str:
    """What a client is told to connect to."""
    return f"nats://{LOOPBACK}:{port}"
