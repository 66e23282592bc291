"""W3C Trace Context, by the rules of https://www.w3.org/TR/trace-context/."""

import pytest

from adapter.core.trace_context import TraceContext, read_trace_context

TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
GOOD = f"00-{TRACE}-{SPAN}-01"


@pytest.mark.parametrize(
    ("traceparent", "flags"),
    [
        (GOOD, 1),
        (f"00-{TRACE}-{SPAN}-00", 0),
        (f" {GOOD}\t", 1),
        # Flags that nobody has defined yet are left out.
        (f"00-{TRACE}-{SPAN}-ff", 3),
        # Of later versions what is known is read.
        (f"01-{TRACE}-{SPAN}-01", 1),
        (f"cc-{TRACE}-{SPAN}-01-what-comes-then", 1),
    ],
)
def test_a_traceparent_is_read(traceparent: str, flags: int) -> None:
    found = read_trace_context([traceparent])
    assert found == TraceContext(TRACE, SPAN, flags, remote=True)
    assert found.sampled == bool(flags & 1)
    assert found.traceparent == f"00-{TRACE}-{SPAN}-{flags:02x}"


@pytest.mark.parametrize(
    "traceparent",
    [
        "",
        "00",
        GOOD[:-1],
        GOOD + ".",
        GOOD + "-",
        f"ff-{TRACE}-{SPAN}-01",
        f"00-{'0' * 32}-{SPAN}-01",
        f"00-{TRACE}-{'0' * 16}-01",
        f"00-{TRACE.upper()}-{SPAN}-01",
        f"0-{TRACE}-{SPAN}-01",
        f".0-{TRACE}-{SPAN}-01",
        f"00-{TRACE}-{SPAN}-x1",
        f"00-{TRACE}-{SPAN[:-1]}.-01",
        f"00_{TRACE}_{SPAN}_01",
        f"01-{TRACE}-{SPAN}-01.what",
        f"00-{TRACE}\n-{SPAN}-01",
    ],
)
def test_a_malformed_traceparent_says_nothing(traceparent: str) -> None:
    assert read_trace_context([traceparent]) is None


def test_two_traceparents_say_nothing() -> None:
    assert read_trace_context([GOOD, GOOD]) is None
    assert read_trace_context([]) is None


@pytest.mark.parametrize(
    ("headers", "state"),
    [
        (["foo=1"], "foo=1"),
        (["foo=1,bar=2", "rojo=1"], "foo=1,bar=2,rojo=1"),
        (["foo=1 \t , \t bar=2, ", ""], "foo=1,bar=2"),
        (["a_-*/9=2", "0tenant@sys-t_m=!~ x"], "a_-*/9=2,0tenant@sys-t_m=!~ x"),
        ([",".join(f"k{i}=v" for i in range(32))], ",".join(f"k{i}=v" for i in range(32))),
        ([f"a={'v' * 256}"], f"a={'v' * 256}"),
        # What breaks the rules takes the rest with it.
        (["foo=1,foo=2"], ""),
        (["foo=1,bar"], ""),
        (["foo=1", "Foo=2"], ""),
        (["foo =1"], ""),
        (["foo@=1"], ""),
        (["foo=a=b"], ""),
        (["foo="], ""),
        (["foo=bu\x7fr"], ""),
        (["foo=\xe9"], ""),
        ([f"{'k' * 257}=1"], ""),
        ([f"a={'v' * 257}"], ""),
        ([",".join(f"k{i}=v" for i in range(33))], ""),
        # More than has to be passed on.
        ([f"a={'v' * 256},b={'v' * 256}"], ""),
    ],
)
def test_a_tracestate_goes_along_when_it_is_well_formed(headers: list[str], state: str) -> None:
    found = read_trace_context([GOOD], headers)
    assert found is not None
    assert found.state == state
    assert read_trace_context(["malformed"], headers) is None
