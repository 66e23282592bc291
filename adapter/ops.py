"""The operations listener: is it alive, is it ready, how is it doing. It asks for no key."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from adapter.contracts.answers import json_response
from adapter.core.exposition import OPENMETRICS, TEXT, render
from adapter.core.metrics import Metrics
from adapter.monitor import Check, trouble
from adapter.turns import Turns


def create_ops_app(
    checks: Mapping[str, Check],
    servers: Callable[[], Mapping[str, str]],
    stopping: Callable[[], bool],
    total: Callable[[], Awaitable[Metrics]],
) -> Starlette:
    """`/livez` (the process runs), `/readyz` (what it needs answers, and it is not stopping), `/metrics`.

    `servers` tells of each Triton where there are several; `total` brings the metrics of all processes that
    share the listener.
    """

    async def livez(_: Request) -> Response:
        return json_response({"status": "ok"})

    async def readyz(_: Request) -> Response:
        if stopping():
            return json_response({"status": "stopping", "checks": {}}, 503)
        troubles = await asyncio.gather(*map(trouble, checks.values()))
        told = {name: found or "ok" for name, found in zip(checks, troubles, strict=True)}
        ready = not any(troubles)
        status = "ok" if ready else "unavailable"
        several = {"servers": named} if (named := servers()) else {}
        body = {"status": status, "checks": told, **several}
        return json_response(body, 200 if ready else 503)

    async def metrics(request: Request) -> Response:
        openmetrics = "application/openmetrics-text" in request.headers.get("accept", "")
        pieces, turns = [], Turns()
        for piece in render((await total()).families, openmetrics=openmetrics):
            pieces.append(piece)
            await turns.give()
        # A client's name may hold what is no text.
        content = "".join(pieces).encode(errors="replace")
        return Response(content, media_type=OPENMETRICS if openmetrics else TEXT)

    return Starlette(routes=[Route("/livez", livez), Route("/readyz", readyz), Route("/metrics", metrics)])
