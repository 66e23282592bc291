"""A Triton on this machine: large tensors travel in memory that both have mapped, all else as bytes."""

import re
import time

import grpc
from tritonclient.grpc import service_pb2 as pb

from adapter.core.errors import AdapterError
from adapter.core.metrics import Metrics
from adapter.core.types import InferResponse, Region
from adapter.core.wire import request_parts
from adapter.triton.layout import Layout, Planner
from adapter.triton.regions import Regions
from adapter.triton.transport import CONTROL_TIMEOUT_S, GrpcTransport, read_answer

_LOCAL = re.compile(r"(localhost|127\.\d+\.\d+\.\d+|\[::1\]):\d+\Z")
_TOO_SMALL = "shared memory size specified with the request for output"
"""What Triton says of an output that is larger than its model declares."""


def is_local(url: str) -> bool:
    """Whether `host:port` is this machine's own."""
    return bool(_LOCAL.match(url))


class LocalTransport(GrpcTransport):
    """A transport whose regions have `most_bytes` at most.

    They are used once Triton has told its models and says that it can.
    """

    def __init__(
        self,
        url: str,
        credentials: grpc.ChannelCredentials | None,
        planner: Planner,
        most_bytes: int,
        metrics: Metrics,
        *,
        lean: bool,
        authority: str,
    ) -> None:
        super().__init__(url, credentials, lean=lean, authority=authority)
        self._planner = planner
        self._calls = metrics.shared_memory_calls.labels()
        self._regions = Regions(self, url, most_bytes, metrics.shared_memory_bytes.labels())

    async def repository_index(self, timeout_s: float = CONTROL_TIMEOUT_S) -> pb.RepositoryIndexResponse:
        """See `GrpcTransport.repository_index`."""
        index = await super().repository_index(timeout_s)
        self._regions.open()
        return index

    def memory_for(self, size: int) -> memoryview | None:
        """See `GrpcTransport.memory_for`."""
        taken = self._regions.take(size)
        return taken[1][:size] if taken else None

    async def infer_large(self, layout: Layout, timeout_s: float) -> InferResponse:
        """See `GrpcTransport.infer_large`.

        The outputs are views of a region, which is lent as long as one of them is in use. What Triton refuses
        for its region goes once more, as bytes.
        """
        taken = self._regions.take(layout.size) if layout.size else ("", memoryview(b""))
        used = [region.name for region in layout.inputs if isinstance(region, Region)]
        if taken is None or not all(map(self._regions.has, used)):
            return await super().infer_large(layout, timeout_s)
        name, view = taken
        if name:
            used.append(name)
        deadline = time.monotonic() + timeout_s
        # Whoever holds the tensors themselves may let go of them now.
        layout = layout.filled(view)
        try:
            parts = request_parts(layout.placed(name))
            response = read_answer(await self.infer(parts, timeout_s))
            self._calls.inc()
            self._planner.saw(layout, response)
            return layout.read(response, view)
        except BaseException as error:
            # Triton may be at it still, and use the regions at any time.
            for each in used:
                self._regions.give_up(each)
            if not isinstance(error, AdapterError):
                raise
            if any(each in error.message for each in used):
                # Triton was started anew, and has not run it.
                self._regions.forget()
            elif _TOO_SMALL in error.message:
                self._planner.surprised_by(layout.request)
            else:
                raise
        return await super().infer_large(layout, deadline - time.monotonic())

    async def close(self) -> None:
        """See `GrpcTransport.close`; the regions are unregistered."""
        await self._regions.close()
        await super().close()
