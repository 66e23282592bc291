"""JSON answers."""

from datetime import UTC, datetime
from typing import Any

import orjson
from starlette.responses import Response

from adapter.core.types import ModelMetadata

_OPTIONS = orjson.OPT_SERIALIZE_NUMPY


def json_response(content: Any, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    """A JSON answer, numpy arrays included; NaN and infinities come as null, which every parser reads."""
    return Response(orjson.dumps(content, option=_OPTIONS), status, headers, media_type="application/json")


def timestamp(seconds: float | None = None) -> str:
    """Epoch seconds, or now, as ISO 8601 in UTC with milliseconds and a `Z`."""
    moment = datetime.now(UTC) if seconds is None else datetime.fromtimestamp(seconds, UTC)
    return moment.isoformat(timespec="milliseconds").removesuffix("+00:00") + "Z"


def version_headers(metadata: ModelMetadata) -> dict[str, str]:
    """`Deprecation` (RFC 9745) and `Sunset` (RFC 8594) of a version that is on its way out."""
    if not metadata.deprecated:
        return {}
    headers = {"Deprecation": "@0"}
    day = metadata.sunset.get(metadata.version) or metadata.sunset.get("*")
    if day is not None:
        headers["Sunset"] = day.strftime("%a, %d %b %Y 00:00:00 GMT")
    return headers
