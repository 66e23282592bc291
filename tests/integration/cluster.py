"""A whole cluster as plain processes: two of each, three that replicate, and haproxy with TLS in front."""

import os
import re
import shutil
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
import trustme

from adapter.standalone.network import LOOPBACK, is_open
from tests.integration.services import Service
from tests.integration.site import Site, open_site

DOCUMENT = Path(__file__).parents[2] / "docs" / "cluster.md"
_PATH = f"{os.environ['PATH']}{os.pathsep}/usr/sbin"


@dataclass
class Cluster:
    """The processes, and how clients reach them."""

    site: Site
    url: str
    trust: ssl.SSLContext

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


def haproxy() -> str:
    """Where haproxy is; skips where it is not."""
    found = shutil.which("haproxy", path=_PATH)
    if found is None:
        assert "CI" not in os.environ, "continuous integration installs haproxy"
        pytest.skip("haproxy is not installed (apt-get install haproxy)")
    return found


@contextmanager
def open_cluster(folder: Path) -> Iterator[Cluster]:
    """A cluster in `folder`, everything up."""
    program = haproxy()
    with open_site(
        folder, apis=2, workers=2, tritons=2, nats_servers=3, trusted_proxies=LOOPBACK, ack_wait_s=5
    ) as site:
        port = site.stage.port()
        ca = trustme.CA()
        bundle = folder / "proxy.pem"
        ca.issue_cert(LOOPBACK).private_key_and_cert_chain_pem.write_to_path(str(bundle))
        configuration = folder / "haproxy.cfg"
        configuration.write_text(documented_configuration(f"{LOOPBACK}:{port}", bundle, site.apis))
        trust = ssl.create_default_context(cadata=ca.cert_pem.bytes().decode())
        url = f"https://{LOOPBACK}:{port}"
        command = [program, "-db", "-f", str(configuration)]
        proxy = site.stage.add("haproxy", url, command, lambda: is_open(port), site.stage.env)
        site.stage.stack.callback(proxy.kill)
        proxy.start().wait_up()
        yield Cluster(site, url, trust)


def documented_configuration(listen: str, certificate: Path, apis: list[Service]) -> str:
    """The configuration that docs/cluster.md shows, with this cluster's addresses and files."""
    shown = re.search(r"```haproxy\n(.*?)```", DOCUMENT.read_text(), flags=re.DOTALL)
    assert shown
    text = shown[1].replace("bind :443", f"bind {listen}").replace("/etc/haproxy/miaas.pem", str(certificate))
    for n, api in enumerate(apis, 1):
        address = api.address.removeprefix("http://")
        text = text.replace(f"10.0.0.{n}:8080 port 8081", f"{address} port {api.ops_port}")
        text = text.replace(f"10.0.0.{n}:8080", address)
    assert "10.0.0." not in text
    return text
