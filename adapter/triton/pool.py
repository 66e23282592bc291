"""Several Tritons: which there are now, which of them can be asked, and who serves what."""

import asyncio
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from hashlib import blake2b
from typing import Any

from tritonclient.grpc import service_pb2 as pb

from adapter.triton.endpoint import Endpoint
from adapter.triton.names import Address, Names
from adapter.triton.transport import GrpcTransport

AWAY = "Triton is away"
"""How every message begins that names what is away."""
_LOOK_UP_EVERY_S = 5.0


class Pool:
    """Follows `names`; `connect` makes the transport to one address. Begins when it is first asked."""

    def __init__(self, names: Names, connect: Callable[[Address], GrpcTransport]) -> None:
        self._names = names
        self._connect = connect
        self._endpoints: dict[Address, Endpoint] = {}
        self._routes: Mapping[tuple[str, str], Sequence[Endpoint]] = {}
        self._turn = 0
        self._opening: asyncio.Task[None] | None = None
        self._following: asyncio.Task[None] | None = None
        self._retiring: set[asyncio.Task[None]] = set()

    @property
    def endpoints(self) -> Collection[Endpoint]:
        """All that there are."""
        return self._endpoints.values()

    @property
    def rotation(self) -> list[Endpoint]:
        """Those that can be asked."""
        return [endpoint for endpoint in self._endpoints.values() if not endpoint.fault]

    def serving(self, model: str, version: str) -> Sequence[Endpoint]:
        """Those in rotation that have the version ready, or with "" the latest that any of them has."""
        return self._routes.get((model, version), ())

    def pick(self, model: str, version: str, tried: Collection[Endpoint]) -> Endpoint | None:
        """Who serves it and was not `tried`: the one with the fewest calls in flight, equals in turn."""
        left = [endpoint for endpoint in self.serving(model, version) if endpoint not in tried]
        if not left:
            return None
        self._turn += 1
        first = self._turn % len(left)
        return min(left[first:] + left[:first], key=lambda each: (each.doubts(model), each.in_flight))

    def home(self, model: str, sequence: object) -> Endpoint | None:
        """Where a sequence is at home: of those that have the model the same one in every process.

        Rendezvous hashing: when a server comes or goes for good, the sequences of the others stay where they
        are. One that is away for a time keeps its sequences, for their state may still be there.
        """
        having = [each for each in self.endpoints if model in each.models]

        def weight(endpoint: Endpoint) -> bytes:
            return blake2b(f"{endpoint.address}\n{model}\n{sequence}".encode(), digest_size=8).digest()

        return max(having, key=weight, default=None)

    async def open(self) -> None:
        """Return once every server was asked what it serves, and had its time to answer."""
        if self._opening is None:
            self._opening = asyncio.create_task(self._open())
        await asyncio.shield(self._opening)

    async def _open(self) -> None:
        await self._look_up()
        if self._names.change:
            self._following = asyncio.create_task(self._follow())

    async def _follow(self) -> None:
        while True:
            await asyncio.sleep(_LOOK_UP_EVERY_S)
            await self._look_up()

    async def _look_up(self) -> None:
        """Take in what the names stand for now, and let go of what they do not any more."""
        addresses = await self._names.look_up()
        for address in self._endpoints.keys() - set(addresses):
            task = asyncio.create_task(self._endpoints.pop(address).retire())
            self._retiring.add(task)
            task.add_done_callback(self._retiring.discard)
        new = [address for address in addresses if address not in self._endpoints]
        for address in new:
            self._endpoints[address] = Endpoint(address.target, self._connect(address), self._reroute)
        self._reroute()
        await asyncio.gather(*(self._endpoints[address].open() for address in new))

    def _reroute(self) -> None:
        routes: dict[tuple[str, str], list[Endpoint]] = defaultdict(list)
        latest: dict[str, str] = {}
        for endpoint in self.rotation:
            for name, version in endpoint.ready:
                routes[name, version].append(endpoint)
                latest[name] = max(version, latest.get(name, version), key=int)
        self._routes = routes | {(name, ""): routes[name, version] for name, version in latest.items()}

    async def close(self) -> None:
        """Let go of all of them."""
        tasks = [task for task in (self._opening, self._following, *self._retiring) if task]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for endpoint in self.endpoints:
            await endpoint.close()


def away(endpoints: Collection[Endpoint]) -> str:
    """A message that names them, and what is wrong there."""
    told = "; ".join(f"{each.address} {each.fault}" for each in endpoints if each.fault)
    return f"{AWAY}: {told or 'no address is known'}"


def union(endpoints: Iterable[Endpoint]) -> Any:
    """`RepositoryIndexResponse`: a version is ready if any server in rotation has it ready."""
    lines: dict[tuple[str, str], Any] = {}
    for endpoint in endpoints:
        for told in endpoint.index:
            line = pb.RepositoryIndexResponse.ModelIndex()
            line.CopyFrom(told)
            if endpoint.fault and line.state == "READY":
                line.state, line.reason = "UNAVAILABLE", away([endpoint])
            held = lines.setdefault((line.name, line.version), line)
            if held.state != "READY" and line.state == "READY":
                held.CopyFrom(line)
    # A server that does not serve a model names it without a version.
    served = {name for name, version in lines if version}
    return pb.RepositoryIndexResponse(
        models=[line for (name, version), line in lines.items() if version or name not in served]
    )
