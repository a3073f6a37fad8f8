"""What the journal promises about commitments of the legacy stream."""

from __future__ import annotations

import os
from uuid import UUID

import asyncpg
import msgspec
import pytest
import trio
from journal_builders import an_event, decided, uuid
from journal_worlds import PostgresWorld, World
from legacy_builders import a_legacy_event, legacy_decided

from journal import legacy_commitments, memory
from journal.port import (
    Away,
    CommitmentCounter,
    Journal,
    JournalOutcomeUnknown,
    LegacyLeafSource,
    Moved,
    Stored,
    TooManyEntities,
)
from ves.legacy_commitments import EntityVersions, LegacyCommitment
from ves.records import Uuid


async def a_stream(world: World, events: int, tenant: Uuid | None = None) -> tuple[Uuid, Uuid]:
    tenant, store = tenant or uuid(), uuid()
    await more_events(world, tenant, store, *(f"o-{n}" for n in range(events)))
    return tenant, store


async def more_events(world: World, tenant: Uuid, store: Uuid, *entity_ids: str) -> None:
    events = [a_legacy_event(entity_id=entity_id) for entity_id in entity_ids]
    group = await legacy_decided(world.journal, tenant, store, *events)
    assert isinstance(await world.journal.append_legacy(group), Stored)


async def the_next(journal: Journal, tenant: Uuid, store: Uuid, through: int) -> LegacyCommitment:
    """The journal does not look into trees, so its roots are random."""
    counter = await journal.read_legacy_commitment_counter(tenant, store)
    start = counter.committed_through + 1
    return LegacyCommitment(
        *(uuid(), tenant, store, start, through, through - start + 1),
        committed_at_us=1_700_000_000_000_001,
        events_root=os.urandom(32),
        prev_state_root=counter.state_root,
        new_state_root=bytes(32),
    )


async def committed(journal: Journal, commitment: LegacyCommitment) -> LegacyCommitment:
    done = await journal.commit_legacy(commitment, levels=os.urandom(64))
    assert isinstance(done, LegacyCommitment), done
    return done


def state_root(tenant: Uuid, store: Uuid, *versions: tuple[str, str, int]) -> bytes:
    hashed = EntityVersions(tenant, store)
    for one in versions:
        hashed.add(*one)
    return hashed.state_root()


async def test_a_commitment_is_stored_with_the_versions_of_its_moment_and_read_back(world: World) -> None:
    tenant, store = await a_stream(world, 3)
    wanted = await the_next(world.journal, tenant, store, 2)
    done = await committed(world.journal, wanted)
    # Versions as of now, also of the event that is not in the range.
    expected = state_root(tenant, store, *(("order", f"o-{n}", 1) for n in range(3)))
    assert done == msgspec.structs.replace(wanted, new_state_root=expected)
    assert await world.other.read_legacy_commitment(done.batch_id, tenant_id=None, store_ids=None) == done
    assert await world.other.read_legacy_commitment_counter(tenant, store) == CommitmentCounter(
        2, expected, 3
    )
    await more_events(world, tenant, store, "o-1")
    second = await committed(world.other, await the_next(world.other, tenant, store, 4))
    assert (second.sequence_start, second.prev_state_root) == (3, expected)
    versions = [("order", "o-0", 1), ("order", "o-1", 2), ("order", "o-2", 1)]
    assert second.new_state_root == state_root(tenant, store, *versions)


async def test_the_state_root_counts_both_streams_of_this_store_alone_in_the_order_of_bytes(
    world: World,
) -> None:
    tenant, store = await a_stream(world, 1)
    await a_stream(world, 2, tenant)
    names = ["Z", "a", "é", "\ufb33", "\U0001f600", "a b", "ab"]
    await more_events(world, tenant, store, *names)
    ves = await decided(world.journal, tenant, store, an_event(entity_id="a"), an_event(entity_id="b"))
    assert isinstance(await world.journal.append(ves), Stored)
    done = await committed(world.journal, await the_next(world.journal, tenant, store, 8))
    versions = dict.fromkeys([*names, "o-0", "b"], 1) | {"a": 2}
    ordered = sorted(versions.items(), key=lambda one: one[0].encode())
    assert done.new_state_root == state_root(tenant, store, *(("order", *one) for one in ordered))


async def test_the_state_root_of_more_entities_than_are_read_at_once(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(legacy_commitments, "_ENTITIES_PER_READ", 3)
    tenant, store = await a_stream(world, 6)
    expected = state_root(tenant, store, *(("order", f"o-{n}", 1) for n in range(6)))
    done = await committed(world.journal, await the_next(world.journal, tenant, store, 6))
    assert done.new_state_root == expected


async def test_too_many_entities_for_a_state_root_are_said_to_be_and_nothing_is_stored(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    tenant, store = await a_stream(world, 4)
    wanted = await the_next(world.journal, tenant, store, 4)
    for room in (legacy_commitments, memory):
        monkeypatch.setattr(room, "LEGACY_ENTITIES_MAX", 3)
    assert await world.journal.commit_legacy(wanted, levels=b"l" * 32) == TooManyEntities()
    assert (await world.journal.read_legacy_commitment_counter(tenant, store)).committed_through == 0
    for room in (legacy_commitments, memory):
        monkeypatch.setattr(room, "LEGACY_ENTITIES_MAX", 4)
    await committed(world.journal, wanted)


async def test_of_two_committers_one_stores_and_the_other_is_told(world: World) -> None:
    tenant, store = await a_stream(world, 4)
    for through in (2, 4):
        mine = await the_next(world.journal, tenant, store, through)
        theirs = await committed(world.other, await the_next(world.other, tenant, store, through))
        assert isinstance(await world.journal.commit_legacy(mine, levels=b"l" * 32), Moved)
        assert (
            await world.journal.read_legacy_commitment(mine.batch_id, tenant_id=None, store_ids=None) is None
        )
        found = await world.journal.find_legacy_commitment(tenant, store, sequence_number=through)
        assert found == theirs


async def test_of_many_at_once_exactly_one_is_stored(world: World) -> None:
    tenant, store = await a_stream(world, 4)
    answers = []

    async def one(journal: Journal, through: int) -> None:
        wanted = await the_next(journal, tenant, store, through)
        await trio.sleep(0.05)
        answers.append(await journal.commit_legacy(wanted, levels=b"l" * 32))

    async with trio.open_nursery() as nursery:
        for through in (1, 2, 3, 4):
            nursery.start_soon(one, (world.journal, world.other)[through % 2], through)
    assert sum(isinstance(answer, LegacyCommitment) for answer in answers) == 1
    assert sum(isinstance(answer, Moved) for answer in answers) == 3


async def test_a_commitment_beyond_the_head_or_beside_the_last_one_is_not_stored(world: World) -> None:
    tenant, store = await a_stream(world, 4)
    beyond = await the_next(world.journal, tenant, store, 5)
    assert isinstance(await world.journal.commit_legacy(beyond, levels=b"l" * 32), Moved)
    honest = await the_next(world.journal, tenant, store, 2)
    for wrong in ({"prev_state_root": b"w" * 32}, {"sequence_start": 2, "event_count": 1}):
        wished = msgspec.structs.replace(honest, **wrong)
        assert isinstance(await world.journal.commit_legacy(wished, levels=b"l" * 32), Moved)
    await committed(world.journal, honest)
    gap = msgspec.structs.replace(
        await the_next(world.journal, tenant, store, 4), sequence_start=4, event_count=1
    )
    assert isinstance(await world.journal.commit_legacy(gap, levels=b"l" * 32), Moved)


@pytest.mark.parametrize("stored", [True, False])
async def test_a_commitment_whose_outcome_is_unknown_is_there_or_not_and_can_be_made_again(
    world: World, stored: bool
) -> None:
    tenant, store = await a_stream(world, 2)
    commitment = await the_next(world.journal, tenant, store, 2)
    world.fail_next("commit_legacy", "unheard" if stored else "lost")
    with pytest.raises(JournalOutcomeUnknown):
        await world.journal.commit_legacy(commitment, levels=b"l" * 32)
    again = await world.journal.commit_legacy(commitment, levels=b"l" * 32)
    assert isinstance(again, Moved if stored else LegacyCommitment)
    world.fail_next("commit_legacy", "away")
    assert isinstance(await world.journal.commit_legacy(commitment, levels=b"l" * 32), Away)


async def test_leaf_sources_are_what_was_appended(world: World) -> None:
    tenant, store = uuid(), uuid()
    events = [a_legacy_event() for _ in range(5)]
    group = await legacy_decided(world.journal, tenant, store, *events)
    assert isinstance(await world.journal.append_legacy(group), Stored)
    sources = await world.other.read_legacy_leaf_sources(tenant, store, sequence_start=2, sequence_end=9)
    assert sources == [
        LegacyLeafSource(number, event.payload_hash, event.entity_type, event.entity_id)
        for number, event in enumerate(events[1:], 2)
    ]
    with pytest.raises(ValueError, match="4096"):
        await world.journal.read_legacy_leaf_sources(tenant, store, sequence_start=1, sequence_end=4097)


async def test_commitments_are_found_only_within_their_tenant_and_stores_and_listed_in_pages(
    world: World,
) -> None:
    tenant, store = await a_stream(world, 5)
    stored = [
        await committed(world.journal, await the_next(world.journal, tenant, store, through))
        for through in (1, 3, 5)
    ]
    for of_tenant, stores, found in (
        (tenant, None, True),
        (tenant, (uuid(), store), True),
        (uuid(), None, False),
        (tenant, (uuid(),), False),
        (tenant, (), False),
    ):
        read = await world.journal.read_legacy_commitment(
            stored[0].batch_id, tenant_id=of_tenant, store_ids=stores
        )
        assert (read is not None) is found
    for number, which in ((1, 0), (2, 1), (3, 1), (5, 2)):
        over = await world.journal.find_legacy_commitment(tenant, store, sequence_number=number)
        assert over == stored[which]
    assert await world.journal.find_legacy_commitment(tenant, store, sequence_number=6) is None
    assert await world.journal.find_legacy_commitment(tenant, uuid(), sequence_number=1) is None
    told, start, pages = [], 1, 0
    while True:
        page = await world.journal.list_legacy_commitments(tenant, store, from_sequence=start, limit=2)
        told += page.commitments
        pages += 1
        start = page.next_from
        if not page.has_more:
            break
    assert (told, pages, start) == (stored, 2, 6)
    nothing = await world.journal.list_legacy_commitments(tenant, uuid(), from_sequence=7, limit=2)
    assert (nothing.commitments, nothing.has_more, nothing.next_from) == ([], False, 7)


async def test_nodes_come_in_the_order_asked_and_no_others(world: World) -> None:
    tenant, store = await a_stream(world, 2)
    levels = os.urandom(3 * 32)
    done = await world.journal.commit_legacy(await the_next(world.journal, tenant, store, 2), levels=levels)
    assert isinstance(done, LegacyCommitment)
    nodes = [levels[at : at + 32] for at in range(0, 96, 32)]
    read = await world.other.read_legacy_nodes(done.batch_id, [2, 0, 1, 0])
    assert read == [nodes[2], nodes[0], nodes[1], nodes[0]]
    for batch, positions in ((done.batch_id, [0, 3]), (uuid(), [0])):
        with pytest.raises(LookupError):
            await world.journal.read_legacy_nodes(batch, positions)


async def test_versions_that_move_while_they_are_read_do_not_count(
    postgres: PostgresWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    tenant, store = await a_stream(postgres, 4)
    expected = state_root(tenant, store, *(("order", f"o-{n}", 1) for n in range(4)))
    wanted = await the_next(postgres.journal, tenant, store, 4)
    real, moves = legacy_commitments.read_counter, []

    async def and_then_an_append_elsewhere(*asked):  # type: ignore[no-untyped-def]
        counter = await real(*asked)
        other = await asyncpg.connect(postgres.owner_dsn)
        try:
            moves.append(
                await other.execute(
                    "UPDATE record.entity_versions SET version = version + 1, previous_version = version "
                    "WHERE tenant_id = $1 AND store_id = $2",
                    *(UUID(bytes=one) for one in (tenant, store)),
                )
            )
        finally:
            await other.close()
        return counter

    monkeypatch.setattr(legacy_commitments, "read_counter", and_then_an_append_elsewhere)
    monkeypatch.setattr(legacy_commitments, "_ENTITIES_PER_READ", 1)
    done = await committed(postgres.journal, wanted)
    assert moves == ["UPDATE 4"]
    assert done.new_state_root == expected
