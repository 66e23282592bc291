"""Tritons behind a name whose addresses change, over TLS."""

import asyncio
import socket
import threading
from pathlib import Path
from typing import Any

import pytest
import trustme

from adapter.core.errors import EngineUnavailable
from adapter.security.tls import grpc_credentials
from adapter.standalone.certificates import Certificates
from adapter.triton import pool
from tests.integration.services import open_stage
from tests.integration.tritons import SLOW, Asker, Tritons, run

NAME = "tritons.test"
HOSTS = ("127.0.0.1", "127.0.0.2")


class Dns:
    """The system's resolver, which knows of NAME what a test says."""

    def __init__(self) -> None:
        self.hosts: tuple[str, ...] = ()
        self.answers = threading.Event()
        self.answers.set()
        self.asking = threading.Event()
        self._real = socket.getaddrinfo

    def getaddrinfo(self, host: Any, port: Any, *args: Any, **kwargs: Any) -> Any:
        if host != NAME:
            return self._real(host, port, *args, **kwargs)
        self.asking.set()
        self.answers.wait()
        if not self.hosts:
            raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (each, int(port))) for each in self.hosts]


@pytest.fixture
def dns(monkeypatch: pytest.MonkeyPatch) -> Dns:
    dns = Dns()
    monkeypatch.setattr(socket, "getaddrinfo", dns.getaddrinfo)
    monkeypatch.setattr(pool, "_LOOK_UP_EVERY_S", 0.1)
    return dns


def certificates(folder: Path) -> Certificates:
    """The servers' is for their name alone, not for their addresses."""
    names = ("ca", "server", "server-key", "client", "client-key")
    files = Certificates(*(folder / f"{name}.pem" for name in names))
    ca = trustme.CA()
    ca.cert_pem.write_to_path(str(files.ca))
    for host, certificate, key in (
        (NAME, files.server, files.server_key),
        ("adapter.test", files.client, files.client_key),
    ):
        issued = ca.issue_cert(host)
        issued.private_key_pem.write_to_path(str(key))
        issued.cert_chain_pems[0].write_to_path(str(certificate))
    return files


def test_the_addresses_of_a_name_are_followed(tmp_path: Path, dns: Dns) -> None:
    files = certificates(tmp_path)
    with open_stage(tmp_path) as stage:
        port = stage.port()
        tritons = Tritons(stage, HOSTS, port, files)
        stage.start()

        async def scenario(asker: Asker) -> None:
            with pytest.raises(EngineUnavailable, match=r"^Triton is away: no address is known$"):
                await asker.engine.models()
            dns.hosts = HOSTS[:1]
            await asker.until("ok")
            assert await tritons.shares(asker.ask_often(10)) == [10, 0]

            dns.hosts = HOSTS
            await asker.until("ok", "ok")
            assert min(await tritons.shares(asker.ask_often(40))) > 15

            # What is in flight on one that is let go of is answered.
            slow = [asyncio.create_task(asker.ask(SLOW + n)) for n in range(2)]
            while sum(value >= SLOW for values in tritons.executed() for value in values) < 2:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
            dns.hosts = HOSTS[1:]
            await asker.until("ok")
            assert list(asker.engine.servers()) == [tritons.addresses[1]]
            assert await asyncio.gather(*slow) == [SLOW, SLOW + 1]
            assert await tritons.shares(asker.ask_often(10)) == [0, 10]

            # A resolver that fails, or hangs, changes nothing.
            dns.hosts = ()
            for wait in (dns.answers.set, dns.answers.clear):
                wait()
                dns.asking.clear()
                await asyncio.to_thread(dns.asking.wait)
                assert await tritons.shares(asker.ask_often(10)) == [0, 10]
            dns.hosts = HOSTS
            dns.answers.set()
            await asker.until("ok", "ok")

        try:
            credentials = grpc_credentials(files.ca, files.client_key, files.client)
            run(tritons, scenario, f"dns:///{NAME}:{port}", credentials)
        finally:
            dns.answers.set()
