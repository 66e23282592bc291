"""Log lines on standard error: for people, or as JSON for machines; of this code and of libraries alike."""

import json
import logging
import re
import sys
import time
from typing import Any

import orjson
import structlog
from structlog.typing import EventDict

from adapter.core import tracing, work
from adapter.line_writer import LineWriter
from adapter.settings import Settings

_log = structlog.get_logger()

_PLAIN = re.compile(r"[\w.:/+@%,;*()\[\]{}<>|~^$#&!?-]+\Z", re.ASCII)


def configure_logs(settings: Settings) -> None:
    """Set the logs up for this process, once, before the first line; what is left is written at its end."""
    writer = LineWriter(sys.stderr.fileno(), lambda lost: _log.warning("log lines were lost", lost=lost))
    level = logging.getLevelNamesMapping()[settings.log_level.upper()]
    structlog.configure(
        processors=[
            _Head(),
            structlog.processors.format_exc_info,
            json_line if settings.log_format == "json" else console_line,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=lambda *_: _Output(writer),
        cache_logger_on_first_use=True,
    )
    # Libraries use the standard library's logging; of theirs only what is wrong is of interest.
    logging.basicConfig(handlers=[_Bridge()], level=max(level, logging.WARNING), force=True)
    logging.captureWarnings(True)
    # Of these `HttpProtocol` writes a line of its own.
    logging.getLogger("uvicorn.error").addFilter(lambda record: "Invalid HTTP request" not in str(record.msg))


def json_line(_: Any, __: str, event: EventDict) -> bytes:
    """One object; JSON escapes the line breaks in its strings."""
    try:
        return orjson.dumps(event, default=repr)
    except TypeError:
        # Of integers over 64 bits, and of text that is no Unicode.
        return json.dumps(event, default=repr).encode()


def console_line(_: Any, __: str, event: EventDict) -> bytes:
    """`time [level] event name=value …`, with a traceback indented below it.

    structlog's own renderer takes several times as long, and prints control characters as they come.
    """
    names = ("timestamp", "level", "event", "exception")
    time, level, text, exception = (str(event.pop(name, "")) for name in names)
    pairs = (f"{name}={_shown(value)}" for name, value in event.items())
    line = " ".join([f"{time} [{level}] {_printable(text)}", *pairs])
    return "\n    ".join([line, *map(_printable, exception.splitlines())]).encode()


def _shown(value: Any) -> str:
    """As it is when nothing in it could be taken for something else, otherwise quoted and escaped."""
    return value if type(value) is str and _PLAIN.match(value) else repr(value)


def _printable(text: str) -> str:
    return text if text.isprintable() else "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


class _Head:
    """Begins each line: when, how severe, what, and by which request and in which trace it came about."""

    def __init__(self) -> None:
        self._second = 0, ""
        """The last second that was written out."""

    def __call__(self, _: Any, level: str, event: EventDict) -> EventDict:
        now = time.time()
        second, text = self._second
        if second != int(now):
            second, text = int(now), time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(now))
            self._second = second, text
        timestamp = f"{text}.{int((now - second) * 1e6):06d}Z"
        head: EventDict = {"timestamp": timestamp, "level": level, "event": event.pop("event")}
        if at_hand := work.current():
            head["request_id"] = at_hand.request_id
        if trace := tracing.current():
            head["trace_id"] = trace.trace_id
        return {**head, **event}


class _Output:
    """What structlog calls with a finished line, by the name of its level."""

    def __init__(self, writer: LineWriter) -> None:
        self.msg = writer.write
        self.debug = self.info = self.warning = self.error = self.critical = self.exception = self.msg


class _Bridge(logging.Handler):
    """Sends what libraries log the same way as our own lines."""

    def emit(self, record: logging.LogRecord) -> None:
        text = record.getMessage().rstrip()
        _log.log(record.levelno, text, logger=record.name, exc_info=record.exc_info)
