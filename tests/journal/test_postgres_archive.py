"""Archiving: everything reads as before, nothing is lost or doubled, and the triggers take no other way."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import asyncpg
import pytest
import trio
from journal_builders import a_commitment, a_group, an_event, decided, question, uuid
from journal_worlds import LIMITS, PostgresWorld, admin_dsn, sql

from actors.faults import Fault, InjectedFault, armed, checkpoint
from journal.aio import cross
from journal.archive import (
    LEGACY_EVENTS,
    VES_EVENTS,
    Archive,
    ArchiveRefused,
    DueRange,
    EventTable,
    StreamName,
    open_archive,
)
from journal.port import Moved, Stored
from ves.records import EntityName, KeyName, VerifiedEvent

FAR_FUTURE_US = 4_000_000_000_000_000


class Stream:
    """Six events of one entity: 1 to 2 and 3 to 5 committed, 6 not."""

    def __init__(self, world: PostgresWorld) -> None:
        self.world = world
        self.journal = world.journal
        self.tenant, self.store = uuid(), uuid()
        self.name = StreamName(self.tenant, self.store)
        self.events: list[VerifiedEvent] = [an_event(entity_id="o", command=uuid()) for _ in range(6)]

    async def made(self) -> Stream:
        group = await decided(self.journal, self.tenant, self.store, *self.events)
        assert await self.journal.append(group) == Stored()
        await self.commit(2)
        await self.commit(5)
        return self

    async def commit(self, through: int) -> None:
        commitment, levels, believed = await a_commitment(self.journal, self.tenant, self.store, through)
        done = await self.journal.commit(commitment, levels=levels, believed_through=believed)
        assert done == Stored()

    async def seen(self) -> list[Any]:
        """Everything that can be asked about it, without what is of the moment."""
        j, t, s = self.journal, self.tenant, self.store
        facts = await j.read_facts(question(t, [s], self.events))
        key = KeyName(t, self.events[0].source_agent_id, 1)
        return [
            facts.known,
            facts.used_commands,
            facts.entity_versions,
            facts.fence.heads,
            await j.read_events(t, s, from_sequence=1, limit=100, bytes_max=10**6),
            await j.read_events(t, s, from_sequence=2, limit=3, bytes_max=10**6),
            await j.read_entity(t, EntityName(s, "order", "o"), from_sequence=2, limit=3, bytes_max=10**6),
            [await j.read_event(t, e.event_id, store_ids=None) for e in self.events],
            await j.read_head(t, s),
            await j.read_leaf_sources(t, s, sequence_start=1, sequence_end=5),
            await j.read_signed_by(key, after=None, limit=100, looked_at_max=100),
            await j.read_signed_by(key, after=(s, 1), limit=2, looked_at_max=3),
        ]

    async def where(self) -> tuple[list[int], list[int]]:
        """The numbers in the table, and those in the archive."""
        both = []
        for table in ("ves_events", "ves_events_archive"):
            rows = await sql(
                self.world.owner_dsn,
                f"SELECT sequence_number FROM record.{table} "
                f"WHERE tenant_id = '{self.tenant.hex()}' ORDER BY 1",
            )
            both.append([row[0] for row in rows])
        return both[0], both[1]


@pytest.fixture
async def stream(postgres: PostgresWorld) -> Stream:
    return await Stream(postgres).made()


@asynccontextmanager
async def the_archive(world: PostgresWorld) -> AsyncIterator[Archive]:
    async with open_archive(
        admin_dsn(world.owner_dsn), node_id=uuid(), limits=LIMITS, checkpoint=checkpoint
    ) as archive:
        yield archive


async def due(archive: Archive, stream: Stream, from_number: int = 1, **more: int) -> DueRange | None:
    before_us = more.get("before_us", FAR_FUTURE_US)
    return await archive.next_due(VES_EVENTS, stream.name, from_number=from_number, before_us=before_us)


async def test_everything_reads_as_before_whatever_part_is_archived(stream: Stream) -> None:
    before = await stream.seen()
    assert len(before[4].events) == 6
    async with the_archive(stream.world) as archive:
        for first, last in ((1, 1), (2, 2), (3, 5)):
            assert await archive.move(VES_EVENTS, stream.name, first, last) == last - first + 1
            assert await stream.seen() == before
            assert await stream.where() == (list(range(last + 1, 7)), list(range(1, last + 1)))


async def test_an_archived_id_is_not_free_and_its_number_is_not_given_again(stream: Stream) -> None:
    async with the_archive(stream.world) as archive:
        await archive.move(VES_EVENTS, stream.name, 1, 5)
    again = await stream.journal.read_facts(question(stream.tenant, [stream.store], stream.events))
    assert set(again.known) == {event.event_id for event in stream.events}
    group = await decided(stream.journal, stream.tenant, stream.store, an_event())
    assert group.numbered[0].sequence_number == 7
    assert await stream.journal.append(group) == Stored()


async def test_what_was_decided_before_an_id_was_archived_is_decided_anew(stream: Stream) -> None:
    """Else the id could be stored a second time, in another store: the unique index is of one table."""
    late, other_store = an_event(), uuid()
    old_facts = await stream.journal.read_facts(question(stream.tenant, [other_store], [late]))
    stale = a_group(old_facts, [(other_store, late)])
    assert late.event_id not in old_facts.known
    # Meanwhile another node stores the same id in our stream, and it is committed and archived at once.
    assert (
        await stream.world.other.append(await decided(stream.world.other, stream.tenant, stream.store, late))
        == Stored()
    )
    await stream.commit(7)
    async with the_archive(stream.world) as archive:
        assert await archive.move(VES_EVENTS, stream.name, 1, 7) == 7
    assert isinstance(await stream.journal.append(stale), Moved)


async def test_only_whole_committed_ranges_that_are_old_enough_are_due_one_after_the_other(
    stream: Stream,
) -> None:
    page = await stream.journal.read_events(
        stream.tenant, stream.store, from_sequence=1, limit=10, bytes_max=10**6
    )
    second = page.events[1].receipt.sequenced_at_us
    async with the_archive(stream.world) as archive:
        found = await due(archive, stream)
        assert found is not None
        assert found[1:] == (1, 2, 1)
        assert await due(archive, stream, before_us=second) is None
        assert await due(archive, stream, before_us=second + 1) is not None
        await archive.move(VES_EVENTS, stream.name, 1, 1)  # a run that died inside of a range
        found = await due(archive, stream)
        assert found is not None
        assert found[1:] == (1, 2, 2)
        found = await due(archive, stream, 3)
        assert found is not None
        assert found[1:] == (3, 5, 3)
        assert await due(archive, stream, 6) is None, "it is not committed"
        await archive.move(VES_EVENTS, stream.name, 2, 5)
        assert await due(archive, stream) is None
        streams = await archive.streams(VES_EVENTS, tenant_id=stream.tenant, store_id=None, after=None)
        assert streams == [stream.name]
        assert (
            await archive.streams(VES_EVENTS, tenant_id=stream.tenant, store_id=None, after=stream.name) == []
        )


@pytest.mark.parametrize("point", ["archive.copied", "archive.deleted", "archive.commit_sent_before"])
async def test_a_step_that_fails_in_the_middle_moved_nothing(stream: Stream, point: str) -> None:
    before = await stream.seen()
    async with the_archive(stream.world) as archive:
        with armed({point: Fault("crash")}), pytest.raises(InjectedFault):
            await archive.move(VES_EVENTS, stream.name, 1, 2)
        assert await stream.where() == ([1, 2, 3, 4, 5, 6], [])
        assert await archive.move(VES_EVENTS, stream.name, 1, 2) == 2
        assert await archive.move(VES_EVENTS, stream.name, 1, 2) == 0, "nothing is moved twice"
    assert await stream.seen() == before


async def test_a_row_that_is_being_sealed_anew_is_waited_for_and_moved_with_its_new_seal(
    stream: Stream,
) -> None:
    old = await sql(
        stream.world.owner_dsn,
        f"SELECT payload_sealed FROM record.ves_events WHERE tenant_id = '{stream.tenant.hex()}' ORDER BY 1",
    )
    sealing = await cross(lambda: asyncpg.connect(admin_dsn(stream.world.owner_dsn)))
    try:
        await cross(
            lambda: sealing.execute(
                "BEGIN; UPDATE record.ves_events SET payload_sealed = 'anew' "
                f"WHERE tenant_id = '{stream.tenant.hex()}' AND sequence_number <= 2"
            )
        )
        async with the_archive(stream.world) as archive, trio.open_nursery() as nursery:
            moved: list[int] = []

            async def move() -> None:
                moved.append(await archive.move(VES_EVENTS, stream.name, 1, 5))

            nursery.start_soon(move)
            await trio.sleep(0.3)
            assert moved == [], "it waits"
            await cross(lambda: sealing.execute("COMMIT"))
    finally:
        await cross(sealing.close)
    assert moved == [5]
    new = await sql(
        stream.world.owner_dsn,
        "SELECT payload_sealed FROM record.ves_events_archive "
        f"WHERE tenant_id = '{stream.tenant.hex()}' ORDER BY sequence_number",
    )
    assert [row[0] == b"anew" for row in new] == [True, True, False, False, False]
    assert {row[0] for row in new[2:]} <= {row[0] for row in old}


async def test_readers_and_writers_beside_it_never_miss_or_double_an_event(stream: Stream) -> None:
    moved = trio.Event()
    looks = 0

    async def read() -> None:
        nonlocal looks
        while not moved.is_set():
            page = await stream.journal.read_events(
                stream.tenant, stream.store, from_sequence=1, limit=1000, bytes_max=10**6
            )
            numbers = [e.receipt.sequence_number for e in page.events]
            assert numbers == list(range(1, page.head_sequence + 1)), numbers
            facts = await stream.journal.read_facts(question(stream.tenant, [stream.store], stream.events))
            assert len(facts.known) == 6
            looks += 1

    async def write() -> None:
        while not moved.is_set():
            group = await decided(stream.world.other, stream.tenant, stream.store, an_event())
            assert isinstance(await stream.world.other.append(group), Stored | Moved)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(read)
        nursery.start_soon(write)
        async with the_archive(stream.world) as archive, the_archive(stream.world) as rival:
            for number in range(1, 6):
                counts: list[int] = []

                async def move(one: Archive, number: int = number, counts: list[int] = counts) -> None:
                    counts.append(await one.move(VES_EVENTS, stream.name, number, number))

                async with trio.open_nursery() as both:
                    both.start_soon(move, archive)
                    both.start_soon(move, rival)
                assert sorted(counts) == [0, 1], "two runs count each row once"
        moved.set()
    assert looks > 1
    assert (await stream.where())[1] == [1, 2, 3, 4, 5]


async def legacy_stream(world: PostgresWorld, tenant: bytes, store: bytes) -> None:
    who = f"'{tenant.hex()}'::uuid, '{store.hex()}'::uuid"
    hash_ = f"'\\x{bytes(32).hex()}'::bytea"
    await sql(
        world.owner_dsn,
        f"INSERT INTO record.events SELECT n, now(), now(), NULL, {who}, gen_random_uuid(), "
        f"gen_random_uuid(), NULL, 'order', '1', 'made', {hash_}, NULL, '{{}}' FROM generate_series(1, 3) n",
        f"INSERT INTO record.batch_commitments VALUES (gen_random_uuid(), {who}, 1, 2, 2, now(), "
        f"{hash_}, {hash_}, {hash_}, {hash_})",
        f"INSERT INTO record.sequence_counters VALUES ({who}, 3, now())",
    )


async def test_legacy_events_are_archived_too(postgres: PostgresWorld) -> None:
    tenant, store = uuid(), uuid()
    await legacy_stream(postgres, tenant, store)
    name = StreamName(tenant, store)
    before = await postgres.journal.read_legacy_events(
        tenant, store, from_sequence=1, limit=9, bytes_max=10**6
    )
    assert len(before.events) == 3
    async with the_archive(postgres) as archive:
        found = await archive.next_due(LEGACY_EVENTS, name, from_number=1, before_us=FAR_FUTURE_US)
        assert found is not None
        assert found[1:] == (1, 2, 1)
        assert await archive.move(LEGACY_EVENTS, name, 1, 2) == 2
        with pytest.raises(asyncpg.RestrictViolationError):
            await archive.move(LEGACY_EVENTS, name, 3, 3)
        assert len(await archive.rows(LEGACY_EVENTS, name, 1, 3)) == 3
        assert await archive.archived(LEGACY_EVENTS, name, 1, 3) == 2
    after = await postgres.journal.read_legacy_events(
        tenant, store, from_sequence=1, limit=9, bytes_max=10**6
    )
    assert after == before


# ---- attacks ------------------------------------------------------------------------------------------


async def refused(dsn: str, *statements: str) -> str:
    with pytest.raises(asyncpg.PostgresError) as caught:
        await sql(dsn, *statements)
    return str(caught.value.sqlstate)


def copied(stream: Stream, more: str = "", changed: str = "*") -> str:
    return (
        f"INSERT INTO record.ves_events_archive SELECT {changed}, now() FROM record.ves_events "
        f"WHERE tenant_id = '{stream.tenant.hex()}' {more}"
    )


def removed(stream: Stream, more: str = "") -> str:
    return f"DELETE FROM record.ves_events WHERE tenant_id = '{stream.tenant.hex()}' {more}"


async def test_the_triggers_take_no_other_way_from_whoever_may_archive(stream: Stream) -> None:
    before = await stream.seen()
    admin = admin_dsn(stream.world.owner_dsn)
    old, young = "AND sequence_number <= 5", "AND sequence_number = 6"
    forged = ", ".join(
        {"event_type": "'forged'", "sequence_number": "sequence_number"}.get(c, c) for c in VES_EVENTS.columns
    )
    columns = ", ".join((*VES_EVENTS.columns, "archived_at"))
    for attack in (
        [removed(stream, old)],  # not archived
        [removed(stream, young)],
        ["BEGIN", copied(stream, young), removed(stream, young)],  # not committed
        ["BEGIN", copied(stream, old), "COMMIT"],  # it would stand in both
        ["BEGIN", copied(stream, old), removed(stream, "AND sequence_number <= 4"), "COMMIT"],
        ["BEGIN", copied(stream, "AND sequence_number <= 4"), removed(stream, old)],
        [  # changed on the way
            f"INSERT INTO record.ves_events_archive ({columns}) SELECT {forged}, now() "
            f"FROM record.ves_events WHERE tenant_id = '{stream.tenant.hex()}'"
        ],
        [  # made up
            f"INSERT INTO record.ves_events_archive ({columns}) SELECT "
            f"{forged.replace('sequence_number', 'sequence_number + 100', 1)}, now() "
            f"FROM record.ves_events WHERE tenant_id = '{stream.tenant.hex()}'"
        ],
        [  # resealed between copy and delete: the new frame would be lost
            "BEGIN",
            copied(stream, "AND sequence_number = 1"),
            f"UPDATE record.ves_events SET payload_sealed = 'new' WHERE tenant_id = '{stream.tenant.hex()}'",
            removed(stream, "AND sequence_number = 1"),
        ],
    ):
        assert await refused(admin, *attack) == "23001", attack
    # Nobody else, not even the owner.
    for other in (stream.world.owner_dsn, stream.world.dsn):
        assert await refused(other, "BEGIN", copied(stream, old), removed(stream, old)) in ("23001", "42501")
    assert await stream.seen() == before


async def test_what_is_archived_stays_but_for_its_seal(stream: Stream) -> None:
    async with the_archive(stream.world) as archive:
        await archive.move(VES_EVENTS, stream.name, 1, 5)
    admin, mine = admin_dsn(stream.world.owner_dsn), f"WHERE tenant_id = '{stream.tenant.hex()}'"
    for attack in (
        f"DELETE FROM record.ves_events_archive {mine}",
        f"UPDATE record.ves_events_archive SET event_type = 'forged' {mine}",
        "TRUNCATE record.ves_events_archive",
    ):
        assert await refused(admin, attack) in ("23001", "42501"), attack
        assert await refused(stream.world.owner_dsn, attack) == "23001", attack
    await sql(admin, f"UPDATE record.ves_events_archive SET payload_sealed = 'anew' {mine}")


async def test_a_login_that_may_not_archive_is_told_what_it_lacks(postgres: PostgresWorld) -> None:
    with pytest.raises(ArchiveRefused, match="no member of sequencer_admin"):
        async with open_archive(postgres.dsn, node_id=uuid(), limits=LIMITS, checkpoint=checkpoint):
            pass


@pytest.mark.parametrize("table", [VES_EVENTS, LEGACY_EVENTS], ids=["ves_events", "events"])
async def test_every_column_is_moved(postgres: PostgresWorld, table: EventTable) -> None:
    rows = await sql(
        postgres.owner_dsn,
        f"SELECT attname FROM pg_attribute WHERE attrelid = 'record.{table.name}'::regclass "
        "AND attnum > 0 AND NOT attisdropped ORDER BY attnum",
    )
    assert tuple(row[0] for row in rows) == table.columns
