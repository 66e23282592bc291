"""haproxy in front of several `serve`, with the configuration in docker/ and TLS."""

import csv
import re
import socket
import ssl
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import trustme

from adapter.standalone.network import LOOPBACK, is_open
from tests.integration.services import Service, Stage
from tests.shipping.files import DOCKER, tool


@dataclass
class Proxy:
    """The process, and how clients reach it."""

    service: Service
    trust: ssl.SSLContext
    _socket: Path

    def servers(self) -> dict[tuple[str, str], dict[str, str]]:
        """Backend and name of each `serve` → its line of haproxy's statistics."""
        with socket.socket(socket.AF_UNIX) as asking:
            asking.connect(str(self._socket))
            asking.sendall(b"show stat\n")
            lines = list(csv.DictReader(asking.makefile()))
        return {(line["# pxname"], line["svname"]): line for line in lines if line["check_status"]}


def start_proxy(stage: Stage, apis: Sequence[Service]) -> Proxy:
    """Start haproxy in front of these on a stage; it ends with the stage."""
    folder, port = stage.folder, stage.port()
    ca = trustme.CA()
    certificate, talk = folder / "proxy.pem", folder / "haproxy.sock"
    ca.issue_cert(LOOPBACK).private_key_and_cert_chain_pem.write_to_path(str(certificate))
    configuration = folder / "haproxy.cfg"
    shipped = _shipped_configuration(f"{LOOPBACK}:{port} ssl crt {certificate}", f"{stage.run}alive", apis)
    configuration.write_text(f"{shipped}\nglobal\n  stats socket {talk}\n")
    command = [tool("haproxy", "haproxy"), "-db", "-f", str(configuration)]
    service = stage.add("haproxy", f"https://{LOOPBACK}:{port}", command, lambda: is_open(port), stage.env)
    stage.stack.callback(service.kill)
    service.start().wait_up()
    return Proxy(service, ssl.create_default_context(cadata=ca.cert_pem.bytes().decode()), talk)


def _shipped_configuration(listen: str, alive: str, apis: Sequence[Service]) -> str:
    """The configuration in docker/ with a test's own addresses, each `serve`'s in place of Docker's name."""
    text = (DOCKER / "haproxy" / "haproxy.cfg").read_text()
    text, listening = re.subn(r"  bind :8080\n  # bind :8443 .*", f"  bind {listen}", text)
    text, inside = re.subn("abns@alive", f"abns@{alive}", text)

    def servers(found: re.Match[str]) -> str:
        return "\n".join(
            f"  server {api.name} {api.address.removeprefix('http://')} check port {api.ops_port} {found[1]}"
            for api in apis
        )

    template = r"  server-template serve 8 serve:8080 check port 8081 (.*) resolvers docker init-addr none"
    text, backends = re.subn(template, servers, text)
    assert (listening, inside, backends) == (1, 2, 2)
    return text
