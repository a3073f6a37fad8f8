"""Who is asked first, who rests, and who lags: without an endpoint."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from transport.chain.standings import (
    HEAD_REMEMBERED_S,
    LAG_BLOCKS_MAX,
    REST_MAX_S,
    REST_S,
    TOLD_MAX_S,
    HighestSeen,
    Standing,
    in_turn,
)


def test_who_rests_is_left_out_and_comes_back_to_its_place() -> None:
    first, second = Standing(), Standing()
    first.failed(100.0)
    assert in_turn([first, second], 100.0) == [1]
    assert in_turn([first, second], 100.0 + REST_S) == [0, 1]


def test_if_all_rest_those_are_asked_that_did_not_ask_for_it() -> None:
    first, second = Standing(), Standing()
    first.failed(0.0, told_s=30.0)
    second.failed(0.0)
    assert in_turn([first, second], 1.0) == [1]
    second.failed(0.0, told_s=30.0)
    assert in_turn([first, second], 1.0) == []


@given(st.integers(1, 50), st.none() | st.floats(0, 1e9))
def test_no_rest_is_longer_than_its_bound(failures: int, told_s: float | None) -> None:
    one = Standing()
    for _ in range(failures):
        one.failed(0.0, told_s)
    assert not one.rests(max(REST_MAX_S, TOLD_MAX_S) if told_s is not None else REST_MAX_S)
    assert one.rests(min(REST_S * 2 ** (failures - 1), REST_MAX_S) - 0.01)
    one.answered()
    assert not one.rests(0.0)


@given(st.integers(0, 10**9), st.integers(0, 100))
def test_a_head_within_the_tolerance_does_not_lag(highest: int, behind: int) -> None:
    seen = HighestSeen()
    seen.showed(highest, 0.0)
    assert seen.blocks_behind(highest - behind, 1.0) == (behind if behind > LAG_BLOCKS_MAX else 0)
    assert seen.blocks_behind(highest - behind, HEAD_REMEMBERED_S + 1) == 0


def test_a_lower_head_replaces_a_higher_one_only_when_that_is_long_ago() -> None:
    seen = HighestSeen()
    seen.showed(1000, 0.0)
    seen.showed(10, 100.0)
    assert seen.number == 1000
    seen.showed(10, HEAD_REMEMBERED_S + 1)
    assert seen.number == 10
