"""One table: Triton's datatypes, numpy's, and what JSON may hold for each."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

Kind = Literal["bool", "integer", "number", "bytes"]


@dataclass(frozen=True, slots=True)
class Datatype:
    """A datatype of the Open Inference Protocol.

    `dtype` is the numpy type whose little-endian bytes are the protocol's binary form; BF16, which numpy
    lacks, is kept as its upper 16 bits; BYTES has no fixed size, its `itemsize` is 0. `code` is the letter of
    the `struct` module, where it has one.
    """

    name: str
    kind: Kind
    dtype: np.dtype[Any]
    code: str

    @property
    def itemsize(self) -> int:
        """Bytes of one element."""
        return 0 if self.kind == "bytes" else self.dtype.itemsize


def _row(name: str, kind: Kind, dtype: str, code: str = "") -> tuple[str, Datatype]:
    return name, Datatype(name, kind, np.dtype(dtype), code)


DATATYPES: dict[str, Datatype] = dict(
    [
        _row("BOOL", "bool", "?", "?"),
        _row("INT8", "integer", "i1", "b"),
        _row("INT16", "integer", "<i2", "h"),
        _row("INT32", "integer", "<i4", "i"),
        _row("INT64", "integer", "<i8", "q"),
        _row("UINT8", "integer", "u1", "B"),
        _row("UINT16", "integer", "<u2", "H"),
        _row("UINT32", "integer", "<u4", "I"),
        _row("UINT64", "integer", "<u8", "Q"),
        _row("FP16", "number", "<f2", "e"),
        _row("BF16", "number", "<u2"),
        _row("FP32", "number", "<f4", "f"),
        _row("FP64", "number", "<f8", "d"),
        _row("BYTES", "bytes", "O"),
    ]
)


def to_bf16(values: npt.NDArray[np.float64]) -> npt.NDArray[np.uint16]:
    """Round to the nearest BF16, ties to even, straight from FP64; overflow becomes infinity, NaN stays.

    Via FP32 in round-to-odd, because rounding twice to nearest would be off for some values.
    """
    with np.errstate(over="ignore"):
        single = values.astype(np.float32)
    bits = single.view(np.uint32).copy()
    back = single.astype(np.float64)
    inexact = (back != values) & np.isfinite(back)
    # Round to odd: an inexact result is the truncated one with its last bit set.
    bits[inexact & (np.abs(back) > np.abs(values))] -= 1
    bits[inexact] |= 1
    nan = np.isnan(values)
    rounded = (bits + 0x7FFF + ((bits >> 16) & 1)) >> 16
    rounded[nan] = (bits[nan] >> 16) | 0x40
    return rounded.astype(np.uint16)


def pack_bf16(values: Sequence[float]) -> bytes:
    """Numbers → BF16's binary form. Raises OverflowError for a finite one that is beyond its range."""
    wide = np.array(values, np.float64)
    narrow = to_bf16(wide)
    if (((narrow & 0x7FFF) == 0x7F80) & np.isfinite(wide)).any():
        raise OverflowError("beyond BF16's range")
    return narrow.tobytes()


def from_bf16(bits: npt.NDArray[np.uint16]) -> npt.NDArray[np.float32]:
    """Widen BF16 bits to FP32, exactly."""
    return (bits.astype(np.uint32) << 16).view(np.float32)


def pack_bytes(elements: Sequence[bytes]) -> bytes:
    """BYTES elements → the protocol's binary form: each behind its 32-bit little-endian length."""
    parts: list[bytes] = []
    for element in elements:
        parts += (len(element).to_bytes(4, "little"), element)
    return b"".join(parts)


def unpack_bytes(data: bytes | memoryview) -> list[bytes]:
    """The binary form → BYTES elements. Raises ValueError when a length runs over the end."""
    elements: list[bytes] = []
    view, at, end = memoryview(data), 0, len(data)
    while at < end:
        start = at + 4
        at = start + int.from_bytes(view[at:start], "little")
        if start > end or at > end:
            raise ValueError(f"element {len(elements)} runs over the end of the tensor's data")
        elements.append(bytes(view[start:at]))
    return elements
