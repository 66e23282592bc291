"""Spans and stages, recorded by nobody and by OpenTelemetry's SDK."""

import asyncio
from collections.abc import Iterator
from typing import get_args

import pytest

from adapter.core import tracing, work
from adapter.core.errors import InvalidInput
from adapter.core.trace_context import TraceContext
from adapter.core.work import Stage
from tests.spans import CLIENTS, recorded


@pytest.fixture(autouse=True)
def _nowhere() -> Iterator[None]:
    yield
    tracing.resume(None)


def test_nobody_records() -> None:
    tracing.resume(CLIENTS)
    with tracing.span("POST", "server") as span:
        span.set({"a": 1})
        span.rename("b")
        span.link(CLIENTS)
        span.fail("c")
        assert not span.recording
        # What the client said of its own span goes through as it came.
        assert tracing.current() == CLIENTS
    assert tracing.span("x") is tracing.NOBODYS


def test_spans_make_a_tree() -> None:
    with recorded() as kept:
        tracing.resume(CLIENTS)
        with tracing.span("server", "server") as server:
            with tracing.span("one"), tracing.span("within"):
                pass
            with tracing.span("two", links=[CLIENTS]) as two:
                assert tracing.current() == two.context
            assert tracing.current() == server.context
        assert tracing.current() == CLIENTS
    ids = {span.name: f"{span.context.span_id:016x}" for span in kept.spans if span.context}
    parents = {span.name: f"{span.parent.span_id:016x}" for span in kept.spans if span.parent}
    assert kept.names() == ["within", "one", "two", "server"]
    assert parents == {
        "within": ids["one"],
        "one": ids["server"],
        "two": ids["server"],
        "server": CLIENTS.span_id,
    }
    assert {span.context.trace_id for span in kept.spans if span.context} == {int(CLIENTS.trace_id, 16)}
    [link] = kept.spans[2].links
    assert f"{link.context.span_id:016x}" == CLIENTS.span_id


def test_what_the_client_does_not_record_is_in_its_trace_all_the_same() -> None:
    with recorded() as kept:
        tracing.resume(TraceContext(CLIENTS.trace_id, CLIENTS.span_id, 0, remote=True))
        with tracing.span("server", "server") as server:
            here = tracing.current()
            assert here == server.context
            assert here is not None
            assert (here.trace_id, here.sampled) == (CLIENTS.trace_id, False)
            assert tracing.span("within") is tracing.NOBODYS
    assert kept.spans == []


def test_inside_of_nothing_nothing_begins_but_a_servers_or_a_consumers_part() -> None:
    with recorded() as kept:
        tracing.resume(None)
        for kind in get_args(tracing.Kind):
            tracing.span(kind, kind).end()
    assert sorted(kept.names()) == ["consumer", "server"]


def test_the_clients_tracestate_goes_on() -> None:
    with recorded():
        tracing.resume(TraceContext(CLIENTS.trace_id, CLIENTS.span_id, 1, "vendor=x,other=y", remote=True))
        with tracing.span("server", "server"):
            here = tracing.current()
    assert here is not None
    assert here.state == "vendor=x,other=y"


@pytest.mark.parametrize(
    ("error", "told"),
    [(InvalidInput("the value 'secret'"), "invalid_input"), (KeyError("secret"), "KeyError")],
)
def test_a_failed_span_says_a_code_and_no_message(error: Exception, told: str) -> None:
    with recorded() as kept:
        tracing.resume(CLIENTS)
        with pytest.raises(type(error)), tracing.span("x"):
            raise error
    [span] = kept.spans
    assert span.attributes == {"error.type": told}
    assert span.status.description is None
    assert span.events == ()
    assert not span.status.is_ok


def test_a_span_begins_when_it_is_said_to_and_ends_once() -> None:
    with recorded() as kept:
        tracing.resume(CLIENTS)
        span = tracing.span("wait", since=1700000000.25)
        span.end()
        span.end()
    [ended] = kept.spans
    assert ended.start_time == pytest.approx(1700000000_250_000_000, abs=1000)


def test_a_stage_is_timed_and_a_span() -> None:
    async def main() -> None:
        at_hand = work.begin("the-id")
        tracing.resume(CLIENTS)
        for _ in range(2):
            with Stage("decode"):
                await asyncio.sleep(0.01)
        with pytest.raises(KeyError), Stage("encode"):
            raise KeyError
        assert at_hand.timings.keys() == {"decode_ms", "encode_ms"}
        # Together, in both of its turns.
        assert 20 <= at_hand.timings["decode_ms"] < 1000
        await asyncio.create_task(inherited(at_hand))

    async def inherited(at_hand: work.Work) -> None:
        assert work.current() is at_hand
        assert work.begin("another").seconds == {}

    with recorded() as kept:
        asyncio.run(main())
    assert kept.names() == ["decode", "decode", "encode"]
