"""What a run found, as it is kept in JSON."""

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path

RESULTS = Path(__file__).with_name("results")


@dataclass(frozen=True)
class Draw:
    """One server under one load for a moment."""

    server: str
    load: str
    connections: int
    number: int
    """Draws of one number were taken next to each other."""
    requests: int
    errors: int
    """Connections, reads, writes, statuses over 399 and time-outs that went wrong."""
    per_second: float
    p50_ms: float
    p90_ms: float
    p99_ms: float
    cpu_us: float
    """CPU time of the server's processes for each request."""
    triton_cpu_us: float
    """The same of Triton's, its model's process included."""
    http_threads: int | None = None
    """How many of Triton's HTTP threads were busy; known for Triton's own front end."""


@dataclass(frozen=True)
class Run:
    """One interleaved run."""

    name: str
    started: str
    quick: bool
    machine: dict[str, str]
    servers: dict[str, str]
    """Key → what it is, in words."""
    left_out: dict[str, str]
    """Key of a peer → why it was not measured."""
    loads: dict[str, str]
    draws: list[Draw] = field(default_factory=list)
    checked: dict[str, int] = field(default_factory=dict)
    """Server and load → concurrent requests that each got the answer of their own."""
    jobs: dict[str, list[float]] = field(default_factory=dict)
    """Asynchronous jobs a second: `adapter` and `nats`, draw by draw."""
    compiled: bool = False
    """Whether the adapter ran as in the container image, its hot path compiled."""

    def save(self, path: Path) -> None:
        """Write it as JSON."""
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(asdict(self), indent=1) + "\n")

    @classmethod
    def load(cls, path: Path) -> "Run":
        """Read what `save` wrote."""
        content = json.loads(path.read_text())
        draws = [Draw(**draw) for draw in content.pop("draws")]
        return cls(**content, draws=draws)
