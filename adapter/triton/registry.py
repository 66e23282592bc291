"""Triton's model repository as the model registry: what is served, and how each model is described."""

import asyncio
import time
from collections.abc import Sequence

import structlog

from adapter.core.errors import ModelNotFound, ModelNotReady
from adapter.core.types import ModelMetadata, ModelVersion
from adapter.triton.balancer import Balancer
from adapter.triton.description import describe
from adapter.triton.pool import AWAY
from adapter.triton.transport import GrpcTransport

_log = structlog.get_logger()

_RELOAD_S = 3.0
"""How long a model that is loaded anew may be gone."""


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
        self._said: dict[tuple[str, str], ModelMetadata] = {}
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
            snapshot.described[key] = self._said[key] = await asyncio.shield(task)
        finally:
            # A failure is not believed: the next one asks again.
            if task.done():
                snapshot.describing.pop(key, None)
        return snapshot.described[key]

    def known(self, name: str, version: str) -> ModelMetadata | None:
        """What `metadata` said last, also when it is time to ask again, which this never does."""
        return self._said.get((name, version))

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
            served = {line.name for line in lines}
            self._said = {key: said for key, said in self._said.items() if key[0] in served}
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
        config = await self._transport.model_config(name, version)
        metadata, ignored = describe(config, version, tuple(served))
        for parameter, reason in ignored.items():
            _log.warning("model parameter ignored", model=name, parameter=parameter, reason=reason)
        return metadata


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
