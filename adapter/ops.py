"""The operations listener: is it alive, is it ready, how is it doing. It asks for no key."""

import asyncio
from collections.abc import Awaitable

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from adapter.contracts.answers import json_response
from adapter.core.errors import AdapterError
from adapter.core.exposition import OPENMETRICS, TEXT, render
from adapter.core.metrics import Metrics
from adapter.core.ports import Engine, JobQueue


def create_ops_app(engine: Engine, queue: JobQueue, metrics: Metrics) -> Starlette:
    """`/livez` (the process runs), `/readyz` (Triton and NATS answer) and `/metrics` (OpenMetrics)."""

    async def livez(_: Request) -> Response:
        return json_response({"status": "ok"})

    async def readyz(_: Request) -> Response:
        triton, nats = await asyncio.gather(_check(engine.models()), _check(queue.ping()))
        ready = triton == nats == "ok"
        body = {"status": "ok" if ready else "unavailable", "checks": {"triton": triton, "nats": nats}}
        return json_response(body, 200 if ready else 503)

    async def exposed(request: Request) -> Response:
        openmetrics = "application/openmetrics-text" in request.headers.get("accept", "")
        pieces = []
        for piece in render(metrics.families, openmetrics=openmetrics):
            pieces.append(piece)
            # Requests do not wait for the rest.
            await asyncio.sleep(0)
        return Response(b"".join(pieces), media_type=OPENMETRICS if openmetrics else TEXT)

    return Starlette(routes=[Route("/livez", livez), Route("/readyz", readyz), Route("/metrics", exposed)])


async def _check(call: Awaitable[object]) -> str:
    try:
        await call
    except AdapterError as error:
        return error.message
    return "ok"
