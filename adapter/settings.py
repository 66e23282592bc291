"""Every setting of the adapter: one frozen class, filled from `ADAPTER_*` environment variables."""

from ipaddress import ip_network
from pathlib import Path
from typing import Annotated, Literal, Self
from urllib.parse import urlsplit

from platformdirs import user_state_path
from pydantic import Field, SecretStr, field_validator, model_validator
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
    metrics_dir: Path | None = None
    """Folder in which processes on one port add up their metrics; `up` has one of its own."""
    docs: bool = False
    """Serve `/openapi.json` and `/docs` on the API's port, without a key; `up` switches it on."""

    tls_cert_file: Path | None = None
    """Certificate (PEM, with its chain) that the API answers with; renewed files are taken in."""
    tls_key_file: Path | None = None
    """Private key of the certificate (PEM, not encrypted)."""
    tls_client_ca_file: Path | None = None
    """With this CA (PEM) every client must show a certificate of its own, beside its key or token."""
    tls_ended_by_proxy: bool = False
    """Listen in plain text off loopback too, because a proxy in front ends TLS."""
    trusted_proxies: str = ""
    """Addresses or networks, comma-separated, whose `Forwarded` and `X-Forwarded-*` headers are believed."""

    rate_limit_per_minute: Annotated[int, Field(ge=0)] = 1000
    """Requests a client may make in any 60 s, over all processes; a key may say otherwise; 0 is none."""
    oauth_issuer: str | None = None
    """Issuer of OAuth2 access tokens (JWT), as in their `iss`; its discovery document names its keys."""
    oauth_audience: str | None = None
    """What an access token's `aud` must hold; needed with an issuer."""
    oauth_algorithms: str = "RS256,ES256,EdDSA"
    """Signature algorithms that are accepted, separated by commas."""
    oauth_keys_max_age_s: Seconds = 21_600.0
    """How long the issuer's keys are believed while it cannot be reached."""
    max_connections: Annotated[int, Field(ge=1)] = 4096
    """Connections that one process holds open at a time; one more is answered with 503."""
    header_timeout_s: Seconds = 10.0
    """How long a client may take to send a request's headers."""

    triton_grpc_url: str = "127.0.0.1:8001"
    """Triton's gRPC endpoint, `host:port`, or several with commas between; `dns:///name:port` names all."""
    triton_transport: Literal["http2", "grpc"] = "http2"
    """How inferences go to Triton: by the adapter's own lean client, or by gRPC's, as always with TLS."""
    triton_tls: bool = False
    """Speak TLS to Triton."""
    triton_ca_file: Path | None = None
    """CA (PEM) of Triton's certificate; without it the CAs that gRPC ships are trusted."""
    triton_cert_file: Path | None = None
    """Certificate (PEM) that the adapter shows to Triton (mutual TLS)."""
    triton_key_file: Path | None = None
    """Private key of that certificate."""
    triton_traces_url: str | None = None
    """Where `up` has Triton send its spans (OTLP over HTTP); by default port 4318 of the collector's host."""
    metadata_ttl_s: Seconds = 1.0
    """How long a model's metadata is believed before Triton is asked again."""
    infer_timeout_s: Seconds = 60.0
    """Deadline of a synchronous inference, and of one attempt at an asynchronous one, in seconds."""

    batch_calls: Annotated[int, Field(ge=0, le=64)] = 2
    """Most calls of one model in flight; requests that wait meanwhile are joined into one; 0 joins none."""
    batch_queue: Annotated[int, Field(ge=1)] = 2048
    """Most requests that may wait for one model; one more is refused with 503."""
    shared_memory_min_bytes: Annotated[int, Field(ge=0)] = 256 << 10
    """Tensors of so many bytes or more go to a Triton on this machine through shared memory; 0 is never."""
    shared_memory_max_bytes: Annotated[int, Field(ge=1 << 20)] = 256 << 20
    """Most shared memory that one process holds for tensors."""
    v2_model_control: bool = False
    """Let clients with the scope `admin` load and unload the repository's models over V2."""
    v2_shared_memory: bool = False
    """Let clients with the scope `admin` register shared memory with Triton, and use it; Triton maps any."""

    nats_url: str = "nats://127.0.0.1:4222"
    """NATS server with JetStream, or several, separated by commas; `tls://` asks for TLS."""
    nats_ca_file: Path | None = None
    """CA (PEM) of the NATS server's certificate; with it the connection is TLS."""
    nats_cert_file: Path | None = None
    """Certificate (PEM) that the adapter shows to NATS (mutual TLS)."""
    nats_key_file: Path | None = None
    """Private key of that certificate."""
    nats_credentials_file: Path | None = None
    """NATS credentials: a `.creds` file (JWT and nkey seed), or a file with an nkey seed alone."""
    nats_user: str | None = None
    """User name for NATS."""
    nats_password: SecretStr | None = None
    """Password of that user."""
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
    result_max_bytes: Annotated[int, Field(ge=1024)] = 256 << 20
    """Largest result of a job; a job with a larger one fails."""
    worker_slots: Annotated[int, Field(ge=1, le=4096)] = 64
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

    url: str | None = None
    """Where `predict` and `submit` find the API; without it the `up` of the state folder tells."""
    key: SecretStr | None = None
    """API key that they send, or `@FILE` for one that stands in a file."""
    ca_file: Path | None = None
    """CA (PEM) of the API's certificate, for them; without it the CAs of this machine are trusted."""

    log_format: Literal["console", "json"] = "console"
    """Form of a log line on standard error."""
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    """Least severe log line that is written."""
    access_log_sample: Annotated[float, Field(ge=0, le=1)] = 1.0
    """Share of requests and jobs that get a line in the log; those that fail on our side always do."""

    @property
    def keys_path(self) -> Path:
        """Where the API keys are kept."""
        return self.keys_file or self.state_dir / "keys.json"

    @property
    def several_tritons(self) -> bool:
        """Whether `triton_grpc_url` may stand for more than one server."""
        return self.triton_grpc_url.startswith("dns:///") or "," in self.triton_grpc_url

    @field_validator("triton_grpc_url")
    @classmethod
    def _endpoints(cls, value: str) -> str:
        urls = [url.strip() for url in value.split(",")]
        for url in urls:
            parts = urlsplit(f"//{url.removeprefix('dns:///')}")
            if not parts.hostname or not parts.port or "@" in url or parts.path:
                raise ValueError("expected host:port or dns:///name:port, or several, with commas between")
        return ",".join(urls)

    @field_validator("nats_url")
    @classmethod
    def _no_secret_in_url(cls, value: str) -> str:
        # Addresses are logged and shown.
        if any("@" in urlsplit(url).netloc for url in value.split(",")):
            raise ValueError("holds credentials; put them into ADAPTER_NATS_USER and ADAPTER_NATS_PASSWORD")
        return value

    @field_validator("trusted_proxies")
    @classmethod
    def _networks(cls, value: str) -> str:
        for network in filter(str.strip, value.split(",")):
            ip_network(network.strip(), strict=False)
        return value

    @field_validator("oauth_algorithms")
    @classmethod
    def _algorithms(cls, value: str) -> str:
        known = {"RS256", "ES256", "EdDSA"}
        if not {name.strip() for name in value.split(",")} <= known:
            raise ValueError(f"holds an algorithm that is none of {', '.join(sorted(known))}")
        return value

    @field_validator("nats_url")
    @classmethod
    def _addresses(cls, urls: str) -> str:
        for url in urls.split(","):
            parts = urlsplit(url.strip() if "//" in url else f"nats://{url.strip()}")
            if parts.scheme not in ("nats", "tls") or not parts.hostname or (parts.port or 1) < 1:
                raise ValueError(
                    "expected nats://host:port or tls://host:port, or several, with commas between"
                )
        return urls

    @model_validator(mode="after")
    def _pairs(self) -> Self:
        for one, other in _TOGETHER:
            if getattr(self, one) and not getattr(self, other):
                raise ValueError(f"ADAPTER_{one.upper()} needs ADAPTER_{other.upper()}")
        if self.v2_shared_memory and self.several_tritons:
            raise ValueError(
                "ADAPTER_V2_SHARED_MEMORY needs one Triton: ADAPTER_TRITON_GRPC_URL names several"
            )
        return self


_TOGETHER = (
    ("tls_cert_file", "tls_key_file"),
    ("tls_key_file", "tls_cert_file"),
    ("tls_client_ca_file", "tls_cert_file"),
    ("triton_ca_file", "triton_tls"),
    ("triton_cert_file", "triton_key_file"),
    ("triton_cert_file", "triton_tls"),
    ("nats_cert_file", "nats_key_file"),
    ("oauth_issuer", "oauth_audience"),
)
"""Settings of which the first says nothing without the second."""
