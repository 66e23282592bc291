"""Models, an engine and a queue in memory: fakes stand at the two seams, adapter.core.ports, alone."""

import asyncio
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from datetime import date
from typing import Any

from adapter.core.errors import JobNotFound, ModelNotFound, ModelNotReady
from adapter.core.ports import Delivery
from adapter.core.types import (
    Backlog,
    InferRequest,
    InferResponse,
    Job,
    JobError,
    JobLine,
    JobPage,
    JobResult,
    JobState,
    JobStatus,
    ModelMetadata,
    ModelVersion,
    RegionKind,
    Submission,
    TensorMetadata,
)

Shape = tuple[int, ...]


def tensor(name: str, datatype: str, *dims: int, optional: bool = False) -> TensorMetadata:
    """A declared tensor; `dims` count the batch axis."""
    return TensorMetadata(name, datatype, dims, optional)


def model(
    *inputs: TensorMetadata,
    outputs: Sequence[TensorMetadata] = (),
    name: str = "m",
    version: str = "1",
    versions: Sequence[str] = (),
    max_batch_size: int = 0,
    feature_names: Sequence[str] = (),
    labels: dict[str, str] | None = None,
    deprecated_since: dict[str, date] | None = None,
    sunset: dict[str, date] | None = None,
) -> ModelMetadata:
    """A model; without `outputs` it has its inputs' likes."""
    return ModelMetadata(
        name=name,
        version=version,
        versions=tuple(versions) or (version,),
        platform="onnxruntime_onnx",
        framework="onnx",
        max_batch_size=max_batch_size,
        inputs=inputs,
        outputs=tuple(outputs) or inputs,
        feature_names=tuple(feature_names),
        labels=labels or {},
        deprecated_since=deprecated_since or {},
        sunset=sunset or {},
    )


class FakeEngine:
    """An Engine whose models answer with `run`, at first with their inputs under their outputs' names."""

    def __init__(self, *models: ModelMetadata) -> None:
        self.reset(*models)

    def reset(self, *models: ModelMetadata) -> None:
        """As new, with these models."""
        self.served = {(metadata.name, metadata.version): metadata for metadata in models}
        self.not_ready: dict[str, str] = {}
        self.run: Callable[[InferRequest], InferResponse] = self.echo
        self.fault: Exception | None = None
        self.pause_s = 0.0
        self.looked_up: list[tuple[str, str]] = []
        self.requests: list[InferRequest] = []
        self.timeouts: list[float] = []
        self.loads: list[str] = []
        self.told_of_servers: dict[str, str] = {}
        self.cancelled = 0
        self.forgotten = 0
        self.running = 0
        self.most_running = 0

    def echo(self, request: InferRequest) -> InferResponse:
        metadata = self._find(request.model_name, request.model_version)
        outputs = tuple(
            given._replace(name=declared.name)
            for given, declared in zip(request.inputs, metadata.outputs, strict=False)
        )
        return InferResponse(metadata.name, metadata.version, outputs)

    async def models(self) -> Sequence[ModelVersion]:
        if self.fault:
            raise self.fault
        ready = [ModelVersion(name, version, ready=True) for name, version in self.served]
        return [*ready, *(ModelVersion(name, "", False, reason) for name, reason in self.not_ready.items())]

    async def metadata(self, name: str, version: str = "") -> ModelMetadata:
        self.looked_up.append((name, version))
        if self.fault:
            raise self.fault
        return self._find(name, version)

    async def infer(self, request: InferRequest, timeout_s: float) -> InferResponse:
        self.requests.append(request)
        self.timeouts.append(timeout_s)
        self.running += 1
        self.most_running = max(self.most_running, self.running)
        try:
            await asyncio.sleep(self.pause_s)
            return self.run(request)
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        finally:
            self.running -= 1

    def memory(self, size: int) -> memoryview:
        return memoryview(bytearray(size))

    async def config(self, name: str, version: str = "") -> Mapping[str, Any]:
        return {"name": self._find(name, version).name}

    async def statistics(self, name: str = "", version: str = "") -> Sequence[Mapping[str, Any]]:
        return [
            {"name": served, "version": number}
            for served, number in self.served
            if name in ("", served) and version in ("", number)
        ]

    async def repository_index(self) -> Sequence[Mapping[str, str]]:
        return [{"name": name, "version": version, "state": "READY"} for name, version in self.served]

    async def load(self, name: str) -> None:
        self.loads.append(name)

    async def unload(self, name: str, *, dependents: bool) -> None:
        self.loads.append(f"-{name}")

    async def regions(self, kind: RegionKind, name: str = "") -> Sequence[Mapping[str, Any]]:
        return []

    async def register_system_region(self, name: str, key: str, offset: int, byte_size: int) -> None:
        raise NotImplementedError

    async def register_cuda_region(self, name: str, handle: bytes, device: int, byte_size: int) -> None:
        raise NotImplementedError

    async def unregister_region(self, kind: RegionKind, name: str = "") -> None:
        raise NotImplementedError

    def servers(self) -> Mapping[str, str]:
        return self.told_of_servers

    def forget(self) -> None:
        self.forgotten += 1

    async def close(self) -> None:
        pass

    def _find(self, name: str, version: str) -> ModelMetadata:
        if name in self.not_ready:
            raise ModelNotReady(f"Model {name} is not ready: {self.not_ready[name]}")
        version = version or max((v for n, v in self.served if n == name), default="", key=int)
        if (name, version) not in self.served:
            raise ModelNotFound(f"Model not found: {name}")
        return self.served[name, version]


class FakeQueue:
    """A JobQueue that keeps jobs; a test puts their results."""

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """As new."""
        self.jobs: dict[str, Job] = {}
        self.results: dict[str, JobResult] = {}
        self.submissions: list[Submission] = []
        self.waits: list[float] = []
        self.waiting = 0
        self.holds = False
        """Whether who waits for a result does so, and is told nothing."""
        self.answer: Callable[[Job], JobResult | None] = lambda job: None
        self.fault: Exception | None = None

    def open(self) -> None:
        pass

    async def submit(self, submission: Submission) -> str:
        await self.ping()
        self.submissions.append(submission)
        now = time.time()
        job = Job(
            id=f"{len(self.jobs):08d}{uuid.uuid4().hex}",
            client=submission.client,
            request=submission.request,
            form=submission.form,
            batched=submission.batched,
            submitted=now,
            deadline=now + submission.timeout_s,
        )
        self.jobs[job.id] = job
        return job.id

    async def status(self, client: str, job_id: str, wait_s: float = 0) -> JobStatus:
        await self.ping()
        self.waits.append(wait_s)
        job = self.jobs.get(job_id)
        if job is None or job.client != client:
            raise JobNotFound(f"no request with the id {job_id}")
        if wait_s and self.holds:
            self.waiting += 1
            try:
                await asyncio.sleep(wait_s)
            finally:
                self.waiting -= 1
        result = self.results.get(job_id) or (self.answer(job) if wait_s else None)
        return JobStatus(job_id, job.request.model_name, job.submitted, job.submitted, result)

    async def cancel(self, client: str, job_id: str) -> tuple[JobStatus, bool]:
        status = await self.status(client, job_id)
        job, ended = self.jobs[job_id], job_id not in self.results
        self.results.setdefault(job_id, JobResult(JobError("cancelled", "no"), job.form, job.batched))
        return status._replace(result=self.results[job_id]), ended

    async def page(self, client: str, limit: int, before: str = "") -> JobPage:
        ids = sorted((i for i, job in self.jobs.items() if job.client == client), reverse=True)
        ids = [job_id for job_id in ids if not before or job_id < before]
        found = [await self.status(client, job_id) for job_id in ids[:limit]]
        lines = (JobLine(job.id, job.model, job.submitted, job.timestamp, _state(job)) for job in found)
        return JobPage(tuple(lines), ids[limit - 1] if len(ids) > limit else "")

    async def fetch(self, most: int, wait_s: float) -> Sequence[Delivery]:
        return []

    async def ping(self) -> None:
        if self.fault:
            raise self.fault

    async def backlog(self) -> Backlog:
        await self.ping()
        waiting = [job for job_id, job in self.jobs.items() if job_id not in self.results]
        oldest = min((job.submitted for job in waiting), default=time.time())
        return Backlog(len(waiting), 0, time.time() - oldest)

    async def close(self) -> None:
        pass


def _state(status: JobStatus) -> JobState:
    if status.result is None:
        return "processing"
    return "failed" if isinstance(status.result.outcome, JobError) else "completed"
