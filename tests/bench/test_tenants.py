"""What is called flat, and what is too much, in a soak's memory."""

from __future__ import annotations

import pytest

from bench.tenants import Sample, flatness


def soaked(*private: float, pss: float = 100.0) -> str:
    return flatness(
        [Sample(60.0 * n, {"core": pss}, {"core": mib, "workers": 0.0}) for n, mib in enumerate(private)]
    )


@pytest.mark.parametrize(
    ("private", "said"),
    [
        ((50.0, 90.0, 100.0, 101.0, 102.0), "flat: private memory +2.0% since 120 s"),
        ((50.0, 90.0, 100.0, 101.0, 104.0), "NOT flat: private memory +4.0% since 120 s"),
        ((100.0,), "flat: private memory +0.0% since 0 s"),
    ],
    ids=["grows at first", "goes on growing", "one look"],
)
def test_memory_is_flat_when_it_hardly_grows_in_the_second_half(
    private: tuple[float, ...], said: str
) -> None:
    assert soaked(*private).startswith(said)


def test_the_goal_is_judged_by_the_largest_share_seen() -> None:
    assert soaked(100.0, 100.0, pss=238.0).endswith("wanted: reached")
    assert soaked(100.0, 100.0, pss=239.0).endswith("wanted: not reached")
