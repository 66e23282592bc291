"""A small OpenID provider: discovery and keys over HTTP, and tokens as good or as forged as wanted."""

import base64
import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from jwt.algorithms import ECAlgorithm, OKPAlgorithm, RSAAlgorithm

AUDIENCE = "miaas"

PrivateKey = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey


def make_key(algorithm: str, bits: int = 2048) -> PrivateKey:
    """A private key for an algorithm."""
    if algorithm == "RS256":
        return rsa.generate_private_key(65537, bits)
    if algorithm == "ES256":
        return ec.generate_private_key(ec.SECP256R1())
    return ed25519.Ed25519PrivateKey.generate()


def public_jwk(key: PrivateKey) -> dict[str, Any]:
    """Its public half as a JWK, without an id."""
    public: Any = key.public_key()
    kind: Any = {rsa.RSAPrivateKey: RSAAlgorithm, ec.EllipticCurvePrivateKey: ECAlgorithm}
    chosen = next((kind[base] for base in kind if isinstance(key, base)), OKPAlgorithm)
    jwk: dict[str, Any] = chosen.to_jwk(public, as_dict=True)
    return jwk


def b64(content: bytes | dict[str, Any]) -> str:
    """Base64url without padding, of JSON if it is an object."""
    raw = json.dumps(content).encode() if isinstance(content, dict) else content
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


class Provider:
    """Serves on a free port of the loopback interface, and counts what is fetched."""

    def __init__(self) -> None:
        self.keys: dict[str, tuple[str, PrivateKey]] = {}
        """Id → algorithm and key; all of them are published."""
        self.fetches: list[str] = []
        self.broken = False
        self.issuer_says: str | None = None
        self.instead: dict[str, tuple[int, dict[str, str], bytes]] = {}
        """Path → what is answered there instead: status, headers, body."""
        self.goes_on = threading.Event()
        """It answers while this is set."""
        self.goes_on.set()
        provider = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                provider.fetches.append(self.path)
                provider.goes_on.wait()
                status, headers, body = provider.instead.get(self.path, (200, {}, b""))
                body = body or json.dumps(provider.answer(self.path)).encode()
                self.send_response(500 if provider.broken else status)
                headers = {"Content-Type": "application/json", "Content-Length": str(len(body)), **headers}
                for name, value in headers.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    @contextmanager
    def running(self) -> Iterator["Provider"]:
        """Serve while inside."""
        thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield self
        finally:
            self._server.shutdown()
            thread.join()
            self._server.server_close()

    def answer(self, path: str) -> dict[str, Any]:
        """What is published at a path."""
        if path.endswith("/openid-configuration"):
            return {"issuer": self.issuer_says or self.url, "jwks_uri": f"{self.url}/keys"}
        return {
            "keys": [
                {**public_jwk(key), "kid": kid, "use": "sig", "alg": algorithm}
                for kid, (algorithm, key) in self.keys.items()
            ]
        }

    @property
    def key_fetches(self) -> int:
        """How often the keys were fetched."""
        return self.fetches.count("/keys")

    def add_key(self, kid: str, algorithm: str) -> None:
        """Publish a new key."""
        self.keys[kid] = (algorithm, make_key(algorithm))

    def claims(self, **changed: Any) -> dict[str, Any]:
        """The claims of a good token; a claim that is None is left out."""
        now = int(time.time())
        claims = {
            "iss": self.url,
            "aud": AUDIENCE,
            "sub": "alice",
            "scope": "infer read",
            "iat": now,
            "exp": now + 300,
            **changed,
        }
        return {name: value for name, value in claims.items() if value is not None}

    def token(self, kid: str, headers: dict[str, Any] | None = None, **changed: Any) -> str:
        """A token signed with a published key."""
        algorithm, key = self.keys[kid]
        return jwt.encode(
            self.claims(**changed), key, algorithm=algorithm, headers={"kid": kid, **(headers or {})}
        )
