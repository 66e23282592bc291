"""What every contract calls: find a model, run it. Knows neither HTTP nor gRPC nor NATS."""

import asyncio
import re
from collections.abc import Coroutine, Sequence
from dataclasses import replace
from typing import Any

from adapter.core.datatypes import pack_bytes, unpack_bytes
from adapter.core.errors import EngineUnavailable, InferenceFailed, ModelNotFound
from adapter.core.metrics import Metrics
from adapter.core.ports import Engine
from adapter.core.types import InferRequest, InferResponse, ModelMetadata, ModelVersion, Tensor

_NAME = re.compile(r"(?!\.{1,2}\Z)[A-Za-z0-9._-]{1,128}\Z")
_VERSION = re.compile(r"[0-9]{1,18}\Z")


class DataPlane:
    """One engine, seen as models that can be described and run."""

    def __init__(self, engine: Engine, metrics: Metrics) -> None:
        self._engine = engine
        self._metrics = metrics

    async def models(self) -> Sequence[ModelVersion]:
        """Every version that is loaded, is loading, or could not be loaded. Raises EngineUnavailable."""
        return await self._engine.models()

    async def metadata(self, name: str, version: str = "", label: str = "") -> ModelMetadata:
        """Describe a version, the one that `label` points to, or the latest ready one.

        Raises ModelNotFound, also for names that no model may have: those never reach the engine.
        """
        if not _NAME.match(name):
            raise ModelNotFound(f"Model not found: {name[:128]}")
        if version and not _VERSION.match(version):
            raise ModelNotFound(f"Model not found: {name} version {version[:32]}")
        if label:
            labels = (await self._engine.metadata(name)).labels
            if label not in labels:
                raise ModelNotFound(f"Model not found: {name} label {label[:128]}")
            version = labels[label]
        return await self._engine.metadata(name, version)

    async def infer(self, metadata: ModelMetadata, request: InferRequest, timeout_s: float) -> InferResponse:
        """Run one request; more rows than the model's maximum go as several calls, joined again.

        Raises what `Engine.infer` raises; if one of several calls fails, the whole request does.
        """
        with self._metrics.inference(request.model_name):
            parts = _split(request, metadata.max_batch_size)
            try:
                answers = await _gather([self._engine.infer(part, timeout_s) for part in parts])
            except (ModelNotFound, EngineUnavailable):
                # What we believe of the repository is out of date.
                self._engine.forget()
                raise
        return answers[0] if len(answers) == 1 else _join(answers)


async def _gather(calls: Sequence[Coroutine[Any, Any, InferResponse]]) -> list[InferResponse]:
    """Run them side by side; the first failure cancels the rest and is raised as it is."""
    if len(calls) == 1:
        return [await calls[0]]
    tasks = [asyncio.create_task(call) for call in calls]
    try:
        return await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()


def _split(request: InferRequest, most: int) -> list[InferRequest]:
    """Cut the batch into pieces of at most `most` rows; 0 means that there is no batch axis."""
    rows = request.inputs[0].shape[0] if most and request.inputs else 0
    if rows <= most:
        return [request]
    columns = [_cut(tensor, most) for tensor in request.inputs]
    return [replace(request, inputs=inputs) for inputs in zip(*columns, strict=True)]


def _cut(tensor: Tensor, most: int) -> list[Tensor]:
    rows = tensor.shape[0]
    starts = range(0, rows, most)
    if tensor.datatype == "BYTES":
        elements = unpack_bytes(tensor.data)
        each = len(elements) // rows
        pieces = [pack_bytes(elements[i * each : (i + most) * each]) for i in starts]
    else:
        view, width = memoryview(tensor.data), len(tensor.data) // rows
        pieces = [bytes(view[i * width : (i + most) * width]) for i in starts]
    return [
        replace(tensor, shape=(min(most, rows - i), *tensor.shape[1:]), data=piece)
        for i, piece in zip(starts, pieces, strict=True)
    ]


def _join(answers: Sequence[InferResponse]) -> InferResponse:
    """Put the rows of several answers behind each other. Raises InferenceFailed when they do not fit."""
    by_name = [{tensor.name: tensor for tensor in answer.outputs} for answer in answers]
    outputs = []
    for first in answers[0].outputs:
        pieces = [tensors.get(first.name, first) for tensors in by_name]
        if any(piece.shape[1:] != first.shape[1:] or piece.datatype != first.datatype for piece in pieces):
            raise InferenceFailed(f"output {first.name!r} has another shape from one batch to the next")
        rows = sum(piece.shape[0] for piece in pieces)
        data = b"".join(piece.data for piece in pieces)
        outputs.append(replace(first, shape=(rows, *first.shape[1:]), data=data))
    return replace(answers[0], outputs=tuple(outputs))
