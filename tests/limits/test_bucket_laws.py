"""Token buckets hold their laws at any times: never more than allowed, refilled exactly, never early."""

from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.buckets import TOKEN, Bucket, Limit, of_credential, of_seconds

NS_PER_S = 1_000_000_000
MINUTE_NS = 60 * NS_PER_S

LIMITS = st.builds(Limit, st.integers(1, 200_000), st.integers(1, 3_000))
STEPS_NS = st.integers(0, 3 * NS_PER_S) | st.integers(0, 20_000_000) | st.integers(-NS_PER_S, 0)


@given(LIMITS, st.lists(STEPS_NS, max_size=100), st.integers(0, 10**18))
def test_no_stretch_of_time_ever_sees_more_than_the_burst_and_what_the_time_brought(
    limit: Limit, steps_ns: list[int], start_ns: int
) -> None:
    bucket, now_ns, latest_ns = Bucket(limit, start_ns), start_ns, start_ns
    taken_at_ns: list[int] = []
    for step_ns in steps_ns:
        now_ns += step_ns
        latest_ns = max(latest_ns, now_ns)
        for _ in range(3):
            if bucket.take(now_ns):
                taken_at_ns.append(latest_ns)
    # In units, for every first and last: (last - first + 1) tokens <= burst + what the time between brought.
    least_before = 0
    for number, at_ns in enumerate(taken_at_ns):
        surplus = number * MINUTE_NS - at_ns * limit.per_minute
        least_before = surplus if number == 0 else min(least_before, surplus)
        assert surplus - least_before <= (limit.burst - 1) * MINUTE_NS


@given(LIMITS, st.integers(0, 2_500), st.lists(st.integers(0, 10**9), max_size=20))
def test_a_refill_is_exact_to_the_nanosecond_however_often_somebody_looked_meanwhile(
    limit: Limit, wanted: int, looks: list[int]
) -> None:
    wanted = min(wanted, limit.burst)
    bucket = Bucket(limit, 0)
    while bucket.take(0):
        pass
    brought_ns = -(-wanted * MINUTE_NS // limit.per_minute)
    for look_ns in sorted(look % (brought_ns + 1) for look in looks):
        bucket.is_full(look_ns)
    if wanted:
        bucket.is_full(brought_ns - 1)
        assert bucket.tokens == wanted - 1
    bucket.is_full(brought_ns)
    assert bucket.tokens >= wanted
    if brought_ns * limit.per_minute < (wanted + 1) * MINUTE_NS:
        assert bucket.tokens == wanted


@given(LIMITS, st.lists(st.integers(0, 10**9), min_size=1, max_size=50))
def test_after_the_told_wait_one_request_succeeds_and_a_second_earlier_it_would_not(
    limit: Limit, steps_ns: list[int]
) -> None:
    bucket, now_ns = Bucket(limit, 0), 0
    for step_ns in steps_ns:
        now_ns += step_ns
        while bucket.take(now_ns):
            assert bucket.wait_s == 0 or bucket.tokens == 0
        wait_s = bucket.wait_s
        assert wait_s >= 1
        if wait_s > 1:
            assert not bucket.take(now_ns + (wait_s - 1) * NS_PER_S)
        now_ns += wait_s * NS_PER_S
        assert bucket.take(now_ns)


@given(LIMITS, st.integers(1, 3_000))
def test_it_is_full_when_it_said_it_would_be_and_full_is_as_good_as_new(limit: Limit, taken: int) -> None:
    bucket = Bucket(limit, 0)
    for _ in range(taken):
        bucket.take(0)
    full_ns = bucket.full_in_s * NS_PER_S
    assert bucket.is_full(full_ns)
    new = Bucket(limit, full_ns)
    for _ in range(limit.burst):
        assert bucket.take(full_ns)
        assert new.take(full_ns)
    assert not bucket.take(full_ns)


@given(LIMITS, st.integers(-200, 3_000))
def test_a_debt_is_waited_off(limit: Limit, tokens: int) -> None:
    bucket = Bucket(limit, 0)
    bucket.correct(tokens * TOKEN, 0)
    if tokens >= 1:
        assert bucket.take(0)
        return
    assert not bucket.take(0)
    assert bucket.tokens == 0
    missing = Fraction((1 - tokens) * 60, limit.per_minute)
    assert bucket.wait_s - 1 < missing <= bucket.wait_s


@given(LIMITS, st.lists(st.tuples(STEPS_NS, st.integers(1, 50)), max_size=100))
def test_what_is_charged_afterwards_is_beyond_the_limit_by_no_more_than_the_last_of_it(
    limit: Limit, asked: list[tuple[int, int]]
) -> None:
    bucket, now_ns, latest_ns, taken = Bucket(limit, 0), 0, 0, 0
    for step_ns, tokens in asked:
        now_ns += step_ns
        latest_ns = max(latest_ns, now_ns)
        if bucket.take(now_ns):
            bucket.charge(tokens - 1, now_ns)
            taken += tokens
            allowed_units = limit.burst * TOKEN + latest_ns * limit.per_minute
            assert (taken - tokens + 1) * TOKEN <= allowed_units
        else:
            assert bucket.wait_s >= 1
            later_ns = latest_ns + bucket.wait_s * NS_PER_S
            assert bucket.tokens == 0
            if latest_ns == now_ns:
                later = Bucket(limit, now_ns)
                later.correct(bucket._units, now_ns)
                assert later.take(later_ns)


def test_time_that_runs_backwards_takes_nothing_and_brings_nothing() -> None:
    bucket = Bucket(Limit(60, 5), 10 * NS_PER_S)
    bucket.take(10 * NS_PER_S)
    assert not bucket.is_full(0)
    assert bucket.tokens == 4
    assert not bucket.is_full(10 * NS_PER_S)
    assert bucket.is_full(11 * NS_PER_S)


@pytest.mark.parametrize(
    ("own", "burst"), [(1, 1), (9, 9), (10, 10), (11, 10), (60, 10), (61, 10), (600, 100), (0, 1)]
)
def test_a_credentials_own_limit_lets_a_few_requests_through_in_a_row(own: int, burst: int) -> None:
    assert of_credential(own) == Limit(max(1, own), burst)


def test_a_limit_by_the_second_becomes_whole_tokens_a_minute() -> None:
    assert of_seconds(100, 500) == Limit(6000, 500)
    assert of_seconds(0.5, 2) == Limit(30, 2)
    assert of_seconds(0.02, 1) == Limit(1, 1)
