"""The seams: what the adapter asks of an inference engine and of a job queue, and the gateway of security."""

from collections.abc import Awaitable, Mapping, Sequence
from typing import Any, Protocol

from adapter.core.types import (
    Backlog,
    Client,
    InferRequest,
    InferResponse,
    Job,
    JobError,
    JobPage,
    JobResult,
    JobStatus,
    ModelMetadata,
    ModelVersion,
    Quota,
    RegionKind,
    Submission,
)


class Engine(Protocol):
    """Runs models. Every method raises `EngineUnavailable` when the engine does not answer."""

    async def models(self) -> Sequence[ModelVersion]:
        """Every version that is loaded, is loading, or could not be loaded."""

    async def metadata(self, name: str, version: str = "") -> ModelMetadata:
        """Describe `version`, or the latest ready one. Raises `ModelNotFound` or `ModelNotReady`."""

    def infer(self, request: InferRequest, timeout_s: float) -> Awaitable[InferResponse]:
        """Run one inference, from when it is awaited on; nothing here holds its tensors longer than needed.

        Raises `InvalidInput` when the model refuses the input, `InferenceFailed` when it breaks on it,
        `DeadlineExceeded` after `timeout_s`, and what `metadata` raises.
        """

    def memory(self, size: int) -> memoryview:
        """So many bytes, for tensors: the engine may take them from there with less ado than from others."""

    async def config(self, name: str, version: str = "") -> Mapping[str, Any]:
        """A version's configuration as JSON, auto-completed parts included. Raises as `metadata` does."""

    async def statistics(self, name: str = "", version: str = "") -> Sequence[Mapping[str, Any]]:
        """What each version has done so far, as JSON, every counter present; of all models without a name."""

    async def repository_index(self) -> Sequence[Mapping[str, str]]:
        """Every model of the repository, loaded or not: `name`, and `version`, `state`, `reason` if known."""

    async def load(self, name: str) -> None:
        """Load the model from the repository, or load it anew. Raises `ModelNotFound`, `InvalidInput`."""

    async def unload(self, name: str, *, dependents: bool) -> None:
        """Unload the model, with `dependents` also the models that an ensemble was made of."""

    async def regions(self, kind: RegionKind, name: str = "") -> Sequence[Mapping[str, Any]]:
        """The shared-memory regions that are registered, or that one. Raises `NotFound`."""

    async def register_system_region(self, name: str, key: str, offset: int, byte_size: int) -> None:
        """Map a region of the engine's machine. Raises `InferenceFailed` when it cannot."""

    async def register_cuda_region(self, name: str, handle: bytes, device: int, byte_size: int) -> None:
        """Map a region of a GPU by its IPC handle. Raises `InferenceFailed` when it cannot."""

    async def unregister_region(self, kind: RegionKind, name: str = "") -> None:
        """Forget the region, or without a name all of this kind."""

    def servers(self) -> Mapping[str, str]:
        """Each server by its address, with "ok" or why it is not used now; empty where there is only one."""

    def forget(self) -> None:
        """Believe nothing that was said of models so far: the next look-up asks the engine."""

    async def close(self) -> None:
        """Let go of the engine."""


class Delivery(Protocol):
    """A job lent to this worker until it is finished or given back.

    `deliveries` counts from 1 how often it was lent. What else there is to know `read` finds out: the job's
    tensors, the `attempt` that this is, which are the deliveries without those that were excused, and `lost`,
    which says why it cannot be run at all.
    """

    job: Job
    deliveries: int
    attempt: int
    lost: JobError | None

    async def read(self) -> None:
        """Complete the job, which may take long. Raises `QueueUnavailable` when it cannot be read for now."""

    async def extend(self) -> None:
        """Keep it for another `ack_wait_s`."""

    async def settled(self) -> bool:
        """Strike the job off the queue if it has a result already, and say whether it has."""

    async def finish(self, result: JobResult) -> bool:
        """Publish the result, unless one is there already, and strike the job off the queue.

        Returns whether it is this delivery's that stands. Raises `PayloadTooLarge`.
        """

    async def give_back(self, delay_s: float, *, excused: bool) -> None:
        """Let it be delivered again after `delay_s`; `excused` says that this attempt does not count."""


class JobQueue(Protocol):
    """Keeps jobs and their results.

    Every method but `open` and `close` raises `QueueUnavailable` when the queue does not answer.
    """

    def open(self) -> None:
        """Begin to connect; needs a running event loop."""

    async def submit(self, submission: Submission) -> str:
        """Store the job durably, and return its id; it will run at least once.

        With an idempotency key that was seen before this is the id that it had then. Raises `QueueFull`,
        `PayloadTooLarge`, `IdempotencyConflict`.
        """

    async def status(self, client: str, job_id: str, wait_s: float = 0) -> JobStatus:
        """Where the client's job stands, as soon as it has ended, or after `wait_s`. Raises `JobNotFound`."""

    async def cancel(self, client: str, job_id: str) -> tuple[JobStatus, bool]:
        """End the client's job unless it has ended. Raises `JobNotFound`.

        Returns where it stands, and whether this call ended it.
        """

    async def page(self, client: str, limit: int, before: str = "") -> JobPage:
        """Up to `limit` of the client's jobs, newest first, from the page that begins with `before`."""

    async def fetch(self, most: int, wait_s: float) -> Sequence[Delivery]:
        """Take up to `most` jobs, waiting at most `wait_s` for the first one."""

    async def ping(self) -> None:
        """Return when the queue answers."""

    async def backlog(self) -> Backlog:
        """How much there is to do, of all clients."""

    async def close(self) -> None:
        """Let go of the queue."""


class Authenticator(Protocol):
    """Knows who is calling."""

    async def authenticate(self, credential: str) -> Client:
        """Whose credential this is. Raises `InvalidCredentials`; `Unavailable` when none can tell."""


class RateLimiter(Protocol):
    """Knows how often a client may call."""

    async def admit(self, client: Client) -> Quota | None:
        """Count one request of the client; None means that it has no limit."""

    def failed(self, address: str) -> Quota | None:
        """Count one failed authentication from an address; None means that there is no limit."""
