"""Whose address and scheme counts behind proxies."""

import asyncio
import time
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
        # Of two stories one is the client's own: a proxy that writes one passes on the other as it came.
        ("10.1.1.1", [(F, "for=198.51.100.9"), (XFF, "198.51.100.8")], ("10.1.1.1", "http")),
        ("10.1.1.1", [(F, "for=198.51.100.9;proto=https"), (XFP, "http")], ("10.1.1.1", "http")),
        (
            "10.1.1.1",
            [(F, "for=127.0.0.1, for=198.51.100.9;proto=https"), (XFF, "198.51.100.9"), (XFP, "https")],
            ("198.51.100.9", "https"),
        ),
        (
            "10.1.1.1",
            [(F, "for=198.51.100.9"), (XFF, "198.51.100.9"), (XFP, "https")],
            ("198.51.100.9", "https"),
        ),
        ("10.1.1.1", [(XFF, ", ,"), (XFP, "gopher")], ("10.1.1.1", "http")),
        ("10.1.1.1", [(F, '";;==,"')], ("10.1.1.1", "http")),
        # A quote that the client left open does not swallow what the proxy appended.
        ("10.1.1.1", [(F, 'for=127.0.0.1;x=", for="[2001:db8::9]:47"')], ("10.1.1.1", "http")),
        ("10.1.1.1", [(F, 'for=127.0.0.1;x="'), (F, 'for="[2001:db8::9]:47"')], ("2001:db8::9", "http")),
        ("10.1.1.1", [(F, r'for="10.2.2.2\"", for=198.51.100.9 ;by=_x;')], ("198.51.100.9", "http")),
        ("10.1.1.1", [(F, "for=198.51.100.9,, ,")], ("198.51.100.9", "http")),
        ("10.1.1.1", [(F, "for=198.51.100.9 for=127.0.0.1")], ("10.1.1.1", "http")),
        ("10.1.1.1", [(F, "")], ("10.1.1.1", "http")),
        ("10.1.1.1", [(XFF, "::ffff:198.51.100.9")], ("198.51.100.9", "http")),
    ],
)
def test_the_client_is_the_last_one_that_is_no_proxy_of_ours(
    peer: str, headers: list[tuple[str, str]], expected: tuple[str, str]
) -> None:
    assert seen(peer, *headers) == expected


@pytest.mark.parametrize(
    "piece", ["a", " ", ";", ",", "=", '"', "\\", 'for="a', "for=1,", " ;", "a=b ", 'a="\\"', "a=b;", "::"]
)
def test_reading_a_header_takes_no_longer_than_it_is_long(piece: str) -> None:
    text = piece * (32_000 // len(piece))
    began = time.process_time()
    for value in (text, f"for={text}", f'for="{text}', f'for="{text}"'):
        for name in (F, XFF):
            seen("10.1.1.1", (name, value))
    # Read again from each place it took seconds.
    assert time.process_time() - began < 2


def test_what_is_no_network_is_refused() -> None:
    with pytest.raises(ValueError, match="does not appear to be an IPv4 or IPv6 network"):
        Networks("10.0.0.0/8, proxy")
    assert not Networks("")
