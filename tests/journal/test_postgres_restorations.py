"""A database that was restored: who may write, which numbers are void, and how commitments go around them."""

from __future__ import annotations

from functools import partial

import pytest
from journal_builders import AUDIT, a_commitment, an_event, decided, uuid
from journal_worlds import LIMITS, PostgresWorld, admin_dsn

from actors.faults import checkpoint
from journal.archive import VES_EVENTS, StreamName, open_archive
from journal.port import Away, CommitmentCounter, JournalAway, JournalRefused, MadeCommitment, Stored, Voided
from journal.postgres import PostgresJournal, open_journal
from journal.resealing import open_resealing
from journal.restorations import Given, RestorationMoved
from ves.records import Uuid


def journal_of(world: PostgresWorld) -> PostgresJournal:
    assert isinstance(world.journal, PostgresJournal)
    return world.journal


async def a_restoration(journal: PostgresJournal) -> Uuid:
    """Recorded, and any earlier one confirmed."""
    while (earlier := await journal.pending_restoration()) is not None:
        await journal.confirm_restoration(earlier.restoration_id, "test", "", [], AUDIT)
    restoration_id = uuid()
    await journal.record_restoration(restoration_id, "backup", "test")
    return restoration_id


async def give(world: PostgresWorld, tenant: Uuid, store: Uuid, events: int) -> list[Given]:
    group = await decided(world.journal, tenant, store, *(an_event() for _ in range(events)))
    assert isinstance(await world.journal.append(group), Stored)
    return [Given(tenant, store, one.sequence_number, one.event.event_id) for one in group.numbered]


async def commit(
    together: bool, world: PostgresWorld, tenant: Uuid, store: Uuid, through: int
) -> tuple[int, int]:
    commitment, levels, believed = await a_commitment(world.journal, tenant, store, through)
    if together:
        outcomes = await world.journal.commit_together([MadeCommitment(commitment, levels)])
        assert outcomes == [Stored()]
        return commitment.sequence_start, commitment.sequence_end
    outcome = await world.journal.commit(commitment, levels=levels, believed_through=believed)
    assert isinstance(outcome, Stored)
    return commitment.sequence_start, commitment.sequence_end


async def test_a_restoration_waits_until_it_is_confirmed_once(postgres: PostgresWorld) -> None:
    journal = journal_of(postgres)
    restoration_id = await a_restoration(journal)
    await journal.record_restoration(restoration_id, "backup", "test")  # heard or not, once more
    found = await journal.pending_restoration()
    assert found is not None
    assert (found.restoration_id, found.cause) == (restoration_id, "backup")
    await journal.confirm_restoration(restoration_id, "compared", "", [], AUDIT)
    assert await journal.pending_restoration() is None
    with pytest.raises(RestorationMoved, match="confirmed meanwhile"):
        await journal.confirm_restoration(restoration_id, "compared", "", [], AUDIT)


async def test_a_resting_journal_writes_nothing_and_reads_on(postgres: PostgresWorld) -> None:
    journal, tenant, store = journal_of(postgres), uuid(), uuid()
    await give(postgres, tenant, store, 2)
    group = await decided(journal, tenant, store, an_event())
    journal.rest_from_writing("restored")
    assert await journal.append(group) == Away("restored")
    with pytest.raises(JournalAway, match="restored"):
        await journal.audit(AUDIT)
    await journal.ping()
    assert await journal.read_head(tenant, store) == 2


async def test_what_stands_at_a_number_is_told(postgres: PostgresWorld) -> None:
    tenant, store = uuid(), uuid()
    given = await give(postgres, tenant, store, 2)
    beyond = Given(tenant, store, 3, uuid())
    standing = await journal_of(postgres).standing_at([*reversed(given), beyond])
    assert standing == [given[1].event_id, given[0].event_id, None]


@pytest.mark.parametrize("together", [False, True], ids=["alone", "together"])
async def test_void_numbers_are_passed_over_and_commitments_go_around_them(
    postgres: PostgresWorld, together: bool
) -> None:
    journal, tenant = journal_of(postgres), uuid()
    committed, tail, new = uuid(), uuid(), uuid()
    for store in (committed, tail):
        await give(postgres, tenant, store, 3)
    await commit(together, postgres, tenant, committed, 3)
    voids = [Voided(tenant, committed, 4, 9), Voided(tenant, tail, 4, 5), Voided(tenant, new, 1, 7)]
    await journal.confirm_restoration(await a_restoration(journal), "lost", "", voids, AUDIT)
    for store, last in ((committed, 9), (tail, 5), (new, 7)):
        numbers = [given.sequence_number for given in await give(postgres, tenant, store, 2)]
        assert numbers == [last + 1, last + 2]
        [void] = await journal.read_voided(tenant, store)
        assert void.last_number == last
    assert await commit(together, postgres, tenant, committed, 11) == (10, 11)
    assert await commit(together, postgres, tenant, new, 9) == (8, 9)
    counter = await journal.read_commitment_counter(tenant, tail)
    assert counter == CommitmentCounter(0, bytes(32), 3), "a commitment ends before the void"
    assert await commit(together, postgres, tenant, tail, 3) == (1, 3)
    assert await commit(together, postgres, tenant, tail, 7) == (6, 7)
    behind = await journal.streams_behind(after=(tenant, bytes(16)), limit=10)
    assert tenant not in {stream.tenant_id for stream in behind}


@pytest.mark.parametrize("together", [False, True], ids=["alone", "together"])
async def test_two_voids_in_a_row_are_passed_over_together(postgres: PostgresWorld, together: bool) -> None:
    journal, tenant, store = journal_of(postgres), uuid(), uuid()
    await give(postgres, tenant, store, 2)
    assert await commit(together, postgres, tenant, store, 1) == (1, 1)
    for first, last in ((3, 4), (5, 9)):
        void = Voided(tenant, store, first, last)
        await journal.confirm_restoration(await a_restoration(journal), "lost", "", [void], AUDIT)
    await give(postgres, tenant, store, 1)
    assert await commit(together, postgres, tenant, store, 2) == (2, 2)
    assert await commit(together, postgres, tenant, store, 10) == (10, 10)


async def test_a_head_that_moved_since_the_comparison_voids_nothing(postgres: PostgresWorld) -> None:
    journal, tenant, store = journal_of(postgres), uuid(), uuid()
    await give(postgres, tenant, store, 3)
    restoration_id = await a_restoration(journal)
    with pytest.raises(RestorationMoved, match="another head"):
        await journal.confirm_restoration(restoration_id, "lost", "", [Voided(tenant, store, 3, 9)], AUDIT)
    assert await journal.read_voided(tenant, store) == []
    assert await journal.pending_restoration() is not None
    await journal.confirm_restoration(restoration_id, "lost", "", [], AUDIT)


async def test_until_it_is_confirmed_commands_beside_the_server_write_nothing_either(
    postgres: PostgresWorld,
) -> None:
    journal, dsn = journal_of(postgres), admin_dsn(postgres.owner_dsn)
    archiving = partial(open_archive, dsn, node_id=uuid(), limits=LIMITS, checkpoint=checkpoint)
    resealing = partial(open_resealing, dsn, limits=LIMITS, checkpoint=checkpoint)
    stream = StreamName(uuid(), uuid())
    restoration_id = await a_restoration(journal)
    async with open_journal(postgres.dsn, node_id=uuid(), limits=LIMITS) as beside:
        await beside.rest_until_confirmed()
        with pytest.raises(JournalRefused, match="restore confirm first"):
            await beside.audit(AUDIT)
    async with archiving() as archive, resealing() as sealing:
        assert await archive.archived(VES_EVENTS, stream, 1, 9) == 0, "looking is allowed"
        for act in (
            partial(archive.audit, AUDIT),
            partial(archive.move, VES_EVENTS, stream, 1, 9),
            partial(sealing.forbid, []),
        ):
            with pytest.raises(JournalRefused, match="restore confirm first"):
                await act()
    await journal.confirm_restoration(restoration_id, "test", "", [], AUDIT)
    async with archiving() as archive:
        assert await archive.move(VES_EVENTS, stream, 1, 9) == 0
