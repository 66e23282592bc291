"""One gRPC channel to a Triton, and the one place where gRPC's errors become ours."""

import asyncio
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, Literal

import grpc
from tritonclient.grpc import service_pb2 as pb

from adapter.core import tracing
from adapter.core.errors import (
    AdapterError,
    DeadlineExceeded,
    EngineUnavailable,
    EngineUnreached,
    InferenceFailed,
    InvalidInput,
    ModelCrashed,
    ModelNotFound,
    ModelNotReady,
    Unavailable,
)
from adapter.core.types import InferResponse, RegionKind
from adapter.core.wire import decode_response, request_parts
from adapter.triton.calls import Answered, CallFailed, NotSent, Parts
from adapter.triton.errors import Silent
from adapter.triton.layout import Layout
from adapter.triton.unary import UnaryClient

_REQUEST_ID = re.compile(r"^\[request id: [^\]]*\] ")
_PATH = re.compile(r"(?<![\w.:/])/(?:[\w.+@~-]+/)+[\w.+@~-]*(?::\d+)?")
_SERVICE = "/inference.GRPCInferenceService/"
INFER = "inference.GRPCInferenceService/ModelInfer"
"""The method that runs a model, by its full name."""
_INFER = f"/{INFER}"
_OPTIONS = [
    ("grpc.max_send_message_length", -1),
    ("grpc.max_receive_message_length", -1),
    # A Triton that came back is found again within a second.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1000),
    # A Triton whose machine vanished without a word is noticed.
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.keepalive_timeout_ms", 10_000),
]
_NOT_READY = ("not ready", "not at ready state", "stopped accepting")
"""What Triton says of a server, of a version, and of a model on its way out."""
_ENDING = "Cancelling all calls"
"""What gRPC says for a server that ends."""
_HOST_AND_PORT = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[\w.-]+):\d+\Z")
_LARGE = 16 << 20
CONTROL_TIMEOUT_S = 5.0
_LOAD_TIMEOUT_S = 600.0


class GrpcTransport:
    """Triton's gRPC service. Every call raises an AdapterError, never a grpc.RpcError.

    `authority` is what the server is called in calls and in its certificate, where that is not its address.
    """

    def __init__(
        self,
        url: str,
        credentials: grpc.ChannelCredentials | None = None,
        *,
        lean: bool = False,
        authority: str = "",
    ) -> None:
        own = lean and credentials is None and _HOST_AND_PORT.match(url)
        self._lean = UnaryClient(url) if own else None
        options = [*_OPTIONS, ("grpc.default_authority", authority)] if authority else _OPTIONS
        if credentials is None:
            self._channel = grpc.aio.insecure_channel(url, options=options)
        else:
            self._channel = grpc.aio.secure_channel(url, credentials, options=options)
        self._url = url
        # Without serializers the call takes and gives bytes: the hot path builds no message objects.
        self._infer = self._channel.unary_unary(_INFER)
        # On the wire both are the same; this one lets go of the request once it is sent.
        self._infer_large = self._channel.stream_unary(_INFER)
        self._server = self._method("ServerMetadata", pb.ServerMetadataResponse.FromString)
        self._index = self._method("RepositoryIndex", pb.RepositoryIndexResponse.FromString)
        self._config = self._method("ModelConfig", pb.ModelConfigResponse.FromString)
        self._statistics = self._method("ModelStatistics", pb.ModelStatisticsResponse.FromString)
        self._load = self._method("RepositoryModelLoad", pb.RepositoryModelLoadResponse.FromString)
        self._unload = self._method("RepositoryModelUnload", pb.RepositoryModelUnloadResponse.FromString)

    def _method(self, name: str, response: Callable[[bytes], Any]) -> Any:
        return self._channel.unary_unary(
            _SERVICE + name,
            request_serializer=lambda message: message.SerializeToString(),
            response_deserializer=response,
        )

    async def infer(self, parts: Parts, timeout_s: float) -> bytes | memoryview:
        """A serialized `ModelInferRequest`, in parts → the serialized `ModelInferResponse`.

        Triton's own spans join the current one if it is kept: Triton does not look at its flags.
        """
        trace = tracing.recorded()
        metadata = [("traceparent", trace.traceparent)] if trace else ()
        if self._lean is not None:
            try:
                return await self._lean.call(_INFER, parts, timeout_s, metadata)
            except CallFailed as error:
                raise _translate(error) from error
        request = b"".join(parts)
        del parts
        if len(request) < _LARGE:
            with self._translated():
                answer: bytes = await self._infer(request, timeout=timeout_s, metadata=metadata)
                return answer
        with self._translated():
            call = self._infer_large(timeout=timeout_s, metadata=metadata)
            # A call that ends before all is sent says why in its answer.
            with suppress(asyncio.InvalidStateError):
                await call.write(request)
                del request
                await call.done_writing()
            answer = await call
            return answer

    def memory_for(self, size: int) -> memoryview | None:
        """So many bytes from which large tensors need not be copied to be sent; None where there are none."""
        return None

    async def infer_large(self, layout: Layout, timeout_s: float) -> InferResponse:
        """A request with large tensors → the answer; here it goes as any other."""
        return read_answer(await self.infer(request_parts(layout.request), timeout_s))

    async def server_metadata(self) -> Any:
        """Triton's version, and the extensions of the protocol that it offers."""
        return await self._call(self._server, pb.ServerMetadataRequest(), CONTROL_TIMEOUT_S)

    async def repository_index(self, timeout_s: float = CONTROL_TIMEOUT_S) -> pb.RepositoryIndexResponse:
        """Every model and version that Triton knows of, with its state."""
        return await self._call(self._index, pb.RepositoryIndexRequest(), timeout_s)

    async def model_config(self, name: str, version: str) -> Any:
        """The `ModelConfig` of one version, auto-completed parts included."""
        request = pb.ModelConfigRequest(name=name, version=version)
        return (await self._call(self._config, request, CONTROL_TIMEOUT_S)).config

    async def model_statistics(self, name: str, version: str) -> Any:
        """What the versions of a model, or with "" of all, have done so far."""
        request = pb.ModelStatisticsRequest(name=name, version=version)
        try:
            return await self._call(self._statistics, request, CONTROL_TIMEOUT_S)
        except InvalidInput as error:
            # What Triton calls an invalid argument is a model that is not loaded at the moment.
            raise ModelNotReady(error.message) from error

    async def memory(
        self, kind: RegionKind, action: Literal["Status", "Register", "Unregister"], **fields: Any
    ) -> Any:
        """One of the six calls of Triton's shared-memory extensions; `fields` are its request's."""
        name = f"{kind.capitalize()}SharedMemory{action}"
        method = self._method(name, getattr(pb, f"{name}Response").FromString)
        return await self._call(method, getattr(pb, f"{name}Request")(**fields), CONTROL_TIMEOUT_S)

    async def load_model(self, name: str) -> None:
        """Load the model, or load it anew when its files changed (explicit model control)."""
        await self._call(self._load, pb.RepositoryModelLoadRequest(model_name=name), _LOAD_TIMEOUT_S)

    async def unload_model(self, name: str, *, dependents: bool = False) -> None:
        """Unload the model; Triton answers before the last request on it has ended."""
        request = pb.RepositoryModelUnloadRequest(model_name=name)
        request.parameters["unload_dependents"].bool_param = dependents
        await self._call(self._unload, request, _LOAD_TIMEOUT_S)

    async def _call(self, method: Any, request: Any, timeout_s: float) -> Any:
        """A call that no client waits for with a deadline of its own: late means that Triton is away."""
        try:
            with self._translated():
                return await method(request, timeout=timeout_s)
        except DeadlineExceeded as error:
            raise Silent("Triton does not answer") from error

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except grpc.aio.AioRpcError as error:
            details = error.details() or ""
            failed = NotSent if "failed to connect" in details else CallFailed
            raise _translate(failed(error.code(), details)) from error
        except grpc.aio.UsageError as error:
            raise EngineUnavailable("the connection to Triton is closed") from error

    async def close(self) -> None:
        """Let go of the channel; calls in flight are cancelled."""
        await self._channel.close()
        if self._lean is not None:
            await self._lean.close()


def read_answer(answer: bytes | memoryview) -> InferResponse:
    """A serialized `ModelInferResponse` → what it says. Raises InferenceFailed when it is none."""
    try:
        return decode_response(answer)
    except (ValueError, IndexError) as error:
        raise InferenceFailed("Triton's answer is not a ModelInferResponse") from error


def _translate(error: CallFailed) -> AdapterError:
    """A gRPC status → the tree of errors; Triton's own words tell apart what its codes do not."""
    message = _cleaned(error.details)
    match error.code:
        case grpc.StatusCode.INVALID_ARGUMENT | grpc.StatusCode.OUT_OF_RANGE:
            return InvalidInput(message)
        case grpc.StatusCode.NOT_FOUND:
            return ModelNotFound(message)
        case grpc.StatusCode.DEADLINE_EXCEEDED:
            return DeadlineExceeded("Triton did not answer in time")
        case grpc.StatusCode.RESOURCE_EXHAUSTED:
            return Unavailable(message)
        case grpc.StatusCode.UNAVAILABLE if "maximum queue size" in message:
            return Unavailable("Triton's queue for this model is full")
        case grpc.StatusCode.INTERNAL if "is not healthy" in message:
            return ModelCrashed(message)
        case grpc.StatusCode.UNAVAILABLE if "timeout expired" in message:
            return DeadlineExceeded("the request's timeout passed in Triton's queue for this model")
        case grpc.StatusCode.UNAVAILABLE if any(words in message for words in _NOT_READY):
            return ModelNotReady(message)
        case grpc.StatusCode.UNAVAILABLE if isinstance(error, NotSent):
            return EngineUnreached("Triton cannot be reached")
        case grpc.StatusCode.UNAVAILABLE if isinstance(error, Answered) and message != _ENDING:
            return Unavailable(message)
        case grpc.StatusCode.UNAVAILABLE | grpc.StatusCode.CANCELLED:
            return EngineUnavailable("Triton cannot be reached")
        case _:
            return InferenceFailed(message or f"Triton answered {error.code.name}")


def _cleaned(message: str) -> str:
    """Triton's message without its request id, and without what tells of the server's insides.

    A Python traceback goes, and so do the paths of files.
    """
    told = _REQUEST_ID.sub("", message).partition("\n\nAt:")[0].strip()
    return _PATH.sub("…", told)
