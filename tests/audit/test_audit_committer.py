"""The audit committer on a journal in memory: when it commits, whose chains, what it says of a broken one."""

from __future__ import annotations

import uuid
from itertools import pairwise

import msgspec
import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from actors.audit_commitments import AuditCommitter, AuditPolicy, ChainBroken, commit_chain
from actors.mailbox import Inbox, Mailbox
from actors.security_events import LINES_MAX, PERIOD_S, SecurityEvents
from journal.memory import MemoryDatabase, MemoryJournal
from journal.port import AuditEntry
from ves.audit import (
    COMMITTED_ENTRIES_MAX,
    AuditCommitment,
    entry_hash,
    inclusion_path,
    is_included,
    leaf_hash,
    next_audit_commitment,
    state_root,
)
from ves.constants import ZERO_HASH

NODE, NEIGHBOUR = uuid.uuid4().bytes, uuid.uuid4().bytes
ENTRY = AuditEntry("system", "test.act", "something", None, {"outcome": "done"})


class World:
    def __init__(self) -> None:
        self.now_us = 1_700_000_000_000_000
        self.database = MemoryDatabase(now_us=lambda: self.now_us)
        self.journal = MemoryJournal(self.database, node_id=NODE)
        self.neighbour = MemoryJournal(self.database, node_id=NEIGHBOUR)
        self.security = SecurityEvents()
        self.committer = AuditCommitter(
            journal=self.journal,
            policy=AuditPolicy(NODE, entries=3, interval_s=60, sweep_s=5),
            security=self.security,
            now_us=lambda: self.now_us,
        )

    async def sweep(self, *, at_start: bool = False) -> None:
        await self.committer._sweep(at_start=at_start)

    def committed_through(self, node: bytes = NODE) -> int:
        found = self.database.audit_commitments[node]
        return found[-1].entry_end if found else 0


async def written(journal: MemoryJournal, count: int) -> None:
    for _ in range(count):
        await journal.audit(ENTRY)


async def test_our_chain_is_committed_when_enough_entries_wait_or_the_oldest_is_old_enough() -> None:
    world = World()
    await written(world.journal, 2)
    await world.sweep()
    assert world.committed_through() == 0
    await written(world.journal, 1)
    await world.sweep()
    assert world.committed_through() == 3
    await written(world.journal, 1)
    await world.sweep()
    assert world.committed_through() == 3
    world.now_us += 60_000_000
    await world.sweep()
    assert world.committed_through() == 4


async def test_at_start_our_tail_is_committed_at_once(autojump_clock: trio.testing.MockClock) -> None:
    world = World()
    await written(world.journal, 1)
    await written(world.neighbour, 1)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(world.committer.run, Inbox(Mailbox("audit-committer", letters_max=1)))
        await trio.sleep(1)
        nursery.cancel_scope.cancel()
    assert (world.committed_through(), world.committed_through(NEIGHBOUR)) == (1, 0)


async def test_the_chain_of_a_node_that_is_gone_is_committed_by_another_a_little_later() -> None:
    world = World()
    await written(world.neighbour, 1)
    world.now_us += 60_000_000
    await world.sweep()
    assert world.committed_through(NEIGHBOUR) == 0, "its own node still has its chance"
    world.now_us += 120_000_000
    await world.sweep()
    assert world.committed_through(NEIGHBOUR) == 1


async def test_a_long_tail_is_committed_in_ranges_that_follow_each_other() -> None:
    world = World()
    await written(world.journal, COMMITTED_ENTRIES_MAX + 10)
    await world.sweep()
    commitments = world.database.audit_commitments[NODE]
    assert [one.leaf_count for one in commitments] == [COMMITTED_ENTRIES_MAX, 10]
    assert commitments[0].prev_state_root == ZERO_HASH
    for before, after in pairwise(commitments):
        assert after.prev_state_root == before.new_state_root
        assert after.entry_start == before.entry_end + 1


@pytest.mark.parametrize("damage", ["edited", "removed", "cut off"])
async def test_a_broken_chain_is_not_committed_and_said_once(damage: str) -> None:
    world = World()
    await written(world.journal, 4)
    await world.sweep()
    await written(world.journal, 3)
    chain = world.database.audit_log[NODE]
    [stands] = await world.journal.read_audit_chains(only=NODE, limit=1)
    if damage == "edited":
        chain[5] = (chain[5][0].replace("something", "nothing"), chain[5][1])
    elif damage == "removed":
        stands = msgspec.structs.replace(stands, last_number=8)
    else:
        stands = msgspec.structs.replace(stands, last_number=3)
    with pytest.raises(ChainBroken):
        await commit_chain(world.journal, stands, lambda: world.now_us)
    for _ in range(2):
        await world.committer._commit(stands)
    assert world.security.counts["audit_chain_broken"] == 1
    assert world.committed_through() == 4


async def test_a_journal_that_is_away_is_waited_for(autojump_clock: trio.testing.MockClock) -> None:
    world = World()
    await written(world.journal, 1)
    world.journal.fail_next("read_audit_chains", "away")
    world.journal.fail_next("commit_audit", "lost")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(world.committer.run, Inbox(Mailbox("audit-committer", letters_max=1)))
        await trio.sleep(11)
        nursery.cancel_scope.cancel()
    assert world.committed_through() == 1


@given(count=st.integers(1, 70), start=st.integers(1, 1 << 40), data=st.data())
def test_exactly_the_entries_of_a_commitment_are_in_it(count: int, start: int, data: st.DataObject) -> None:
    hashes = [entry_hash(ZERO_HASH, str(n)) for n in range(count)]
    commitment = next_audit_commitment(
        NODE, entry_start=start, entry_hashes=hashes, prev_state_root=ZERO_HASH, committed_at_us=0
    )
    assert state_root(commitment) == commitment.new_state_root
    index = data.draw(st.integers(0, count - 1))
    leaves = [leaf_hash(NODE, n, one) for n, one in enumerate(hashes, start)]
    path = inclusion_path(leaves, index)
    assert is_included(commitment, start + index, hashes[index], path)
    assert not is_included(commitment, start + index, hashes[index] + b"x", path)
    assert not is_included(commitment, start + index + 1, hashes[index], path)
    assert not is_included(commitment, start + index, hashes[index], [*path, ZERO_HASH])
    foreign = msgspec.structs.replace(commitment, node_id=NEIGHBOUR)
    assert not is_included(foreign, start + index, hashes[index], path)


def test_a_commitment_of_no_entries_or_too_many_cannot_be_made() -> None:
    for count in (0, COMMITTED_ENTRIES_MAX + 1):
        with pytest.raises(ValueError, match="no range"):
            next_audit_commitment(
                NODE,
                entry_start=1,
                entry_hashes=[ZERO_HASH] * count,
                prev_state_root=ZERO_HASH,
                committed_at_us=0,
            )
    assert AuditCommitment(NODE, 3, 5, ZERO_HASH, ZERO_HASH, ZERO_HASH, 0).leaf_count == 3


def test_a_flood_of_security_events_is_logged_up_to_a_limit_and_then_in_sum(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = 0.0
    lines: list[dict[str, object]] = []
    monkeypatch.setattr(
        "actors.security_events.log.warning", lambda event, **about: lines.append(about), raising=False
    )
    events = SecurityEvents(now=lambda: now)
    for _ in range(LINES_MAX + 25):
        events.happened("permission_denied", who="somebody")
    events.happened("credential_revoked", who="somebody")
    assert len(lines) == LINES_MAX + 1, "another kind is not held back by the flood"
    assert events.counts["permission_denied"] == LINES_MAX + 25
    now = PERIOD_S
    events.tell_withheld()
    assert lines[-1]["times"] == 25
    events.tell_withheld()
    assert len(lines) == LINES_MAX + 2
    events.happened("agent_key_revoked", reason="suspected_compromise")
    assert events.counts["agent_key_compromised"] == 1
    events.happened("agent_key_revoked", reason="rotated")
    assert events.counts["agent_key_compromised"] == 1
