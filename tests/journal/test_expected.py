"""What is on its way: counted by tenant, whatever becomes of the requests; what of it is waited for."""

from __future__ import annotations

from contextlib import ExitStack

import pytest

import journal.expected
from journal.expected import LARGE, SHARE, Expected

ONE, OTHER = b"1" * 16, b"2" * 16


def read(expected: Expected, tenant_id: bytes | None, events: int, requests: ExitStack) -> None:
    """A request with so many events is under way until ``requests`` are over, and was read."""
    requests.enter_context(expected.of(tenant_id, 1_000)).has(events)


def test_a_tenant_counts_once_until_its_last_request_is_over() -> None:
    expected = Expected()
    with expected.of(ONE, 1):
        with expected.of(ONE, 1), expected.of(OTHER, 1):
            assert len(expected) == 2
        assert len(expected) == 1
        with expected.of(None, 1), expected.of(None, 1):
            assert len(expected) == 2, "one that is not known yet"
    assert len(expected) == 0


@pytest.mark.parametrize("was_read", [False, True])
def test_a_request_that_fails_is_not_expected_any_more(was_read: bool) -> None:
    expected = Expected()

    def fail() -> None:
        with expected.of(OTHER, 1_000_000) as request:
            if was_read:
                request.has(200)
            raise ZeroDivisionError

    with ExitStack() as requests:
        read(expected, ONE, 800, requests)
        with pytest.raises(ZeroDivisionError):
            fail()
        assert len(expected) == 1
        assert expected.worth_waiting_for(ONE) == 0
    assert len(expected) == 0


def test_who_is_alone_waits_for_nobody() -> None:
    expected = Expected()
    with ExitStack() as requests:
        for _ in range(64):
            read(expected, ONE, 100, requests)
        assert expected.worth_waiting_for(ONE) == 0
        assert expected.worth_waiting_for(OTHER) == 0, "nothing of it is known to be under way"


def test_a_share_of_what_the_others_have_is_worth_waiting_for() -> None:
    expected = Expected()
    tenants = [bytes([n]) * 16 for n in range(10)]
    with ExitStack() as requests:
        for tenant in tenants:
            for _ in range(4):
                read(expected, tenant, 10, requests)
        assert {expected.worth_waiting_for(tenant) for tenant in tenants} == {9 * 40 // SHARE}


def test_who_has_little_does_not_wait_for_those_who_have_much() -> None:
    expected = Expected()
    with ExitStack() as requests:
        read(expected, ONE, 5, requests)
        for _ in range(16):
            read(expected, OTHER, LARGE - 1, requests)
        assert expected.worth_waiting_for(ONE) == 0
        assert expected.worth_waiting_for(OTHER) == 0, "nor they for it"


def test_who_goes_by_itself_is_not_waited_for() -> None:
    expected = Expected()
    tenants = [bytes([n]) * 16 for n in range(5)]
    with ExitStack() as requests:
        for tenant in tenants:
            read(expected, tenant, 80, requests)
        for _ in range(2):
            expected.goes(tenants[0], by_itself=True)
        read(expected, tenants[0], 80, requests)
        assert {expected.worth_waiting_for(tenant) for tenant in tenants[1:]} == {3 * 80 // SHARE}
        assert expected.worth_waiting_for(tenants[0]) == 4 * 80 // SHARE, "if its next one is small"
        expected.goes(tenants[0], by_itself=False)
        assert {expected.worth_waiting_for(tenant) for tenant in tenants[1:]} == {4 * 80 // SHARE}
        expected.goes(tenants[0], by_itself=True)
    for by_itself in (True, False):
        expected.goes(ONE, by_itself=by_itself)  # whose requests are over
    with ExitStack() as requests:
        read(expected, ONE, 80, requests)
        assert expected.worth_waiting_for(ONE) == 0, "nothing is left of the others"
        read(expected, OTHER, 80, requests)
        assert expected.worth_waiting_for(ONE) == 80 // SHARE


def test_what_was_not_read_yet_counts_as_much_as_its_size_lately_meant() -> None:
    expected = Expected()
    with ExitStack() as requests:
        read(expected, ONE, 8, requests)
        requests.enter_context(expected.of(OTHER, 1_000))
        assert expected.worth_waiting_for(ONE) == 8 // SHARE
        for _ in range(100):  # events are ten times as large now
            with expected.of(OTHER, 10_000) as request:
                request.has(8)
        requests.enter_context(expected.of(OTHER, 9_000))
        assert expected.worth_waiting_for(ONE) == 8 // SHARE
        requests.enter_context(expected.of(ONE, 70_000))
        requests.enter_context(expected.of(OTHER, 70_000))
        assert expected.worth_waiting_for(ONE) == 64 // SHARE


def test_nothing_is_known_of_sizes_before_the_first_was_read() -> None:
    expected = Expected()
    with expected.of(ONE, 70_000), expected.of(OTHER, 70_000):
        assert expected.worth_waiting_for(ONE) == 0


def test_whose_groups_go_by_themselves_is_not_waited_for_when_it_comes_again() -> None:
    expected = Expected()
    with ExitStack() as requests:
        for _ in range(16):
            read(expected, ONE, 1, requests)
        expected.goes(OTHER, by_itself=True)  # and its only request is over
        with ExitStack() as again:
            read(expected, OTHER, 200, again)
            assert expected.worth_waiting_for(ONE) == 0
        expected.goes(OTHER, by_itself=False)
        with ExitStack() as again:
            read(expected, OTHER, 200, again)
            assert expected.worth_waiting_for(ONE) == 16 // SHARE


@pytest.mark.parametrize(("events", "waits"), [(LARGE, 0), (LARGE - 1, 16 // SHARE)])
def test_a_large_request_is_not_waited_for_once_it_was_read(events: int, waits: int) -> None:
    expected = Expected()
    with ExitStack() as requests:
        for _ in range(16):
            read(expected, ONE, 1, requests)
        read(expected, OTHER, events, requests)
        assert expected.worth_waiting_for(ONE) == waits


def test_only_so_many_are_remembered_the_last_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journal.expected, "_ALONE_MAX", 2)
    expected = Expected()
    tenants = [bytes([n]) * 16 for n in range(3)]
    for n in (0, 1, 0, 2):
        expected.goes(tenants[n], by_itself=True)
    with ExitStack() as requests:
        read(expected, ONE, 80, requests)
        waited_for = []
        for tenant in tenants:
            with ExitStack() as its_own:
                read(expected, tenant, 80, its_own)
                waited_for.append(expected.worth_waiting_for(ONE) > 0)
    assert waited_for == [False, True, False]


def test_requests_of_a_tenant_that_is_not_known_yet_are_not_waited_for() -> None:
    expected = Expected()
    with ExitStack() as requests:
        for _ in range(64):
            read(expected, ONE, 1, requests)
            read(expected, None, 100, requests)
        assert expected.worth_waiting_for(ONE) == 0
        read(expected, OTHER, 64, requests)
        assert expected.worth_waiting_for(ONE) == 64 // SHARE
    assert len(expected) == 0


def test_the_others_count_for_no_more_than_if_each_had_as_much_as_oneself() -> None:
    expected = Expected()
    with ExitStack() as requests:
        read(expected, ONE, 16, requests)
        for _ in range(16):
            read(expected, OTHER, 100, requests)
        for n in range(20):
            read(expected, bytes([n]) * 16, 1, requests)
        assert expected.worth_waiting_for(ONE) == 21 * 16 // SHARE
        assert expected.worth_waiting_for(bytes(16)) == 21 // SHARE
        assert expected.worth_waiting_for(OTHER) == (16 + 20) // SHARE


def test_one_rare_large_event_does_not_make_nothing_of_all_others() -> None:
    expected = Expected()
    with ExitStack() as requests:
        for _ in range(100):
            read(expected, ONE, 1, requests)
        for _ in range(20):
            with expected.of(OTHER, 600 * 20) as request:
                request.has(20)
        with expected.of(OTHER, 1_000_000) as request:
            request.has(1)
        requests.enter_context(expected.of(OTHER, 600 * 80))
        assert expected.worth_waiting_for(ONE) >= 40 // SHARE
