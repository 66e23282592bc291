"""A job's turn in a worker: its line, and its place in a trace."""

import asyncio
import time
from dataclasses import dataclass
from typing import Any

import pytest
from structlog.testing import capture_logs

from adapter.core.trace_context import TraceContext
from adapter.core.types import InferRequest, InferResponse, Job, JobError, JobResult, Tensor
from adapter.core.work import Stage
from adapter.jobs import messages
from adapter.jobs.ids import new_id
from adapter.jobs.journal import Outcome, Turn
from adapter.jobs.lanes import LANES
from tests.spans import CLIENTS, recorded

COMPLETED = JobResult(InferResponse("m", "1", ()), "names", False)
FAILED = JobResult(JobError("invalid_input", "the value 'secret'"), "names", False)


@dataclass
class Lent:
    """What a queue lends, as far as a turn is concerned."""

    job: Job
    deliveries: int = 1
    attempt: int = 1


def job(**more: Any) -> Job:
    now = time.time()
    request = InferRequest("m", "3", (Tensor("x", "UINT8", (1,), b"x"),))
    return Job(new_id(LANES[0], now), "alice", request, "names", False, now - 1.5, now + 60, **more)


def turn(outcome: Outcome, lent: Lent, sample: float = 1) -> list[Any]:
    """The lines of a turn that ended so."""

    async def main() -> None:
        with Turn(lent, sample) as taken:  # type: ignore[arg-type]
            with Stage("infer"):
                pass
            taken.outcome = outcome

    with capture_logs() as lines:
        asyncio.run(main())
    return list(lines)


def test_the_line_of_a_job() -> None:
    lent = Lent(job())
    [line] = turn(COMPLETED, lent)
    assert 1500 <= line.pop("wait_ms") < 10_000
    assert 0 <= line.pop("infer_ms") <= line.pop("ms")
    assert line == {
        "log_level": "info",
        "event": "job",
        "job": lent.job.id,
        "client": "alice",
        "model": "m",
        "version": "3",
        "outcome": "completed",
        "attempt": 1,
    }


@pytest.mark.parametrize(
    ("outcome", "told", "lines"),
    [
        (COMPLETED, {}, 0),
        ("settled", {}, 0),
        (FAILED, {"outcome": "failed", "code": "invalid_input"}, 1),
        ("given_back", {"outcome": "given_back"}, 1),
        ("unsettled", {"outcome": "unsettled"}, 1),
    ],
)
def test_a_job_that_did_not_complete_always_has_a_line(outcome: Outcome, told: Any, lines: int) -> None:
    found = turn(outcome, Lent(job()), sample=0)
    assert len(found) == lines
    assert all(line.items() >= told.items() for line in found)


@pytest.mark.parametrize("lent", [Lent(job(), deliveries=2, attempt=2), Lent(job(replaces=7))])
def test_only_the_first_turn_tells_how_long_the_job_waited(lent: Lent) -> None:
    [line] = turn(COMPLETED, lent)
    assert "wait_ms" not in line
    assert line["attempt"] == lent.attempt


def test_a_turn_that_is_broken_off_is_given_back() -> None:
    async def main() -> None:
        with Turn(Lent(job()), 0):  # type: ignore[arg-type]
            raise asyncio.CancelledError

    with capture_logs() as lines, pytest.raises(asyncio.CancelledError):
        asyncio.run(main())
    assert [line["outcome"] for line in lines] == ["given_back"]


def test_a_turn_is_part_of_the_trace_that_the_job_was_submitted_in() -> None:
    lent = Lent(job(trace=CLIENTS))
    with recorded() as kept:
        turn(FAILED, lent)
    assert kept.names() == ["wait", "infer", "process MIAAS_JOBS"]
    wait, infer, process = kept.spans
    assert wait.parent is not None
    assert process.parent is not None
    assert infer.parent == process.context
    assert wait.parent.span_id == process.parent.span_id == int(CLIENTS.span_id, 16)
    assert wait.start_time == pytest.approx(lent.job.submitted * 1e9, abs=1000)
    assert process.attributes is not None
    assert process.attributes["error.type"] == "invalid_input"
    assert "secret" not in str([span.to_json() for span in kept.spans])


@pytest.mark.parametrize(
    "more",
    [
        {},
        {"correlation_id": "the-id", "trace": TraceContext("a" * 32, "b" * 16, 1, "x=y,z=1", remote=True)},
        {"trace": TraceContext("a" * 32, "b" * 16, 0, remote=True)},
    ],
)
def test_id_and_trace_travel_in_the_messages_headers(more: dict[str, Any]) -> None:
    given = job(**more)
    headers = messages.job_headers(given)
    read = messages.read_job_headers(headers)
    assert (read.correlation_id, read.trace) == (given.correlation_id, given.trace)
    if given.trace:
        assert headers["traceparent"] == f"00-{'a' * 32}-{'b' * 16}-0{given.trace.flags}"
    assert {"X-Request-ID", "traceparent", "tracestate"}.isdisjoint(headers) == (not more)
