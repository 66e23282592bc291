"""An `up` whose spans, and whose Triton's, come to a receiver."""

import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import Any

import httpx

from tests.integration.conftest import Up, eventually, make_repository, start_up
from tests.integration.otlp import Receiver, Span, grpc_server, http_server

CALLER = "00f067aa0ba902b7"
"""The client's span."""
CANARY = 867530912345.0
IRIS = {"instances": [[CANARY, 3.5, 1.4, 0.2]]}
SEVERAL = 8
"""Of so many traces Triton joins one: it does not join them all, see docs/tracing.md."""


@dataclass
class Traced:
    """The `up`, and what it sends; `collector` says to other processes where."""

    up: Up
    receiver: Receiver
    collector: dict[str, str]

    def post(self, path: str, body: Any, flags: str = "01", **headers: str) -> tuple[str, httpx.Response]:
        """A request within a new trace of the client's; the trace, and the answer."""
        trace = secrets.token_hex(16)
        headers["traceparent"] = f"00-{trace}-{CALLER}-{flags}"
        return trace, self.up.client.post(path, json=body, headers=headers)

    def joined_by_triton(
        self, path: str, body: Any, *names: str, **headers: str
    ) -> tuple[str, httpx.Response, dict[str, Span]]:
        """The same request several times; one trace that has Triton's spans and these, with its answer.

        One after the other: jobs that wait together are joined into one call, which is a part of one's trace.
        """
        sent = []
        for _ in range(SEVERAL):
            trace, answer = self.post(path, body, **headers)
            if answer.status_code == HTTPStatus.ACCEPTED:
                self.up.result(answer.json()["request_id"])
            sent.append((trace, answer))

        def look() -> tuple[str, httpx.Response, dict[str, Span]] | None:
            for trace, answer in sent:
                found = self.receiver.named(trace)
                if found.keys() >= {"InferRequest", "compute", *names}:
                    return trace, answer, found
            return None

        return eventually(look)


@contextmanager
def start_traced(folder: Path) -> Iterator[Traced]:
    """Start both in `folder`."""
    receiver = Receiver()
    repository = make_repository(folder, "sklearn-iris", "identity-batch")
    with grpc_server(receiver) as port, http_server(receiver) as url:
        collector = {
            "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{port}",
            "OTEL_BSP_SCHEDULE_DELAY": "100",
        }
        settings = {"ADAPTER_TRITON_TRACES_URL": url, "ADAPTER_BATCH_CALLS": "1"}
        with start_up(folder, repository, **collector, **settings) as up:
            yield Traced(up, receiver, collector)
