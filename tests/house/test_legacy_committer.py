"""The committer on the legacy stream, on a journal in memory: large trees, damage, contention, outages."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from hashlib import sha256
from itertools import count

import msgspec
import pytest
import trio

from actors import commitment_ranges
from actors.committer import Committer
from actors.errors import OutcomeUnknown, Unavailable
from actors.mailbox import Inbox, Mailbox, Ref
from actors.messages import CommitLegacy, LegacyCommitted, NothingToCommit, RangeRefused
from journal.memory import MemoryDatabase, MemoryJournal
from ves.legacy import StoredLegacyEvent, leaf_hash
from ves.legacy_tree import promoting_parents
from ves.merkle import build_levels
from ves.records import Head

TENANT, STORE = b"T" * 16, b"S" * 16


class World:
    def __init__(self, events: int) -> None:
        self.database = MemoryDatabase(now_us=lambda: 1_700_000_000_000_000)
        self.journal = MemoryJournal(self.database, node_id=b"N" * 16)
        stream = (TENANT, STORE)
        self.events = [_event(number) for number in range(1, events + 1)]
        self.database.legacy.events[stream] = list(self.events)
        if events:
            self.database.legacy.heads[stream] = Head(events, 1)
        ids = count(1)
        self.committer = Committer(
            journal=self.journal, new_batch_id=lambda: next(ids).to_bytes(16, "big"), now_us=lambda: 7
        )

    @asynccontextmanager
    async def alive(self) -> AsyncIterator[Ref]:
        mailbox = Mailbox("committer", letters_max=10)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self.committer.run, Inbox(mailbox, name="committer"))
            yield Ref(mailbox)
            nursery.cancel_scope.cancel()


def _event(number: int) -> StoredLegacyEvent:
    return StoredLegacyEvent(
        *(number, 1, 1, None, TENANT, STORE, number.to_bytes(16, "big"), b"A" * 16, None),
        entity_type="order",
        entity_id=f"o-{number}",
        event_type="made",
        payload_hash=sha256(b"%d" % number).digest(),
        signature=None,
        payload_encrypted=b"",
    )


async def ask(ref: Ref, start: int | None = None, end: int | None = None) -> object:
    return await ref.ask(CommitLegacy(TENANT, STORE, start, end), deadline_s=20)


async def test_a_tree_of_many_reads_is_the_tree_of_all_its_leaves() -> None:
    world = World(9_001)
    async with world.alive() as ref:
        done = await ask(ref, 1, 9_001)
    assert isinstance(done, LegacyCommitted)
    leaves = [
        leaf_hash(TENANT, STORE, e.sequence_number, e.payload_hash, e.entity_type, e.entity_id)
        for e in world.events
    ]
    assert done.commitment.events_root == build_levels(leaves, promoting_parents)[-1][0]
    assert (done.commitment.event_count, done.remaining) == (9_001, 0)


async def test_one_commitment_has_a_largest_size_and_says_what_remains(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(commitment_ranges, "LEAVES_MAX", 4)
    world = World(10)
    async with world.alive() as ref:
        first = await ask(ref)
        assert isinstance(first, LegacyCommitted)
        assert (first.commitment.sequence_end, first.remaining) == (4, 6)
        refused = await ask(ref, 5, 9)
        assert refused == RangeRefused(False, "sequence_end: at most 4 events a commitment")
        assert isinstance(await ask(ref, 5, 8), LegacyCommitted)
        assert isinstance(await ask(ref), LegacyCommitted)
        assert await ask(ref) == NothingToCommit()
        again = await ask(ref, 1, 4)
        assert again == LegacyCommitted(first.commitment, 0)


async def test_a_stream_that_lacks_an_event_is_not_committed_and_nobody_dies() -> None:
    world = World(5)
    del world.database.legacy.events[TENANT, STORE][2]
    async with world.alive() as ref:
        with pytest.raises(Unavailable, match=r"every event of 1\.\.5"):
            await ask(ref, 1, 5)
        assert not world.database.legacy_commitments.commitments
        assert isinstance(await ask(ref, 1, 2), LegacyCommitted)


async def test_another_node_that_was_first_is_found_by_looking_again() -> None:
    world = World(4)
    async with world.alive() as ref:
        real = world.journal.commit_legacy

        async def after_another(commitment, *, levels):  # type: ignore[no-untyped-def]
            world.journal.commit_legacy = real  # type: ignore[method-assign]
            half = msgspec.structs.replace(commitment, batch_id=b"O" * 16, sequence_end=2, event_count=2)
            await real(half, levels=levels)
            return await real(commitment, levels=levels)

        world.journal.commit_legacy = after_another  # type: ignore[method-assign]
        done = await ask(ref)
    assert isinstance(done, LegacyCommitted)
    assert (done.commitment.sequence_start, done.commitment.sequence_end) == (3, 4)


async def test_an_outage_and_an_unheard_commit_are_told_and_the_next_ask_finds_the_truth() -> None:
    world = World(4)
    async with world.alive() as ref:
        world.journal.fail_next("commit_legacy", "away")
        with pytest.raises(Unavailable):
            await ask(ref, 1, 4)
        world.journal.fail_next("commit_legacy", "unheard")
        with pytest.raises(OutcomeUnknown):
            await ask(ref, 1, 4)
        done = await ask(ref, 1, 4)
        assert isinstance(done, LegacyCommitted)
        assert len(world.database.legacy_commitments.commitments) == 1
