"""Headers that keep browsers from doing more with an answer than it is meant for (OWASP Secure Headers)."""

import re
from base64 import b64encode
from hashlib import sha256

from starlette.types import ASGIApp, Message, Receive, Scope, Send

ALWAYS = [("X-Content-Type-Options", "nosniff"), ("Cache-Control", "no-store")]
"""On every answer: it is what it says it is, and no cache between keeps it."""
OVER_TLS = [("Strict-Transport-Security", "max-age=31536000")]
_SCRIPT = re.compile(rb"<script>(.*?)</script>", re.DOTALL)


class PageHeaders:
    """ASGI middleware for the documentation: a page may run its own scripts, by their hashes, no other."""

    def __init__(self, app: ASGIApp, paths: frozenset[str]) -> None:
        self._app = app
        self._paths = paths

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass every request on; to the answers on `paths` add the headers."""
        if scope["type"] != "http" or scope["path"] not in self._paths:
            await self._app(scope, receive, send)
            return
        start: Message = {}

        async def with_policy(message: Message) -> None:
            nonlocal start
            if message["type"] == "http.response.start":
                start = message
                return
            if start:
                start["headers"] = [*start.get("headers", ()), *_headers(message.get("body", b""))]
                await send(start)
                start = {}
            await send(message)

        await self._app(scope, receive, with_policy)


def _headers(page: bytes) -> list[tuple[bytes, bytes]]:
    hashes = [f"'sha256-{b64encode(sha256(code).digest()).decode()}'" for code in _SCRIPT.findall(page)]
    policy = {
        "default-src": "'none'",
        "script-src": " ".join(["'self'", *hashes]),
        # Swagger's own scripts set styles on elements.
        "style-src": "'self' 'unsafe-inline'",
        "img-src": "'self' data:",
        "connect-src": "'self'",
        "form-action": "'none'",
        "base-uri": "'none'",
        "frame-ancestors": "'none'",
    }
    text = "; ".join(f"{name} {value}" for name, value in policy.items())
    return [
        (b"content-security-policy", text.encode()),
        (b"x-frame-options", b"DENY"),
        (b"referrer-policy", b"no-referrer"),
        (b"cross-origin-opener-policy", b"same-origin"),
        (b"permissions-policy", b"camera=(), geolocation=(), microphone=()"),
    ]
