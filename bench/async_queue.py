"""Asynchronous jobs per second, beside what JetStream alone can do in the same run: `make bench-async`.

The floor is one process that publishes, fetches, puts into a key-value bucket and acknowledges, with the same
sync setting. Rounds of floor and service alternate, because machines drift.
"""

import argparse
import asyncio
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

import nats
from nats.aio.msg import Msg

from tests.integration.nats import server
from tests.integration.site import Site, job, open_site

IN_FLIGHT = 64
_PAYLOAD = bytes(150)


async def floor(url: str, seconds: float) -> float:
    """Jobs per second: publish → fetch → put → ack, 64 at a time."""
    client = await nats.connect(url)
    stream = client.jetstream()
    await stream.add_stream(name="FLOOR", subjects=["floor.*"], retention="workqueue")
    bucket = await stream.create_key_value(bucket="floor")
    pull = await stream.pull_subscribe("floor.*", "floor")
    until = time.monotonic() + seconds
    done = 0

    async def publish(number: int) -> None:
        while time.monotonic() < until:
            await stream.publish(f"floor.{number}", _PAYLOAD)
            # As many wait as are worked on.
            await asyncio.sleep(0)

    async def work() -> None:
        nonlocal done
        while time.monotonic() < until:
            messages = await pull.fetch(IN_FLIGHT, 1)

            async def one(message: Msg) -> None:
                await bucket.put(str(message.metadata.sequence.stream), _PAYLOAD)
                await message.ack()

            await asyncio.gather(*map(one, messages))
            done += len(messages)

    began = time.monotonic()
    publishing = [asyncio.create_task(publish(number)) for number in range(IN_FLIGHT)]
    await work()
    took = time.monotonic() - began
    await asyncio.gather(*publishing)
    await client.close()
    return done / took


@dataclass
class Load:
    """A lean HTTP/1.1 client, so that the generator takes little of the machine."""

    url: str
    key: str
    latencies: list[float] = field(default_factory=list)
    accepted: int = 0

    def request(self, body: object, path: str = "/inference", wait: bool = False) -> bytes:
        content = json.dumps(body).encode()
        prefer = "Prefer: wait=30\r\n" if wait else ""
        head = (
            f"POST {path} HTTP/1.1\r\nHost: bench\r\nX-API-Key: {self.key}\r\n{prefer}"
            f"Content-Type: application/json\r\nContent-Length: {len(content)}\r\n\r\n"
        )
        return head.encode() + content

    async def run(
        self, connections: int, seconds: float, request: bytes, jobs: int = 1, rate: float = 0
    ) -> None:
        """Send it again and again, as fast as it is answered, or at `rate` requests a second."""
        parts = urlsplit(self.url)
        began = time.monotonic()
        numbers = iter(range(10**9))

        async def work() -> None:
            reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
            while True:
                due = began + next(numbers) / rate if rate else time.monotonic()
                if due > began + seconds or time.monotonic() > began + seconds:
                    break
                if rate:
                    await asyncio.sleep(max(0, due - time.monotonic()))
                sent = time.monotonic()
                writer.write(request)
                head = await reader.readuntil(b"\r\n\r\n")
                lower = head.lower()
                size = int(lower.partition(b"content-length: ")[2].split(b"\r\n")[0])
                await reader.readexactly(size)
                if not head.startswith(b"HTTP/1.1 20"):
                    raise RuntimeError(head.decode())
                # From when it was due: a generator that is held up hides nothing.
                self.latencies.append(time.monotonic() - (due if rate else sent))
                self.accepted += jobs
            writer.close()

        await asyncio.gather(*(work() for _ in range(connections)))

    def percentile(self, share: float) -> float:
        """In milliseconds."""
        return sorted(self.latencies)[int(share * (len(self.latencies) - 1))] * 1000


async def ended(site: Site) -> int:
    """How many results there are."""
    client = await nats.connect(site.nats.address)
    info = await client.jetstream().stream_info("MIAAS_RESULTS")
    await client.close()
    return int(info.state.messages)


async def through(
    site: Site, seconds: float, connections: int, request: Callable[[Load], bytes], jobs: int
) -> float:
    """Jobs per second from the first submission to the last result."""
    load = Load(site.urls[0], site.api_key)
    before, began = await ended(site), time.monotonic()
    await load.run(connections, seconds, request(load), jobs)
    while await ended(site) < before + load.accepted:  # noqa: ASYNC110
        await asyncio.sleep(0.02)
    return load.accepted / (time.monotonic() - began)


async def main() -> None:
    """Run, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=5)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    floors, singles, batches = [], [], []
    many = [job(n) for n in range(100)]
    with tempfile.TemporaryDirectory() as folder, open_site(Path(folder) / "site") as site:
        await through(site, 1, IN_FLIGHT, lambda load: load.request(job(1)), 1)
        for number in range(options.rounds):
            with server(Path(folder) / f"floor-{number}") as alone:
                floors.append(await floor(alone.url, options.seconds))
            singles.append(
                await through(site, options.seconds, IN_FLIGHT, lambda load: load.request(job(1)), 1)
            )
            batches.append(
                await through(
                    site, options.seconds, 4, lambda load: load.request(many, "/inference/batch"), 100
                )
            )
        rate = statistics.median(singles) / 2
        half = Load(site.urls[0], site.api_key)
        await half.run(IN_FLIGHT, options.seconds, half.request(job(1)), rate=rate)
        waited = Load(site.urls[0], site.api_key)
        await waited.run(IN_FLIGHT, options.seconds, waited.request(job(1), wait=True), rate=rate)
    base = statistics.median(floors)

    def row(name: str, values: list[float]) -> str:
        middle = statistics.median(values)
        spread = f"{min(values):,.0f} to {max(values):,.0f}"
        return f"| {name} | {middle:,.0f} | {spread} | {middle / base:.0%} |"

    print("| one API process, one worker process | jobs/s, median | range | of the floor |")
    print("| --- | ---: | ---: | ---: |")
    print(row("JetStream alone: publish → fetch → put → ack, one process", floors))
    print(row("POST /inference, 64 at a time, to the last result", singles))
    print(row("POST /inference/batch, 100 each, 4 at a time, to the last result", batches))
    print()
    print(f"| at half of the maximum rate, {rate:,.0f}/s | 50th percentile | 99th percentile |")
    print("| --- | ---: | ---: |")
    for name, load in (("submit", half), ("submit to result (`Prefer: wait`)", waited)):
        print(f"| {name} | {load.percentile(0.5):.1f} ms | {load.percentile(0.99):.1f} ms |")


if __name__ == "__main__":
    asyncio.run(main())
