"""Two sides are told apart only as far as their rounds allow."""

from __future__ import annotations

import pytest

from bench.compare import by_chance, judged, table
from tests.bench.canned import row


def test_sides_that_never_meet_differ_clearly() -> None:
    assert judged([1, 2, 3], [4, 5, 6]).startswith("clear")
    assert judged([4, 5, 6], [1, 2, 3]).startswith("clear")
    assert judged([1, 2], [4, 5]) == "apart, but few rounds"


def test_sides_that_overlap_are_judged_by_ranks() -> None:
    assert judged([1, 2, 3, 4, 6], [5, 7, 8, 9, 10]).startswith("likely")
    assert judged([1, 3, 5, 7, 9], [2, 4, 6, 8, 10]).startswith("no difference seen")
    assert judged([5, 5, 5], [5, 5, 5]) == "no difference seen (by chance 100%)"


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [
        # Of 20 ways to choose three of six, 2 are as extreme; of 252, 2 and 4.
        ([1, 2, 3], [4, 5, 6], 2 / 20),
        ([1, 2, 3, 4, 5], [6, 7, 8, 9, 10], 2 / 252),
        ([1, 2, 3, 4, 6], [5, 7, 8, 9, 10], 4 / 252),
        ([1, 1], [1, 1], 1.0),
    ],
)
def test_the_rank_test_counts_what_chance_could_do(
    one: list[float], other: list[float], expected: float
) -> None:
    assert by_chance(one, other) == pytest.approx(expected)
    assert by_chance(other, one) == pytest.approx(expected)


def test_the_table_has_both_medians_their_ratio_and_a_judgement_for_each_figure() -> None:
    before = row("ingest 100x8", 100, 8000.0, 8100.0, 7900.0, core=40.0)
    after = row("ingest 100x8", 100, 9600.0, 9500.0, 9700.0, core=20.0)
    title, *lines = table(("v1", "here"), [(before, after)])
    assert title.split() == ["v1", "here", "ratio"]
    told = {line[22:44].strip(): line[44:].split(maxsplit=3) for line in lines}
    assert told["events a second"][:3] == ["8,000.0", "9,600.0", "1.20"]
    assert told["events a second"][3].startswith("clear")
    assert told["us of core"][:3] == ["40.0", "20.0", "0.50"]
    assert told["us of workers"][2:] == ["1.00", "no difference seen (by chance 100%)"]
    assert "us of others" not in told
