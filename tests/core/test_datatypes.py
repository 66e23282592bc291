"""The table of datatypes, BF16 rounding and the packing of BYTES."""

import struct

import ml_dtypes
import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from adapter.core.datatypes import DATATYPES, from_bf16, pack_bytes, to_bf16, unpack_bytes

SIZES = {
    "BOOL": 1, "INT8": 1, "INT16": 2, "INT32": 4, "INT64": 8, "UINT8": 1, "UINT16": 2, "UINT32": 4,
    "UINT64": 8, "FP16": 2, "BF16": 2, "FP32": 4, "FP64": 8, "BYTES": 0,
}  # fmt: skip


def test_the_table_holds_every_datatype_of_triton() -> None:
    assert {name: datatype.itemsize for name, datatype in DATATYPES.items()} == SIZES


def neighbours(bits: npt.NDArray[np.uint16]) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Each finite BF16 number with the next one away from zero."""
    below = from_bf16(bits).astype(np.float64)
    above = from_bf16((bits + 1).astype(np.uint16)).astype(np.float64)
    return below, above


def every_finite_but_the_greatest() -> npt.NDArray[np.uint16]:
    positive = np.arange(0x7F7F, dtype=np.uint16)
    return np.concatenate([positive, positive | np.uint16(0x8000)])


def test_every_bf16_number_widens_as_the_reference_says_and_comes_back() -> None:
    bits = np.arange(1 << 16, dtype=np.uint32).astype(np.uint16)
    wide = from_bf16(bits)
    assert wide.tobytes() == bits.view(ml_dtypes.bfloat16).astype(np.float32).tobytes()
    number = ~np.isnan(wide)
    assert (to_bf16(wide[number].astype(np.float64)) == bits[number]).all()


def test_halfway_between_two_bf16_numbers_the_even_one_is_taken() -> None:
    bits = every_finite_but_the_greatest()
    below, above = neighbours(bits)
    assert (to_bf16((below + above) / 2) == bits + (bits & 1)).all()


def test_next_to_halfway_the_nearer_bf16_number_is_taken() -> None:
    """A double next to a tie rounds to that tie in FP32: rounding twice would miss half of these."""
    bits = every_finite_but_the_greatest()
    below, above = neighbours(bits)
    middle = (below + above) / 2
    assert (to_bf16(np.nextafter(middle, below)) == bits).all()
    assert (to_bf16(np.nextafter(middle, above)) == bits + 1).all()


@given(st.lists(st.floats(width=32, allow_nan=False), min_size=1, max_size=50))
def test_single_precision_rounds_as_the_reference_does(values: list[float]) -> None:
    single = np.array(values, np.float32)
    # From FP32 the reference rounds once, too.
    expected = single.astype(ml_dtypes.bfloat16).view(np.uint16)
    assert (to_bf16(single.astype(np.float64)) == expected).all()


@pytest.mark.parametrize(
    ("value", "bits"),
    [
        (1.0, 0x3F80),
        (-0.0, 0x8000),
        (1e-300, 0x0000),
        (-1e-300, 0x8000),
        (3.3895313892515355e38, 0x7F7F),
        (np.nextafter(2.0**128 - 2.0**119, 0), 0x7F7F),
        (2.0**128 - 2.0**119, 0x7F80),
        (1e300, 0x7F80),
        (-1e300, 0xFF80),
        (float("inf"), 0x7F80),
        (float("-inf"), 0xFF80),
        (float("nan"), 0x7FC0),
    ],
)
def test_bf16_at_its_limits(value: float, bits: int) -> None:
    assert to_bf16(np.array([value])).tolist() == [bits]


@given(st.lists(st.binary(max_size=30), max_size=10))
def test_bytes_are_packed_behind_their_lengths(elements: list[bytes]) -> None:
    packed = pack_bytes(elements)
    assert packed == b"".join(struct.pack("<I", len(element)) + element for element in elements)
    assert unpack_bytes(packed) == elements
    assert unpack_bytes(memoryview(b"?" + packed)[1:]) == elements


@given(st.lists(st.binary(max_size=30), min_size=1, max_size=5), st.data())
def test_truncated_bytes_are_refused(elements: list[bytes], data: st.DataObject) -> None:
    packed = pack_bytes(elements)
    ends = {len(pack_bytes(elements[:i])) for i in range(len(elements) + 1)}
    cut = data.draw(st.integers(0, len(packed)).filter(lambda i: i not in ends))
    with pytest.raises(ValueError, match=r"element \d+ runs over the end"):
        unpack_bytes(packed[:cut])


def test_a_length_beyond_all_memory_is_refused() -> None:
    with pytest.raises(ValueError, match="element 1 runs over the end"):
        unpack_bytes(pack_bytes([b"ok"]) + b"\xff\xff\xff\xff" + b"rest")
