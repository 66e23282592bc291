"""Asynchronous jobs a second, beside what NATS alone would do: publish → fetch → KV put → ack."""

import asyncio
import time
from collections.abc import Callable, Coroutine
from typing import Any
from uuid import uuid4

import nats
import uvloop
from nats.aio.msg import Msg
from nats.errors import TimeoutError as NatsTimeout
from nats.js import JetStreamContext, api

from adapter.jobs.streams import JOBS
from bench.client import Connection, post
from bench.loads import IRIS
from bench.processes import BenchError
from bench.servers import Site

_PUBLISHERS = 64
_SLOTS = 32
"""Jobs that the consumer has at a time, as the adapter's worker by default."""
_PATIENCE_S = 120.0

Work = Callable[[Msg], Coroutine[Any, Any, None]]


def measure(site: Site, jobs: int) -> dict[str, float]:
    """Jobs a second of both, one after the other on the same NATS: `adapter` and `nats`."""
    return {"nats": uvloop.run(_nats_alone(site, jobs)), "adapter": uvloop.run(_adapter(site, jobs))}


async def _adapter(site: Site, jobs: int) -> float:
    """From the first submission until no job is left in the queue: each has its result by then."""
    body = b'{"model_id":"sklearn-iris","input_data":' + IRIS.body(IRIS.values(0), v2=False) + b"}"
    url = site.facts["url"] + "/inference"
    request = post(url, site.headers, body)
    left = iter(range(jobs))

    async def submit() -> None:
        connection = await Connection.open(url)
        for _ in left:
            answer = await connection.ask(request)
            if answer.status != 202:
                raise BenchError(f"a job was refused: {answer.status} {answer.body.decode()[:200]}")
        connection.abort()

    client = await nats.connect(site.facts["nats_url"])
    try:
        started = time.perf_counter()
        async with asyncio.timeout(_PATIENCE_S):
            await asyncio.gather(*(submit() for _ in range(_PUBLISHERS)))
            while (await client.jetstream().stream_info(JOBS)).state.messages:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        return jobs / (time.perf_counter() - started)
    finally:
        await client.close()


async def _nats_alone(site: Site, jobs: int) -> float:
    """The same steps on a stream and a bucket of their own, in one process, without HTTP or Triton."""
    client = await nats.connect(site.facts["nats_url"])
    name = f"bench{uuid4().hex[:8]}"
    stream = client.jetstream(timeout=10)
    payload = IRIS.body(IRIS.values(0), v2=False)
    try:
        await stream.add_stream(name=name, subjects=[f"{name}.>"], retention=api.RetentionPolicy.WORK_QUEUE)
        bucket = await stream.create_key_value(bucket=name)
        consumer = await stream.pull_subscribe(f"{name}.>", durable="bench", stream=name)
        left = iter(range(jobs))

        async def publish() -> None:
            for number in left:
                await stream.publish(f"{name}.{number}", payload)

        async def work(message: Msg) -> None:
            await bucket.put(message.subject, message.data)
            await message.ack_sync(timeout=10)

        started = time.perf_counter()
        async with asyncio.timeout(_PATIENCE_S), asyncio.TaskGroup() as tasks:
            for _ in range(_PUBLISHERS):
                tasks.create_task(publish())
            tasks.create_task(_consume(consumer, jobs, work))
        rate = jobs / (time.perf_counter() - started)
        await stream.delete_key_value(name)
        await stream.delete_stream(name)
        return rate
    finally:
        await client.close()


async def _consume(consumer: JetStreamContext.PullSubscription, jobs: int, work: Work) -> None:
    """Take jobs whenever a slot is free, until all are done."""
    running: set[asyncio.Task[None]] = set()
    taken = 0
    while taken < jobs:
        if len(running) >= _SLOTS:
            await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
        try:
            messages = await consumer.fetch(_SLOTS - len(running), timeout=5)
        except NatsTimeout:
            continue
        taken += len(messages)
        for message in messages:
            task = asyncio.create_task(work(message))
            running.add(task)
            task.add_done_callback(running.discard)
    await asyncio.gather(*running)
