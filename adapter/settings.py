"""Every setting of the adapter: one frozen class, filled from `ADAPTER_*` environment variables."""

from pathlib import Path
from typing import Annotated, Literal

from platformdirs import user_state_path
from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict

Seconds = Annotated[float, Field(gt=0)]
Port = Annotated[int, Field(ge=0, le=65535)]


class Settings(BaseSettings):
    """What `serve`, `worker` and `up` are told from outside; a field `x` is the variable `ADAPTER_X`.

    Raises pydantic's `ValidationError`, which names the variable, when a value is not of its type.
    """

    model_config = SettingsConfigDict(env_prefix="ADAPTER_", frozen=True, use_attribute_docstrings=True)

    host: str = "127.0.0.1"
    """Address that the API listens on."""
    port: Port = 8080
    """Port of the API; 0 takes a free one."""
    ops_host: str = "127.0.0.1"
    """Address of the operations listener (`/livez`, `/readyz`, `/metrics`), which asks for no key."""
    ops_port: Port = 8081
    """Port of the operations listener; 0 takes a free one."""
    docs: bool = False
    """Serve `/openapi.json` and `/docs` on the API's port, without a key; `up` switches it on."""

    triton_grpc_url: str = "127.0.0.1:8001"
    """Triton's gRPC endpoint, `host:port`."""
    metadata_ttl_s: Seconds = 1.0
    """How long a model's metadata is believed before Triton is asked again."""
    infer_timeout_s: Seconds = 60.0
    """Deadline of a synchronous inference, and of one attempt at an asynchronous one, in seconds."""

    batch_calls: Annotated[int, Field(ge=0, le=64)] = 2
    """Calls of one model in flight, above which waiting requests are joined into one; 0 joins none."""
    batch_queue: Annotated[int, Field(ge=1)] = 2048
    """Most requests that may wait for one model; one more is refused with 503."""
    v2_model_control: bool = False
    """Let clients with the scope `admin` load and unload the repository's models over V2."""

    nats_url: str = "nats://127.0.0.1:4222"
    """NATS server with JetStream, or several, separated by commas."""
    queue_replicas: Annotated[int, Field(ge=1, le=5)] = 1
    """Copies of each job and result that JetStream keeps; 3 in a cluster of three servers."""
    queue_max_jobs: Annotated[int, Field(ge=1)] = 1_000_000
    """Most jobs that may wait; one more is refused with 503."""
    queue_max_bytes: Annotated[int, Field(ge=1 << 20)] = 4 << 30
    """Most bytes that waiting jobs may hold; a job beyond them is refused with 503."""
    job_timeout_s: Seconds = 3600.0
    """Deadline of a job that names no `timeout_s` of its own, waiting included."""
    job_attempts: Annotated[int, Field(ge=1)] = 5
    """How often a job may take its worker or its model down before it counts as failed."""
    ack_wait_s: Annotated[float, Field(ge=1)] = 30.0
    """A worker that is silent for so long is taken for dead, and its jobs go to another."""
    result_retention_s: Seconds = 86_400.0
    """How long a result can be read; after that its id is unknown."""
    worker_slots: Annotated[int, Field(ge=1, le=4096)] = 32
    """Jobs that one worker process runs at a time."""

    state_dir: Path = Field(default_factory=lambda: user_state_path("miaas-adapter"))
    """Folder for what outlives a process: API keys, the queue's files, `up.json`."""
    keys_file: Path | None = None
    """API keys; by default `keys.json` in the state folder."""
    max_body_bytes: Annotated[int, Field(ge=1024)] = 64 << 20
    """Largest request body; a longer one is refused with 413 before it is read to its end."""
    nan_tokens: bool = False
    """Answer NaN and infinities as the bare tokens `NaN`, `Infinity`, `-Infinity` instead of `null`."""
    shutdown_timeout_s: Seconds = 8.0
    """How long requests and jobs in flight may take to finish once a stop was asked for."""

    log_format: Literal["console", "json"] = "console"
    """Form of a log line on standard error."""
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    """Least severe log line that is written."""

    @property
    def keys_path(self) -> Path:
        """Where the API keys are kept."""
        return self.keys_file or self.state_dir / "keys.json"
