"""What the journal promises about commitments."""

from __future__ import annotations

import msgspec
import pytest
import trio
from journal_builders import a_commitment, a_group, an_event, decided, question, uuid
from journal_worlds import World

from journal.port import (
    Away,
    CommitmentCounter,
    Journal,
    JournalAway,
    JournalOutcomeUnknown,
    MadeCommitment,
    Moved,
    NotTogether,
    Stored,
    StreamBehind,
    StreamRange,
    Uncommitted,
)
from ves.merkle import sibling_positions
from ves.records import Uuid


async def a_stream(world: World, events: int) -> tuple[Uuid, Uuid]:
    tenant, store = uuid(), uuid()
    group = await decided(world.journal, tenant, store, *(an_event() for _ in range(events)))
    assert isinstance(await world.journal.append(group), Stored)
    return tenant, store


async def behind(journal: Journal, tenant: Uuid) -> list[StreamBehind]:
    """Of this tenant, found by paging through everybody's."""
    found: list[StreamBehind] = []
    after = (tenant, bytes(16))
    while page := await journal.streams_behind(after=after, limit=2):
        assert [(s.tenant_id, s.store_id) for s in page] == sorted((s.tenant_id, s.store_id) for s in page)
        assert (page[0].tenant_id, page[0].store_id) > after
        found += [s for s in page if s.tenant_id == tenant]
        if page[-1].tenant_id != tenant:
            break
        after = (page[-1].tenant_id, page[-1].store_id)
    return found


async def test_a_stream_is_behind_until_its_last_event_is_committed(world: World) -> None:
    tenant, store = await a_stream(world, 5)
    page = await world.journal.read_events(tenant, store, from_sequence=1, limit=5, bytes_max=1 << 20)
    times = [event.receipt.sequenced_at_us for event in page.events]
    assert await behind(world.other, tenant) == [StreamBehind(tenant, store, 0, 5, times[0])]

    commitment, levels, believed = await a_commitment(world.journal, tenant, store, 3)
    assert believed == 0
    assert isinstance(
        await world.journal.commit(commitment, levels=levels, believed_through=believed), Stored
    )
    assert await behind(world.other, tenant) == [StreamBehind(tenant, store, 3, 5, times[3])]
    assert await world.other.read_commitment_counter(tenant, store) == CommitmentCounter(
        3, commitment.new_state_root, 5
    )

    commitment, levels, believed = await a_commitment(world.journal, tenant, store, 5)
    assert believed == 3
    assert isinstance(
        await world.journal.commit(commitment, levels=levels, believed_through=believed), Stored
    )
    assert await behind(world.other, tenant) == []


async def test_streams_behind_are_paged_by_tenant_and_store(world: World) -> None:
    tenant, stores = uuid(), sorted(uuid() for _ in range(5))
    events = [an_event() for _ in stores]
    facts = await world.journal.read_facts(question(tenant, stores, events))
    await world.journal.append(a_group(facts, zip(stores, events, strict=True)))
    assert [s.store_id for s in await behind(world.journal, tenant)] == stores


async def test_a_stream_without_events_or_commitments_stands_at_zero(world: World) -> None:
    assert await world.journal.read_commitment_counter(uuid(), uuid()) == CommitmentCounter(0, bytes(32), 0)


async def test_of_two_committers_one_stores_and_the_other_is_told(world: World) -> None:
    tenant, store = await a_stream(world, 4)
    for through in (2, 4):
        mine = await a_commitment(world.journal, tenant, store, through)
        theirs = await a_commitment(world.other, tenant, store, through)
        assert isinstance(
            await world.other.commit(theirs[0], levels=theirs[1], believed_through=theirs[2]), Stored
        )
        assert isinstance(
            await world.journal.commit(mine[0], levels=mine[1], believed_through=mine[2]), Moved
        )
        assert await world.journal.read_commitment(mine[0].batch_id, tenant_id=None, store_ids=None) is None
        assert await world.journal.find_commitment(tenant, store, sequence_number=through) == theirs[0]


async def test_a_commitment_beyond_the_head_or_on_another_state_root_is_not_stored(world: World) -> None:
    tenant, store = await a_stream(world, 2)
    beyond, levels, believed = await a_commitment(world.journal, tenant, store, 3)
    assert isinstance(await world.journal.commit(beyond, levels=levels, believed_through=believed), Moved)
    honest, levels, believed = await a_commitment(world.journal, tenant, store, 1)
    wrong = msgspec.structs.replace(honest, prev_state_root=b"w" * 32)
    assert isinstance(await world.journal.commit(wrong, levels=levels, believed_through=believed), Moved)
    assert isinstance(await world.journal.commit(honest, levels=levels, believed_through=believed), Stored)
    nxt, levels, believed = await a_commitment(world.journal, tenant, store, 2)
    wrong = msgspec.structs.replace(nxt, prev_state_root=bytes(32))
    assert isinstance(await world.journal.commit(wrong, levels=levels, believed_through=believed), Moved)
    with pytest.raises(ValueError, match="right after"):
        await world.journal.commit(nxt, levels=levels, believed_through=0)


@pytest.mark.parametrize("stored", [True, False])
async def test_a_commitment_whose_outcome_is_unknown_is_there_or_not_and_can_be_made_again(
    world: World, stored: bool
) -> None:
    tenant, store = await a_stream(world, 2)
    commitment, levels, believed = await a_commitment(world.journal, tenant, store, 2)
    world.fail_next("commit", "unheard" if stored else "lost")
    with pytest.raises(JournalOutcomeUnknown):
        await world.journal.commit(commitment, levels=levels, believed_through=believed)
    again = await world.journal.commit(commitment, levels=levels, believed_through=believed)
    assert isinstance(again, Moved if stored else Stored)
    assert await world.journal.find_commitment(tenant, store, sequence_number=1) == commitment
    world.fail_next("commit", "away")
    later = await a_commitment(world.other, tenant, store, 3)
    assert isinstance(await world.journal.commit(later[0], levels=later[1], believed_through=later[2]), Away)


async def test_commitments_are_found_by_batch_within_scope_by_number_and_in_pages(world: World) -> None:
    tenant, store = await a_stream(world, 9)
    made = []
    for through in (3, 4, 9):
        commitment, levels, believed = await a_commitment(world.journal, tenant, store, through)
        await world.journal.commit(commitment, levels=levels, believed_through=believed)
        made.append(commitment)
    first = made[0]

    for scope in ((None, None), (tenant, None), (tenant, (store,)), (None, (uuid(), store))):
        found = await world.other.read_commitment(first.batch_id, tenant_id=scope[0], store_ids=scope[1])
        assert found == first
    for foreign in ((uuid(), None), (tenant, (uuid(),)), (tenant, ())):
        found = await world.other.read_commitment(first.batch_id, tenant_id=foreign[0], store_ids=foreign[1])
        assert found is None
    assert await world.other.read_commitment(uuid(), tenant_id=None, store_ids=None) is None

    by_number = [await world.other.find_commitment(tenant, store, sequence_number=n) for n in range(1, 10)]
    assert by_number == [made[0]] * 3 + [made[1]] + [made[2]] * 5
    assert await world.other.find_commitment(tenant, store, sequence_number=10) is None
    assert await world.other.find_commitment(tenant, uuid(), sequence_number=1) is None

    for anchored in (None, False):
        page = await world.other.list_commitments(tenant, store, from_sequence=1, limit=2, anchored=anchored)
        assert (page.commitments, page.has_more, page.next_from) == (made[:2], True, 5)
        page = await world.other.list_commitments(tenant, store, from_sequence=5, limit=2, anchored=anchored)
        assert (page.commitments, page.has_more, page.next_from) == (made[2:], False, 10)
    page = await world.other.list_commitments(tenant, store, from_sequence=1, limit=2, anchored=True)
    assert (page.commitments, page.has_more) == ([], False)


async def test_nodes_come_in_the_order_asked_and_a_missing_one_is_an_error(world: World) -> None:
    tenant, store = await a_stream(world, 5)
    commitment, levels, believed = await a_commitment(world.journal, tenant, store, 5)
    await world.journal.commit(commitment, levels=levels, believed_through=believed)
    nodes = [levels[i : i + 32] for i in range(0, len(levels), 32)]
    assert len(nodes) == 15

    assert await world.journal.read_nodes(commitment.batch_id, [14, 0, 3, 3]) == [
        nodes[i] for i in (14, 0, 3, 3)
    ]
    assert await world.journal.read_nodes(commitment.batch_id, list(range(15))) == nodes
    assert await world.journal.read_leaves(commitment.batch_id, leaf_count=3) == b"".join(nodes[:3])
    with pytest.raises(LookupError):
        await world.journal.read_leaves(commitment.batch_id, leaf_count=16)
    with pytest.raises(LookupError):
        await world.journal.read_leaves(uuid(), leaf_count=1)
    for positions in ([15], [0, -1]):
        with pytest.raises(LookupError):
            await world.journal.read_nodes(commitment.batch_id, positions)
    with pytest.raises(LookupError):
        await world.journal.read_nodes(uuid(), [0])


@pytest.mark.parametrize("count", [1, 2, 3, 5, 16, 17])
async def test_every_leaf_is_found_with_its_path_by_its_number(world: World, count: int) -> None:
    tenant, store = await a_stream(world, count + 3)
    made = []
    for through in (2, count + 2):
        commitment, levels, believed = await a_commitment(world.journal, tenant, store, through)
        await world.journal.commit(commitment, levels=levels, believed_through=believed)
        made.append(commitment)

    for number in range(1, count + 3):
        found = await world.other.find_leaf(tenant, store, sequence_number=number)
        assert found is not None
        assert found.commitment == made[number > 2]
        index = number - found.commitment.sequence_start
        positions = [index, *sibling_positions(found.commitment.leaf_count, index)]
        assert [found.leaf, *found.path] == await world.other.read_nodes(found.commitment.batch_id, positions)
    for number in (count + 3, 2**53 - 1):
        assert await world.other.find_leaf(tenant, store, sequence_number=number) is None
    assert await world.other.find_leaf(tenant, uuid(), sequence_number=1) is None
    assert await world.other.find_leaf(uuid(), store, sequence_number=1) is None


async def test_leaf_sources_are_the_streams_own_in_order(world: World) -> None:
    tenant, store = uuid(), uuid()
    events = [an_event() for _ in range(5)]
    await world.journal.append(await decided(world.journal, tenant, store, *events))
    sources = await world.journal.read_leaf_sources(tenant, store, sequence_start=2, sequence_end=4)
    assert sources == b"".join(
        n.to_bytes(8, "big") + events[n - 1].event_signing_hash + events[n - 1].agent_signature
        for n in (2, 3, 4)
    )
    assert await world.journal.read_leaf_sources(tenant, store, sequence_start=6, sequence_end=9) == b""
    with pytest.raises(ValueError, match="4096"):
        await world.journal.read_leaf_sources(tenant, store, sequence_start=1, sequence_end=4097)


# Many streams together.


async def made(journal: Journal, stream: tuple[Uuid, Uuid], through: int) -> MadeCommitment:
    commitment, levels, _ = await a_commitment(journal, *stream, through)
    return MadeCommitment(commitment, levels)


async def kinds(world: World, some: list[MadeCommitment]) -> list[type]:
    outcomes = await world.journal.commit_together(some)
    assert isinstance(outcomes, list)
    return [type(outcome) for outcome in outcomes]


async def stands_as_made(journal: Journal, one: MadeCommitment) -> bool:
    """It is stored with all that belongs to it, or nothing of it is."""
    c = one.commitment
    found = await journal.read_commitment(c.batch_id, tenant_id=None, store_ids=None)
    counter = await journal.read_commitment_counter(c.tenant_id, c.store_id)
    if found is None:
        assert counter.state_root != c.new_state_root
        return False
    assert found == c
    assert (counter.committed_through, counter.state_root) == (c.sequence_end, c.new_state_root)
    levels = await journal.read_nodes(c.batch_id, list(range(2 * c.padded_leaf_count - 1)))
    assert b"".join(levels) == one.levels
    return True


async def test_where_many_streams_stand_is_told_with_their_leaves_in_the_order_asked(world: World) -> None:
    streams = [await a_stream(world, events) for events in (1, 5, 3)]
    first = await made(world.journal, streams[1], 2)
    assert await kinds(world, [first]) == [Stored]
    ranges = [
        StreamRange(*streams[2], 1, 3),
        StreamRange(uuid(), uuid(), 1, 1),
        StreamRange(*streams[1], 3, 4),
        StreamRange(*streams[0], 1, 2),
    ]
    sources = [
        await world.journal.read_leaf_sources(
            r.tenant_id, r.store_id, sequence_start=r.sequence_start, sequence_end=r.sequence_end
        )
        for r in ranges
    ]
    assert [len(some) // 104 for some in sources] == [3, 0, 2, 1]
    assert await world.other.read_uncommitted(ranges) == [
        Uncommitted(CommitmentCounter(0, bytes(32), 3), sources[0]),
        Uncommitted(CommitmentCounter(0, bytes(32), 0), b""),
        Uncommitted(CommitmentCounter(2, first.commitment.new_state_root, 5), sources[2]),
        Uncommitted(CommitmentCounter(0, bytes(32), 1), sources[3]),
    ]
    assert await world.journal.read_uncommitted([]) == []
    with pytest.raises(ValueError, match="64 events"):
        await world.journal.read_uncommitted([StreamRange(*streams[0], 1, 65)])
    with pytest.raises(ValueError, match="64 ranges"):
        await world.journal.read_uncommitted([StreamRange(*streams[0], 1, 1)] * 65)
    world.fail_next("read_uncommitted", "away")
    with pytest.raises(JournalAway):
        await world.journal.read_uncommitted(ranges)


async def test_of_many_streams_exactly_those_are_committed_that_are_as_believed(world: World) -> None:
    streams = [await a_stream(world, 4) for _ in range(8)]
    begun = [await made(world.other, stream, 2) for stream in streams[:4]]
    assert await kinds(world, begun) == [Stored] * 4

    some = [await made(world.journal, stream, 4) for stream in streams]
    for n in (1, 5):  # of another node, before: one that was begun and a first one
        theirs = await made(world.other, streams[n], 3)
        assert await world.other.commit_together([theirs]) == [Stored()]
    some[2] = await made(world.journal, streams[2], 5)  # beyond the heads
    some[6] = await made(world.journal, streams[6], 5)
    another = msgspec.structs.replace(some[3].commitment, prev_state_root=b"w" * 32)
    some[3] = MadeCommitment(another, some[3].levels)  # after other state roots
    first = msgspec.structs.replace(some[7].commitment, prev_state_root=b"w" * 32)
    some[7] = MadeCommitment(first, some[7].levels)
    assert await kinds(world, some) == [Stored, Moved, Moved, Moved, Stored, Moved, Moved, Moved]
    assert [await stands_as_made(world.other, one) for one in some] == [
        one in (some[0], some[4]) for one in some
    ]
    assert await kinds(world, some) == [Moved] * 8, "the same again"
    assert await kinds(world, []) == []
    with pytest.raises(ValueError, match="another stream"):
        await world.journal.commit_together([some[0], some[0]])
    with pytest.raises(ValueError, match="at most 64"):
        await world.journal.commit_together([some[0]] * 65)


async def test_one_that_cannot_be_stored_undoes_all_and_each_is_committed_alone(world: World) -> None:
    streams = [await a_stream(world, 2) for _ in range(3)]
    some = [await made(world.journal, stream, 2) for stream in streams]
    before = await made(world.journal, await a_stream(world, 1), 1)
    assert await kinds(world, [before]) == [Stored]
    taken = msgspec.structs.replace(some[1].commitment, batch_id=before.commitment.batch_id)
    some[1] = MadeCommitment(taken, some[1].levels)
    with pytest.raises(NotTogether):
        await world.journal.commit_together(some)
    assert [await stands_as_made(world.other, one) for one in (some[0], some[2])] == [False, False]
    alone = [await world.journal.commit(m.commitment, levels=m.levels, believed_through=0) for m in some]
    assert [type(outcome) for outcome in alone] == [Stored, Moved, Stored]
    assert (await world.other.read_commitment_counter(*streams[1])).committed_through == 0


@pytest.mark.parametrize("stored", [True, False])
async def test_many_commitments_whose_outcome_is_unknown_are_all_there_or_none_is(
    world: World, stored: bool
) -> None:
    begun, new = await a_stream(world, 3), await a_stream(world, 2)
    assert await kinds(world, [await made(world.journal, begun, 1)]) == [Stored]
    some = [await made(world.journal, begun, 3), await made(world.journal, new, 2)]
    world.fail_next("commit", "unheard" if stored else "lost")
    with pytest.raises(JournalOutcomeUnknown):
        await world.journal.commit_together(some)
    assert await kinds(world, some) == [Moved if stored else Stored] * 2
    assert [await stands_as_made(world.other, one) for one in some] == [True, True]
    later = await made(world.other, await a_stream(world, 1), 1)
    world.fail_next("commit", "away")
    assert isinstance(await world.journal.commit_together([later]), Away)
    assert not await stands_as_made(world.other, later)


async def test_two_nodes_that_sweep_at_the_same_time_commit_each_range_once(world: World) -> None:
    streams = [await a_stream(world, 2) for _ in range(20)]
    for through in (1, 2):  # first ones, and such that follow one
        ours = [await made(world.journal, stream, through) for stream in streams]
        theirs = [await made(world.other, stream, through) for stream in streams]
        told = await both_commit(world, ours, list(reversed(theirs)))
        for n, outcomes in enumerate(zip(told[0], reversed(told[1]), strict=True)):
            assert {type(outcome) for outcome in outcomes} == {Stored, Moved}
            stands = [await stands_as_made(world.journal, one) for one in (ours[n], theirs[n])]
            assert stands == [isinstance(outcome, Stored) for outcome in outcomes]


async def both_commit(
    world: World, ours: list[MadeCommitment], theirs: list[MadeCommitment]
) -> list[list[Stored | Moved]]:
    told: list[list[Stored | Moved]] = [[], []]

    async def commit(n: int, journal: Journal, some: list[MadeCommitment]) -> None:
        outcomes = await journal.commit_together(some)
        assert isinstance(outcomes, list)
        told[n] = outcomes

    async with trio.open_nursery() as nursery:
        nursery.start_soon(commit, 0, world.journal, ours)
        nursery.start_soon(commit, 1, world.other, theirs)
    return told
