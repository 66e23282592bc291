"""Who is really calling, behind proxies that we know: `Forwarded` (RFC 7239) and `X-Forwarded-*`.

A header is believed only as far as trusted proxies wrote it: the chain is read from its end, and the first
address that is no trusted proxy is the client's, whatever stands before it. A proxy writes one of the two and
may pass on what the client put into the other: where they disagree, neither is believed.
"""

import re
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

# Possessive throughout: what a client sends is read once, and not again from each of its places.
_PAIR = re.compile(r'[ \t]*+(?:([^=;,"\s]++)=("(?:[^"\\]|\\.)*+"|[^;,"\s]++))?+[ \t]*+([;,]|\Z)')

Hop = tuple[str | None, str | None]
"""The address and the scheme that a proxy was called from and by; None for what it does not tell."""


class Networks:
    """Addresses and networks, written separated by commas. Raises ValueError for what is neither."""

    def __init__(self, text: str) -> None:
        self._networks: list[IPv4Network | IPv6Network] = [
            ip_network(part.strip(), strict=False) for part in text.split(",") if part.strip()
        ]

    def __contains__(self, address: str) -> bool:
        try:
            ip = _plain(ip_address(address))
        except ValueError:
            return False
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

    def _origin(self, headers: Headers) -> Hop:
        """The client's address and scheme, as the nearest hops that are trusted tell them."""
        chains = _forwarded(headers.getlist("forwarded")), _x_forwarded(headers)
        told = [self._nearest(hops) for hops in chains if hops]
        addresses = {address for address, _ in told}
        schemes = {scheme for _, scheme in told if scheme}
        return (
            addresses.pop() if len(addresses) == 1 else None,
            schemes.pop() if len(schemes) == 1 else None,
        )

    def _nearest(self, hops: list[Hop]) -> Hop:
        for address, scheme in reversed(hops):
            if address is None or address not in self._trusted:
                return address, scheme
        return hops[0]


def _forwarded(values: list[str]) -> list[Hop]:
    """RFC 7239: every hop; one that says nothing readable, or stands beside such, hides its client."""
    return [hop for value in values for hop in _elements(value)]


def _elements(value: str) -> list[Hop]:
    elements: list[dict[str, str]] = [{}]
    position = 0
    while position < len(value):
        pair = _PAIR.match(value, position)
        if pair is None:
            # What a client wrote in front may be an open quote, with the proxy's own words in it.
            return [(None, None)]
        name, text, end = pair.groups(default="")
        if name:
            elements[-1][name.lower()] = text.strip('"')
        if end == ",":
            elements.append({})
        position = pair.end()
    return [_hop(pairs) for pairs in elements if pairs]


def _hop(pairs: dict[str, str]) -> Hop:
    return _bare(pairs.get("for", "")), pairs.get("proto", "").lower() or None


def _x_forwarded(headers: Headers) -> list[Hop]:
    addresses = _listed(headers.getlist("x-forwarded-for"))
    schemes = _listed(headers.getlist("x-forwarded-proto"))
    # One scheme for the whole way, or one for each hop.
    scheme = schemes[-1].lower() if schemes else None
    hops: list[Hop] = [(_bare(address), scheme) for address in addresses]
    return hops or ([(None, scheme)] if scheme else [])


def _listed(values: list[str]) -> list[str]:
    return [part.strip() for value in values for part in value.split(",") if part.strip()]


def _bare(node: str) -> str | None:
    """An address without its port and brackets; None for what is none (`unknown`, `_hidden`)."""
    host = node[1:].partition("]")[0] if node.startswith("[") else node
    if host.count(":") == 1:
        host = host.partition(":")[0]
    try:
        return str(_plain(ip_address(host)))
    except ValueError:
        return None


def _plain(ip: IPv4Address | IPv6Address) -> IPv4Address | IPv6Address:
    """An IPv4 address as such, where it comes in IPv6's clothes."""
    return (ip.ipv4_mapped if isinstance(ip, IPv6Address) else None) or ip
