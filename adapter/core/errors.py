"""What can go wrong, in the adapter's own words; no HTTP here, each contract maps these to its statuses.

AdapterError
├── InvalidInput          the request can never succeed as it is
├── PayloadTooLarge       more bytes than a limit allows
├── UnsupportedEncoding   a Content-Encoding that we do not take
├── Unauthenticated       no credentials
│   └── InvalidCredentials  credentials that we do not know, or not any more
│       └── ExpiredCredentials  credentials whose time is over
├── PermissionDenied      known, but not allowed to
├── RateLimited           too many requests for now
├── NotFound
│   ├── ModelNotFound     no such model, version or label
│   └── JobNotFound       no such request id, or not this client's
├── IdempotencyConflict   an Idempotency-Key that came before with another body
├── NotSupported          a part of the contract that we do not offer
├── DeadlineExceeded      not done in time
├── InferenceFailed       the model itself, or its backend, failed
└── Unavailable           later it may work: the request was not done
    ├── ModelNotReady     the model is loading, or its load failed
    │   └── ModelGone     it went while the request was on its way
    ├── ModelCrashed      the model's process died; it is being started again
    ├── EngineUnavailable Triton does not answer
    │   └── EngineUnreached  nor was it asked: there is no connection
    ├── QueueUnavailable  NATS does not answer
    ├── QueueFull         the queue's limit is reached
    └── BatchQueueFull    as many requests wait for this model as may
"""

from typing import Any, ClassVar


class AdapterError(Exception):
    """Base of all of them. `code` is stable and for programs, `message` is for people."""

    code: ClassVar[str] = "internal"

    def __init__(self, message: str, details: dict[str, Any] | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.details = details


class InvalidInput(AdapterError):
    """The request can never succeed as it is; the message names the offending place."""

    code = "invalid_input"


class PayloadTooLarge(AdapterError):
    """A body, or what it unpacks to, is over a limit; the message says which."""

    code = "payload_too_large"


class UnsupportedEncoding(AdapterError):
    """The body came with a Content-Encoding that is not `identity`."""

    code = "unsupported_encoding"


class Unauthenticated(AdapterError):
    """No credentials came, or (its subclass) none that are known and current."""

    code = "unauthenticated"


class InvalidCredentials(Unauthenticated):
    """Credentials came, but they are unknown, forged, expired, revoked, or not for us."""


class ExpiredCredentials(InvalidCredentials):
    """Credentials that were good once; who sends a key is not told that it was."""


class PermissionDenied(AdapterError):
    """The client is known, but lacks `scope`."""

    code = "permission_denied"

    def __init__(self, message: str, scope: str = "") -> None:
        super().__init__(message)
        self.scope = scope


class RateLimited(AdapterError):
    """The client sent more than its share; `retry_after_s` says when to come back."""

    code = "rate_limited"

    def __init__(self, message: str, retry_after_s: int) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class NotFound(AdapterError):
    """What was asked for does not exist, or not for this client."""

    code = "not_found"


class ModelNotFound(NotFound):
    """No such model, version or label."""

    code = "model_not_found"


class JobNotFound(NotFound):
    """No such request id: never given, another client's, or past its retention."""

    code = "request_not_found"


class IdempotencyConflict(AdapterError):
    """The same Idempotency-Key came before with another body."""

    code = "idempotency_conflict"


class NotSupported(AdapterError):
    """The contract has it, we do not."""

    code = "not_supported"


class DeadlineExceeded(AdapterError):
    """The answer was not there in time."""

    code = "deadline_exceeded"


class InferenceFailed(AdapterError):
    """The model or its backend failed on this request."""

    code = "inference_failed"


class Unavailable(AdapterError):
    """Nothing was done; the same request may succeed after `retry_after_s` seconds."""

    code = "unavailable"
    retry_after_s: ClassVar[int] = 1


class ModelNotReady(Unavailable):
    """The model exists but cannot answer: it is loading, unloading, or its load failed."""

    code = "model_not_ready"


class ModelGone(ModelNotReady):
    """It was ready when the request was sent, and gone when it came; perhaps it is loaded anew."""


class ModelCrashed(Unavailable):
    """The process that runs the model died, on this request or on an earlier one."""

    code = "model_crashed"


class EngineUnavailable(Unavailable):
    """Triton cannot be reached."""

    code = "engine_unavailable"


class EngineUnreached(EngineUnavailable):
    """No connection to Triton could be made: the request was not sent."""


class QueueUnavailable(Unavailable):
    """NATS cannot be reached, or its JetStream does not answer."""

    code = "queue_unavailable"


class QueueFull(Unavailable):
    """As many jobs wait as may."""

    code = "queue_full"
    retry_after_s = 5


class BatchQueueFull(Unavailable):
    """As many requests wait for this model as may."""

    code = "batch_queue_full"


def codes() -> tuple[str, ...]:
    """The code of every error of the tree, each once."""
    tree: list[type[AdapterError]] = [AdapterError]
    for kind in tree:
        tree.extend(kind.__subclasses__())
    return tuple(dict.fromkeys(kind.code for kind in tree))
