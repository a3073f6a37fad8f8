"""Failed attempts: counted exactly, forgiven slowly, told once a minute, within bounds."""

from __future__ import annotations

from typing import Any

import pytest
import trio
from structlog.testing import capture_logs
from trio.testing import MockClock

from actors import failed_attempts
from actors.failed_attempts import FailedAttempts, FailureReporter, Patience, network
from actors.mailbox import Inbox, Mailbox
from actors.security_events import SecurityEvents
from journal.memory import MemoryDatabase, MemoryJournal

MINUTE = 1_800_000_000 // 60 * 60


class World:
    def __init__(self, **patience: Any) -> None:
        self.now_s = float(MINUTE)
        self.security = SecurityEvents()
        self.attempts = FailedAttempts(
            patience=Patience(**patience),
            security=self.security,
            now_s=lambda: self.now_s,
            steady_s=lambda: self.now_s,
        )
        self.database = MemoryDatabase(now_us=lambda: int(self.now_s * 1e6))
        self.journal = MemoryJournal(self.database, node_id=b"n" * 16)

    def fail(self, address: str, times: int) -> None:
        for _ in range(times):
            self.attempts.failed(address)

    async def report(self) -> list[str]:
        """The texts of the audit entries after the reporter had its say."""
        reporter = FailureReporter(journal=self.journal, attempts=self.attempts)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(reporter.run, Inbox(Mailbox("failed-attempts", letters_max=1)))
            await trio.testing.wait_all_tasks_blocked()
            nursery.cancel_scope.cancel()
        return [text for chain in self.database.audit_log.values() for text, _ in chain]


@pytest.mark.parametrize(
    ("address", "who"),
    [
        ("192.0.2.7", "192.0.2.7"),
        ("::ffff:192.0.2.7", "192.0.2.7"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("unknown", "unknown"),
    ],
)
def test_whom_an_address_stands_for(address: str, who: str) -> None:
    assert network(address) == who


def test_an_address_waits_after_its_burst_and_is_forgiven_slowly() -> None:
    world = World(burst=20, per_minute=10)
    world.fail("192.0.2.7", 19)
    assert world.attempts.wait_s("192.0.2.7") is None
    world.fail("192.0.2.7", 1)
    assert world.attempts.wait_s("192.0.2.7") == pytest.approx(6)
    assert world.attempts.wait_s("192.0.2.8") is None
    world.now_s += 6.01
    assert world.attempts.wait_s("192.0.2.7") is None
    world.fail("192.0.2.7", 1)
    assert world.attempts.wait_s("192.0.2.7") is not None
    world.now_s += 3600
    world.fail("192.0.2.7", 19)
    assert world.attempts.wait_s("192.0.2.7") is None, "never more than the burst, never less"


def test_attempts_that_were_under_way_together_are_all_paid_for_within_reason() -> None:
    world = World(burst=20, per_minute=10)
    world.fail("192.0.2.7", 1000)
    assert world.attempts.wait_s("192.0.2.7") == pytest.approx(21 * 6)


def test_neighbours_in_one_64_are_one_and_other_networks_are_not() -> None:
    world = World(burst=2)
    world.fail("2001:db8::1", 1)
    world.fail("2001:db8::2", 1)
    assert world.attempts.wait_s("2001:db8::3") is not None
    assert world.attempts.wait_s("2001:db8:0:1::3") is None


def test_the_addresses_remembered_are_bounded_and_the_oldest_goes() -> None:
    world = World(burst=1, addresses_max=3)
    for n in range(5):
        world.fail(f"192.0.2.{n}", 1)
    waiting = [n for n in range(5) if world.attempts.wait_s(f"192.0.2.{n}") is not None]
    assert waiting == [2, 3, 4]


def test_what_was_good_once_costs_no_patience() -> None:
    world = World(burst=1)
    world.attempts.failed("192.0.2.7", guess=False)
    assert world.attempts.wait_s("192.0.2.7") is None
    assert world.security.counts["authentication_failed"] == 1


async def test_each_address_and_minute_is_one_log_line_and_one_audit_entry(
    autojump_clock: MockClock,
) -> None:
    world = World()
    with capture_logs() as logs:
        world.fail("192.0.2.7", 3)
        world.attempts.throttled("192.0.2.7")
        world.fail("192.0.2.8", 1)
        assert world.security.counts["authentication_failed"] == 4, "exact, at once"
        assert world.security.counts["authentication_throttled"] == 1
        assert await world.report() == [], "the minute is not over"
        world.now_s += 60
        texts = await world.report()
        assert len(texts) == 2
        assert '"failed":3' in texts[0]
        assert '"throttled":1' in texts[0]
        assert '"subject":"192.0.2.7"' in texts[0]
        world.now_s += 60
        assert len(await world.report()) == 2
    lines = [(line["kind"], line["address"], line["times"]) for line in logs]
    assert lines == [
        ("authentication_failed", "192.0.2.7", 3),
        ("authentication_throttled", "192.0.2.7", 1),
        ("authentication_failed", "192.0.2.8", 1),
    ]
    assert world.security.counts["authentication_failed"] == 4, "telling counts nothing twice"


async def test_entries_wait_while_the_database_is_away(autojump_clock: MockClock) -> None:
    world = World()
    world.database.reachable = False
    world.fail("192.0.2.7", 1)
    world.now_s += 60
    assert await world.report() == []
    assert len(world.attempts.waiting) == 1
    world.database.reachable = True
    assert len(await world.report()) == 1
    assert not world.attempts.waiting


async def test_an_entry_of_unknown_outcome_comes_twice_rather_than_never(autojump_clock: MockClock) -> None:
    world = World()
    world.fail("192.0.2.7", 1)
    world.now_s += 60
    world.journal.fail_next("audit", "unheard")
    await world.report()
    texts = await world.report()
    assert [text.count('"failed":1') for text in texts] == [1, 1]


async def test_a_flood_of_addresses_shares_one_entry_and_old_minutes_go_with_their_count(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(failed_attempts, "ADDRESSES_PER_MINUTE_MAX", 2)
    monkeypatch.setattr(failed_attempts, "ROWS_WAITING_MAX", 4)
    world = World()
    for minute in range(2):
        for n in range(5):
            world.fail(f"192.0.2.{n}", 1 + minute)
        world.now_s += 60
    world.attempts.turn_over()
    assert world.attempts.dropped == 1 + 1
    texts = await world.report()
    assert [text.count('"subject":"other addresses"') for text in texts] == [1, 0, 0, 1]
    assert '"failed":6' in texts[-1]
