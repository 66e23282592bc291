"""Triton's model repository as the model registry: what is served, and how each model is described."""

import asyncio
import json
import time
from collections.abc import Mapping, Sequence
from datetime import date
from typing import Any

import structlog
from tritonclient.grpc import model_config_pb2 as model_config

from adapter.core.errors import ModelNotFound, ModelNotReady
from adapter.core.types import ModelMetadata, ModelVersion, TensorMetadata
from adapter.triton.balancer import Balancer
from adapter.triton.pool import AWAY
from adapter.triton.transport import GrpcTransport

_log = structlog.get_logger()

_RELOAD_S = 3.0
"""How long a model that is loaded anew may be gone."""

_FRAMEWORKS = {
    "onnxruntime": "onnx",
    "tensorflow": "tensorflow",
    "pytorch": "pytorch",
    "tensorrt": "tensorrt",
    "openvino": "openvino",
    "python": "python",
    "fil": "forest",
    "dali": "dali",
    "vllm": "vllm",
    "tensorrtllm": "tensorrt-llm",
}


class _Snapshot:
    """The repository at one moment; descriptions are fetched once each, when first asked for."""

    def __init__(self, lines: Sequence[ModelVersion], ttl_s: float) -> None:
        self.lines = lines
        self.expires = time.monotonic() + ttl_s
        self.described: dict[tuple[str, str], ModelMetadata] = {}
        self.describing: dict[tuple[str, str], asyncio.Task[ModelMetadata]] = {}


class Registry:
    """Models as Triton reports them. What Triton said is believed for `ttl_s`.

    A look-up past that time asks Triton again, one call for all who wait; so a model that is loaded, unloaded
    or changed shows within `ttl_s`.
    """

    def __init__(self, transport: GrpcTransport | Balancer, ttl_s: float) -> None:
        self._transport = transport
        self._ttl_s = ttl_s
        self._snapshot: _Snapshot | None = None
        self._refresh: asyncio.Task[_Snapshot] | None = None
        self._last_ready: dict[str, float] = {}

    async def models(self) -> Sequence[ModelVersion]:
        """Every model and version, in Triton's order. Raises EngineUnavailable."""
        return (await self._current()).lines

    async def metadata(self, name: str, version: str) -> ModelMetadata:
        """Describe one version, or with "" the latest. Raises ModelNotFound, ModelNotReady."""
        snapshot = await self._current()
        key = name, version
        known = snapshot.described.get(key)
        if known is not None:
            return known
        task = snapshot.describing.get(key)
        if task is None:
            served = self._served(snapshot.lines, name, version)
            task = asyncio.create_task(self._describe(name, version or served[-1], served))
            snapshot.describing[key] = task
        try:
            # A waiter that hangs up must not cancel the look-up for the others.
            snapshot.described[key] = await asyncio.shield(task)
        finally:
            # A failure is not believed: the next one asks again.
            if task.done():
                snapshot.describing.pop(key, None)
        return snapshot.described[key]

    def known(self, name: str, version: str) -> ModelMetadata | None:
        """What was said last, if it was; asks nobody."""
        return self._snapshot.described.get((name, version)) if self._snapshot else None

    def forget(self) -> None:
        """Ask Triton again at the next look-up."""
        self._snapshot = None

    async def _current(self) -> _Snapshot:
        snapshot = self._snapshot
        if snapshot is not None and time.monotonic() < snapshot.expires:
            return snapshot
        if self._refresh is None:
            self._refresh = asyncio.create_task(self._take())
        return await asyncio.shield(self._refresh)

    async def _take(self) -> _Snapshot:
        try:
            index = await self._transport.repository_index()
            lines = [
                ModelVersion(model.name, model.version, model.state == "READY", model.reason)
                for model in index.models
                # A model that nobody loaded, or that somebody unloaded, is not served.
                if model.state and model.reason != "unloaded"
            ]
            self._snapshot = _Snapshot(lines, self._ttl_s)
            now = time.monotonic()
            self._last_ready = {name: at for name, at in self._last_ready.items() if now - at < _RELOAD_S}
            self._last_ready |= {line.name: now for line in lines if line.ready}
            return self._snapshot
        finally:
            self._refresh = None

    def _served(self, lines: Sequence[ModelVersion], name: str, version: str) -> Sequence[str]:
        """See `_served`; a model that was ready a moment ago and is gone may be on its way back."""
        try:
            return _served(lines, name, version)
        except ModelNotFound:
            gone = not any(line.name == name for line in lines)
            if gone and time.monotonic() - self._last_ready.get(name, -_RELOAD_S) < _RELOAD_S:
                raise ModelNotReady(f"Model {name} is not ready: it was unloaded a moment ago") from None
            raise

    async def _describe(self, name: str, version: str, served: Sequence[str]) -> ModelMetadata:
        return _from_config(await self._transport.model_config(name, version), version, tuple(served))


def _served(lines: Sequence[ModelVersion], name: str, version: str) -> Sequence[str]:
    """The model's ready versions, ascending. Raises ModelNotFound, ModelNotReady."""
    lines = [line for line in lines if line.name == name]
    if not lines:
        raise ModelNotFound(f"Model not found: {name}")
    if version and version not in {line.version for line in lines}:
        raise ModelNotFound(f"Model not found: {name} version {version}")
    ready = sorted((line.version for line in lines if line.ready), key=int)
    if not ready or (version and version not in ready):
        reasons = [line.reason for line in lines if line.reason and (not version or line.version == version)]
        away = [reason for reason in reasons if reason.startswith(AWAY)]
        failed = ["it failed to load, and the server's log says why"] if reasons else []
        raise ModelNotReady(": ".join([f"Model {name} is not ready", *(away or failed)[:1]]))
    return ready


def _from_config(config: Any, version: str, versions: tuple[str, ...]) -> ModelMetadata:
    """Triton's `ModelConfig` protobuf → ModelMetadata."""
    inputs = tuple(_tensor(config, tensor, optional=tensor.optional) for tensor in config.input)
    parameters = _Parameters(config)
    return ModelMetadata(
        name=config.name,
        version=version,
        versions=versions,
        platform=config.platform or config.backend,
        framework=_framework(config),
        max_batch_size=config.max_batch_size,
        inputs=inputs,
        outputs=tuple(_tensor(config, tensor) for tensor in config.output),
        feature_names=parameters.features(inputs),
        labels={label: str(target) for label, target in parameters.json("labels", dict).items()},
        deprecated_versions=frozenset(map(str, parameters.json("deprecated_versions", list))),
        sunset=parameters.dates("sunset"),
        batch_calls=parameters.batch_calls(),
    )


def _tensor(config: Any, tensor: Any, *, optional: bool = False) -> TensorMetadata:
    datatype = model_config.DataType.Name(tensor.data_type).removeprefix("TYPE_")
    batch = (-1,) if config.max_batch_size > 0 else ()
    shape = batch + tuple(tensor.dims)
    return TensorMetadata(tensor.name, "BYTES" if datatype == "STRING" else datatype, shape, optional)


def _framework(config: Any) -> str:
    """MIaaS's `framework`: what the model was made with, by the backend that runs it."""
    if config.HasField("ensemble_scheduling"):
        return "ensemble"
    backend = config.backend or config.platform.partition("_")[0]
    return str(_FRAMEWORKS.get(backend, backend))


class _Parameters:
    """The adapter's own parameters in a model's config: `miaas.<key>`, each a JSON document."""

    def __init__(self, config: Any) -> None:
        self._model = config.name
        self._batch_axes = int(config.max_batch_size > 0)
        self._alone = config.HasField("sequence_batching") or config.model_transaction_policy.decoupled
        self._values: Mapping[str, Any] = config.parameters

    def json(self, key: str, kind: type[Any]) -> Any:
        """The parameter's value, or an empty one when it is missing or not of that kind."""
        full = f"miaas.{key}"
        if full not in self._values:
            return kind()
        try:
            value = json.loads(self._values[full].string_value)
        except ValueError:
            value = None
        if isinstance(value, kind):
            return value
        _log.warning("model parameter ignored", model=self._model, parameter=full, expected=kind.__name__)
        return kind()

    def features(self, inputs: Sequence[TensorMetadata]) -> tuple[str, ...]:
        """Names for the places along the last axis of the only input, if they can be that."""
        names = self.json("feature_names", list)
        if not names:
            return ()
        dims = inputs[0].shape[self._batch_axes :] if len(inputs) == 1 else ()
        fit = (
            dims[-1:] in ((len(names),), (-1,))
            and all(type(name) is str for name in names)
            and len(set(names)) == len(names)
            and inputs[0].name not in names
        )
        if fit:
            return tuple(names)
        _log.warning(
            "model parameter ignored", model=self._model, parameter="miaas.feature_names", value=names
        )
        return ()

    def batch_calls(self) -> int | None:
        """Calls in flight above which requests are joined; 0, never, where requests form a sequence."""
        if self._alone:
            return 0
        calls = self.json("batch_calls", int) if "miaas.batch_calls" in self._values else None
        return None if calls is None else max(0, calls)

    def dates(self, key: str) -> dict[str, date]:
        """A parameter that maps versions to days (ISO 8601); what is no day is left out."""
        days: dict[str, date] = {}
        for version, day in self.json(key, dict).items():
            try:
                days[version] = date.fromisoformat(day)
            except (TypeError, ValueError):
                _log.warning(
                    "model parameter ignored", model=self._model, parameter=f"miaas.{key}", value=day
                )
        return days
