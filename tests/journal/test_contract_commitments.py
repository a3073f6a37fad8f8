"""What the journal promises about commitments."""

from __future__ import annotations

import msgspec
import pytest
from journal_builders import a_commitment, a_group, an_event, decided, question, uuid
from journal_worlds import World

from journal.port import (
    Away,
    CommitmentCounter,
    Journal,
    JournalOutcomeUnknown,
    Moved,
    Stored,
    StreamBehind,
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
