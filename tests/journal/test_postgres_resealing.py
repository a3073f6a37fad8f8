"""Sealing anew on real tables: every row once, whoever moves or changes it, and what never is sealed over."""

from __future__ import annotations

import itertools
import os
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import asyncpg
import msgspec
import pytest
import trio
from journal_builders import Database, an_event, decided, uuid
from journal_worlds import sql
from sealed_rows import AT_REST, CURRENT, NEW, OLD, SEALED, STRANGE, TABLES, Rows

from journal import resealing as resealing_room
from journal.aio import open_loop
from journal.connections import Limits
from journal.embedded import EmbeddedPostgres
from journal.embedded_cluster import ADMIN_LOGIN, APP_LOGIN
from journal.port import Away, JournalAway, JournalOutcomeUnknown, SchemaMismatch
from journal.postgres import open_journal
from journal.resealing import Exchange, ResealingJournal, Scope, open_resealing
from journal.sealed_tables import EVENTS, VALIDITY_PROOFS, VES_EVENTS, SealedTable
from supervisor.resealing import UNREADABLE_LISTED_MAX, Resealing, Tally
from ves.at_rest import AtRest, AtRestMode, Ring, Row
from ves.kdf import Purpose

BY_NAME = [pytest.param(table, id=table.name) for table in TABLES]
STREAMS = [pytest.param(table, id=table.name) for table in (VES_EVENTS, EVENTS)]


def admin_dsn(database: Database) -> str:
    return database.app_dsn.replace(f"{APP_LOGIN}@", f"{ADMIN_LOGIN}@")


@asynccontextmanager
async def resealer(database: Database) -> AsyncIterator[ResealingJournal]:
    limits = Limits(unit_deadline_s=4.0, lock_timeout_s=2.0)
    async with open_resealing(admin_dsn(database), limits=limits, checkpoint=lambda name: None) as journal:
        yield journal


@pytest.fixture
def shared(server: EmbeddedPostgres) -> Database:
    """For what stays within a tenant."""
    return Database(server.owner_dsn, server.app_dsn)


@pytest.fixture
async def journal(shared: Database) -> AsyncIterator[ResealingJournal]:
    async with open_loop(), resealer(shared) as journal:
        yield journal


@pytest.fixture
async def own_journal(database: Database) -> AsyncIterator[ResealingJournal]:
    """On a database of its own, for what concerns all of a table."""
    async with open_loop(), resealer(database) as journal:
        yield journal


async def walk(
    journal: ResealingJournal,
    table: SealedTable,
    *,
    scope: Scope = Scope(),  # noqa: B008  immutable
    batch_rows: int = 3,
    limit: int | None = None,
    dry_run: bool = False,
) -> Tally:
    resealing = Resealing(
        journal,
        table,
        AT_REST,
        scope=scope,
        batch_rows=batch_rows,
        limit=limit,
        dry_run=dry_run,
        random_bytes=os.urandom,
    )
    return await resealing.run(lambda tally: None)


async def rows_of_every_kind(database: Database, table: SealedTable) -> Rows:
    """Two of each, every second one in the archive where there is one."""
    rows = Rows(database.owner_dsn, table)
    for kind, archived in itertools.product(SEALED, (False, True)):
        await rows.add(kind, archived=archived and table.archive is not None)
    return rows


@pytest.mark.parametrize("table", BY_NAME)
async def test_rows_of_every_kind_are_under_the_current_key_afterwards_in_the_archive_too(
    journal: ResealingJournal, shared: Database, table: SealedTable
) -> None:
    rows = await rows_of_every_kind(shared, table)
    before = await rows.stored()
    rehearsal = await walk(journal, table, scope=Scope(rows.tenant), dry_run=True)
    assert await rows.stored() == before, "a dry run writes nothing"
    assert rehearsal.before == Counter(dict.fromkeys(SEALED, 2)) == rehearsal.after
    assert (rehearsal.scanned, rehearsal.reencrypted, rehearsal.already_current) == (10, 8, 2)
    assert (rehearsal.unframed, rehearsal.old, rehearsal.finished) == (2, 6, False)

    tally = await walk(journal, table, scope=Scope(rows.tenant))
    await rows.all_current()
    assert tally.before == Counter(dict.fromkeys(SEALED, 2))
    assert tally.after == Counter({CURRENT: 10})
    assert (tally.scanned, tally.reencrypted, tally.already_current) == (10, 8, 2)
    assert (tally.unframed, tally.old, tally.changed_meanwhile, tally.finished) == (0, 0, 0, True)

    sealed = await rows.stored()
    again = await walk(journal, table, scope=Scope(rows.tenant))
    assert (again.reencrypted, again.already_current, again.finished) == (0, 10, True)
    assert await rows.stored() == sealed


@pytest.mark.parametrize("table", BY_NAME)
async def test_a_limit_loses_nothing_of_its_last_page_and_the_next_run_goes_on(
    journal: ResealingJournal, shared: Database, table: SealedTable
) -> None:
    rows = await rows_of_every_kind(shared, table)
    done = []
    for batch_rows in (1, 2, 3, 100):
        tally = await walk(journal, table, scope=Scope(rows.tenant), batch_rows=batch_rows, limit=2)
        assert tally.reencrypted == 2
        current = [key for key, sealed in (await rows.stored()).items() if sealed[4:12] == NEW.key_id]
        done.append(len(current))
        assert not tally.finished or len(current) == 10
    assert done == [4, 6, 8, 10]
    await rows.all_current()
    assert (await walk(journal, table, scope=Scope(rows.tenant), limit=1)).finished


@pytest.mark.parametrize("table", STREAMS)
async def test_a_scope_is_all_that_is_touched(
    own_journal: ResealingJournal, database: Database, table: SealedTable
) -> None:
    mine, neighbour = Rows(database.owner_dsn, table), Rows(database.owner_dsn, table)
    other_store = Rows(database.owner_dsn, table, tenant=mine.tenant)
    for rows in (mine, neighbour, other_store):
        await rows.add("plaintext")
        await rows.add("plaintext", archived=True)
    assert (await walk(own_journal, table, scope=Scope(mine.tenant, mine.store))).reencrypted == 2
    assert (await walk(own_journal, table, scope=Scope(mine.tenant))).reencrypted == 2
    assert set((await neighbour.stored()).values()) == set(neighbour.plaintexts.values())
    assert (await walk(own_journal, table)).reencrypted == 2


async def damage(rows: Rows, key: tuple[Any, ...], stored: bytes) -> None:
    table, where = rows.table, " AND ".join(f"{c} = ${n}" for n, c in enumerate(rows.table.key, 2))
    await sql(
        rows.owner_dsn.replace("sequencer_owner@", f"{ADMIN_LOGIN}@"),
        f"UPDATE record.{table.name} SET {table.column} = $1 WHERE {where}",
        arguments=(stored, *key),
    )


@pytest.mark.parametrize("table", BY_NAME)
async def test_what_does_not_open_or_match_its_hash_is_named_and_left_and_the_others_go_on(
    journal: ResealingJournal, shared: Database, table: SealedTable
) -> None:
    rows = Rows(shared.owner_dsn, table)
    keys = [await rows.add(f"SSE2 {OLD.key_id.hex()}") for _ in range(7)]
    stored = await rows.stored()
    bound, plaintext = rows.bound[keys[2]], rows.plaintexts[keys[2]]
    damaged = {
        keys[0]: stored[keys[1]],  # swapped
        keys[1]: stored[keys[1]][:-1],  # cut off
        keys[2]: STRANGE.seal(bound, bytes(12), plaintext),
        keys[3]: OLD.seal(rows.bound[keys[3]], bytes(12), b"another content"),
        keys[4]: b"another content",
        keys[5]: NEW.seal(rows.bound[keys[5]], bytes(12), b"another content"),
    }
    for key, value in damaged.items():
        await damage(rows, key, value)
    tally = await walk(journal, table, scope=Scope(rows.tenant))
    after = await rows.stored()
    assert {key: after[key] for key in damaged} == damaged, "left as they were"
    assert NEW.open(rows.bound[keys[6]], after[keys[6]]) == rows.plaintexts[keys[6]]
    assert (tally.unreadable_count, tally.reencrypted, tally.unframed, tally.finished) == (6, 1, 1, False)
    named = {row["reason"] for row in tally.unreadable}
    assert len(tally.unreadable) == 6
    assert all(row["table"] == table.name for row in tally.unreadable)
    assert any("changed bytes" in reason for reason in named)
    assert any("is not in the ring" in reason for reason in named)
    assert any("hash" in reason for reason in named)
    last = "proof_id" if table is VALIDITY_PROOFS else "sequence_number"
    assert len({row[last] for row in tally.unreadable}) == 6
    assert not [row for row in tally.unreadable if "another content" in str(row)]


async def test_of_many_unreadable_rows_some_are_listed_and_all_counted(
    journal: ResealingJournal, shared: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("supervisor.resealing.UNREADABLE_LISTED_MAX", 3)
    assert UNREADABLE_LISTED_MAX > 3
    rows = Rows(shared.owner_dsn, EVENTS)
    for key in [await rows.add("plaintext") for _ in range(5)]:
        await damage(rows, key, b"{}")
    tally = await walk(journal, EVENTS, scope=Scope(rows.tenant))
    assert (len(tally.unreadable), tally.unreadable_count, tally.unframed) == (3, 5, 5)


async def test_large_values_are_read_a_few_at_a_time(
    journal: ResealingJournal, shared: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = await rows_of_every_kind(shared, VES_EVENTS)
    monkeypatch.setattr(resealing_room, "PAGE_BYTES_MAX", 60)
    sizes = []

    class Watched(ResealingJournal):
        async def page(self, *arguments: Any, **more: Any) -> list[Any]:
            page = await super().page(*arguments, **more)
            sizes.append(len(page))
            return page

    assert (
        await walk(Watched(journal._units), VES_EVENTS, scope=Scope(rows.tenant), batch_rows=10)
    ).scanned == 10
    assert max(sizes) < 5
    await rows.all_current()


# ---- others at work meanwhile ---------------------------------------------------------------------------


class Disturbed(ResealingJournal):
    """Before the first exchange something happens to the rows that were read."""

    def __init__(self, journal: ResealingJournal, happens: Any) -> None:
        super().__init__(journal._units)
        self.happens = happens

    async def exchange(self, table: SealedTable, exchanges: Any) -> set[Any]:
        happens, self.happens = self.happens, None
        if happens is not None:
            await happens(exchanges)
        return await super().exchange(table, exchanges)


@pytest.mark.parametrize("table", STREAMS)
async def test_a_row_moved_into_the_archive_meanwhile_is_sealed_anew_there_and_counted_once(
    journal: ResealingJournal, shared: Database, table: SealedTable
) -> None:
    rows = Rows(shared.owner_dsn, table)
    keys = [await rows.add("plaintext") for _ in range(6)]
    # Committed: only then the database lets a row go.
    await sql(
        shared.owner_dsn,
        "INSERT INTO record.ves_commitment_counters VALUES ($1, $2, 6, $3)",
        arguments=(rows.tenant, rows.store, bytes(32)),
    )
    await sql(
        shared.owner_dsn,
        "INSERT INTO record.batch_commitments VALUES "
        "(gen_random_uuid(), $1, $2, 1, 6, 6, now(), $3, $3, $3, $3)",
        arguments=(rows.tenant, rows.store, bytes(32)),
    )

    async def moves(exchanges: list[Exchange]) -> None:
        """One that was read, one not yet, in one transaction each, as the archive does."""
        for number in (exchanges[1].key[2], 6):
            where = f"WHERE tenant_id = '{rows.tenant.hex()}' AND sequence_number = {number}"
            await sql(
                admin_dsn(shared),
                "BEGIN",
                f"INSERT INTO record.{table.archive} SELECT *, now() FROM record.{table.name} {where}",
                f"DELETE FROM record.{table.name} {where}",
                "COMMIT",
                "SELECT 1",
            )

    tally = await walk(Disturbed(journal, moves), table, scope=Scope(rows.tenant), batch_rows=3)
    [[archived]] = await sql(
        shared.owner_dsn,
        f"SELECT count(*) FROM record.{table.archive} WHERE tenant_id = $1",
        arguments=(rows.tenant,),
    )
    assert archived == 2
    assert (tally.scanned, tally.reencrypted, tally.changed_meanwhile) == (6, 6, 1)
    assert tally.before == Counter({"plaintext": 6})
    assert tally.finished
    assert set(await rows.stored()) == set(keys)
    await rows.all_current()


async def test_what_another_run_sealed_meanwhile_is_not_overwritten(
    journal: ResealingJournal, shared: Database
) -> None:
    rows = Rows(shared.owner_dsn, EVENTS)
    for _ in range(3):
        await rows.add("plaintext")
    others: dict[Any, bytes] = {}

    async def second_run(exchanges: list[Exchange]) -> None:
        await walk(journal, EVENTS, scope=Scope(rows.tenant))
        others.update(await rows.stored())

    tally = await walk(Disturbed(journal, second_run), EVENTS, scope=Scope(rows.tenant))
    assert await rows.stored() == others
    assert (tally.scanned, tally.reencrypted, tally.already_current) == (3, 0, 3)
    assert tally.changed_meanwhile == 3
    assert tally.finished


async def test_an_exchange_whose_commit_was_not_heard_is_found_done(
    journal: ResealingJournal, shared: Database
) -> None:
    rows = await rows_of_every_kind(shared, EVENTS)

    class Unheard(ResealingJournal):
        times = 0

        async def exchange(self, table: SealedTable, exchanges: Any) -> set[Any]:
            done = await super().exchange(table, exchanges)
            self.times += 1
            if self.times == 1:
                raise JournalOutcomeUnknown("not heard")
            return done

    tally = await walk(Unheard(journal._units), EVENTS, scope=Scope(rows.tenant), batch_rows=100)
    assert (tally.reencrypted, tally.already_current, tally.changed_meanwhile) == (8, 2, 0)
    await rows.all_current()


async def test_two_runs_at_once_leave_every_row_whole(shared: Database) -> None:
    async with open_loop(), resealer(shared) as one, resealer(shared) as two:
        rows = await rows_of_every_kind(shared, VES_EVENTS)
        tallies = []

        async def run(journal: ResealingJournal) -> None:
            tallies.append(await walk(journal, VES_EVENTS, scope=Scope(rows.tenant), batch_rows=2))

        with trio.fail_after(30):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(run, one)
                nursery.start_soon(run, two)
        assert [tally.scanned for tally in tallies] == [10, 10]
        assert sum(tally.reencrypted for tally in tallies) == 8
        assert all(tally.finished for tally in tallies)
        await rows.all_current()


async def test_a_login_that_may_not_seal_anew_is_told_what_helps(shared: Database) -> None:
    async with open_loop():
        for dsn in (shared.app_dsn, shared.owner_dsn):
            with pytest.raises(SchemaMismatch, match="GRANT sequencer_admin"):
                async with open_resealing(dsn, limits=Limits(), checkpoint=lambda name: None):
                    pass


# ---- the end of plaintext -------------------------------------------------------------------------------


async def notes(database: Database) -> list[tuple[str, str]]:
    rows = await sql(
        database.owner_dsn,
        "SELECT table_name, noted FROM record.at_rest_notes ORDER BY table_name, note_number",
    )
    return [tuple(row) for row in rows]


@pytest.mark.parametrize("table", BY_NAME)
async def test_plaintext_is_noted_once_and_its_end_only_when_none_came_meanwhile(
    own_journal: ResealingJournal, database: Database, table: SealedTable
) -> None:
    rows = Rows(database.owner_dsn, table)
    await rows.add(CURRENT)
    await rows.add(f"SSE1 under {OLD.key_id.hex()}")
    assert await own_journal.begin_sweep(table) is None
    assert await notes(database) == []
    for _ in range(3):
        await rows.add("plaintext")
    assert await notes(database) == [(table.name, "plaintext")]

    since = await own_journal.begin_sweep(table)
    assert since == 2
    await rows.add("plaintext")
    assert await own_journal.end_plaintext(table, since) is False
    since = await own_journal.begin_sweep(table)
    assert since is not None
    await rows.add(CURRENT)
    assert await own_journal.end_plaintext(table, since) is True
    assert await own_journal.begin_sweep(table) is None
    await rows.add("plaintext")
    assert [noted for _, noted in await notes(database)] == [
        *("plaintext", "sweep", "plaintext", "sweep", "clear", "plaintext")
    ]


async def test_a_sweep_waits_for_plaintext_that_is_being_written(
    own_journal: ResealingJournal, database: Database
) -> None:
    """Else its pages would not see what is committed a moment later."""
    rows = Rows(database.owner_dsn, EVENTS)
    await rows.add("plaintext")
    begun = trio.Event()

    async def begin() -> None:
        assert await own_journal.begin_sweep(EVENTS) is not None
        begun.set()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(
            sql,
            database.owner_dsn,
            "BEGIN",
            "INSERT INTO record.events SELECT sequence_number + 1, sequenced_at, created_at, base_version, "
            "tenant_id, store_id, gen_random_uuid(), source_agent, command_id, entity_type, entity_id, "
            "event_type, payload_hash, signature, payload_encrypted FROM record.events",
            "SELECT pg_sleep(1)",
            "COMMIT",
            "SELECT 1",
        )
        await trio.sleep(0.4)
        nursery.start_soon(begin)
        await trio.sleep(0.2)
        assert not begun.is_set()
    assert begun.is_set()
    assert len(await rows.stored()) == 2


# ---- the end of a key -----------------------------------------------------------------------------------


@pytest.mark.parametrize("table", BY_NAME)
async def test_no_table_takes_a_frame_under_a_forbidden_key_also_not_by_sealing_anew(
    own_journal: ResealingJournal, database: Database, table: SealedTable
) -> None:
    rows = Rows(database.owner_dsn, table)
    key = await rows.add(CURRENT)
    old = OLD.seal(rows.bound[key], bytes(12), rows.plaintexts[key])
    await own_journal.forbid([OLD.key_id])
    for kind in (f"SSE2 {OLD.key_id.hex()}", f"SSE1 under {NEW.key_id.hex()}"):
        with pytest.raises(asyncpg.PostgresError, match="retired") as refused:
            await rows.add(kind)
        assert refused.value.sqlstate == "57000"
    [mine] = await own_journal.page(table, Scope(), table.first(None, None), 9)
    with pytest.raises(JournalAway, match="retired"):
        await own_journal.exchange(table, [Exchange(key, False, mine["sealed"], old)])
    for kind in (CURRENT, "plaintext"):
        await rows.add(kind)
    await own_journal.forbid([])
    await rows.add(f"SSE2 {OLD.key_id.hex()}")


@pytest.mark.parametrize("table", STREAMS)
async def test_into_an_archive_rows_go_as_they_are(
    own_journal: ResealingJournal, database: Database, table: SealedTable
) -> None:
    await own_journal.forbid([STRANGE.key_id])
    rows = Rows(database.owner_dsn, table)
    await rows.add(f"SSE1 under {OLD.key_id.hex()}", archived=True)
    assert (await walk(own_journal, table)).reencrypted == 1
    await rows.all_current()


async def test_an_append_under_a_forbidden_key_stores_nothing_and_waits(
    own_journal: ResealingJournal, database: Database
) -> None:
    async with open_journal(database.app_dsn, node_id=uuid()) as node:
        tenant, store = uuid(), uuid()
        group = await decided(node, tenant, store, an_event())
        frame = OLD.seal(Row(Purpose.VES_EVENTS, tenant, bytes(32)), bytes(12), b"{}")
        sealed = [msgspec.structs.replace(one, payload_sealed=frame) for one in group.sealed]
        group = msgspec.structs.replace(group, sealed=sealed)
        await own_journal.forbid([OLD.key_id])
        answer = await node.append(group)
        assert isinstance(answer, Away)
        assert await node.read_head(tenant, store) == 0


async def test_the_server_may_not_forbid_a_key_nor_lift_it(shared: Database) -> None:
    async with open_loop():
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await sql(shared.app_dsn, "SELECT record.forbid_at_rest_keys('events', '{}')")
        with pytest.raises(asyncpg.InvalidParameterValueError):
            await sql(admin_dsn(shared), "SELECT record.forbid_at_rest_keys('audit_log', '{}')")


async def test_a_tenants_own_ring_takes_the_place_of_the_others(
    journal: ResealingJournal, shared: Database
) -> None:
    mine = Rows(shared.owner_dsn, EVENTS)
    await mine.add(f"SSE2 {OLD.key_id.hex()}")
    at_rest = AtRest(AtRestMode.REQUIRED, Ring([NEW, OLD]), {mine.tenant: Ring([STRANGE, OLD])})
    resealing = Resealing(
        journal,
        EVENTS,
        at_rest,
        scope=Scope(mine.tenant),
        batch_rows=10,
        limit=None,
        dry_run=False,
        random_bytes=os.urandom,
    )
    assert (await resealing.run(lambda tally: None)).after == Counter({f"SSE2 {STRANGE.key_id.hex()}": 1})
