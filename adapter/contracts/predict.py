"""V1's `:predict` as plain ASGI: this is the hot path, nothing of a framework stands in it."""

import asyncio

from starlette.types import Receive, Scope, Send

from adapter.contracts import bulk
from adapter.contracts.answers import json_response, version_headers
from adapter.contracts.body import LARGE, parse_json, read_body
from adapter.contracts.leaving import end_with_client
from adapter.contracts.models import name_model
from adapter.core.codec import decode_body, encode_answer
from adapter.core.dataplane import DataPlane
from adapter.core.metrics import Metrics
from adapter.core.types import AnswerForm, InferRequest, ModelMetadata, Tensor
from adapter.core.work import Stage
from adapter.settings import Settings


class Predict:
    """`POST …:predict`."""

    def __init__(self, dataplane: DataPlane, metrics: Metrics, settings: Settings) -> None:
        self._dataplane = dataplane
        self._metrics = metrics
        self._settings = settings

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer `{"predictions"}` or `{"outputs"}`. Raises what the codec and the data plane raise."""
        metadata = await self._dataplane.metadata(**scope["path_params"])
        name_model(scope, metadata)
        body = await read_body(scope, receive, self._settings.max_body_bytes)
        stages = self._metrics.stage_seconds
        with Stage("decode", stages.labels("decode", metadata.name)):
            if len(body) > LARGE:
                tensors, form = await asyncio.to_thread(_decode, metadata, body)
            else:
                tensors, form = _decode(metadata, body)
        version = metadata.version if len(scope["path_params"]) > 1 else ""
        request = InferRequest(metadata.name, version, tensors)
        end_with_client(scope)
        response = await self._dataplane.infer(metadata, request, self._settings.infer_timeout_s)
        headers, nan_tokens = version_headers(metadata), self._settings.nan_tokens
        with Stage("encode", stages.labels("encode", metadata.name)):
            answer = encode_answer(response.outputs, form, batched=metadata.batched)
            answered = json_response(answer, headers=headers, nan_tokens=nan_tokens)
        await answered(scope, receive, send)


def _decode(metadata: ModelMetadata, body: bytes) -> tuple[tuple[Tensor, ...], AnswerForm]:
    if len(body) >= bulk.BULK and (numbers := bulk.decode_numbers(metadata, body)):
        return numbers
    return decode_body(metadata, parse_json(body))
