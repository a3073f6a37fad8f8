"""What a sweep finds due is committed together, on a journal in memory; what is odd goes alone."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from itertools import count

import pytest
import trio

from actors.committer import Committer
from actors.errors import OutcomeUnknown, Unavailable
from actors.mailbox import EndOfLife, Inbox, Mailbox, Ref
from actors.messages import Commit, CommitAlone, Committed, CommitTogether, RangeRefused
from actors.sweeper import CommitmentPolicy, Sweeper
from journal.memory import MemoryDatabase, MemoryJournal
from journal.port import Stored
from tests.journal.journal_builders import an_event, decided
from ves.merkle import leaf_hash, merkle_root
from ves.records import Uuid

Stream = tuple[Uuid, Uuid]


class Counting(MemoryJournal):
    """How many were committed, call by call; alone is 1, together a list's length."""

    calls: list[tuple[str, int]]

    async def commit(self, commitment, **more):  # type: ignore[no-untyped-def, override]
        self.calls.append(("alone", 1))
        return await super().commit(commitment, **more)

    async def commit_together(self, made):  # type: ignore[no-untyped-def, override]
        self.calls.append(("together", len(made)))
        return await super().commit_together(made)


class Node:
    """A committer and a sweeper. ``ids``: of the batches it makes."""

    def __init__(self, database: MemoryDatabase, ids: Iterator[int], *, latency_s: float = 0.0) -> None:
        self.journal = Counting(database, node_id=b"N" * 16, latency_s=lambda: latency_s)
        self.journal.calls = []
        self._ids = ids
        self._mailbox = Mailbox("committer", letters_max=10)

    @asynccontextmanager
    async def alive(self) -> AsyncIterator[Ref]:
        committer = Committer(
            journal=self.journal, new_batch_id=lambda: next(self._ids).to_bytes(16, "big"), now_us=lambda: 7
        )
        async with trio.open_nursery() as nursery:
            nursery.start_soon(committer.run, Inbox(self._mailbox, name="committer"))
            yield Ref(self._mailbox)
            nursery.cancel_scope.cancel()

    async def sweep(self, *, events: int = 1000) -> None:
        """Once; everything is old enough."""
        sweeper = Sweeper(
            journal=self.journal,
            committer=Ref(self._mailbox),
            policy=CommitmentPolicy(events=events, interval_s=0, sweep_s=1000),
            now_us=lambda: 2**60,
        )
        inbox = Inbox(Mailbox("sweeper", letters_max=0), name="sweeper")
        inbox.request_stop(drain=False)  # heard after the first sweep
        async with self.alive():
            with suppress(EndOfLife):
                await sweeper.run(inbox)


@pytest.fixture
def database() -> MemoryDatabase:
    return MemoryDatabase(now_us=lambda: 1_700_000_000_000_000)


@pytest.fixture
def node(database: MemoryDatabase) -> Node:
    return Node(database, count(1))


async def streams_of(node: Node, *lengths: int) -> list[Stream]:
    """Each of a tenant of its own, in order."""
    streams = [(bytes([n]) * 16, b"S" * 16) for n in range(1, len(lengths) + 1)]
    for stream, length in zip(streams, lengths, strict=True):
        group = await decided(node.journal, *stream, *(an_event() for _ in range(length)))
        assert isinstance(await node.journal.append(group), Stored)
    return streams


def ranges_of(database: MemoryDatabase, stream: Stream) -> list[tuple[int, int]]:
    """That are committed, in order, after their roots were computed anew."""
    found = []
    for c, _ in sorted(database.commitments.values(), key=lambda held: held[0].sequence_start):
        if (c.tenant_id, c.store_id) == stream:
            leaves = [
                leaf_hash(*stream, e.receipt.sequence_number, e.event_signing_hash, e.agent_signature)
                for e in database.events[stream][c.sequence_start - 1 : c.sequence_end]
            ]
            assert c.merkle_root == merkle_root(leaves)
            found.append((c.sequence_start, c.sequence_end))
    return found


async def test_small_ranges_go_together_and_large_ones_as_they_are_due(
    database: MemoryDatabase, node: Node
) -> None:
    streams = await streams_of(node, 1, 65, *[2] * 63, 64, 5)
    await node.sweep()
    assert node.journal.calls == [("together", 64), ("together", 2), ("alone", 1)]
    for stream in streams:
        assert ranges_of(database, stream) == [(1, len(database.events[stream]))]
    await streams_of(node, 3, 1)
    node.journal.calls.clear()
    await node.sweep(events=2)
    assert node.journal.calls == [("together", 2), ("together", 1)], "a range of each in turn"
    assert ranges_of(database, streams[0]) == [(1, 1), (2, 3), (4, 4)]
    assert ranges_of(database, streams[1])[1:] == [(66, 66)]


@pytest.mark.parametrize("missing", [0, 1, 2])
async def test_a_stream_that_lacks_an_event_is_refused_and_the_others_are_committed(
    database: MemoryDatabase, node: Node, missing: int
) -> None:
    streams = await streams_of(node, 3, 3, 3)
    wanted = tuple(Commit(*stream, 1, 3) for stream in streams)
    del database.events[streams[1]][missing]
    async with node.alive() as committer:
        answers = await committer.ask(CommitTogether(wanted), deadline_s=20)
        assert [type(answer) for answer in answers] == [Committed, CommitAlone, Committed]
        with pytest.raises(Unavailable, match=r"every event of 1\.\.3"):
            await committer.ask(wanted[1], deadline_s=20)
    await streams_of(node, 1, 0, 1)
    await node.sweep()
    assert [ranges_of(database, stream) for stream in streams] == [[(1, 3), (4, 4)], [], [(1, 3), (4, 4)]]


async def test_one_that_cannot_be_stored_with_the_others_sends_each_alone(database: MemoryDatabase) -> None:
    node = Node(database, iter([1, 2, 1, 3, 4, 5, 6]))  # the third batch has the first one's id
    before = await streams_of(node, 1)
    await node.sweep()
    streams = await streams_of(node, 0, 2, 2, 2)
    await node.sweep()
    assert node.journal.calls[1:] == [("together", 3), *[("alone", 1)] * 3]
    assert [ranges_of(database, stream) for stream in streams[1:]] == [[(1, 2)]] * 3
    assert ranges_of(database, before[0]) == [(1, 1)]


async def test_what_was_first_elsewhere_or_is_no_range_is_said_of_each(
    database: MemoryDatabase, node: Node
) -> None:
    streams = await streams_of(node, 2, 2, 2)
    async with node.alive() as committer:
        assert isinstance(await committer.ask(Commit(*streams[0], 1, 1), deadline_s=20), Committed)
        wanted = (Commit(*streams[0], 1, 2), Commit(*streams[1], 1, 3), Commit(*streams[2], 1, 1))
        answers = await committer.ask(CommitTogether(wanted), deadline_s=20)
    assert answers[:2] == [
        RangeRefused(True, "sequence_start: the next commitment of this stream starts at 2"),
        RangeRefused(False, "sequence_end: 3 is after the stream's head 2"),
    ]
    assert isinstance(answers[2], Committed)
    assert answers[2].remaining == 1
    assert [ranges_of(database, stream) for stream in streams] == [[(1, 1)], [], [(1, 1)]]


@pytest.mark.parametrize("fault", ["away", "lost", "unheard"])
async def test_an_outage_or_an_unheard_commit_is_told_and_the_next_sweep_finds_the_truth(
    database: MemoryDatabase, node: Node, fault: str
) -> None:
    streams = await streams_of(node, 2, 2)
    wanted = CommitTogether(tuple(Commit(*stream, 1, 2) for stream in streams))
    node.journal.fail_next("commit", fault)  # type: ignore[arg-type]
    async with node.alive() as committer:
        with pytest.raises(Unavailable if fault == "away" else OutcomeUnknown):
            await committer.ask(wanted, deadline_s=20)
    assert len(database.commitments) == (2 if fault == "unheard" else 0)
    node.journal.fail_next("commit", fault)  # type: ignore[arg-type]
    await node.sweep()
    await node.sweep()
    assert [ranges_of(database, stream) for stream in streams] == [[(1, 2)]] * 2


async def test_two_nodes_that_sweep_at_the_same_time_commit_each_range_once(
    autojump_clock: trio.testing.MockClock, database: MemoryDatabase
) -> None:
    nodes = [Node(database, count(n * 1000 + 1), latency_s=0.1) for n in (0, 1)]
    streams = await streams_of(nodes[0], *[1, 2, 3] * 25, 70)
    async with trio.open_nursery() as nursery:
        for node in nodes:
            nursery.start_soon(node.sweep)
    for stream in streams:
        assert ranges_of(database, stream) == [(1, len(database.events[stream]))]
    assert nodes[0].journal.calls == nodes[1].journal.calls, "each tried, and one was first"
