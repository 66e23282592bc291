"""The gateway before a small app: scopes that routes declare, challenges, and the audit of admin calls."""

import asyncio
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from fastapi.routing import APIRoute
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import BaseRoute, Route

from adapter.contracts.direct import DirectRoutes
from adapter.contracts.gateway import Gateway
from adapter.contracts.scopes import ScopeTable, needs
from adapter.core.errors import InvalidCredentials
from adapter.core.metrics import Metrics
from adapter.core.types import Client
from adapter.security.ratelimit import SharedRateLimiter

CLIENTS = {
    "reader": Client("reader", frozenset({"read"})),
    "caller": Client("caller", frozenset({"infer"})),
    "chief": Client("chief", frozenset({"admin", "infer", "read"})),
}


class Known:
    """Knows the clients above by their names."""

    async def authenticate(self, credential: str) -> Client:
        if credential not in CLIENTS:
            raise InvalidCredentials("unknown")
        return CLIENTS[credential]


async def who(request: Request) -> Response:
    return PlainTextResponse(request.state.client.id)


@needs("read")
async def index(request: Request) -> Response:
    return await who(request)


class Control:
    """An endpoint that is a bound method, as the contracts have them."""

    @needs("admin")
    async def load(self, request: Request) -> Response:
        return await who(request)

    @needs("admin")
    async def look(self, request: Request) -> Response:
        return await who(request)


def ask(method: str, path: str, headers: dict[str, str], limit: int = 0, times: int = 1) -> httpx.Response:
    """The last of some answers."""
    routes: list[BaseRoute] = [
        Route("/things/{name}", who, methods=["GET", "POST"]),
        Route("/index", index, methods=["POST"]),
        Route("/models/{name}/load", Control().load, methods=["POST"]),
        APIRoute("/models/{name}/memory", Control().look, methods=["GET"]),
    ]
    app = Gateway(
        FastAPI(routes=routes),
        Known(),
        SharedRateLimiter(limit, Metrics()),
        ScopeTable(routes),
        DirectRoutes(()),
        Metrics(),
        frozenset({"/open"}),
    )

    async def run() -> httpx.Response:
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://adapter") as client:
            for _ in range(times):
                answer = await client.request(method, path, headers=headers)
        return answer

    return asyncio.run(run())


def as_(name: str) -> dict[str, str]:
    return {"Authorization": f"bearer {name}"}


@pytest.mark.parametrize(
    ("client", "method", "path", "status"),
    [
        ("reader", "GET", "/things/1", 200),
        ("reader", "POST", "/things/1", 403),
        ("caller", "GET", "/things/1", 403),
        ("caller", "POST", "/things/1", 200),
        ("reader", "POST", "/index", 200),
        ("caller", "POST", "/index", 403),
        ("reader", "POST", "/index/", 403),
        ("caller", "POST", "/models/x/load", 403),
        ("caller", "POST", "/models/%78/lo%61d", 403),
        ("caller", "POST", "//models/x/load", 404),
        ("caller", "DELETE", "/models/x/load", 405),
        ("chief", "POST", "/models/x/load", 200),
        ("reader", "HEAD", "/things/1", 200),
        ("caller", "HEAD", "/things/1", 403),
        ("reader", "HEAD", "/models/x/memory", 403),
        ("chief", "HEAD", "/models/x/memory", 200),
        ("chief", "GET", "/things/1", 200),
    ],
)
def test_a_route_says_which_scope_it_needs(client: str, method: str, path: str, status: int) -> None:
    assert ask(method, path, as_(client)).status_code == status


def test_a_missing_scope_is_named() -> None:
    answer = ask("POST", "/things/1", as_("reader"))
    assert answer.json()["error"] == {
        "code": "permission_denied",
        "message": "this needs the scope 'infer'",
    }
    expected = 'Bearer realm="miaas-adapter", error="insufficient_scope", scope="infer"'
    assert answer.headers["WWW-Authenticate"] == expected


@pytest.mark.parametrize(
    ("headers", "challenge"),
    [
        ({}, 'Bearer realm="miaas-adapter"'),
        ({"Authorization": "Basic cmVhZGVyOg=="}, 'Bearer realm="miaas-adapter"'),
        ({"Authorization": "Bearer"}, 'Bearer realm="miaas-adapter"'),
        ({"X-API-Key": ""}, 'Bearer realm="miaas-adapter"'),
        (
            {"X-API-Key": "nobody"},
            'Bearer realm="miaas-adapter", error="invalid_token", error_description="unknown"',
        ),
    ],
)
def test_who_is_not_known_is_challenged(headers: dict[str, str], challenge: str) -> None:
    answer = ask("GET", "/things/1", headers)
    assert answer.status_code == 401
    assert answer.headers["WWW-Authenticate"] == challenge


def test_a_refused_admin_call_is_audited(capsys: pytest.CaptureFixture[str]) -> None:
    ask("POST", "/models/x/load", as_("caller"))
    [line] = [line for line in "".join(capsys.readouterr()).splitlines() if "admin call refused" in line]
    for part in ("client=caller", "method=POST", "path=/models/x/load", "address=127.0.0.1"):
        assert part in line
    ask("POST", "/models/x/load", as_("chief"))
    ask("POST", "/things/1", as_("reader"))
    assert "admin call refused" not in "".join(capsys.readouterr())


def test_failed_authentications_of_an_address_are_limited() -> None:
    assert ask("GET", "/things/1", as_("nobody"), limit=5, times=5).status_code == 401
    answer = ask("GET", "/things/1", as_("nobody"), limit=5, times=6)
    assert answer.status_code == 429
    assert answer.json()["error"]["message"] == "more than 5 failed authentications in a minute"
    assert 1 <= int(answer.headers["Retry-After"]) <= 61


def test_every_answer_to_a_known_client_tells_what_is_left() -> None:
    answer = ask("GET", "/things/1", as_("reader"), limit=5, times=2)
    told: dict[str, Any] = {name: value for name, value in answer.headers.items() if "ratelimit" in name}
    assert told == {
        "ratelimit-policy": '"client";q=5;w=60',
        "ratelimit": '"client";r=3;t=60',
        "x-ratelimit-limit": "5",
        "x-ratelimit-remaining": "3",
        "x-ratelimit-reset": "60",
    }
    assert not [name for name in ask("GET", "/things/1", as_("reader")).headers if "ratelimit" in name]
    # A request without the scope counts as well; who is not known has no limit that could be told.
    assert ask("POST", "/things/1", as_("reader"), limit=5).headers["X-RateLimit-Remaining"] == "4"
    assert "RateLimit" not in ask("GET", "/things/1", as_("nobody"), limit=5).headers
