"""The journal around an app that does as it is told."""

import asyncio
from collections.abc import Awaitable, Callable, MutableMapping
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import pytest
from starlette.responses import PlainTextResponse
from starlette.types import Message, Receive, Scope, Send
from structlog.testing import capture_logs

from adapter.contracts.journal import Journal, wanted
from adapter.core import tracing, work
from adapter.core.metrics import Metrics
from tests.spans import CLIENTS, recorded

App = Callable[[Scope, Receive, Send], Awaitable[None]]
TRACED = (b"traceparent", CLIENTS.traceparent.encode())


@dataclass
class Asked:
    """One request: what was answered, what was counted, and the lines that were logged."""

    sent: list[Message]
    metrics: Metrics
    lines: list[MutableMapping[str, Any]]

    @property
    def ids(self) -> list[bytes]:
        headers = [header for message in self.sent for header in message.get("headers", ())]
        return [value for name, value in headers if name == b"x-request-id"]

    @property
    def exemplars(self) -> list[str]:
        """The traces by which the time that it took can be found."""
        [series] = self.metrics.request_seconds.series.values()
        return [trace_id for trace_id, _, _ in series.exemplars.values()]


async def hello(scope: Scope, receive: Receive, send: Send) -> None:
    await PlainTextResponse("hello")(scope, receive, send)


def ask(app: App, *headers: tuple[bytes, bytes], raises: type[Exception] | None = None, **more: str) -> Asked:
    asked = Asked([], Metrics(), [])
    scope: Scope = {
        "type": "http", "method": "GET", "path": "/v2", "scheme": "http", "http_version": "1.1",
        "client": ("192.0.2.1", 1), "headers": headers, **more,
    }  # fmt: skip

    async def send(message: Message) -> None:
        asked.sent.append(message)

    async def receive() -> Message:
        return {"type": "http.request", "body": b"12345", "more_body": False}

    async def main() -> None:
        await Journal(app, 1, asked.metrics)(scope, receive, send)

    with capture_logs() as asked.lines, pytest.raises(raises) if raises else nullcontext():
        asyncio.run(main())
    return asked


def test_the_first_well_formed_id_is_taken() -> None:
    given = [(b"x-request-id", value) for value in (b"no good", b"a", b"b")]
    assert ask(hello, *given).ids == [b"a"]
    assert ask(hello).ids != ask(hello).ids


def test_the_line_of_a_request() -> None:
    async def reads(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await hello(scope, receive, send)

    [line] = ask(reads, path="/" + "x" * 500).lines
    assert 0 <= line.pop("ms") < 1000
    assert line == {
        "log_level": "info",
        "event": "request",
        "contract": "miaas",
        "method": "GET",
        "path": "/" + "x" * 199,
        "address": "192.0.2.1",
        "code": 200,
        "bytes_in": 5,
        "bytes_out": 5,
    }


def test_an_error_that_nobody_expected_is_a_line_and_goes_on() -> None:
    async def breaks(scope: Scope, receive: Receive, send: Send) -> None:
        raise KeyError("secret")

    with recorded() as kept:
        [line] = ask(breaks, raises=KeyError).lines
    assert (line["log_level"], line["code"]) == ("error", 500)
    [span] = kept.spans
    assert span.attributes is not None
    assert (span.attributes["http.response.status_code"], span.attributes["error.type"]) == (500, "KeyError")
    assert not span.status.is_ok


def test_a_client_that_left_is_no_failure() -> None:
    async def left(scope: Scope, receive: Receive, send: Send) -> None:
        return

    [line] = ask(left).lines
    assert (line["log_level"], line["code"]) == ("info", 499)


def test_a_trace_that_somebody_keeps_is_the_exemplar() -> None:
    unrecorded = (b"traceparent", CLIENTS.traceparent[:-1].encode() + b"0")
    assert ask(hello, TRACED).exemplars == [CLIENTS.trace_id]
    assert ask(hello, unrecorded).exemplars == []
    assert ask(hello).exemplars == []
    with recorded() as kept:
        [trace_id] = ask(hello).exemplars
        assert kept.spans[0].context is not None
        assert trace_id == f"{kept.spans[0].context.trace_id:032x}"


def test_every_request_is_counted_however_it_ends() -> None:
    async def breaks(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        raise KeyError("secret")

    async def left(scope: Scope, receive: Receive, send: Send) -> None:
        scope["state"] |= {"model": "m", "version": "7", "error": "queue_full"}

    for app, raises, labels in (
        (hello, None, ("v2", "", "", "200")),
        (breaks, KeyError, ("v2", "", "", "500")),
        (left, None, ("v2", "m", "7", "499")),
    ):
        metrics = ask(app, raises=raises).metrics
        assert {key: series.count for key, series in metrics.request_seconds.series.items()} == {labels: 1}
        assert metrics.requests_in_flight.labels("v2").value == 0
        assert metrics.request_bytes.labels("v2").value == (5 if app is breaks else 0)
        assert metrics.response_bytes.labels("v2").value == (5 if app is hello else 0)
        assert metrics.refusals.labels("queue_full").value == (1 if app is left else 0)


def test_whoever_is_called_knows_what_it_works_for() -> None:
    async def looks(scope: Scope, receive: Receive, send: Send) -> None:
        at_hand = work.current()
        assert at_hand is not None
        assert at_hand.request_id == "mine"
        assert tracing.current() == CLIENTS
        await hello(scope, receive, send)

    assert ask(looks, (b"x-request-id", b"mine"), TRACED).sent[0]["status"] == 200


@pytest.mark.parametrize(("given", "name", "method"), [("MKCOL", "HTTP", "_OTHER"), ("POST", "POST", "POST")])
def test_a_span_is_named_by_what_is_known(given: str, name: str, method: str) -> None:
    with recorded() as kept:
        ask(hello, method=given)
    [span] = kept.spans
    assert span.attributes is not None
    assert (span.name, span.attributes["http.request.method"]) == (name, method)


def test_what_is_no_request_goes_straight_on() -> None:
    seen: list[str] = []

    async def lifespan(scope: Scope, receive: Receive, send: Send) -> None:
        seen.append(scope["type"])

    asked = ask(lifespan, type="lifespan")
    assert (asked.sent, asked.lines, asked.metrics.request_seconds.series) == ([], [], {})
    assert seen == ["lifespan"]


def test_a_share_is_a_share() -> None:
    assert not any(wanted(404, 0) for _ in range(1000))
    assert all(wanted(200, 1) and wanted(500, 0) and wanted(503, 0) for _ in range(1000))
    assert 300 < sum(wanted(200, 0.5) for _ in range(1000)) < 700
