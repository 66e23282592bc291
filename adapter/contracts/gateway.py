"""The door that every request comes through: who is calling, may they, and how often."""

from collections.abc import Iterable

import structlog
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from adapter.contracts.direct import DirectRoutes
from adapter.contracts.errors import error_response, unexpected
from adapter.contracts.scopes import ScopeTable
from adapter.core.errors import (
    AdapterError,
    InvalidCredentials,
    PermissionDenied,
    RateLimited,
    Unauthenticated,
)
from adapter.core.metrics import Metrics
from adapter.core.ports import Authenticator, RateLimiter
from adapter.core.types import Client, Quota

_audit = structlog.get_logger("audit")

RawHeaders = list[tuple[bytes, bytes]]


class Gateway:
    """The ASGI layer around the contracts.

    Fails closed: a path that is not in `open_paths` asks for credentials, whether it is known or not.
    Answers HEAD wherever there is GET.

    Leaves the client in `scope["state"]["client"]`, and the code of an error that it answers in `["error"]`.
    """

    def __init__(
        self,
        app: ASGIApp,
        authenticator: Authenticator,
        limiter: RateLimiter,
        scopes: ScopeTable,
        direct: DirectRoutes,
        metrics: Metrics,
        open_paths: frozenset[str],
    ) -> None:
        self._app = app
        self._authenticator = authenticator
        self._limiter = limiter
        self._scopes = scopes
        self._direct = direct
        self._metrics = metrics
        self._open_paths = open_paths

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one HTTP request; everything else goes straight on."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        if scope["method"] == "HEAD":
            await self._head(scope, receive, send)
            return
        state = scope.setdefault("state", {})
        begun = False
        quota_headers: RawHeaders = []

        async def answer(message: Message) -> None:
            nonlocal begun
            if message["type"] == "http.response.start":
                begun = True
                if quota_headers:
                    message["headers"] = [*message.get("headers", ()), *quota_headers]
            await send(message)

        try:
            if scope["path"] not in self._open_paths:
                client = state["client"] = await self._identify(scope)
                quota = await self._limiter.admit(client)
                if quota is not None:
                    quota_headers = _quota_headers(quota)
                    if not quota.granted:
                        raise RateLimited(f"more than {quota.limit} requests in a minute", quota.reset_s)
                self._authorize(client, scope)
            app = self._direct.find(scope) or self._app
            await app(scope, receive, answer)
        except AdapterError as error:
            state["error"] = error.code
            await error_response(scope["path"], error)(scope, receive, answer)
        except ClientDisconnect:
            pass  # there is nobody to answer
        except Exception:
            # Nothing of it is shown; the server writes it into its log.
            state["error"] = AdapterError.code
            if not begun:
                await unexpected(scope["path"])(scope, receive, answer)
            raise

    async def _head(self, scope: Scope, receive: Receive, send: Send) -> None:
        """The answer to GET without its body: RFC 9110, 9.3.2."""
        asked = {**scope, "method": "GET"}

        async def answer(message: Message) -> None:
            await send({**message, "body": b""} if message["type"] == "http.response.body" else message)

        try:
            await self(asked, receive, answer)
        finally:
            scope["route"] = asked.get("route")

    async def _identify(self, scope: Scope) -> Client:
        """The client. Raises Unauthenticated, or RateLimited when its address has failed too often."""
        credential = _credential(scope["headers"])
        if not credential:
            self._metrics.authentications.labels("none", "missing").inc()
            raise Unauthenticated("credentials are missing: send X-API-Key, or Authorization: Bearer")
        try:
            return await self._authenticator.authenticate(credential)
        except InvalidCredentials as error:
            quota = self._limiter.failed(_address(scope))
            if quota is not None and not quota.granted:
                message = f"more than {quota.limit} failed authentications in a minute"
                raise RateLimited(message, quota.reset_s) from error
            raise

    def _authorize(self, client: Client, scope: Scope) -> None:
        """Raise PermissionDenied when the client lacks the scope that the request needs."""
        needed = self._scopes.needed(scope["method"], scope["path"])
        if needed in client.scopes:
            return
        if needed == "admin":
            _audit.warning(
                "admin call refused",
                client=client.id,
                address=_address(scope),
                method=scope["method"],
                path=scope["path"][:200],
            )
        raise PermissionDenied(f"this needs the scope {needed!r}", needed)


def _credential(headers: Iterable[tuple[bytes, bytes]]) -> str:
    """The `X-API-Key` header, or the token of `Authorization: Bearer` (RFC 6750); "" without either."""
    bearer = ""
    for name, value in headers:
        if name == b"x-api-key" and value:
            return value.decode("latin-1")
        if name == b"authorization" and not bearer:
            scheme, _, token = value.decode("latin-1").partition(" ")
            bearer = token.strip() if scheme.lower() == "bearer" else ""
    return bearer


def _address(scope: Scope) -> str:
    return scope["client"][0] if scope.get("client") else ""


def _quota_headers(quota: Quota) -> RawHeaders:
    """`RateLimit` and `RateLimit-Policy` (draft-ietf-httpapi-ratelimit-headers), and their older form."""
    limit, remaining, reset = b"%d" % quota.limit, b"%d" % quota.remaining, b"%d" % quota.reset_s
    return [
        (b"ratelimit-policy", b'"client";q=%b;w=60' % limit),
        (b"ratelimit", b'"client";r=%b;t=%b' % (remaining, reset)),
        (b"x-ratelimit-limit", limit),
        (b"x-ratelimit-remaining", remaining),
        (b"x-ratelimit-reset", reset),
    ]
