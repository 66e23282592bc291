"""Which scope a request needs: by its method, unless its route says otherwise."""

from collections.abc import Callable, Iterable
from typing import Any, Literal, TypeVar

from starlette.routing import BaseRoute, compile_path

Scope = Literal["infer", "read", "admin"]
T = TypeVar("T", bound=Callable[..., Any])

_READING = ("GET", "HEAD", "OPTIONS")
_ATTRIBUTE = "__needs_scope__"


def needs(scope: Scope) -> Callable[[T], T]:
    """Mark an endpoint (a function, or an ASGI object) that needs another scope than its method's.

    Without the mark reading methods need `read` and all others `infer`.
    """

    def mark(endpoint: T) -> T:
        # A bound method takes attributes on its function alone.
        setattr(getattr(endpoint, "__func__", endpoint), _ATTRIBUTE, scope)
        return endpoint

    return mark


class ScopeTable:
    """The scope of every request. Rules are the routes' own patterns: no spelling of a path evades one."""

    def __init__(self, routes: Iterable[BaseRoute]) -> None:
        self._rules = []
        for route in routes:
            scope = getattr(getattr(route, "endpoint", None), _ATTRIBUTE, None)
            if scope is not None:
                path: str = getattr(route, "path", "")
                methods: frozenset[str] = frozenset(getattr(route, "methods", None) or ())
                self._rules.append((path.partition("{")[0], compile_path(path)[0], methods, scope))

    def needed(self, method: str, path: str) -> str:
        """The scope for this method and path, whether a route takes them or not."""
        for prefix, pattern, methods, scope in self._rules:
            if path.startswith(prefix) and pattern.match(path) and method in methods:
                return str(scope)
        return "read" if method in _READING else "infer"
