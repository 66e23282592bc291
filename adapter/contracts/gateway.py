"""The door that every request comes through: who is calling, may they, and how did it go."""

from collections.abc import Awaitable, Callable
from time import perf_counter

from starlette.datastructures import Headers
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from adapter.contracts.errors import contract_of, error_response
from adapter.core.errors import AdapterError, PermissionDenied, Unauthenticated
from adapter.core.metrics import Metrics
from adapter.core.types import Client

Authenticate = Callable[[str], Awaitable[Client]]
"""A credential → its client. Raises Unauthenticated."""


class Gateway:
    """ASGI middleware. Fails closed: a path that is not in `open_paths` asks for credentials, known or not.

    Leaves the client in `scope["state"]["client"]`; a handler that found its model names it in
    `scope["state"]["model"]`, so that no made-up name ever becomes a metric's label.
    """

    def __init__(
        self, app: ASGIApp, authenticate: Authenticate, metrics: Metrics, open_paths: frozenset[str]
    ) -> None:
        self._app = app
        self._authenticate = authenticate
        self._metrics = metrics
        self._open_paths = open_paths

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one HTTP request; everything else goes straight on."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = perf_counter()
        state = scope.setdefault("state", {})
        # Of an error that nobody expects, the outermost layer makes a 500.
        status = 500

        async def counted(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            if scope["path"] not in self._open_paths:
                state["client"] = await self._admit(scope)
            await self._app(scope, receive, counted)
        except AdapterError as error:
            await error_response(scope["path"], error)(scope, receive, counted)
        except ClientDisconnect:
            status = 499
        finally:
            contract, model = contract_of(scope["path"]), state.get("model", "")
            self._metrics.requests.labels(contract, model, status).inc()
            self._metrics.request_seconds.labels(contract, model).observe(perf_counter() - started)

    async def _admit(self, scope: Scope) -> Client:
        client = await self._authenticate(_credential(Headers(scope=scope)))
        needed = "read" if scope["method"] in ("GET", "HEAD", "OPTIONS") else "infer"
        if needed not in client.scopes:
            raise PermissionDenied(f"this needs the scope {needed!r}")
        return client


def _credential(headers: Headers) -> str:
    """The `X-API-Key` header, or the token of `Authorization: Bearer` (RFC 6750)."""
    if key := headers.get("x-api-key"):
        return key
    scheme, _, token = headers.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer" and token.strip():
        return token.strip()
    raise Unauthenticated("credentials are missing: send X-API-Key, or Authorization: Bearer")
