"""Triton's shared-memory extensions, for administrators, where the settings allow it.

extension_shared_memory.md in Triton's documentation: a client on Triton's own machine registers a region, and
then sends and receives tensors in it by name. Triton maps whatever it is told to; hence administrators alone.
"""

import base64
import binascii
import re
from collections.abc import Mapping
from typing import Any, get_args

from fastapi import Request
from starlette.responses import Response

from adapter.contracts.answers import json_response
from adapter.contracts.scopes import needs
from adapter.contracts.v2_control import read_object
from adapter.contracts.v2_tensors import refuse_own, text_of
from adapter.core.dataplane import DataPlane
from adapter.core.errors import InvalidInput
from adapter.core.nested import describe
from adapter.core.types import RegionKind

EXTENSIONS = ("system_shared_memory", "cuda_shared_memory")
KINDS: tuple[RegionKind, ...] = get_args(RegionKind)
_NAME = re.compile(r"[A-Za-z0-9._-]{1,128}\Z")
_CUDA_HANDLE_BYTES = 64
"""sizeof(cudaIpcMemHandle_t)"""


class SharedMemory:
    """Registers, shows and forgets the regions of one kind."""

    def __init__(self, dataplane: DataPlane, kind: RegionKind) -> None:
        self._dataplane = dataplane
        self._kind = kind

    @needs("admin")
    async def status(self, request: Request) -> Response:
        """The regions that are registered, or the one that was asked for."""
        return json_response(await self._dataplane.regions(self._kind, _name(request)))

    @needs("admin")
    async def register(self, request: Request) -> Response:
        """Register a region under a name."""
        name, given = _name(request), await read_object(request)
        size = _number(given, "byte_size")
        if self._kind == "system":
            offset = _number({"offset": 0, **given}, "offset")
            await self._dataplane.register_system_region(name, _key(given), offset, size)
        else:
            await self._dataplane.register_cuda_region(
                name, _handle(given), _number(given, "device_id"), size
            )
        return Response(media_type="application/json")

    @needs("admin")
    async def unregister(self, request: Request) -> Response:
        """Forget a region, or all of this kind."""
        await self._dataplane.unregister_region(self._kind, _name(request))
        return Response(media_type="application/json")


def _name(request: Request) -> str:
    name: str = request.path_params.get("region", "")
    if name and not _NAME.match(name):
        raise InvalidInput(f"region {name[:64]!r}: expected letters, digits, '.', '_' and '-', at most 128")
    return refuse_own(name, "region")


def _key(given: Mapping[str, Any]) -> str:
    key = text_of(given, "key", "body")
    refuse_own(key.lstrip("/"), "key")
    return key


def _number(given: Mapping[str, Any], member: str) -> int:
    value = given.get(member)
    if type(value) is not int or not 0 <= value < 1 << 63:
        got = "none" if value is None else describe(value)
        raise InvalidInput(f"{member}: expected an integer from 0, got {got}")
    return value


def _handle(given: Mapping[str, Any]) -> bytes:
    """`{"raw_handle": {"b64": "…"}}`: a cudaIpcMemHandle_t."""
    holder = given.get("raw_handle")
    text = text_of(holder if type(holder) is dict else {}, "b64", "raw_handle")
    try:
        handle = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        handle = b""
    if len(handle) != _CUDA_HANDLE_BYTES:
        raise InvalidInput(f"raw_handle.b64: expected {_CUDA_HANDLE_BYTES} bytes as base64")
    return handle
