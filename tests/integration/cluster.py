"""A whole cluster as plain processes: two of each, three that replicate, and haproxy with TLS in front."""

import csv
import re
import socket
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import trustme

from adapter.standalone.network import LOOPBACK, is_open
from tests.integration.services import Service
from tests.integration.site import Site, open_site
from tests.shipping.files import DOCKER, tool


@dataclass
class Cluster:
    """The processes, and how clients reach them."""

    site: Site
    proxy: Service
    trust: ssl.SSLContext
    _socket: Path

    @property
    def kinds(self) -> dict[str, list[Service]]:
        """What may be killed; the proxy is the clients' one way in."""
        site = self.site
        return {
            "tritonserver": site.tritons,
            "nats-server": site.nats_servers,
            "serve": site.apis,
            "worker": site.workers,
        }

    def settled(self) -> bool:
        """Whether the proxy uses every `serve`, and every `serve` every Triton."""
        with socket.socket(socket.AF_UNIX) as asking:
            asking.connect(str(self._socket))
            asking.sendall(b"show stat\n")
            lines = csv.DictReader(asking.makefile())
            states = {line["status"] for line in lines if line["svname"] not in ("FRONTEND", "BACKEND")}
        if states != {"UP"}:
            return False
        urls = [f"http://{LOOPBACK}:{api.ops_port}/readyz" for api in self.site.apis]
        return all(set(httpx.get(url).json()["servers"].values()) == {"ok"} for url in urls)


@contextmanager
def open_cluster(folder: Path) -> Iterator[Cluster]:
    """A cluster in `folder`, everything up."""
    program = tool("haproxy", "haproxy")
    with open_site(
        folder, apis=2, workers=2, tritons=2, nats_servers=3, trusted_proxies=LOOPBACK, ack_wait_s=5
    ) as site:
        port = site.stage.port()
        ca = trustme.CA()
        certificate = folder / "proxy.pem"
        ca.issue_cert(LOOPBACK).private_key_and_cert_chain_pem.write_to_path(str(certificate))
        configuration = folder / "haproxy.cfg"
        talk = folder / "haproxy.sock"
        shipped = _shipped_configuration(f"{LOOPBACK}:{port}", certificate, site.apis)
        configuration.write_text(f"{shipped}\nglobal\n  stats socket {talk}\n")
        url, command = f"https://{LOOPBACK}:{port}", [program, "-db", "-f", str(configuration)]
        proxy = site.stage.add("haproxy", url, command, lambda: is_open(port), site.stage.env)
        site.stage.stack.callback(proxy.kill)
        proxy.start().wait_up()
        yield Cluster(site, proxy, ssl.create_default_context(cadata=ca.cert_pem.bytes().decode()), talk)


def _shipped_configuration(listen: str, certificate: Path, apis: list[Service]) -> str:
    """The configuration in docker/, over TLS, with each `serve` by its address in place of Docker's name."""
    text = (DOCKER / "haproxy" / "haproxy.cfg").read_text()
    text, bound = re.subn(
        r"  bind :8080\n  # bind :8443 ssl crt \S+", f"  bind {listen} ssl crt {certificate}", text
    )

    def servers(found: re.Match[str]) -> str:
        return "\n".join(
            f"  server {api.name} {api.address.removeprefix('http://')} check port {api.ops_port} {found[1]}"
            for api in apis
        )

    template = r"  server-template serve 8 serve:8080 check port 8081 (.*) resolvers docker init-addr none"
    text, backends = re.subn(template, servers, text)
    assert (bound, backends) == (1, 2)
    return text
