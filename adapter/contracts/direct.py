"""Requests that go to plain ASGI endpoints without the framework's router and its layers in between."""

from collections.abc import Iterable

from fastapi.routing import APIRoute
from starlette.routing import BaseRoute, Route, compile_path
from starlette.types import ASGIApp, Scope


class DirectRoutes:
    """The routes whose endpoint is an ASGI application itself, such as `:predict` and `/infer`.

    Every other request, one with another method too, is left to the framework, which has them all.
    """

    def __init__(self, routes: Iterable[BaseRoute]) -> None:
        self._routes = [
            (frozenset(route.methods or ()), compile_path(route.path)[0], route)
            for route in routes
            if isinstance(route, Route) and not isinstance(route, APIRoute)
        ]

    def find(self, scope: Scope) -> ASGIApp | None:
        """The application for a request, which then finds its `path_params` and `route` in the scope."""
        path, method = scope["path"], scope["method"]
        for methods, pattern, route in self._routes:
            if method in methods and (match := pattern.match(path)):
                scope["path_params"] = match.groupdict()
                scope["route"] = route
                return route.app
        return None
