"""Load of all three contracts on a whole cluster while each process is killed, and half of each kind at once.

`make soak-cluster` does it again and again for half an hour, and writes what was seen into docs/cluster.md;
`make soak-cluster ARGS='--minutes 10'` for less. It ends with code 1 if an accepted job was lost or failed,
or a synchronous request failed that was not in flight on a `serve` that was killed.
"""

import argparse
import asyncio
import itertools
import math
import shutil
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import httpx

from tests.integration.cluster import Cluster, open_cluster
from tests.integration.services import Service
from tests.integration.site import job

_DOCUMENT = Path(__file__).parents[2] / "docs" / "cluster.md"
_PREDICTING, _PREDICT_PAUSE_S = 3, 0.03
"""Clients of each synchronous contract."""
_SUBMITTING, _SUBMIT_PAUSE_S = 3, 0.15
_POLLING, _POLL_PAUSE_S = 6, 0.05
_AWAY_S = 1.0
"""How long what was killed stays away."""
_ENOUGH = 10
"""After so many accepted jobs the cluster is itself again."""
_SETTLE_S = 1.0
_PATIENCE_S = 120.0
_BEGIN = "<!-- run: written by tests/soak/cluster.py -->"
_END = "<!-- /run -->"

Ask = Callable[[httpx.AsyncClient, int], Awaitable[str]]
"""A synchronous request with a value; what was wrong with the answer, "" when nothing."""


class Fault(NamedTuple):
    """What is killed at once."""

    name: str
    services: list[Service]


@dataclass
class Phase:
    """What was killed, and what came of the requests that began from then on."""

    name: str
    accepted: dict[str, int] = field(default_factory=dict)
    """Job → its value."""
    ended: set[str] = field(default_factory=set)
    failures: list[Any] = field(default_factory=list)
    answered: int = 0
    """Synchronous requests that were answered."""
    in_flight: int = 0
    """Those that failed in flight on a `serve` that was killed."""
    errors: list[str] = field(default_factory=list)
    """Those that failed otherwise."""

    def end(self, job_id: str, status: dict[str, Any]) -> None:
        """A job has ended."""
        self.ended.add(job_id)
        if status["status"] != "completed" or status["result"]["echo"] != [[self.accepted[job_id]]]:
            self.failures.append(status)

    @property
    def failed(self) -> int:
        """Jobs that ended with an error, or with another's result."""
        return len(self.failures)

    @property
    def completed(self) -> int:
        """Jobs that ended well."""
        return len(self.ended) - self.failed

    @property
    def lost(self) -> int:
        """Accepted jobs without an end."""
        return len(self.accepted) - len(self.ended)


class Run:
    """Load and faults on one cluster."""

    def __init__(self, cluster: Cluster) -> None:
        self.phases = [Phase("nothing")]
        self._cluster = cluster
        self._values = itertools.count(1)
        self._waiting: asyncio.Queue[tuple[str, Phase]] = asyncio.Queue()
        self._killing: list[tuple[float, float]] = []
        """From when to when a `serve` was being killed."""
        self._running = True
        self._client = httpx.AsyncClient(
            base_url=cluster.proxy.service.address,
            headers={"X-API-Key": cluster.site.api_key},
            verify=cluster.proxy.trust,
            timeout=60,
        )

    async def inflict(self, faults: Iterable[Fault]) -> None:
        """Inflict one fault after the other under load, then wait for the end of every job."""
        clients = [asyncio.create_task(self._predict(ask)) for ask in (_v1, _v2) for _ in range(_PREDICTING)]
        clients += [asyncio.create_task(self._submit()) for _ in range(_SUBMITTING)]
        pollers = [asyncio.create_task(self._poll()) for _ in range(_POLLING)]
        await asyncio.sleep(_SETTLE_S)
        for fault in faults:
            await self._inflict(fault)
            await asyncio.sleep(_SETTLE_S)
        self._running = False
        await asyncio.gather(*clients)
        with suppress(TimeoutError):
            await asyncio.wait_for(self._waiting.join(), _PATIENCE_S)
        for poller in pollers:
            poller.cancel()
        await asyncio.gather(*pollers, return_exceptions=True)
        await self._client.aclose()

    async def _inflict(self, fault: Fault) -> None:
        """Kill, and bring back."""
        self.phases.append(Phase(fault.name))
        if any(service in self._cluster.site.apis for service in fault.services):
            self._killing.append((time.monotonic(), math.inf))
        await asyncio.gather(*(asyncio.to_thread(service.kill) for service in fault.services))
        self._killing = [(began, min(ended, time.monotonic())) for began, ended in self._killing]
        await asyncio.sleep(_AWAY_S)
        for service in fault.services:
            service.start()
        await asyncio.gather(*(asyncio.to_thread(service.wait_up) for service in fault.services))
        async with asyncio.timeout(_PATIENCE_S):
            while not (len(self.phases[-1].accepted) >= _ENOUGH and await self._settled()):  # noqa: ASYNC110
                await asyncio.sleep(_SETTLE_S)

    async def _settled(self) -> bool:
        return await asyncio.to_thread(self._cluster.settled)

    async def _predict(self, ask: Ask) -> None:
        while self._running:
            phase, value, began = self.phases[-1], next(self._values), time.monotonic()
            try:
                problem = await ask(self._client, value)
            except httpx.HTTPError as error:
                problem = repr(error)
            ended = time.monotonic()
            if not problem:
                phase.answered += 1
            elif any(began <= killed and killing <= ended for killing, killed in self._killing):
                self.phases[-1].in_flight += 1
            else:
                phase.errors.append(f"{time.strftime('%H:%M:%S')} {problem}")
            await asyncio.sleep(_PREDICT_PAUSE_S)

    async def _submit(self) -> None:
        while self._running:
            value = next(self._values)
            headers = {"Idempotency-Key": f"value-{value}"}
            while True:
                phase = self.phases[-1]
                with suppress(httpx.HTTPError):
                    answer = await self._client.post("/inference", json=job(value), headers=headers)
                    if answer.status_code == 202:
                        break
                    assert answer.status_code in (502, 503, 504), answer.text
                await asyncio.sleep(_SUBMIT_PAUSE_S)
            job_id = answer.json()["request_id"]
            phase.accepted[job_id] = value
            self._waiting.put_nowait((job_id, phase))
            await asyncio.sleep(_SUBMIT_PAUSE_S)

    async def _poll(self) -> None:
        while True:
            job_id, phase = await self._waiting.get()
            with suppress(httpx.HTTPError):
                answer = await self._client.get(f"/inference/{job_id}", headers={"Prefer": "wait=2"})
                if answer.status_code == 200 and answer.json()["status"] != "processing":
                    phase.end(job_id, answer.json())
            if job_id not in phase.ended:
                await asyncio.sleep(_POLL_PAUSE_S)
                self._waiting.put_nowait((job_id, phase))
            self._waiting.task_done()


async def _v1(client: httpx.AsyncClient, value: int) -> str:
    answer = await client.post("/v1/models/count:predict", json={"instances": [[value]]})
    return "" if answer.text == f'{{"predictions":[[{value}]]}}' else f"{answer.status_code} {answer.text}"


async def _v2(client: httpx.AsyncClient, value: int) -> str:
    tensor = {"name": "value", "shape": [1, 1], "datatype": "INT64", "data": [value]}
    answer = await client.post("/v2/models/count/infer", json={"inputs": [tensor]})
    right = answer.status_code == 200 and answer.json()["outputs"][0]["data"] == [value]
    return "" if right else f"{answer.status_code} {answer.text}"


def one_round(cluster: Cluster, number: int) -> list[Fault]:
    """Each process once, then half of each kind at once; the other half in the next round."""
    kinds = cluster.kinds
    each = [Fault(kind, [service]) for kind, services in kinds.items() for service in services]
    halves = [services[number % len(services)] for services in kinds.values()]
    return [*each, Fault("half of each", halves)]


def table(phases: Iterable[Phase]) -> list[str]:
    """A row for each kind of fault, and one for all."""
    rows = [
        "| killed | times | accepted | completed | failed | **lost** | answered | in flight | **errors** |",
        "| --- |" + " ---: |" * 8,
    ]
    groups: dict[str, list[Phase]] = defaultdict(list)
    for phase in phases:
        groups[phase.name].append(phase)
    for name, group in [*groups.items(), ("all", list(phases))]:
        numbers = (
            len(group),
            sum(len(phase.accepted) for phase in group),
            sum(phase.completed for phase in group),
            sum(phase.failed for phase in group),
            sum(phase.lost for phase in group),
            sum(phase.answered for phase in group),
            sum(phase.in_flight for phase in group),
            sum(len(phase.errors) for phase in group),
        )
        rows.append(f"| {name} | {' | '.join(map(str, numbers))} |")
    return rows


def main() -> None:
    """Run, print the table, and write it into the document."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=30)
    options = parser.parse_args()
    if shutil.which("haproxy") is None:
        sys.exit("haproxy is not installed (Debian: apt-get install haproxy)")
    until = time.monotonic() + options.minutes * 60

    def faults(cluster: Cluster) -> Iterator[Fault]:
        for number in itertools.count():
            for fault in one_round(cluster, number):
                if time.monotonic() > until:
                    return
                yield fault

    with tempfile.TemporaryDirectory() as folder, open_cluster(Path(folder)) as cluster:
        run = Run(cluster)
        asyncio.run(run.inflict(faults(cluster)))
        rows = table(run.phases)
        print("\n".join(rows))
        for phase in run.phases:
            for problem in (*phase.errors, *phase.failures):
                print(f"{phase.name}: {problem}")
        if any(phase.errors for phase in run.phases):
            print(cluster.proxy.service.log.read_text())
    head, _, rest = _DOCUMENT.read_text().partition(_BEGIN)
    tail = rest.partition(_END)[2]
    _DOCUMENT.write_text("\n".join([head + _BEGIN, *rows, _END + tail]))
    sys.exit(any(phase.errors or phase.failed or phase.lost for phase in run.phases))


if __name__ == "__main__":
    main()
