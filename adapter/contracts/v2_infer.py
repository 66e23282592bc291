"""V2's `/infer` as plain ASGI: bytes come in and go out without a framework or numpy between."""

import asyncio
from collections.abc import Mapping
from typing import Any

from starlette.datastructures import Headers
from starlette.types import Receive, Scope, Send

from adapter.contracts.answers import version_headers
from adapter.contracts.body import LARGE, read_body, read_body_into
from adapter.contracts.leaving import end_with_client
from adapter.contracts.models import name_model
from adapter.contracts.v2_request import HEADER_LENGTH, decode_request, header_length
from adapter.contracts.v2_response import encode_response
from adapter.core.dataplane import DataPlane
from adapter.core.metrics import Metrics
from adapter.core.work import Stage
from adapter.settings import Settings

_SHORT = 64 << 10
"""An answer of fewer bytes is put together before it is sent."""


class Infer:
    """`POST …/infer`."""

    def __init__(self, dataplane: DataPlane, metrics: Metrics, settings: Settings) -> None:
        self._dataplane = dataplane
        self._metrics = metrics
        self._settings = settings

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer JSON, and binary tensors behind it. Raises what the codec and the data plane raise."""
        place = scope["path_params"]
        metadata = await self._dataplane.metadata(**place)
        name_model(scope, metadata)
        given, limit = Headers(scope=scope).get(HEADER_LENGTH), self._settings.max_body_bytes
        body: bytes | memoryview
        if given is None:
            body = await read_body(scope, receive, limit)
        else:
            body = await read_body_into(scope, receive, limit, self._dataplane.memory)
        stages = self._metrics.stage_seconds
        length = header_length(given, len(body))
        version = place.get("version", "")
        regions = self._settings.v2_shared_memory and "admin" in scope["state"]["client"].scopes
        with Stage("decode", stages.labels("decode", metadata.name)):
            if length > LARGE:
                request, forms = await asyncio.to_thread(
                    decode_request, metadata, version, body, length, regions=regions
                )
            else:
                request, forms = decode_request(metadata, version, body, length, regions=regions)
        end_with_client(scope)
        call = self._dataplane.infer(metadata, request, self._settings.infer_timeout_s, whole=True)
        # A body may be large: nobody holds on to it once it is sent.
        del body, request
        response = await call
        in_json = sum(len(output.data) for output in response.outputs if forms.of(output.name) == "json")
        with Stage("encode", stages.labels("encode", metadata.name)):
            if in_json > LARGE:
                document, tail = await asyncio.to_thread(encode_response, response, forms)
            else:
                document, tail = encode_response(response, forms)
        await _send(send, document, tail, version_headers(metadata))


async def _send(send: Send, document: bytes, tail: Any, more: Mapping[str, str]) -> None:
    """The answer; a long one piece by piece, so that large outputs are not copied once more."""
    size = len(document) + sum(map(len, tail))
    headers = [(b"content-length", b"%d" % size)]
    if size > len(document):
        headers.append((b"content-type", b"application/octet-stream"))
        headers.append((HEADER_LENGTH.lower().encode(), b"%d" % len(document)))
    else:
        headers.append((b"content-type", b"application/json"))
    headers.extend((name.lower().encode(), value.encode()) for name, value in more.items())
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    if size < _SHORT:
        await send({"type": "http.response.body", "body": b"".join((document, *tail))})
        return
    parts = document, *tail
    for i, part in enumerate(parts, 1):
        await send({"type": "http.response.body", "body": part, "more_body": i < len(parts)})
