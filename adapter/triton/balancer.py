"""Several Tritons as one: each request goes to the one with the fewest in flight that serves its model.

A request that failed with its server is sent to another within its deadline, at most once to each. Requests
of a sequence go to the one server that keeps its state, and are never sent twice.
"""

import asyncio
from collections.abc import Awaitable, Callable, Collection, Coroutine, Mapping
from typing import Any, TypeVar

from adapter.core.errors import (
    AdapterError,
    EngineUnavailable,
    EngineUnreached,
    ModelCrashed,
    ModelNotFound,
    ModelNotReady,
    NotSupported,
)
from adapter.core.metrics import Metrics
from adapter.triton.endpoint import Endpoint
from adapter.triton.errors import Silent
from adapter.triton.names import Address, Names
from adapter.triton.pool import Pool, away, union
from adapter.triton.statistics import total
from adapter.triton.transport import GrpcTransport

T = TypeVar("T")
Call = Callable[[Endpoint, float], Coroutine[Any, Any, T]]
"""Asks a server, for so many seconds at most."""

_GRACE_S = 0.25
"""An index waits so long for servers that are slow to tell theirs; then what they told last counts."""
_MOST_LOST = 2
"""A request under which so many servers, or the model's processes on them, went is sent to no other.

It may be its doing.
"""
_CONTROL_TIMEOUT_S = 5.0


class Balancer:
    """Has the calls of a transport; `connect` makes the one to each address of `names`."""

    def __init__(self, names: Names, connect: Callable[[Address], GrpcTransport], metrics: Metrics) -> None:
        self._pool = Pool(names, connect)
        self._failovers = metrics.triton_failovers.labels()

    def spread(self, model: str, version: str) -> int:
        """Over how many servers the calls of a model go now, 1 at least."""
        return max(1, len(self._pool.serving(model, version)))

    @property
    def servers(self) -> Mapping[str, str]:
        """Each server's address, with "ok" or why it is out of rotation."""
        return {each.address: each.fault or "ok" for each in self._pool.endpoints}

    async def infer(
        self,
        model: str,
        version: str,
        sequence: object,
        ask: Callable[[GrpcTransport, float], Awaitable[T]],
        timeout_s: float,
    ) -> T:
        """What one of the servers answers whom a request for that model and sequence may go to.

        `ask` sends it by a transport, and waits so many seconds at most.
        """

        async def call(endpoint: Endpoint, left_s: float) -> T:
            answer = await ask(endpoint.transport, left_s)
            endpoint.works(model)
            return answer

        if sequence:
            return await self._ask_home(model, sequence, call, timeout_s)
        return await self._ask(model, version, call, timeout_s)

    async def _ask_home(self, model: str, sequence: object, call: Call[T], timeout_s: float) -> T:
        endpoint = self._pool.home(model, sequence)
        if endpoint is None:
            raise self._away(model)
        if endpoint.fault:
            raise EngineUnavailable(f"{away([endpoint])}; the sequence's state is there")
        return await asyncio.shield(endpoint.begin(call(endpoint, timeout_s)))

    async def _ask(self, model: str, version: str, call: Call[T], timeout_s: float) -> T:
        """Ask one server after the other until one answers."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + timeout_s
        tried: list[Endpoint] = []
        error: AdapterError | None = None
        lost = 0
        while lost < _MOST_LOST and (endpoint := self._pool.pick(model, version, tried)):
            if tried:
                self._failovers.inc()
            tried.append(endpoint)
            asked = loop.time()
            task = endpoint.begin(call(endpoint, deadline - asked))
            await asyncio.wait((task, endpoint.silence), return_when=asyncio.FIRST_COMPLETED)
            if not task.done() and set(self._pool.serving(model, version)) - set(tried):
                error = Silent("Triton does not answer")
                lost += 1
                continue
            try:
                # One that fell silent, and has no substitute, may yet answer.
                return await asyncio.shield(task)
            except (ModelNotFound, ModelNotReady) as failure:
                endpoint.doubt(model)
                error = failure
            except ModelCrashed as failure:
                endpoint.doubt(model)
                if not endpoint.died(model, asked):
                    # Whoever was on it when it died may have done it.
                    raise
                error = failure
                lost += 1
            except EngineUnavailable as failure:
                error = failure
                lost += not isinstance(failure, EngineUnreached)
        if error is None:
            raise self._away(model)
        if isinstance(error, EngineUnavailable):
            asked_of = ", ".join(each.address for each in tried)
            kind = EngineUnavailable if lost else type(error)
            raise kind(f"{error.message}: {asked_of}") from error
        raise error

    def _away(self, model: str) -> AdapterError:
        """Why nobody can be asked for the model."""
        endpoints = self._pool.endpoints
        having = [each for each in endpoints if each.knows(model)]
        if self._pool.rotation and not any(each.fault for each in having):
            return ModelNotReady(f"Model {model} is not ready")
        return EngineUnavailable(away(having or endpoints))

    async def repository_index(self) -> Any:
        """Every model and version that any server knows of, with its state. Raises EngineUnavailable."""
        await self._pool.open()
        # While all are away, each is asked whether it is back.
        if looks := [each.begin_look() for each in self._pool.rotation or self._pool.endpoints]:
            await asyncio.wait(looks, timeout=_GRACE_S)
        if not self._pool.rotation:
            raise EngineUnavailable(away(self._pool.endpoints))
        return union(self._pool.endpoints)

    async def model_config(self, name: str, version: str) -> Any:
        """The `ModelConfig` of one version, from a server that serves it."""
        return await self._ask(
            name, version, lambda each, _: each.transport.model_config(name, version), _CONTROL_TIMEOUT_S
        )

    async def model_statistics(self, name: str, version: str) -> Any:
        """What the versions of a model, or with "" of all, have done so far on the servers that answer."""
        await self._pool.open()
        rotation = self._pool.rotation
        answers, failed = await _every(rotation, lambda each: each.transport.model_statistics(name, version))
        if answers:
            return total(answers.values())
        raise next(iter(failed.values()), self._away(name))

    async def load_model(self, name: str) -> None:
        """Load the model, or load it anew, on every server whose repository has it."""
        await self._control(name, lambda each: each.transport.load_model(name))

    async def unload_model(self, name: str, *, dependents: bool = False) -> None:
        """Unload the model on every server that has it."""
        await self._control(name, lambda each: each.transport.unload_model(name, dependents=dependents))

    async def _control(self, name: str, call: Callable[[Endpoint], Coroutine[Any, Any, None]]) -> None:
        """Raises EngineUnavailable when it was done on some, and others are away."""
        await self._pool.open()
        rotation = self._pool.rotation
        having = [each for each in rotation if each.knows(name)] or rotation
        _, failed = await _every(having, call)
        await asyncio.gather(*(each.look() for each in having))
        for endpoint, error in failed.items():
            raise type(error)(f"{endpoint.address}: {error.message}") from error
        if left_out := [each for each in self._pool.endpoints if each.fault]:
            raise EngineUnavailable(f"{away(left_out)}; done on all others")

    async def memory(self, *_: Any, **__: Any) -> Any:
        """Raises NotSupported: shared memory is one machine's, and a request may go to any."""
        raise NotSupported("shared memory needs one Triton, and there are several")

    async def close(self) -> None:
        """Let go of every server; calls in flight are cancelled."""
        await self._pool.close()


async def _every(
    endpoints: Collection[Endpoint], call: Callable[[Endpoint], Coroutine[Any, Any, T]]
) -> tuple[dict[Endpoint, T], dict[Endpoint, AdapterError]]:
    """Call each of them: what was answered, and what went wrong."""
    tasks = {each: each.begin(call(each)) for each in endpoints}
    if tasks:
        await asyncio.wait(tasks.values())
    answers: dict[Endpoint, T] = {}
    failed: dict[Endpoint, AdapterError] = {}
    for endpoint, task in tasks.items():
        try:
            answers[endpoint] = task.result()
        except AdapterError as error:
            failed[endpoint] = error
    return answers, failed
