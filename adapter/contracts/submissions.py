"""What a client asks of `POST /inference` → a Submission, with every mistake named by its place."""

import json
import math
import re
from hashlib import blake2b
from typing import Any

import orjson
from starlette.datastructures import Headers

from adapter.contracts.models import split_id
from adapter.core.codec import decode_input_data
from adapter.core.errors import InvalidInput
from adapter.core.nested import describe
from adapter.core.types import IdempotencyKey, InferRequest, ModelMetadata, Parameter, Submission

LONGEST_WAIT_S = 60
"""A longer wait than this is cut to it."""
LONGEST_TIMEOUT_S = 7 * 86_400

_KINDS = {int: "an integer", bool: "a boolean", str: "a string"}
_RESERVED: dict[str, tuple[type, ...]] = {
    "timeout": (int,),
    "sequence_id": (int, str),
    "sequence_start": (bool,),
    "sequence_end": (bool,),
}
"""Parameters that mean something to Triton itself, and what they may hold."""
_FIELDS = {"model_id", "input_data", "parameters"}
_KEY = re.compile(r"[\x21-\x7e][\x20-\x7e]{0,254}\Z")
_WAIT = re.compile(r"wait\s*=\s*\"?(\d{1,9})\"?\Z", re.IGNORECASE)


def read_model_id(body: Any) -> tuple[str, str]:
    """The name and the version ("" is the latest) of the model that a request is for. Raises InvalidInput."""
    return split_id(_checked_fields(body)["model_id"])


def read_submission(
    body: dict[str, Any], metadata: ModelMetadata, version: str, client: str, key: str, timeout_s: float
) -> Submission:
    """Check a request, whose model id was read, against its model.

    `version` is the one that it names, `key` its Idempotency-Key or "", `timeout_s` the default. Raises
    InvalidInput.
    """
    tensors, form = decode_input_data(metadata, body["input_data"])
    parameters = _checked_parameters(body.get("parameters"))
    timeout_s = float(parameters.pop("timeout_s", timeout_s))
    return Submission(
        client=client,
        request=InferRequest(metadata.name, version, tensors, parameters=parameters),
        form=form,
        batched=metadata.batched,
        timeout_s=timeout_s,
        priority=int(parameters.get("priority", 0)),
        idempotency=IdempotencyKey(key, _digest(body)) if key else None,
    )


def idempotency_key(headers: Headers) -> str:
    """The Idempotency-Key header, "" when there is none. Raises InvalidInput."""
    key = headers.get("idempotency-key")
    if key is None:
        return ""
    if not _KEY.match(key):
        raise InvalidInput("Idempotency-Key: expected 1 to 255 printable ASCII characters")
    return key


def preferred_wait(headers: Headers) -> int:
    """Seconds of `Prefer: wait=N` (RFC 7240), at most a minute; 0 when there is none that can be read."""
    for preference in ",".join(headers.getlist("prefer")).split(","):
        if match := _WAIT.match(preference.partition(";")[0].strip()):
            return min(int(match[1]), LONGEST_WAIT_S)
    return 0


def _digest(body: dict[str, Any]) -> str:
    """The same for whatever means the same: neither spaces nor the order of the keys count."""
    try:
        content = orjson.dumps(body, option=orjson.OPT_SORT_KEYS)
        if b"null" in content:
            # It may stand for NaN or an infinity, which are no null.
            json.dumps(body, allow_nan=False)
    except (TypeError, ValueError):
        # Nor does orjson take the long integers that come through the parser that knows NaN.
        content = json.dumps(body, sort_keys=True).encode()
    return blake2b(content, digest_size=16).hexdigest()


def _checked_fields(body: Any) -> dict[str, Any]:
    if type(body) is not dict:
        raise InvalidInput(f"the body must be a JSON object, got {describe(body)}")
    for name in ("model_id", "input_data"):
        if name not in body:
            raise InvalidInput(f"{name}: is missing")
    if unknown := body.keys() - _FIELDS:
        raise InvalidInput(f"{min(unknown)[:64]!r} is no member of an inference request")
    if type(body["model_id"]) is not str:
        raise InvalidInput(f"model_id: expected a string, got {describe(body['model_id'])}")
    return body


def _checked_parameters(given: Any) -> dict[str, Parameter]:
    """`parameters`: `timeout_s`, `priority`, and scalars for Triton. Raises InvalidInput."""
    if given is None:
        return {}
    if type(given) is not dict:
        raise InvalidInput(f"parameters: expected an object, got {describe(given)}")
    for name, value in given.items():
        if type(value) not in (bool, int, float, str) or (type(value) is float and not math.isfinite(value)):
            raise InvalidInput(f"parameters.{name[:64]}: expected a scalar, got {describe(value)}")
        if type(value) is int and not -(1 << 63) <= value < 1 << 63:
            raise InvalidInput(f"parameters.{name[:64]}: expected a 64-bit integer, got {describe(value)}")
        if name.startswith("triton_"):
            raise InvalidInput(f"parameters.{name[:64]}: names that begin with triton_ are Triton's own")
        wanted = _RESERVED.get(name)
        if wanted and type(value) not in wanted:
            kinds = " or ".join(_KINDS[kind] for kind in wanted)
            raise InvalidInput(f"parameters.{name}: expected {kinds}, got {describe(value)}")
    timeout_s = given.get("timeout_s", 1)
    if type(timeout_s) not in (int, float) or not 0 < timeout_s <= LONGEST_TIMEOUT_S:
        expected = "seconds, more than 0 and at most 604800"
        raise InvalidInput(f"parameters.timeout_s: expected {expected}, got {describe(timeout_s)}")
    priority = given.get("priority", 0)
    if type(priority) is not int or priority < 0:
        raise InvalidInput(f"parameters.priority: expected an integer from 0, got {describe(priority)}")
    return dict(given)
