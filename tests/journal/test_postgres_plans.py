"""How PostgreSQL is made to look things up, and how its sessions are set."""

from __future__ import annotations

import socket
from contextlib import suppress
from itertools import pairwise
from typing import Any

import pytest
import trio
from journal_builders import Database, a_commitment, an_event, question, uuid
from journal_worlds import LIMITS, PostgresWorld, admin_dsn, sql
from legacy_builders import a_legacy_event, legacy_question

from journal import commitments, commitments_together, keys, legacy_commitments, reads, signed_by
from journal.aio import cross, open_loop
from journal.facts import read_facts
from journal.port import MadeCommitment, StreamRange
from journal.postgres import PostgresJournal, open_journal
from journal.units import Undo
from ves.records import IssuedToken, KeyName, Question


class Explaining:
    """A connection that answers every fetch with its plan."""

    def __init__(self, connection: Any) -> None:
        self._connection = connection
        self.plan: list[str] = []

    async def fetch(self, statement: str, *arguments: Any) -> list[Any]:
        rows = await self._connection.fetch(f"EXPLAIN {statement}", *arguments)
        self.plan = [row[0] for row in rows]
        return []

    async def fetchrow(self, statement: str, *arguments: Any) -> tuple[Any, ...]:
        await self.fetch(statement, *arguments)
        return (0, 0, 0, None, b"")  # of an empty page


async def explain(journal: PostgresJournal, act: Any, *, appending: bool = False) -> Explaining:
    units = journal._appends.units if appending else journal._units

    async def run() -> Explaining:
        async with units._pool.acquire() as connection:
            explaining = Explaining(connection)
            await act(explaining)
            return explaining

    return await cross(run)


async def explain_facts(journal: PostgresJournal, wanted: Question) -> str:
    explaining = await explain(journal, lambda c: read_facts(c, [wanted, wanted]), appending=True)
    return "\n".join(explaining.plan)


async def fill(dsn: str, tenant: bytes, store: bytes, events: int) -> None:
    """As the application may: rows of one stream, without statistics about them."""
    zeros32, zeros64 = r"'\x" + "00" * 32 + "'", r"'\x" + "00" * 64 + "'"
    who = f"'{tenant.hex()}'::uuid, '{store.hex()}'::uuid"
    await sql(
        dsn,
        "INSERT INTO record.ves_events SELECT n, now(), 1, NULL, 1, 0, "
        f"{who}, gen_random_uuid(), gen_random_uuid(), NULL, gen_random_uuid(), "
        "'order', 'o-' || n, 'x', 'now', "
        f"{zeros32}, {zeros32}, {zeros64}, {zeros32}, {zeros32}, {zeros64}, {zeros64} "
        f"FROM generate_series(1, {events}) n",
        "INSERT INTO record.entity_versions "
        "(tenant_id, store_id, entity_type, entity_id, previous_version, version) "
        f"SELECT {who}, 'order', 'o-' || n, 0, 1 FROM generate_series(1, {events}) n",
        f"INSERT INTO record.ves_sequence_counters VALUES ({who}, {events}, now())",
    )


@pytest.mark.parametrize("asked", [1, 100, 2000])
async def test_facts_look_up_each_name_and_never_read_all_a_tenant_has(
    database: Database, asked: int
) -> None:
    tenant, store = uuid(), uuid()
    events = [an_event(command=uuid()) for _ in range(asked)]
    wanted = question(tenant, [store], events, credentials=[uuid(), IssuedToken(uuid(), 1)])
    async with open_loop(), open_journal(database.app_dsn, node_id=uuid(), limits=LIMITS) as journal:
        empty = await explain_facts(journal, wanted)  # as it is planned once and for all
        await fill(database.app_dsn, tenant, store, 5000)
        filled = await explain_facts(journal, wanted)
    for text in (empty, filled):
        assert "using ves_events_tenant_id_event_id_key" in text, text
        assert "using ves_events_archive_tenant_id_event_id_key" in text, text
        assert "using entity_versions_pkey" in text
        assert "using ves_command_dedupe_pkey" in text
        assert "using ves_sequence_counters_pkey" in text
        for greedy in ("Seq Scan", "Bitmap", "Hash", "Merge", "Sort"):
            assert greedy not in text, text


async def test_facts_of_legacy_events_are_looked_up_the_same_way(database: Database) -> None:
    tenant, store = uuid(), uuid()
    wanted = legacy_question(tenant, [store], [a_legacy_event(command=uuid()) for _ in range(100)])
    who = f"'{tenant.hex()}'::uuid, '{store.hex()}'::uuid"
    async with open_loop(), open_journal(database.app_dsn, node_id=uuid(), limits=LIMITS) as journal:
        empty = await explain_facts(journal, wanted)
        await sql(
            database.app_dsn,
            f"INSERT INTO record.events SELECT n, now(), now(), NULL, {who}, gen_random_uuid(), "
            "gen_random_uuid(), NULL, 'order', 'o-' || n, 'x', decode(repeat('00', 32), 'hex'), NULL, '' "
            "FROM generate_series(1, 5000) n",
            f"INSERT INTO record.sequence_counters VALUES ({who}, 5000, now())",
        )
        filled = await explain_facts(journal, wanted)
    for text in (empty, filled):
        assert "using events_tenant_id_event_id_key" in text, text
        assert "using events_archive_tenant_id_event_id_key" in text, text
        assert "using event_command_dedupe_pkey" in text
        for greedy in ("Seq Scan", "Bitmap", "Hash", "Merge", "Sort"):
            assert greedy not in text, text


async def ten_thousand_streams_of_five(dsn: str, *, committed_through: int) -> None:
    """Their counters only."""
    await sql(
        dsn,
        "INSERT INTO record.ves_sequence_counters "
        "SELECT gen_random_uuid(), gen_random_uuid(), 5, now() FROM generate_series(1, 10000)",
        "INSERT INTO record.ves_commitment_counters "
        f"SELECT tenant_id, store_id, {committed_through:d}, decode(repeat('00', 32), 'hex') "
        "FROM record.ves_sequence_counters",
    )


async def test_looking_for_streams_behind_reads_the_counters_not_the_events(database: Database) -> None:
    async with open_loop(), open_journal(database.app_dsn, node_id=uuid(), limits=LIMITS) as journal:
        await ten_thousand_streams_of_five(database.app_dsn, committed_through=5)
        explaining = await explain(journal, lambda c: commitments.streams_behind(c, None, 100))
        assert "Seq Scan on ves_events" not in "\n".join(explaining.plan)
        with trio.fail_after(1):
            assert await journal.streams_behind(after=None, limit=100) == []


async def test_commitments_together_look_up_each_stream_and_read_no_table(database: Database) -> None:
    async with open_loop(), open_journal(database.app_dsn, node_id=uuid(), limits=LIMITS) as journal:
        await ten_thousand_streams_of_five(database.app_dsn, committed_through=4)
        for _ in range(3):
            await fill(database.app_dsn, uuid(), uuid(), 5000)
        await sql(database.owner_dsn, "ANALYZE record.ves_commitment_counters")
        ranges = [StreamRange(uuid(), uuid(), 1, 64) for _ in range(64)]
        made = [
            MadeCommitment(*(await a_commitment(journal, r.tenant_id, r.store_id, 64))[:2]) for r in ranges
        ]
        looking = await explain(journal, lambda c: commitments_together.read(c, ranges))

        async def store(connection: Any) -> None:
            with suppress(Undo):  # nothing was stored: it was only explained
                await commitments_together.store(connection, made)

        storing = await explain(journal, store)
    for text in ("\n".join(looking.plan), "\n".join(storing.plan)):
        for table in ("ves_events", "ves_sequence_counters", "ves_commitment_counters"):
            assert f"Seq Scan on {table}" not in text, text


async def test_a_session_has_the_limits_it_was_given(postgres: PostgresWorld) -> None:
    async def settings() -> dict[str, str]:
        async with postgres.pool.acquire() as connection:
            rows = await connection.fetch("SELECT name, setting FROM pg_settings")
            return {row[0]: row[1] for row in rows}

    found = await cross(settings)
    assert found["statement_timeout"] == "3000"
    assert found["lock_timeout"] == "2000"
    assert found["idle_in_transaction_session_timeout"] == "3000"
    assert found["plan_cache_mode"] == "force_custom_plan"
    assert found["search_path"] == "pg_catalog"
    assert found["application_name"] == "through proxy"
    assert found["synchronous_commit"] == "on"


async def test_over_tcp_the_kernel_watches_the_peer(postgres: PostgresWorld) -> None:
    listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
    port = listeners[0].socket.getsockname()[1]
    dsn = f"postgresql://{postgres.dsn.split('//')[1].split('@')[0]}@127.0.0.1:{port}/postgres"

    async def options(journal: PostgresJournal) -> tuple[int, int, int]:
        async with journal._units._pool.acquire() as connection:
            peer = connection._transport.get_extra_info("socket")
            return (
                peer.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE),
                peer.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE),
                peer.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT),
            )

    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.serve_listeners, postgres.proxy.serve, listeners)
        async with open_journal(dsn, node_id=uuid(), limits=LIMITS) as journal:
            assert await cross(lambda: options(journal)) == (1, 10, 20_000)
        nursery.cancel_scope.cancel()


async def test_a_tenant_that_joined_after_the_last_analyze_is_looked_up_by_name_too(
    database: Database,
) -> None:
    newcomer, store = uuid(), uuid()
    wanted = question(newcomer, [store], [an_event() for _ in range(100)])
    async with open_loop(), open_journal(database.app_dsn, node_id=uuid(), limits=LIMITS) as journal:
        for _ in range(4):
            await fill(database.app_dsn, uuid(), uuid(), 15_000)
        await sql(database.owner_dsn, "VACUUM ANALYZE record.ves_events")
        await sql(database.owner_dsn, "ANALYZE record.entity_versions")
        await fill(database.app_dsn, newcomer, store, 3000)
        text = await explain_facts(journal, wanted)
    assert "using ves_events_tenant_id_event_id_key" in text, text
    assert "ves_events_entity" not in text


async def test_a_step_through_a_tenants_events_reads_a_bounded_part_of_its_primary_key(
    database: Database,
) -> None:
    tenant, store = uuid(), uuid()
    key = KeyName(tenant, uuid(), 1)
    async with open_loop(), open_journal(database.app_dsn, node_id=uuid(), limits=LIMITS) as journal:
        for _ in range(3):
            await fill(database.app_dsn, uuid(), uuid(), 5000)
        await fill(database.app_dsn, tenant, store, 20_000)
        await sql(database.owner_dsn, "ANALYZE record.ves_events")
        for after in (None, (store, 10_000)):
            explaining = await explain(
                journal,
                lambda c, after=after: signed_by.read_signed_by(c, key, after, 100, 1000),
            )
            text = "\n".join(explaining.plan)
            assert "Index Scan using ves_events_pkey" in text, text
            assert "ROW(store_id, sequence_number) >" in text, text
            for greedy in ("Seq Scan", "Bitmap"):
                assert greedy not in text, text
            assert merges_and_does_not_sort(explaining.plan), text


def merges_and_does_not_sort(plan: list[str]) -> bool:
    """Events come out of the two tables' indexes in order, and are only merged."""
    sorted_by = [above for above, line in pairwise(plan) if "Sort Key: ves_events" in line]
    return len(sorted_by) == 1 and "Merge Append" in sorted_by[0]


async def archived(owner_dsn: str, tenant: bytes, store: bytes, through: int) -> None:
    """The stream's events up to ``through`` are committed, as far as anybody looks, and archived."""
    who = f"'{tenant.hex()}'::uuid, '{store.hex()}'::uuid"
    old = f"WHERE tenant_id = '{tenant.hex()}' AND sequence_number <= {through}"
    await sql(
        owner_dsn,
        "INSERT INTO record.ves_commitment_counters "
        f"VALUES ({who}, {through}, decode(repeat('00', 32), 'hex'))",
    )
    await sql(
        admin_dsn(owner_dsn),
        "BEGIN",
        f"INSERT INTO record.ves_events_archive SELECT *, now() FROM record.ves_events {old}",
        f"DELETE FROM record.ves_events {old}",
        "COMMIT",
    )


@pytest.mark.parametrize("through", [0, 3000])
async def test_pages_and_facts_go_along_the_indexes_of_both_tables(database: Database, through: int) -> None:
    tenant, store = uuid(), uuid()
    wanted = question(tenant, [store], [an_event() for _ in range(100)])
    async with open_loop(), open_journal(database.app_dsn, node_id=uuid(), limits=LIMITS) as journal:
        await fill(database.app_dsn, tenant, store, 5000)
        if through:
            await archived(database.owner_dsn, tenant, store, through)
        facts = (await explain_facts(journal, wanted)).splitlines()
        page = await explain(journal, lambda c: one_page(c, tenant, store, 2500))
        sources = await explain(
            journal, lambda c: commitments.read_leaf_sources(c, tenant, store, 2500, 2600)
        )
    assert "using ves_events_tenant_id_event_id_key" in "\n".join(facts)
    assert "using ves_events_archive_tenant_id_event_id_key" in "\n".join(facts), "\n".join(facts)
    for plan in (page.plan, sources.plan):
        text = "\n".join(plan)
        assert "using ves_events_pkey" in text, text
        assert "using ves_events_archive_pkey" in text, text
        assert merges_and_does_not_sort(plan), text
    for plan in (facts, page.plan, sources.plan):
        assert not any("Seq Scan" in line or "Bitmap" in line for line in plan), plan


async def one_page(connection: Any, tenant: bytes, store: bytes, start: int) -> None:
    await reads.read_events(connection, tenant, store, start, 100, 1_000_000)


async def test_walking_all_keys_goes_along_their_primary_key(database: Database) -> None:
    async with open_loop(), open_journal(database.app_dsn, node_id=uuid(), limits=LIMITS) as journal:
        await sql(
            database.app_dsn,
            "WITH made AS (INSERT INTO record.agent_public_keys "
            "SELECT decode(lpad(to_hex(n), 64, '0'), 'hex'), gen_random_uuid(), gen_random_uuid() "
            "FROM generate_series(1, 20000) n RETURNING *) "
            "INSERT INTO record.agent_keys SELECT tenant_id, agent_id, 1, 1, NULL, NULL, NULL, now(), "
            "public_key FROM made",
        )
        await sql(database.owner_dsn, "ANALYZE record.agent_keys")
        middle = KeyName(b"\x80" * 16, bytes(16), 0)
        explaining = await explain(journal, lambda c: keys.walk(c, None, middle, 500))
        text = "\n".join(explaining.plan)
        assert "agent_keys_pkey" in text, text
        assert "Seq Scan on agent_keys" not in text, text


async def test_versions_for_a_state_root_are_walked_along_their_key(database: Database) -> None:
    tenant, store = uuid(), uuid()
    async with open_loop(), open_journal(database.app_dsn, node_id=uuid(), limits=LIMITS) as journal:
        await fill(database.app_dsn, tenant, store, 5000)
        explaining = await explain(journal, lambda c: legacy_commitments._state_root(c, tenant, store))
    text = "\n".join(explaining.plan)
    assert "using entity_versions_pkey" in text
    for greedy in ("Seq Scan", "Bitmap", "Sort"):
        assert greedy not in text
