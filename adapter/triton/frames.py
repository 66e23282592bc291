"""HTTP/2 on the wire (RFC 9113): frames, and header blocks without a dynamic table (HPACK, RFC 7541)."""

import struct
from collections.abc import Mapping

import hpack

DATA, HEADERS, RST_STREAM, SETTINGS, PUSH_PROMISE, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = (
    *(0x0, 0x1, 0x3, 0x4, 0x5, 0x6, 0x7, 0x8, 0x9),
)
END_STREAM = ACK = 0x1
END_HEADERS = 0x4
PADDED = 0x8
PRIORITY = 0x20

NO_ERROR, REFUSED_STREAM, CANCEL, ENHANCE_YOUR_CALM = 0x0, 0x7, 0x8, 0xB

HEADER_TABLE_SIZE, ENABLE_PUSH, MAX_CONCURRENT_STREAMS, INITIAL_WINDOW_SIZE, MAX_FRAME_SIZE = 1, 2, 3, 4, 5
MAX_HEADER_LIST_SIZE = 6

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
FRAME_HEADER = 9
LARGEST_WINDOW = 2**31 - 1
FIRST_WINDOW = 65_535
"""Of a connection and its streams, until they are told otherwise."""
SMALLEST_MAX_FRAME = 16_384
MOST_HEADER_BYTES = 64 << 10
"""Of one header block that we take."""

_HEAD = struct.Struct(">BHBBL")
_MOST_KNOWN_BLOCKS = 64


class ProtocolError(Exception):
    """The peer broke the protocol; the message says how."""


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    """A whole frame."""
    return frame_head(len(payload), kind, flags, stream) + payload


def frame_head(size: int, kind: int, flags: int, stream: int) -> bytes:
    """The nine bytes before a payload of `size` bytes."""
    return _HEAD.pack(size >> 16, size & 0xFFFF, kind, flags, stream)


def read_head(data: bytes, at: int) -> tuple[int, int, int, int]:
    """Size, kind, flags and stream of the frame that begins at `at`."""
    high, low, kind, flags, stream = _HEAD.unpack_from(data, at)
    return high << 16 | low, kind, flags, stream & 0x7FFFFFFF


def settings_frame(values: Mapping[int, int]) -> bytes:
    """SETTINGS with these values."""
    return frame(SETTINGS, 0, 0, b"".join(struct.pack(">HL", *pair) for pair in values.items()))


def read_settings(payload: bytes) -> list[tuple[int, int]]:
    """What a SETTINGS frame holds. Raises ProtocolError."""
    if len(payload) % 6:
        raise ProtocolError("SETTINGS of a size that cannot be")
    return list(struct.iter_unpack(">HL", payload))


def read_number(payload: bytes) -> int:
    """The first 32 bits of a payload, less their highest. Raises ProtocolError."""
    if len(payload) < 4:
        raise ProtocolError("a frame is too short")
    return int.from_bytes(payload[:4]) & 0x7FFFFFFF


def unpadded(payload: bytes, flags: int) -> bytes:
    """The payload of a DATA or HEADERS frame without padding and priority. Raises ProtocolError."""
    start, end = 0, len(payload)
    if flags & PADDED:
        if not payload:
            raise ProtocolError("padding without a size")
        start, end = 1, end - payload[0]
    if flags & PRIORITY:
        start += 5
    if start > end:
        raise ProtocolError("more padding than frame")
    return payload[start:end]


def literal(name: bytes, value: bytes) -> bytes:
    """A header field that no table keeps; name and value of at most 126 bytes, as they are."""
    return b"\x00%c%b%c%b" % (len(name), name, len(value), value)


class HeaderBlocks:
    """Header blocks → fields. Both sides keep no dynamic table, so equal bytes are equal fields."""

    def __init__(self) -> None:
        self._decoder = hpack.Decoder(MOST_HEADER_BYTES)
        self._decoder.max_allowed_table_size = 0
        self._decoder.header_table_size = 0
        self._known: dict[bytes, dict[bytes, bytes]] = {}

    def read(self, block: bytes) -> dict[bytes, bytes]:
        """The fields of a block. Raises ProtocolError."""
        fields = self._known.get(block)
        if fields is None:
            try:
                fields = dict(self._decoder.decode(block, raw=True))
            except hpack.HPACKError as error:
                raise ProtocolError(f"a header block cannot be read: {error}") from error
            if len(self._known) >= _MOST_KNOWN_BLOCKS:
                self._known.clear()
            self._known[block] = fields
        return fields
