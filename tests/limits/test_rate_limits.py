"""A node's buckets: who shares one, who does not, and what becomes of them when there are too many."""

from __future__ import annotations

from actors.buckets import Limit
from actors.rate_limits import LIMITED, OWN, TENANT_EVENTS, RateLimits

NS_PER_S = 1_000_000_000
A, B = b"a" * 16, b"b" * 16


def limits(buckets_max: int = 100, *, per_minute: int = 60, burst: int = 2) -> RateLimits:
    return RateLimits(dict.fromkeys(LIMITED, Limit(per_minute, burst)), sharing=None, buckets_max=buckets_max)


def passes(
    rates: RateLimits, who: bytes | str, of: str = "events_read", now_ns: int = 0, own: int | None = None
) -> bool:
    if isinstance(who, bytes):
        verdict = rates.of_credential(who, own, of, now_ns)
    else:
        verdict = rates.of_address(who, of, now_ns)
    assert verdict is not None
    return verdict.allowed


def spend(rates: RateLimits, who: bytes | str, of: str = "events_read", now_ns: int = 0) -> int:
    passed = 0
    while passes(rates, who, of, now_ns):
        passed += 1
    return passed


def test_each_credential_has_a_bucket_for_each_class_and_nobody_pays_for_another() -> None:
    rates = limits()
    assert spend(rates, A, "events_read") == 2
    assert spend(rates, A, "events_ingest") == 2
    assert spend(rates, B, "events_read") == 2
    assert spend(rates, "192.0.2.1", "public") == 2
    assert spend(rates, "192.0.2.1", "failed") == 2
    assert rates.refused["events_read"] == 2
    assert rates.buckets == 5


def test_a_credential_with_its_own_limit_has_one_bucket_for_all_classes() -> None:
    rates = limits()
    assert sum(passes(rates, A, of, own=12) for of in ("events_read", "commitments") * 20) == 10
    assert rates.refused == {**dict.fromkeys(LIMITED, 0), OWN: 30}
    assert rates.buckets == 1
    assert passes(rates, A, "admin", 5 * NS_PER_S, own=12)


def test_a_verdict_tells_what_is_left_and_when_to_come_back() -> None:
    rates = limits(per_minute=60, burst=2)
    first, second, third = (rates.of_credential(A, None, "commitments", 0) for _ in range(3))
    assert first is not None
    assert second is not None
    assert third is not None
    assert (first.allowed, first.remaining, first.full_in_s, first.wait_s) == (True, 1, 1, 0)
    assert (second.allowed, second.remaining, second.full_in_s) == (True, 0, 2)
    assert (third.allowed, third.remaining, third.of, third.wait_s) == (False, 0, "commitments", 1)


def test_without_limits_nothing_is_limited_counted_or_kept() -> None:
    off = RateLimits({}, sharing=None)
    assert off.of_credential(A, 1, "events_read", 0) is None
    assert off.of_address("192.0.2.1", "public", 0) is None
    off.charge_tenant(A, 1000, 0)
    assert off.of_tenant(A, 1000, 0) is None
    assert (off.enforced, off.buckets, dict(off.refused)) == (False, 0, {})


def test_the_events_of_a_tenant_are_one_bucket_and_what_is_charged_beyond_it_is_waited_off() -> None:
    rates = limits(per_minute=60, burst=10)

    def left(tenant_id: bytes, now_s: int = 0, events: int = 0) -> bool:
        verdict = rates.of_tenant(tenant_id, events, now_s * NS_PER_S)
        assert verdict is not None
        assert verdict.of == TENANT_EVENTS
        assert verdict.allowed or verdict.wait_s >= 1
        return verdict.allowed

    assert left(A, events=7)
    rates.charge_tenant(A, 2, 0)
    assert left(A)
    rates.charge_tenant(A, 6, 0)
    assert not left(A)
    assert left(B)
    assert rates.refused[TENANT_EVENTS] == 1
    refused = rates.of_tenant(A, 1000, 0)
    assert refused is not None
    assert refused.wait_s == 6, "five are owed, and one is needed"
    assert not left(A, 5)
    assert left(A, 6)
    assert passes(rates, A, "events_ingest"), "a credential of that name has buckets of its own"
    assert rates.buckets == 3
    rates.forget_full(60 * NS_PER_S)
    assert rates.buckets == 0


def test_only_full_buckets_are_forgotten() -> None:
    rates = limits()
    spend(rates, A)
    passes(rates, B)
    rates.forget_full(NS_PER_S // 2)
    assert rates.buckets == 2
    rates.forget_full(NS_PER_S)
    assert rates.buckets == 1, "one token a second: only the one who took one has all again"
    assert spend(rates, A, now_ns=NS_PER_S) == 1
    rates.forget_full(10 * NS_PER_S)
    assert rates.buckets == 0


def test_no_number_of_unknown_addresses_pushes_out_a_spent_bucket() -> None:
    rates = limits(buckets_max=50)
    assert spend(rates, A) == 2
    assert spend(rates, "192.0.2.1", "failed") == 2
    for n in range(1000):
        spend(rates, f"198.51.100.{n}", "failed")
        assert rates.buckets <= 51
    assert not passes(rates, A)
    assert not passes(rates, "192.0.2.1", "failed")


def test_newcomers_for_whom_there_is_no_room_share_a_bucket_until_there_is() -> None:
    rates = limits(buckets_max=3)
    for who in range(3):
        assert spend(rates, bytes([who]) * 16) == 2
    late = [bytes([who]) * 16 for who in range(10, 20)]
    assert sum(spend(rates, who) for who in late) == 2, "one bucket for all of them"
    assert rates.buckets == 3
    assert sum(spend(rates, who, now_ns=60 * NS_PER_S) for who in late[:3]) == 6, "the others are full again"
    assert rates.buckets == 3


def test_a_look_at_some_of_very_many_buckets_comes_to_all_of_them() -> None:
    rates = limits(buckets_max=5000)
    for who in range(3000):
        passes(rates, who.to_bytes(16, "big"))
    spend(rates, A)
    for _ in range(4):
        rates.forget_full(NS_PER_S)
    assert rates.buckets == 1
    assert spend(rates, A, now_ns=NS_PER_S) == 1
