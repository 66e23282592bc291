"""Which requests have rows that could stand behind those of others."""

import pytest

from adapter.core.rows import has_rows
from adapter.core.types import InferRequest, Tensor


@pytest.mark.parametrize(
    ("shapes", "expected"),
    [
        ([], False),
        ([()], False),
        ([(0, 4)], False),
        ([(1, 4)], True),
        ([(2,), (2, 3)], True),
        # Joined with one that is wrong the other way round, the sums would be right.
        ([(2, 1), (1, 1)], False),
        ([(2, 1), ()], False),
    ],
)
def test_rows(shapes: list[tuple[int, ...]], expected: bool) -> None:
    inputs = tuple(Tensor(f"x{i}", "UINT8", shape, b"") for i, shape in enumerate(shapes))
    assert has_rows(InferRequest("m", "", inputs)) is expected
