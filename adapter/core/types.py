"""The nouns that every part of the adapter shares; names are the Open Inference Protocol's."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date
from types import MappingProxyType
from typing import Literal, NamedTuple

from adapter.core.trace_context import TraceContext

Parameter = bool | int | float | str
"""A request parameter as Triton takes it."""

_NONE: Mapping[str, Parameter] = MappingProxyType({})

AnswerForm = Literal["predictions", "outputs", "names"]
"""How an answer mirrors its input: V1's rows, V1's columns, or MIaaS's object of named outputs."""


JobState = Literal["processing", "completed", "failed"]
RegionKind = Literal["system", "cuda"]
"""Shared memory of the machine (/dev/shm), or of a GPU."""
OWN_REGIONS = "miaas-tensors-"
"""How the names of regions begin in which the adapter itself and Triton pass tensors: clients have none."""


@dataclass(frozen=True, slots=True)
class Region:
    """A stretch of a shared-memory region that is registered with the engine under `name`."""

    name: str
    byte_size: int
    offset: int = 0

    @property
    def parameters(self) -> Mapping[str, Parameter]:
        """The parameters by which Triton's shared-memory extension says where a tensor lies."""
        return {
            "shared_memory_region": self.name,
            "shared_memory_byte_size": self.byte_size,
            "shared_memory_offset": self.offset,
        }


class Tensor(NamedTuple):
    """A named tensor; `data` is the protocol's binary form, empty where the tensor lies in a `region`.

    Fixed-size elements are little-endian in row-major order; each BYTES element follows its length as a
    32-bit unsigned integer.
    """

    name: str
    datatype: str
    shape: tuple[int, ...]
    data: bytes | memoryview
    region: Region | None = None


class RequestedOutput(NamedTuple):
    """An output that is wanted, and how: `classification` asks for the labels of the N largest values.

    With a region's parameters it is written there, and the response says no more than datatype and shape.
    """

    name: str
    parameters: Mapping[str, Parameter] = _NONE


class InferRequest(NamedTuple):
    """One inference: a model, its input tensors, the outputs wanted (none named: all)."""

    model_name: str
    model_version: str
    inputs: tuple[Tensor, ...]
    outputs: tuple[RequestedOutput, ...] = ()
    id: str = ""
    parameters: Mapping[str, Parameter] = _NONE


class InferResponse(NamedTuple):
    """What a model answered."""

    model_name: str
    model_version: str
    outputs: tuple[Tensor, ...]
    id: str = ""
    parameters: Mapping[str, Parameter] = _NONE


@dataclass(frozen=True, slots=True)
class TensorMetadata:
    """A model's declared input or output; `shape` counts the batch axis, -1 is any size."""

    name: str
    datatype: str
    shape: tuple[int, ...]
    optional: bool = False


@dataclass(frozen=True, slots=True)
class ModelMetadata:
    """One served version of a model.

    `max_batch_size` 0 means that the model does not batch; otherwise axis 0 of every tensor is the batch.
    `versions` are all versions served now, ascending. `feature_names` name the last axis of the only input.
    `batch_calls`: calls in flight above which requests are joined, 0 joins none, None is the setting's.
    `labels` map names to versions; `deprecated_since` and `sunset` go by version, "*" is all of them.
    """

    name: str
    version: str
    versions: tuple[str, ...]
    platform: str
    framework: str
    max_batch_size: int
    inputs: tuple[TensorMetadata, ...]
    outputs: tuple[TensorMetadata, ...]
    feature_names: tuple[str, ...] = ()
    labels: Mapping[str, str] = field(default_factory=dict)
    deprecated_since: Mapping[str, date] = field(default_factory=dict)
    sunset: Mapping[str, date] = field(default_factory=dict)
    batch_calls: int | None = None

    @property
    def batched(self) -> bool:
        """Whether axis 0 of every tensor is the batch."""
        return self.max_batch_size > 0

    @property
    def deprecated(self) -> bool:
        """Whether this version is on its way out."""
        return self.deprecates(self.version)

    def deprecates(self, version: str) -> bool:
        """Whether `version` of this model is on its way out."""
        return version in self.deprecated_since or "*" in self.deprecated_since


@dataclass(frozen=True, slots=True)
class ModelVersion:
    """A line of the registry: one version of a model, and why it is not ready."""

    name: str
    version: str
    ready: bool
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Client:
    """Who is calling. `id` is stable over key rotation; what one client owns does not exist for another."""

    id: str
    scopes: frozenset[str] = frozenset({"infer", "read"})
    rate_per_minute: int | None = None
    """Its own rate limit, 0 for none; None is everybody's."""


class Quota(NamedTuple):
    """What a rate limit said to one request: how many a minute, how many are left, and when more come."""

    limit: int
    remaining: int
    reset_s: int
    granted: bool = True


@dataclass(frozen=True, slots=True)
class IdempotencyKey:
    """A client's word for one request, and a digest of what the request says."""

    key: str
    digest: str


@dataclass(frozen=True, slots=True)
class Submission:
    """An asynchronous inference that asks to be accepted; `priority` counts as Triton's does."""

    client: str
    request: InferRequest
    form: AnswerForm
    batched: bool
    timeout_s: float
    priority: int = 0
    idempotency: IdempotencyKey | None = None


class Job(NamedTuple):
    """An accepted asynchronous inference; times are seconds since the epoch.

    `replaces` is 0, or for a failed job that an operator queued again what stands for its failed result.
    `correlation_id` is the X-Request-ID of its submission, and `trace` the span that it was submitted in.
    """

    id: str
    client: str
    request: InferRequest
    form: AnswerForm
    batched: bool
    submitted: float
    deadline: float
    replaces: int = 0
    correlation_id: str = ""
    trace: TraceContext | None = None


class JobError(NamedTuple):
    """Why a job failed: a code of `adapter.core.errors` and a sentence."""

    code: str
    message: str


class JobResult(NamedTuple):
    """The immutable end of a job: a response or an error."""

    outcome: InferResponse | JobError
    form: AnswerForm
    batched: bool


class JobStatus(NamedTuple):
    """Where a job stands, since `timestamp`; times are epoch seconds. `result` is None until its end."""

    id: str
    model: str
    submitted: float
    timestamp: float
    result: JobResult | None = None


class JobLine(NamedTuple):
    """The same in a list of jobs, without the result."""

    id: str
    model: str
    submitted: float
    timestamp: float
    state: JobState


@dataclass(frozen=True, slots=True)
class Backlog:
    """Jobs without a result: those that wait, those that workers have, and the oldest one's age (0: none)."""

    waiting: int
    running: int
    oldest_s: float


@dataclass(frozen=True, slots=True)
class JobPage:
    """Some of a client's jobs, newest first; `next` begins the page after it, "" when there is none."""

    jobs: tuple[JobLine, ...]
    next: str = ""
