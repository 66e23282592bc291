"""The proxy's configuration in docker/, in front of one `serve` that is ready and one that has no NATS."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest

from adapter.standalone.network import LOOPBACK
from tests.integration.conftest import eventually
from tests.integration.haproxy import Proxy, start_proxy
from tests.integration.site import Site, open_site

READY, ALIVE = "api-0", "api-without-nats"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with open_site(tmp_path_factory.mktemp("haproxy"), workers=0, trusted_proxies=LOOPBACK) as site:
        nobody = f"nats://{LOOPBACK}:{site.stage.port()}"
        alive = site.stage.api(ALIVE, {**site.env, "ADAPTER_NATS_URL": nobody})
        site.stage.stack.callback(alive.kill)
        site.apis.append(alive.start())
        yield site


@pytest.fixture(scope="module")
def proxy(site: Site) -> Proxy:
    return start_proxy(site.stage, site.apis)


@pytest.fixture(autouse=True)
def one_is_ready(site: Site, proxy: Proxy) -> None:
    """As haproxy sees it."""
    ready = site.apis[0]
    assert ready.process is not None
    if ready.process.poll() is not None:
        ready.start()
    seen = {("ready", READY): "UP", ("ready", ALIVE): "DOWN", ("alive", READY): "UP", ("alive", ALIVE): "UP"}
    eventually(lambda: {name: line["status"] for name, line in proxy.servers().items()} == seen)


def predict(site: Site, proxy: Proxy, value: int) -> httpx.Response:
    """By a client that comes for the first time."""
    url = f"{proxy.service.address}/v1/models/count:predict"
    headers = {"X-API-Key": site.api_key}
    return httpx.post(url, json={"instances": [[value]]}, headers=headers, verify=proxy.trust, timeout=20)


def answered_by(proxy: Proxy) -> dict[str, int]:
    """How many requests each `serve` has had."""
    counts = dict.fromkeys((READY, ALIVE), 0)
    for (_, name), line in proxy.servers().items():
        counts[name] += int(line["hrsp_2xx"])
    return counts


def test_who_is_ready_is_asked(site: Site, proxy: Proxy) -> None:
    before = answered_by(proxy)
    for value in range(1, 6):
        assert predict(site, proxy, value).json() == {"predictions": [[value]]}
    after = answered_by(proxy)
    assert (after[READY] - before[READY], after[ALIVE] - before[ALIVE]) == (5, 0)


def test_a_request_that_the_last_who_was_ready_refuses_is_answered_by_who_is_alive(
    site: Site, proxy: Proxy
) -> None:
    before = answered_by(proxy)
    site.apis[0].kill()
    # The checks have not found out yet: this request does.
    for value in (11, 12):
        assert predict(site, proxy, value).json() == {"predictions": [[value]]}
    after = answered_by(proxy)
    assert (after[READY] - before[READY], after[ALIVE] - before[ALIVE]) == (0, 2)


def test_a_request_that_was_sent_is_not_sent_to_another(site: Site, proxy: Proxy) -> None:
    slow = 1_000_000_001
    with ThreadPoolExecutor(1) as pool:
        answer = pool.submit(predict, site, proxy, slow)
        eventually(lambda: slow in site.executed())
        site.apis[0].kill()
        assert answer.result().status_code == 502
    # The next one waits behind whatever came before it.
    assert predict(site, proxy, 21).status_code == 200
    assert site.executed().count(slow) == 1
