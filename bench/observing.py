"""`python -m bench.observing`: what a request's id, its metrics, its line in the log and its spans cost.

CPU microseconds per request of this process, with the threads that write lines and export spans: no server,
no network and no model, but an application that answers at once and has the stages of a prediction. Rounds of
all variants alternate, each in a process of its own; the median of each is printed, and what it is above the
application alone.
"""

import asyncio
import os
import statistics
import subprocess
import sys
import time

from rich.console import Console
from rich.table import Table
from starlette.types import ASGIApp, Message, Receive, Scope, Send

_REQUESTS = 20_000
_ROUNDS = 7
_NOBODY = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1", "OTEL_EXPORTER_OTLP_TIMEOUT": "0.1"}
_VARIANTS: dict[str, dict[str, str]] = {
    "the application alone": {},
    "with an id and metrics, no line": {"ADAPTER_ACCESS_LOG_SAMPLE": "0"},
    "with a line, JSON": {"ADAPTER_LOG_FORMAT": "json"},
    "with a line for people": {"ADAPTER_LOG_FORMAT": "console"},
    "no line, tracing, this one not recorded": {
        "ADAPTER_ACCESS_LOG_SAMPLE": "0",
        "OTEL_TRACES_SAMPLER": "always_off",
        **_NOBODY,
    },
    "no line, tracing, 4 spans recorded": {"ADAPTER_ACCESS_LOG_SAMPLE": "0", **_NOBODY},
}
_ALONE = next(iter(_VARIANTS))


def main() -> None:
    """Measure and print, or with a variant's number measure that one alone."""
    if len(sys.argv) > 1:
        print(_measure(with_journal=sys.argv[1] != _ALONE))
        return
    found: dict[str, list[float]] = {name: [] for name in _VARIANTS}
    for _ in range(_ROUNDS):
        for name, environment in _VARIANTS.items():
            command = [sys.executable, "-m", "bench.observing", name]
            done = subprocess.run(
                command,
                env={**os.environ, **environment},
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                text=True,
                check=True,
            )
            found[name].append(float(done.stdout))
    _show({name: statistics.median(draws) for name, draws in found.items()})


def _show(medians: dict[str, float]) -> None:
    table = Table("", "CPU µs per request", "above", title="What observing costs")
    for name, median in medians.items():
        table.add_row(name, f"{median:.1f}", f"{median - medians[_ALONE]:.1f}")
    Console(width=100).print(table)


def _measure(with_journal: bool) -> float:
    from adapter.contracts.journal import Journal
    from adapter.core.metrics import Metrics
    from adapter.logs import configure_logs
    from adapter.settings import Settings
    from adapter.traces import exported_spans

    settings = Settings()
    configure_logs(settings)
    journal = Journal(_answer, settings.access_log_sample, Metrics())
    app: ASGIApp = journal if with_journal else _answer
    with exported_spans("bench"):
        asyncio.run(_requests(app, 500))
        began = time.process_time()
        asyncio.run(_requests(app, _REQUESTS))
        return (time.process_time() - began) / _REQUESTS * 1e6


async def _requests(app: ASGIApp, count: int) -> None:
    async def receive() -> Message:
        return {"type": "http.request", "body": b"{}"}

    async def send(message: Message) -> None:
        pass

    headers = [
        *((b"host", b"localhost:8080"), (b"user-agent", b"wrk"), (b"accept", b"*/*")),
        *((b"content-type", b"application/json"), (b"content-length", b"43"), (b"x-api-key", b"miaas_x")),
    ]
    for _ in range(count):
        scope: Scope = {
            "type": "http",
            "http_version": "1.1",
            "method": "POST",
            "scheme": "http",
            "path": "/v1/models/sklearn-iris:predict",
            "client": ("127.0.0.1", 40_000),
            "headers": headers,
            "state": {},
        }
        await app(scope, receive, send)


async def _answer(scope: Scope, receive: Receive, send: Send) -> None:
    from adapter.core.types import Client
    from adapter.core.work import Stage

    scope["state"] |= {"client": Client("bench"), "model": "sklearn-iris", "version": "2"}
    for name in ("decode", "infer", "encode"):
        with Stage(name):
            await receive()
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"{}"})


if __name__ == "__main__":
    main()
