"""Who is really calling, behind proxies that we know: `Forwarded` (RFC 7239) and `X-Forwarded-*`.

A header is believed only as far as trusted proxies wrote it: the chain is read from its end, and the first
address that is no trusted proxy is the client's, whatever stands before it.
"""

import re
from ipaddress import IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

_PAIR = re.compile(r'\s*([A-Za-z]+)=("(?:[^"\\]|\\.)*"|[^;,"\s]+)\s*(?:;|\Z)')
_ELEMENT = re.compile(r'(?:[^,"]|"(?:[^"\\]|\\.)*")+')


class Networks:
    """Addresses and networks, written separated by commas. Raises ValueError for what is neither."""

    def __init__(self, text: str) -> None:
        self._networks: list[IPv4Network | IPv6Network] = [
            ip_network(part.strip(), strict=False) for part in text.split(",") if part.strip()
        ]

    def __contains__(self, address: str) -> bool:
        try:
            ip = ip_address(address)
        except ValueError:
            return False
        if isinstance(ip, IPv6Address) and ip.ipv4_mapped:
            ip = ip.ipv4_mapped
        return any(ip in network for network in self._networks)

    def __bool__(self) -> bool:
        return bool(self._networks)


class Forwarded:
    """ASGI middleware that puts the client's address and scheme into the scope when a trusted proxy calls."""

    def __init__(self, app: ASGIApp, trusted: Networks) -> None:
        self._app = app
        self._trusted = trusted

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass every request on."""
        if scope["type"] == "http" and scope.get("client") and scope["client"][0] in self._trusted:
            address, scheme = self._origin(Headers(scope=scope))
            if address is not None:
                scope["client"] = (address, 0)
            if scheme in ("http", "https"):
                scope["scheme"] = scheme
        await self._app(scope, receive, send)

    def _origin(self, headers: Headers) -> tuple[str | None, str | None]:
        """The client's address and scheme, as the nearest hops that are trusted tell them."""
        hops = _forwarded(headers.getlist("forwarded"))
        if not hops:
            addresses = _listed(headers.getlist("x-forwarded-for"))
            schemes = _listed(headers.getlist("x-forwarded-proto"))
            # One scheme for the whole way, or one for each hop.
            scheme = schemes[-1].lower() if schemes else None
            hops = [(_bare(address), scheme) for address in addresses] or [(None, scheme)]
        for address, scheme in reversed(hops):
            if address is None or address not in self._trusted:
                return address, scheme
        return hops[0]


def _forwarded(values: list[str]) -> list[tuple[str | None, str | None]]:
    """RFC 7239: the `for` and `proto` of every hop; a hop that says nothing readable hides its client."""
    hops = []
    for element in (match[0] for value in values for match in _ELEMENT.finditer(value)):
        pairs = {name.lower(): text for name, text in _PAIR.findall(element)}
        scheme = pairs.get("proto", "").strip('"').lower() or None
        hops.append((_bare(pairs.get("for", "").strip('"')), scheme))
    return hops


def _listed(values: list[str]) -> list[str]:
    return [part.strip() for value in values for part in value.split(",") if part.strip()]


def _bare(node: str) -> str | None:
    """An address without its port and brackets; None for what is none (`unknown`, `_hidden`)."""
    host = node[1:].partition("]")[0] if node.startswith("[") else node
    if host.count(":") == 1:
        host = host.partition(":")[0]
    try:
        return str(ip_address(host))
    except ValueError:
        return None
