"""The operations listener: is it alive, is it ready, how is it doing. It asks for no key."""

import asyncio
import os
from collections.abc import Awaitable

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder
from prometheus_client.multiprocess import MultiProcessCollector
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from adapter.contracts.answers import json_response
from adapter.core.errors import AdapterError
from adapter.core.ports import Engine, JobQueue


def create_ops_app(engine: Engine, queue: JobQueue, registry: CollectorRegistry) -> Starlette:
    """`/livez` (the process runs), `/readyz` (Triton and NATS answer) and `/metrics` (OpenMetrics)."""

    async def livez(_: Request) -> Response:
        return json_response({"status": "ok"})

    async def readyz(_: Request) -> Response:
        triton, nats = await asyncio.gather(_check(engine.models()), _check(queue.ping()))
        ready = triton == nats == "ok"
        checks = {"triton": triton, "nats": nats}
        body = {"status": "ok" if ready else "unavailable", "checks": checks, "servers": engine.servers()}
        return json_response(body, 200 if ready else 503)

    async def metrics(request: Request) -> Response:
        source = registry
        if "PROMETHEUS_MULTIPROC_DIR" in os.environ:
            # Several processes share the port: the one that is asked answers for all.
            source = CollectorRegistry()
            MultiProcessCollector(source)  # type: ignore[no-untyped-call]
        encode, content_type = choose_encoder(request.headers.get("accept", ""))
        return Response(encode(source), media_type=content_type)

    return Starlette(routes=[Route("/livez", livez), Route("/readyz", readyz), Route("/metrics", metrics)])


async def _check(call: Awaitable[object]) -> str:
    try:
        await call
    except AdapterError as error:
        return error.message
    return "ok"
