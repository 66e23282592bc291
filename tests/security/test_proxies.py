"""Whose address and scheme counts behind proxies."""

import asyncio
from typing import Any

import pytest

from adapter.security.proxies import Forwarded, Networks

TRUSTED = Networks("10.0.0.0/8, 2001:db8::1")


def seen(peer: str, *headers: tuple[str, str]) -> tuple[str, str]:
    """The client's address and scheme as the app behind sees them."""
    result: dict[str, Any] = {}

    async def app(scope: Any, receive: Any, send: Any) -> None:
        result.update(scope)

    raw = [(name.lower().encode(), value.encode()) for name, value in headers]
    scope = {"type": "http", "client": (peer, 5), "scheme": "http", "headers": raw}
    asyncio.run(Forwarded(app, TRUSTED)(scope, None, None))  # type: ignore[arg-type]
    return result["client"][0], result["scheme"]


XFF, XFP, F = "X-Forwarded-For", "X-Forwarded-Proto", "Forwarded"


@pytest.mark.parametrize(
    ("peer", "headers", "expected"),
    [
        # Nobody who is not listed is believed.
        ("192.0.2.1", [(XFF, "198.51.100.9"), (XFP, "https")], ("192.0.2.1", "http")),
        ("192.0.2.1", [(F, "for=198.51.100.9;proto=https")], ("192.0.2.1", "http")),
        ("10.1.1.1", [], ("10.1.1.1", "http")),
        ("10.1.1.1", [(XFF, "198.51.100.9"), (XFP, "https")], ("198.51.100.9", "https")),
        # What the client itself wrote in front is not believed.
        ("10.1.1.1", [(XFF, "127.0.0.1, 198.51.100.9")], ("198.51.100.9", "http")),
        ("10.1.1.1", [(XFF, "127.0.0.1"), (XFF, "198.51.100.9, 10.2.2.2")], ("198.51.100.9", "http")),
        ("10.1.1.1", [(XFF, "10.3.3.3, 10.2.2.2")], ("10.3.3.3", "http")),
        ("10.1.1.1", [(XFF, "198.51.100.9:4711")], ("198.51.100.9", "http")),
        ("10.1.1.1", [(XFF, "198.51.100.9, unknown")], ("10.1.1.1", "http")),
        ("2001:db8::1", [(XFF, "[2001:db8::2]:80")], ("2001:db8::2", "http")),
        ("::ffff:10.1.1.1", [(XFF, "198.51.100.9")], ("198.51.100.9", "http")),
        ("10.1.1.1", [(F, "for=198.51.100.9;proto=https")], ("198.51.100.9", "https")),
        ("10.1.1.1", [(F, 'For="[2001:db8::2]:47"; Proto=HTTPS')], ("2001:db8::2", "https")),
        (
            "10.1.1.1",
            [(F, "for=127.0.0.1;proto=http, for=198.51.100.9;proto=https")],
            ("198.51.100.9", "https"),
        ),
        ("10.1.1.1", [(F, "for=198.51.100.9, for=_hidden;proto=https")], ("10.1.1.1", "https")),
        # The standard's header goes before the older ones.
        ("10.1.1.1", [(F, "for=198.51.100.9"), (XFF, "198.51.100.8")], ("198.51.100.9", "http")),
        ("10.1.1.1", [(XFF, ", ,"), (XFP, "gopher")], ("10.1.1.1", "http")),
        ("10.1.1.1", [(F, '";;==,"')], ("10.1.1.1", "http")),
    ],
)
def test_the_client_is_the_last_one_that_is_no_proxy_of_ours(
    peer: str, headers: list[tuple[str, str]], expected: tuple[str, str]
) -> None:
    assert seen(peer, *headers) == expected


def test_what_is_no_network_is_refused() -> None:
    with pytest.raises(ValueError, match="does not appear to be an IPv4 or IPv6 network"):
        Networks("10.0.0.0/8, proxy")
    assert not Networks("")
