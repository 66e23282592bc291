"""The composition root: opens and closes the services, mounts the contracts."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from http import HTTPStatus
from typing import Any, cast

from fastapi import APIRouter, FastAPI, Request
from fastapi_offline import FastAPIOffline
from starlette.convertors import Convertor, register_url_convertor
from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.types import ASGIApp

from adapter import __version__
from adapter.contracts import miaas, miaas_document, v1, v1_document, v2, v2_document
from adapter.contracts.answers import json_response
from adapter.contracts.direct import DirectRoutes
from adapter.contracts.errors import error_body, error_response, unexpected
from adapter.contracts.gateway import Gateway
from adapter.contracts.journal import Journal
from adapter.contracts.openapi import document
from adapter.contracts.scopes import ScopeTable
from adapter.core.dataplane import DataPlane
from adapter.core.errors import AdapterError
from adapter.core.metrics import Metrics
from adapter.core.ports import Authenticator, Engine, JobQueue
from adapter.jobs.jetstream import JetStreamQueue
from adapter.nats import NatsConnection
from adapter.security.authenticator import Credentials
from adapter.security.browser import PageHeaders
from adapter.security.counters import Counters
from adapter.security.issuer import IssuerKeys
from adapter.security.keys import KeyStore
from adapter.security.oauth import TokenVerifier
from adapter.security.peers import Peers
from adapter.security.proxies import Forwarded, Networks
from adapter.security.ratelimit import SharedRateLimiter
from adapter.security.tls import channel_credentials
from adapter.settings import Settings
from adapter.triton.client import TritonEngine

_DOCS_FILES = "/docs/files"
_DOCS_PAGES = frozenset({"/docs", "/docs/oauth2-redirect"})
_DOCS_PATHS = frozenset(
    {"/openapi.json", *_DOCS_PAGES}
    | {f"{_DOCS_FILES}/{name}" for name in ("swagger-ui-bundle.js", "swagger-ui.css", "favicon.png")}
)


class _Segment(Convertor[str]):
    """A path's segment up to a colon: what follows the colon is V1's verb."""

    regex = "[^/:]+"

    def convert(self, value: str) -> str:
        return value

    def to_string(self, value: str) -> str:
        return value


class Services:
    """What lives as long as the process: the engine, the queue, who may call and how often, the metrics.

    Engine and queue are Triton and JetStream by the settings, unless others are handed in. Raises TlsError
    when certificates cannot be used.
    """

    def __init__(
        self, settings: Settings, engine: Engine | None = None, queue: JobQueue | None = None
    ) -> None:
        self.metrics = Metrics()
        self.engine = engine or TritonEngine(settings, self.metrics, channel_credentials(settings))
        # Another queue than JetStream comes without a NATS: then the rate limit is this process's own.
        self._nats = NatsConnection(settings) if queue is None else None
        self.queue = queue or JetStreamQueue(settings, cast(NatsConnection, self._nats), self.metrics)
        self.keys = KeyStore(settings.keys_path)
        issuer = settings.oauth_issuer
        self._issuer_keys = IssuerKeys(issuer, settings.oauth_keys_max_age_s) if issuer else None
        tokens = TokenVerifier(settings, self._issuer_keys) if self._issuer_keys else None
        self.authenticator: Authenticator = Credentials(self.keys, tokens, self.metrics)
        limit, nats = settings.rate_limit_per_minute, self._nats
        counters = Counters(nats, settings.queue_replicas) if nats else None
        self.limiter = SharedRateLimiter(limit, self.metrics, counters, Peers(nats) if nats else None)
        self.dataplane = DataPlane(self.engine)

    @asynccontextmanager
    async def lifespan(self, _: FastAPI) -> AsyncIterator[None]:
        """Connect on the way in, let go on the way out.

        No request is answered before NATS is reached, or is known to be away: it would be refused a job, or
        counted by this process alone.
        """
        self.queue.open()
        if self._nats:
            self._nats.open()
        try:
            if self._nats:
                await self._nats.settled()
            yield
        finally:
            await self.queue.close()
            await self.limiter.close()
            if self._issuer_keys:
                await self._issuer_keys.close()
            if self._nats:
                await self._nats.close()
            await self.engine.close()


def contract_routers(settings: Settings, services: Services) -> list[APIRouter]:
    """The routes of every contract."""
    register_url_convertor("segment", _Segment())
    return [
        v1.router(services.dataplane, services.metrics, settings),
        v2.router(services.dataplane, services.metrics, settings),
        miaas.router(services.dataplane, services.queue, services.metrics, settings),
    ]


def create_app(settings: Settings, services: Services) -> ASGIApp:
    """The API: every contract behind one gateway. It opens and closes `services` with its lifespan."""
    contracts = contract_routers(settings, services)
    options: dict[str, Any] = {
        "title": "MIaaS adapter",
        "version": __version__,
        "lifespan": services.lifespan,
    }
    if settings.docs:
        app = FastAPIOffline(redoc_url=None, static_url=_DOCS_FILES, **options)
        open_paths = _DOCS_PATHS
    else:
        app = FastAPI(openapi_url=None, docs_url=None, redoc_url=None, **options)
        open_paths = frozenset()
    app.router.redirect_slashes = False
    for routes in contracts:
        app.include_router(routes)
    app.add_api_route("/", _alive, methods=["GET"])
    app.openapi = openapi_document  # type: ignore[method-assign]
    for kind in (AdapterError, HTTPException, Exception):
        app.add_exception_handler(kind, _on_error)
    outer: ASGIApp = PageHeaders(app, _DOCS_PAGES) if settings.docs else app
    every_route = [route for routes in contracts for route in routes.routes]
    outer = Gateway(
        outer,
        authenticator=services.authenticator,
        limiter=services.limiter,
        scopes=ScopeTable(every_route),
        direct=DirectRoutes(every_route),
        metrics=services.metrics,
        open_paths=open_paths,
    )
    outer = Journal(outer, settings.access_log_sample, services.metrics)
    return Forwarded(outer, Networks(settings.trusted_proxies)) if settings.trusted_proxies else outer


def openapi_document() -> dict[str, Any]:
    """The OpenAPI document of every contract."""
    return document(
        [v1_document.paths(), v2_document.paths(), miaas_document.paths()],
        [v1_document.SCHEMAS, v2_document.SCHEMAS, miaas_document.SCHEMAS],
    )


async def _alive() -> Response:
    return json_response({"status": "alive"})


async def _on_error(request: Request, error: Exception) -> Response:
    """Any error in the form of the contract that its path belongs to.

    The router's own are 404 for a path that is none and 405 for a method that a path does not take. Of an
    unexpected one nothing is shown; Starlette raises it again, for the log.
    """
    path = request.url.path
    if isinstance(error, AdapterError):
        request.state.error = error.code
        return error_response(path, error)
    if not isinstance(error, HTTPException):
        return unexpected(path)
    message, headers = str(error.detail), dict(error.headers or {})
    if error.status_code == HTTPStatus.NOT_FOUND:
        message = f"no such path: {path[:200]}"
    elif error.status_code == HTTPStatus.METHOD_NOT_ALLOWED:
        message = f"{request.method} is not allowed on {path[:200]}"
        allowed = {*headers["Allow"].split(", ")}
        # The gateway answers HEAD wherever there is GET.
        headers["Allow"] = ", ".join(sorted(allowed | {"HEAD"} if "GET" in allowed else allowed))
    code = request.state.error = HTTPStatus(error.status_code).name.lower()
    return error_body(path, error.status_code, code, message, headers=headers)
