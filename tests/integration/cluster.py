"""A whole cluster as plain processes: two of each, three that replicate, and haproxy with TLS in front."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx

from adapter.standalone.network import LOOPBACK
from tests.integration.haproxy import Proxy, start_proxy
from tests.integration.services import Service
from tests.integration.site import Site, open_site


@dataclass
class Cluster:
    """The processes."""

    site: Site
    proxy: Proxy

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
        if {line["status"] for line in self.proxy.servers().values()} != {"UP"}:
            return False
        urls = [f"http://{LOOPBACK}:{api.ops_port}/readyz" for api in self.site.apis]
        return all(set(httpx.get(url).json()["servers"].values()) == {"ok"} for url in urls)


@contextmanager
def open_cluster(folder: Path) -> Iterator[Cluster]:
    """A cluster in `folder`, everything up."""
    with open_site(
        folder, apis=2, workers=2, tritons=2, nats_servers=3, trusted_proxies=LOOPBACK, ack_wait_s=5
    ) as site:
        yield Cluster(site, start_proxy(site.stage, site.apis))
