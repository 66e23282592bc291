"""Submits jobs for a long time while every process is killed in turn, and counts what became of them.

`make soak` runs it for half an hour; `make soak ARGS='--minutes 10 --jobs 40000'` for less. A run of 20
minutes or more is without NATS for five of them at a stretch. It ends with code 1 if a job was lost, a result
changed, or one ran twice although nothing had happened.
"""

import argparse
import asyncio
import itertools
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import psutil

from tests.integration.services import Service
from tests.integration.site import Site, job, open_site

_BATCH = 25
_POLLERS = 8
_QUIET_FROM = 1_000_000
"""Values from here on are submitted while nothing is killed."""
_LONG_RUN_S = 1200.0
_LONG_AWAY_S = 300
"""How long nats-server is away once in a long run."""


@dataclass
class Counts:
    """What was seen so far."""

    accepted: dict[str, int] = field(default_factory=dict)
    refused: Counter[str] = field(default_factory=Counter)
    results: dict[str, Any] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)
    wrong: int = 0
    changed: int = 0
    vanished: int = 0
    faults: Counter[str] = field(default_factory=Counter)


class Soak:
    """One run."""

    def __init__(self, site: Site, jobs: int, kills: int, seconds: float) -> None:
        self.site = site
        self.counts = Counts()
        self.jobs = jobs
        self.kills = kills
        self.seconds = seconds
        self.values = itertools.count(1)
        self.waiting: asyncio.Queue[str] = asyncio.Queue()
        self.submitting = True
        headers = {"X-API-Key": site.api_key}
        self.clients = [httpx.AsyncClient(base_url=url, headers=headers, timeout=15) for url in site.urls]

    async def run(self) -> None:
        """Load and faults side by side, then a time without faults, then everything is read again."""
        pollers = [asyncio.create_task(self.poll()) for _ in range(_POLLERS)]
        await asyncio.gather(self.submit(self.jobs, self.seconds), self.harm())
        for service in self.site.services:
            await asyncio.to_thread(service.wait_up)
        await self.all_ended()
        self.values = itertools.count(_QUIET_FROM)
        await self.submit(2000, 10)
        self.submitting = False
        await asyncio.gather(*pollers)
        await self.read_again()
        for client in self.clients:
            await client.aclose()

    async def submit(self, jobs: int, seconds: float) -> None:
        """Submit at an even pace, half of it one by one with a key that is sent until it is answered."""
        began, done = time.monotonic(), 0
        while done < jobs:
            behind = began + done * seconds / jobs - time.monotonic()
            await asyncio.sleep(max(0, behind))
            values = [next(self.values) for _ in range(_BATCH)]
            done += _BATCH
            if done // _BATCH % 2:
                await self.submit_batch(values)
            else:
                await asyncio.gather(*(self.submit_keyed(value) for value in values))

    async def submit_batch(self, values: list[int]) -> None:
        try:
            client = random.choice(self.clients)
            answer = await client.post("/inference/batch", json=[job(value) for value in values])
        except httpx.HTTPError as error:
            self.counts.refused[type(error).__name__] += len(values)
            return
        if answer.status_code != 202:
            self.counts.refused[str(answer.status_code)] += len(values)
            return
        for line, value in zip(answer.json(), values, strict=True):
            if "error" in line:
                self.counts.refused[line["error"]["code"]] += 1
            else:
                self.accept(line["request_id"], value)

    async def submit_keyed(self, value: int) -> None:
        headers = {"Idempotency-Key": f"value-{value}"}
        while True:
            try:
                client = random.choice(self.clients)
                answer = await client.post("/inference", json=job(value), headers=headers)
            except httpx.HTTPError:
                await asyncio.sleep(0.2)
                continue
            if answer.status_code == 202:
                self.accept(answer.json()["request_id"], value)
                return
            assert answer.status_code in (503, 504), answer.text
            await asyncio.sleep(0.2)

    def accept(self, job_id: str, value: int) -> None:
        assert self.counts.accepted.setdefault(job_id, value) == value
        self.waiting.put_nowait(job_id)

    async def poll(self) -> None:
        """Poll one job after the other until it has ended."""
        while self.submitting or not self.waiting.empty():
            try:
                job_id = await asyncio.wait_for(self.waiting.get(), 1)
            except TimeoutError:
                continue
            body = await self.read(job_id, {"Prefer": "wait=2"})
            if body is None or body["status"] == "processing":
                self.waiting.put_nowait(job_id)
            elif body["status"] == "failed":
                self.counts.failed[job_id] = body["error"]["code"]
                self.counts.results[job_id] = body
            else:
                self.counts.results[job_id] = body
                self.counts.wrong += body["result"]["echo"][0][0] != self.counts.accepted[job_id]

    async def read(self, job_id: str, headers: dict[str, str]) -> dict[str, Any] | None:
        try:
            answer = await random.choice(self.clients).get(f"/inference/{job_id}", headers=headers)
        except httpx.HTTPError:
            await asyncio.sleep(0.1)
            return None
        if answer.status_code == 404:
            self.counts.vanished += 1
        if answer.status_code != 200:
            await asyncio.sleep(0.1)
            return None
        body: dict[str, Any] = answer.json()
        return body

    async def all_ended(self) -> None:
        """Wait for the results of all that was accepted."""
        until = time.monotonic() + 300
        while len(self.counts.results) < len(self.counts.accepted) and time.monotonic() < until:  # noqa: ASYNC110
            await asyncio.sleep(0.5)

    async def read_again(self) -> None:
        """Every result once more: it must be the one that was read first."""
        left = list(self.counts.results)

        async def work() -> None:
            while left:
                job_id = left.pop()
                while (body := await self.read(job_id, {})) is None:
                    pass
                self.counts.changed += body != self.counts.results[job_id]

        await asyncio.gather(*(work() for _ in range(_POLLERS)))

    async def harm(self) -> None:
        """Kills and stops, one after the other, evenly over the time; NATS's long absence in the middle."""
        site = self.site
        faults: list[tuple[str, Callable[[], None]]] = [
            ("kill -9 of a worker", lambda: restart(site.workers[0])),
            ("kill -9 of nats-server", lambda: restart(site.nats)),
            ("kill -9 of an API", lambda: restart(site.apis[0])),
            ("kill -9 of nats-server", lambda: restart(site.nats)),
            ("SIGTERM of a worker", lambda: roll(site.workers[0])),
            ("kill -9 of a worker", lambda: restart(site.workers[0])),
            ("kill -9 of nats-server", lambda: restart(site.nats)),
            ("SIGSTOP of a worker for 3 s", lambda: hold(site.workers[0], 3)),
            ("kill -9 of an API", lambda: restart(site.apis[0])),
            ("kill -9 of tritonserver", lambda: restart(site.triton)),
            ("SIGTERM of an API", lambda: roll(site.apis[0])),
            ("kill -9 of nats-server", lambda: restart(site.nats)),
            ("SIGSTOP of tritonserver for 2 s", lambda: hold(site.triton, 2)),
            ("nats-server away for 5 s", lambda: away(site.nats, 5)),
        ]
        long_away_s = _LONG_AWAY_S if self.seconds >= _LONG_RUN_S else 0
        pause_s = (self.seconds - long_away_s) / self.kills
        began = time.monotonic()
        for number in range(self.kills):
            await asyncio.sleep(max(0, began + number * pause_s - time.monotonic()))
            name, fault = faults[number % len(faults)]
            await asyncio.to_thread(fault)
            self.counts.faults[name] += 1
            if long_away_s and number == self.kills // 2:
                await asyncio.to_thread(away, site.nats, long_away_s)
                self.counts.faults[f"nats-server away for {long_away_s} s"] += 1
                began += long_away_s


def restart(service: Service) -> None:
    service.kill()
    service.start()


def roll(service: Service) -> None:
    service.wait_up()
    service.stop()
    service.start()


def hold(service: Service, seconds: float) -> None:
    service.wait_up()
    service.signal(signal.SIGSTOP)
    time.sleep(seconds)
    service.signal(signal.SIGCONT)


def away(service: Service, seconds: float) -> None:
    service.kill()
    time.sleep(seconds)
    service.start()


def resources(service: Service) -> tuple[float, int]:
    """Resident MiB and open file descriptors."""
    process = psutil.Process(service.pid)
    return process.memory_info().rss / 2**20, process.num_fds()


def consumers(site: Site) -> int:
    return len(site.cli("queue", "status")["lanes"])


def main() -> None:
    """Run, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--jobs", type=int, default=100_000)
    parser.add_argument("--kills", type=int, default=200)
    options = parser.parse_args()
    random.seed(4)
    with (
        tempfile.TemporaryDirectory() as folder,
        open_site(Path(folder), apis=2, workers=2, ack_wait_s=5) as site,
    ):
        spared = {"API": site.apis[1], "worker": site.workers[1]}
        soak = Soak(site, options.jobs, options.kills, options.minutes * 60)
        samples: list[dict[str, tuple[float, int]]] = []
        consumers_before = consumers(site)

        async def run() -> None:
            async def sample() -> None:
                while True:
                    samples.append({role: resources(service) for role, service in spared.items()})
                    await asyncio.sleep(max(1.0, options.minutes * 60 / 20))

            sampling = asyncio.create_task(sample())
            await soak.run()
            sampling.cancel()

        began = time.monotonic()
        asyncio.run(run())
        lines = report(soak, site, samples, consumers_before, time.monotonic() - began)
    print("\n".join(lines[0]))
    sys.exit(1 if lines[1] else 0)


def report(
    soak: Soak, site: Site, samples: list[dict[str, tuple[float, int]]], consumers_before: int, took_s: float
) -> tuple[list[str], bool]:
    """The table, and whether a promise was broken."""
    counts, executed = soak.counts, Counter(site.executed())
    known = set(counts.accepted.values())
    lost = len(counts.accepted) - len(counts.results)
    never = sum(
        1 for job_id, value in counts.accepted.items() if job_id not in counts.failed and not executed[value]
    )
    quiet = sum(executed[value] - 1 for value in known if value >= _QUIET_FROM and executed[value] > 1)
    again = sum(executed[value] - 1 for value in known if executed[value] > 1)
    early, late = samples[len(samples) // 4], samples[-1]
    rows: list[tuple[str, object]] = [
        ("minutes", round(took_s / 60, 1)),
        ("faults injected", sum(counts.faults.values())),
        *((f"· {name}", count) for name, count in sorted(counts.faults.items())),
        ("jobs accepted", len(counts.accepted)),
        ("completed", len(counts.results) - len(counts.failed)),
        ("failed", len(counts.failed)),
        *((f"· {code}", count) for code, count in sorted(Counter(counts.failed.values()).items())),
        ("**lost**", lost),
        ("accepted, completed, never executed", never),
        ("ids that were unknown when polled", counts.vanished),
        ("results that are another's", counts.wrong),
        ("**results changed after first read**", counts.changed),
        ("executions beyond one, under faults", again - quiet),
        ("**executions beyond one, without a fault**", quiet),
        ("submissions refused or unanswered, not accepted", sum(counts.refused.values())),
        ("· of these executed all the same", len([v for v in executed if v not in known])),
        ("consumers, before and after", f"{consumers_before}, {consumers(site)}"),
    ]
    for role in early:
        rows.append(
            (
                f"{role} never killed: MiB, at a quarter and at the end",
                f"{early[role][0]:.0f}, {late[role][0]:.0f}",
            )
        )
        rows.append((f"{role} never killed: file descriptors", f"{early[role][1]}, {late[role][1]}"))
    table = ["| | |", "| --- | ---: |", *(f"| {name} | {value} |" for name, value in rows)]
    return table, bool(lost or never or counts.changed or counts.wrong or quiet or counts.vanished)


if __name__ == "__main__":
    main()
