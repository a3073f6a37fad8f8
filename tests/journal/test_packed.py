"""Pages as one run of bytes: divided between events and nowhere else."""

from __future__ import annotations

import pytest

from journal.packed import NotPacked, divided, packed, unpacked
from tests.http.doubles import stored


@pytest.fixture(scope="module")
def rows() -> bytes:
    """Seven events, no two of the same length."""
    return b"".join(packed(stored(n, b"x" * n, base_version=n if n % 2 else None)) for n in range(1, 8))


@pytest.mark.parametrize("parts", range(1, 9))
def test_a_page_is_divided_into_runs_of_nearly_the_same_number(rows: bytes, parts: int) -> None:
    runs = divided(rows, 7, parts)
    assert len(runs) <= parts
    assert b"".join(run for run, _ in runs) == rows
    counts = [count for _, count in runs]
    assert [len(list(unpacked(run))) for run, _ in runs] == counts
    assert set(counts[:-1]) <= {-(-7 // parts)}
    assert counts[-1] <= counts[0]


def test_a_page_that_ends_within_an_event_is_not_divided(rows: bytes) -> None:
    with pytest.raises(NotPacked):
        divided(rows[:200], 7, 2)
