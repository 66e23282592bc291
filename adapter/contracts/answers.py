"""JSON answers."""

from collections.abc import Mapping
from datetime import UTC, date, datetime
from email.utils import format_datetime
from typing import Any

import numpy as np
import orjson
from starlette.responses import Response

from adapter.core.types import ModelMetadata

_OPTIONS = orjson.OPT_SERIALIZE_NUMPY
_TOKENS = {
    name: orjson.Fragment(token)
    for name, token in (("nan", b"NaN"), ("inf", b"Infinity"), ("-inf", b"-Infinity"))
}


class JsonResponse(Response):
    """A body that is JSON already; the framework's own takes longer over its headers than orjson over it."""

    def __init__(self, body: bytes, status: int, headers: dict[str, str] | None) -> None:
        raw = [(b"content-length", b"%d" % len(body)), (b"content-type", b"application/json")]
        if headers:
            raw += [(name.lower().encode(), text.encode("latin-1")) for name, text in headers.items()]
        self.status_code = status
        self.body = body
        self.background = None
        self.raw_headers = raw


def json_response(
    content: Any,
    status: int = 200,
    headers: dict[str, str] | None = None,
    *,
    nan_tokens: bool = False,
) -> Response:
    """A JSON answer, numpy arrays included.

    NaN and infinities come as null, which every parser reads, or with `nan_tokens` as the bare tokens NaN,
    Infinity and -Infinity, which Python's `json` reads.
    """
    written = orjson.dumps(_with_tokens(content) if nan_tokens else content, option=_OPTIONS)
    return JsonResponse(written, status, headers)


def _with_tokens(value: Any) -> Any:
    """The same JSON value, whatever is not finite in it replaced by its token."""
    match value:
        case dict():
            return {name: _with_tokens(member) for name, member in value.items()}
        case list():
            return [_with_tokens(element) for element in value]
        case np.ndarray() if value.dtype.kind == "f" and not np.isfinite(value).all():
            return [_with_tokens(element) for element in value]
        case np.floating() if not np.isfinite(value):
            return _TOKENS[str(value)]
        case _:
            return value


def timestamp(seconds: float | None = None) -> str:
    """Epoch seconds, or now, as ISO 8601 in UTC with milliseconds and a `Z`."""
    moment = datetime.now(UTC) if seconds is None else datetime.fromtimestamp(seconds, UTC)
    return moment.isoformat(timespec="milliseconds").removesuffix("+00:00") + "Z"


def version_headers(metadata: ModelMetadata) -> dict[str, str]:
    """`Deprecation` (RFC 9745) and `Sunset` (RFC 8594) of a version that is on its way out."""
    since = _midnight(metadata.deprecated_since, metadata.version)
    if since is None:
        return {}
    headers = {"Deprecation": f"@{since.timestamp():.0f}"}
    sunset = _midnight(metadata.sunset, metadata.version)
    if sunset is not None:
        headers["Sunset"] = format_datetime(sunset, usegmt=True)
    return headers


def _midnight(days: Mapping[str, date], version: str) -> datetime | None:
    """When the version's day begins, or that of all versions, in UTC."""
    day = days.get(version) or days.get("*")
    return None if day is None else datetime(day.year, day.month, day.day, tzinfo=UTC)
