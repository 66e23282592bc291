"""Log lines: how they look in both forms, what reaches them, and that writing them never blocks."""

import json
import os
import select
import subprocess
import sys
import time
from typing import Any

import pytest

from adapter.line_writer import LineWriter
from adapter.logs import console_line, json_line

EVENT = {"timestamp": "2026-01-02T03:04:05.000006Z", "level": "info", "event": "what happened"}


def console(**more: Any) -> str:
    return console_line(None, "info", {**EVENT, **more}).decode()


def test_a_line_for_people() -> None:
    shown = console(code=200, ms=1.25, path="/v1/models/x:predict", client="alice", good=True)
    assert shown == (
        "2026-01-02T03:04:05.000006Z [info] what happened"
        " code=200 ms=1.25 path=/v1/models/x:predict client=alice good=True"
    )


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ("two words", "'two words'"),
        ("a=b", "'a=b'"),
        ("", "''"),
        ("line\nbreak\r", r"'line\nbreak\r'"),
        ("\x1b[31m\x07\u2028\u202e\x85", r"'\x1b[31m\x07\u2028\u202e\x85'"),
        ("it's", '''"it's"'''),
        ("café", "'café'"),
        ("\ud800", r"'\ud800'"),
    ],
)
def test_what_could_be_taken_for_something_else_is_quoted(value: str, shown: str) -> None:
    assert console(x=value).removeprefix(console()) == f" x={shown}"
    assert json.loads(json_line(None, "", {"x": value})) == {"x": value}
    assert b"\n" not in json_line(None, "", {"x": value})


def test_a_traceback_is_indented_below_its_line() -> None:
    shown = console(exception="Traceback:\n  File\nValueError: \x1b2026 [info] forged")
    assert shown.splitlines()[1:] == [
        "    Traceback:",
        "      File",
        "    ValueError: \\x1b2026 [info] forged",
    ]
    # An event cannot break its line either.
    assert console_line(None, "", {**EVENT, "event": "a\nb"}).decode().endswith(r"[info] a\nb")


def test_json_takes_what_json_cannot_hold() -> None:
    line = json_line(None, "", {"large": 1 << 70, "odd": {1, 2}, "object": ValueError("x")})
    assert json.loads(line) == {"large": 1 << 70, "odd": "{1, 2}", "object": "ValueError('x')"}


def run(code: str, **settings: str) -> list[dict[str, Any]]:
    """What a process logs whose logs are configured."""
    head = "from adapter.logs import configure_logs\nfrom adapter.settings import Settings\n"
    done = subprocess.run(
        [sys.executable, "-c", f"{head}configure_logs(Settings())\n{code}"],
        env={"ADAPTER_LOG_FORMAT": "json", **{f"ADAPTER_{name}": value for name, value in settings.items()}},
        capture_output=True,
        text=True,
        check=True,
    )
    lines: list[dict[str, Any]] = [json.loads(line) for line in done.stderr.splitlines()]
    for line in lines:
        assert line.pop("timestamp").endswith("Z")
    return lines


def test_libraries_log_in_the_same_form() -> None:
    lines = run(
        """
import logging, warnings
logging.getLogger("uvicorn.error").info("not of interest")
try:
    1 / 0
except ZeroDivisionError:
    logging.getLogger("uvicorn.error").exception("Exception in ASGI application\\n")
logging.getLogger("nats").warning("%s of %d", "one", 2)
warnings.warn("old")
"""
    )
    exception = lines[0].pop("exception")
    assert exception.splitlines()[-1] == "ZeroDivisionError: division by zero"
    assert lines[0] == {"level": "error", "event": "Exception in ASGI application", "logger": "uvicorn.error"}
    assert lines[1] == {"level": "warning", "event": "one of 2", "logger": "nats"}
    assert "UserWarning: old" in lines[2]["event"]
    assert len(lines) == 3


def test_a_line_says_by_which_request_it_came_about() -> None:
    lines = run(
        """
import structlog
from adapter.core import tracing, work
from adapter.core.trace_context import TraceContext
log = structlog.get_logger()
log.info("before")
work.begin("the-id")
tracing.resume(TraceContext("a" * 32, "b" * 16, 0))
log.info("within", x=1)
log.info("named", request_id="another")
"""
    )
    place = {"request_id": "the-id", "trace_id": "a" * 32}
    assert lines == [
        {"level": "info", "event": "before"},
        {"level": "info", "event": "within", **place, "x": 1},
        {"level": "info", "event": "named", **place, "request_id": "another"},
    ]


def test_less_severe_lines_are_left_out() -> None:
    code = "import structlog\nlog = structlog.get_logger()\nlog.info('a')\nlog.warning('b')\nlog.error('c')"
    assert [line["event"] for line in run(code, LOG_LEVEL="error")] == ["c"]


def test_a_writer_whose_pipe_is_full_drops_and_counts() -> None:
    reading, writing = os.pipe()
    lost: list[int] = []
    writer = LineWriter(writing, lost.append)
    line = b"x" * 999
    began = time.monotonic()
    # A pipe holds 64 KiB, and so many more lines may wait.
    for _ in range(100):
        writer.write(line)
    while select.select([reading], [], [], 0)[0] == []:
        time.sleep(0.001)
    for _ in range(25_000):
        writer.write(line)
    assert time.monotonic() - began < 5
    received = 0
    while not lost or received + lost[0] < 25_100:
        received += os.read(reading, 1 << 16).count(b"\n")
    assert len(lost) == 1
    assert received + lost[0] == 25_100
    assert 4_000 < lost[0] <= 5_100
    writer.close()
    os.close(reading)
    os.close(writing)


def test_a_writer_waits_for_a_reader_that_does_not_block() -> None:
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    writer = LineWriter(writing, lambda _: None)
    for number in range(500):
        writer.write(b"%d " % number + b"x" * 999)
    content = b""
    while content.count(b"\n") < 500:
        content += os.read(reading, 1 << 16)
    assert [int(line.split()[0]) for line in content.splitlines()] == list(range(500))
    writer.close()
    os.close(reading)
    os.close(writing)


def test_a_writer_without_a_reader_goes_on() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    writer = LineWriter(writing, lambda _: None)
    writer.write(b"x")
    writer.close()
    os.close(writing)


def test_the_last_line_is_written() -> None:
    assert run("import structlog\nstructlog.get_logger().info('last')")[-1]["event"] == "last"
