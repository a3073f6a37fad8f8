"""The anchor's journal on PostgreSQL: its login attacked and refused, its lease contended, its lists made
anew, its statements' plans."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from typing import Any

import asyncpg
import msgspec
import pytest
import trio
from anchor_builders import commitments
from anchoring_worlds import CHAIN, CONTRACT, anchor_dsn, anchoring_world
from journal_builders import AUDIT, Database, uuid
from journal_worlds import LIMITS, PostgresWorld, admin_dsn, postgres_world, sql
from test_postgres_attacks import assert_refused
from test_postgres_schema import THE_ANCHORS, a_row_in_every_table, tables

from journal import anchor_reads, anchored
from journal import commitments as commitment_statements
from journal.aio import cross
from journal.anchor_port import Lease
from journal.anchors import open_anchor_journal
from journal.embedded import EmbeddedPostgres, embedded_dsn
from journal.port import Away, JournalAway, JournalRefused, SchemaMismatch, Stored
from journal.postgres import open_journal

ADDED_BY_THE_ANCHOR = {"SELECT", "INSERT"}
GRANTED = {
    **{f"record.{table}": ADDED_BY_THE_ANCHOR for table in THE_ANCHORS},
    "record.anchor_leases": ADDED_BY_THE_ANCHOR | {"UPDATE"},
    "record.schema_migrations": {"SELECT"},
    "record.ves_commitments": {"SELECT"},
    "record.anchor_reports": {"SELECT"},
    "record.restorations": {"SELECT"},
    "record.restoration_confirmations": {"SELECT"},
    "record.audit_log": ADDED_BY_THE_ANCHOR,
    "record.audit_counters": ADDED_BY_THE_ANCHOR | {"UPDATE"},
    "work.anchor_backlog": ADDED_BY_THE_ANCHOR | {"DELETE"},
    "work.open_anchors": ADDED_BY_THE_ANCHOR | {"DELETE"},
    "work.anchor_requests": {"SELECT", "DELETE"},
    "work.anchor_totals": ADDED_BY_THE_ANCHOR | {"UPDATE"},
}


@pytest.fixture
async def common(common_database: Database) -> AsyncIterator[PostgresWorld]:
    async with postgres_world(common_database.app_dsn, common_database.owner_dsn) as world:
        yield world


@pytest.fixture
async def own(database: Database) -> AsyncIterator[PostgresWorld]:
    async with postgres_world(database.app_dsn, database.owner_dsn) as world:
        yield world


# The login.


async def test_the_anchors_login_may_do_exactly_what_it_is_granted(common: PostgresWorld) -> None:
    rows = await sql(
        common.owner_dsn,
        "SELECT n.nspname || '.' || c.relname, array_remove(array_agg(p ORDER BY p), NULL) "
        "FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace LEFT JOIN "
        "unnest('{SELECT,INSERT,UPDATE,DELETE,TRUNCATE,REFERENCES,TRIGGER}'::text[]) p "
        "ON has_table_privilege('sequencer_anchor_login', c.oid, p) "
        "OR (p IN ('SELECT', 'INSERT', 'UPDATE', 'REFERENCES') "
        "AND has_any_column_privilege('sequencer_anchor_login', c.oid, p)) "
        "WHERE n.nspname IN ('record', 'work') AND c.relkind IN ('r', 'p', 'v', 'm') GROUP BY 1",
    )
    found = {name: set(granted) for name, granted in rows}
    assert set(GRANTED) < set(found)
    assert found == {name: GRANTED.get(name, set()) for name in found}
    callable_ = await sql(
        common.owner_dsn,
        "SELECT p.proname FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace "
        "WHERE n.nspname IN ('record', 'work') "
        "AND has_function_privilege('sequencer_anchor_login', p.oid, 'EXECUTE') "
        "AND NOT has_function_privilege('sequencer_reader', p.oid, 'EXECUTE')",
    )
    assert callable_ == []


async def test_whoever_stole_the_anchors_login_reads_no_event_and_changes_nothing(own: PostgresWorld) -> None:
    await a_row_in_every_table(own)
    stolen = anchor_dsn(own.dsn)
    attacks = [
        *(f"SELECT FROM record.{name}" for name in ("ves_events", "ves_events_all", "events", "agent_keys")),
        "SELECT FROM record.api_keys",
        "SET ROLE sequencer_app",
        "SET ROLE sequencer_admin",
        "CREATE TABLE record.mine (x int)",
        "CREATE TABLE work.mine (x int)",
        "CREATE OR REPLACE FUNCTION record.follow_an_anchor() RETURNS trigger LANGUAGE plpgsql "
        "AS 'BEGIN RETURN NULL; END'",
        "ALTER TABLE record.anchors DISABLE TRIGGER ALL",
        "SET session_replication_role = replica",
        "SELECT record.keep('anchors')",
    ]
    columns = await sql(
        own.owner_dsn,
        "SELECT c.relname, min(a.attname) FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid "
        "WHERE c.relnamespace = 'record'::regnamespace AND c.relkind = 'r' AND a.attnum = 1 GROUP BY 1",
    )
    assert len(columns) == len(await tables(own.owner_dsn))
    for table, column in columns:
        granted = GRANTED.get(f"record.{table}", set())
        attacks += [f"DELETE FROM record.{table}", f"TRUNCATE record.{table} CASCADE"]
        if "UPDATE" not in granted:
            attacks.append(f"UPDATE record.{table} SET {column} = {column}")
        if "INSERT" not in granted:
            attacks.append(f"INSERT INTO record.{table} SELECT * FROM record.{table}")
    await assert_refused(stolen, attacks, "42501")


async def test_whoever_stole_the_anchors_login_writes_in_no_servers_audit_chain(own: PostgresWorld) -> None:
    await a_row_in_every_table(own)
    stolen = anchor_dsn(own.dsn)
    [(sequencer_id,), *_] = await sql(own.owner_dsn, "SELECT sequencer_id FROM record.receipt_keys")
    node = sequencer_id.hex()
    await sql(
        own.owner_dsn,
        f"INSERT INTO record.audit_counters VALUES ('{node}', 0, '\\x{'00' * 32}') ON CONFLICT DO NOTHING",
    )
    copied = "entry_number + 1, recorded_at, tenant_id, actor, action, subject, entry, prev_hash, entry_hash"
    columns = copied.replace("entry_number + 1", "entry_number")
    await assert_refused(
        stolen,
        [
            f"UPDATE record.audit_counters SET last_number = last_number + 1 WHERE node_id = '{node}'",
            "UPDATE record.audit_counters SET node_id = gen_random_uuid()",
            f"INSERT INTO record.audit_counters VALUES ('{node}', 0, '\\x{'00' * 32}')",
            f"INSERT INTO record.audit_log (node_id, {columns}) "
            f"SELECT '{node}', {copied} FROM record.audit_log LIMIT 1",
        ],
        "42501",
    )
    async with anchoring_world(own) as anchoring:  # in its own it does
        await anchoring.anchor.audit(AUDIT)


async def test_rows_that_do_not_belong_to_the_backlog_keep_no_commitment_waiting(own: PostgresWorld) -> None:
    """Whoever has the server's login may write there."""
    async with anchoring_world(own) as anchoring:
        lease = await anchoring.claim()
        held, waits = await commitments(anchoring.world, 2)
        await anchoring.planned(lease, [held])
        for batch_id in (uuid(), held.batch_id):
            await sql(
                own.dsn,
                "INSERT INTO work.anchor_backlog VALUES "
                f"('{batch_id.hex()}', '2000-01-01', '{uuid().hex()}', '{uuid().hex()}', 1)",
            )
            await sql(own.dsn, f"INSERT INTO work.anchor_requests VALUES ('{batch_id.hex()}', '2000-01-01')")
            [found] = (await anchoring.anchor.read_backlog(limit=1)).batches
            assert found.commitment == waits
        assert await anchoring.anchor.refill_backlog() == 0
        [(left,)] = await sql(own.owner_dsn, "SELECT batch_id FROM work.anchor_backlog")
        assert left == waits.batch_id


async def test_the_server_reads_anchors_and_writes_none(own: PostgresWorld) -> None:
    await a_row_in_every_table(own)
    await sql(own.dsn, *(f"SELECT FROM record.{table}" for table in THE_ANCHORS))
    attacks = [
        *(f"INSERT INTO record.{table} SELECT * FROM record.{table}" for table in THE_ANCHORS),
        "UPDATE record.anchor_leases SET lease_epoch = 9",
        "DELETE FROM work.open_anchors",
        "UPDATE work.anchor_totals SET batches = 0",
    ]
    await assert_refused(own.dsn, attacks, "42501")


async def opens(dsn: str) -> None:
    async with open_anchor_journal(dsn, holder=uuid(), limits=LIMITS) as journal:
        await journal.read_backlog(limit=1)


async def test_a_login_that_is_not_the_anchors_own_is_refused_with_the_statement_that_helps(
    common: PostgresWorld,
) -> None:
    name = f"anchoring_{secrets.token_hex(4)}"
    dsn = common.owner_dsn.replace("sequencer_owner@", f"{name}@")
    await sql(common.owner_dsn, f"CREATE ROLE {name} LOGIN")
    try:
        for given, told in (
            (None, f"GRANT sequencer_anchor TO {name}"),
            ("GRANT sequencer_anchor, sequencer_app TO {}", f"REVOKE sequencer_app FROM {name}"),
            ("GRANT sequencer_admin TO {}", f"REVOKE sequencer_admin FROM {name}"),
            ("REVOKE sequencer_app, sequencer_admin FROM {}", None),
            ("ALTER ROLE {} SET synchronous_commit = off", f"ALTER ROLE {name} RESET synchronous_commit"),
            ("ALTER ROLE {} CREATEROLE", f"ALTER ROLE {name} NOCREATEROLE"),
        ):
            if given is not None:
                await sql(common.owner_dsn, given.format(name))
            if told is None:
                await opens(dsn)
                continue
            with pytest.raises(JournalRefused) as caught:
                await opens(dsn)
            assert told in str(caught.value)
            assert str(caught.value).startswith(f"the anchor may not work as the database role {name}") or (
                "synchronous_commit" in told
            )
    finally:
        await sql(common.owner_dsn, f"DROP ROLE {name}")
    for login, told in (
        (common.owner_dsn, "SUPERUSER"),
        (common.dsn, "GRANT sequencer_anchor TO sequencer_app_login"),
        (admin_dsn(common.owner_dsn), "REVOKE sequencer_admin FROM sequencer_admin_login"),
    ):
        with pytest.raises(JournalRefused, match=told):
            await opens(login)


def test_the_embedded_database_has_a_login_for_the_anchor(server: EmbeddedPostgres) -> None:
    assert server.anchor_dsn == anchor_dsn(server.app_dsn)
    assert server._cluster is not None
    assert embedded_dsn(server._cluster.root.parent, anchor=True) == server.anchor_dsn


async def test_the_server_refuses_to_work_as_the_anchor(common: PostgresWorld) -> None:
    with pytest.raises(JournalRefused, match="REVOKE sequencer_anchor FROM sequencer_anchor_login"):
        async with open_journal(anchor_dsn(common.dsn), node_id=uuid(), limits=LIMITS, as_server=True):
            pass


async def test_a_schema_that_is_not_this_programs_is_refused(own: PostgresWorld) -> None:
    await sql(
        own.owner_dsn,
        "INSERT INTO record.schema_migrations (version, name, checksum) "
        "SELECT 999, 'next', checksum FROM record.schema_migrations WHERE version = 1",
    )
    with pytest.raises(SchemaMismatch, match="newer"):
        await opens(anchor_dsn(own.dsn))


async def test_a_restored_database_takes_nothing_until_somebody_confirms_it(own: PostgresWorld) -> None:
    async with anchoring_world(own) as anchoring:
        lease = await anchoring.claim()
        [one] = await commitments(own, 1)
        anchor, batches = await anchoring.an_anchor([one])
        restored = uuid()
        await sql(
            own.owner_dsn,
            "INSERT INTO record.restorations "
            f"VALUES ('{restored.hex()}', now(), '{bytes(16).hex()}', 'backup', '')",
        )
        with pytest.raises(JournalRefused, match="sequencer restore confirm"):
            await anchoring.anchor.claim_lease(anchoring.holder, lease_s=60)
        refusal = await anchoring.anchor.plan(lease, anchor, batches)
        assert isinstance(refusal, Away)
        assert "sequencer restore confirm" in refusal.why
        assert (await anchoring.other.read_backlog(limit=1)).waiting == 1
        await sql(
            own.owner_dsn,
            f"INSERT INTO record.restoration_confirmations VALUES ('{restored.hex()}', now(), '', '')",
        )
        lease = await anchoring.claim()
        assert await anchoring.anchor.plan(lease, anchor, batches) == Stored()


# The lease under contention.


async def test_whoever_claims_waits_for_a_write_under_the_lease_before(own: PostgresWorld) -> None:
    async with anchoring_world(own) as anchoring:
        lease = await anchoring.anchor.claim_lease(uuid(), lease_s=0.05)
        assert isinstance(lease, Lease)
        await trio.sleep(0.1)
        writing: Any = await cross(lambda: asyncpg.connect(anchor_dsn(own.dsn)))
        try:
            await cross(lambda: writing.execute("BEGIN; SELECT FROM record.anchor_leases FOR UPDATE"))
            with pytest.raises(JournalAway):  # the lock's timeout: nothing is stored
                await anchoring.other.claim_lease(uuid(), lease_s=60)
            async with trio.open_nursery() as nursery:
                claimed: list[Any] = []

                async def claim() -> None:
                    claimed.append(await anchoring.other.claim_lease(uuid(), lease_s=60))

                nursery.start_soon(claim)
                await trio.sleep(0.2)
                assert claimed == []
                await cross(lambda: writing.execute("COMMIT"))
            assert isinstance(claimed[0], Lease)
            assert claimed[0].epoch == lease.epoch + 1
        finally:
            await cross(writing.close)


# What can be made again.


async def test_lists_and_sums_that_were_lost_are_made_again(own: PostgresWorld) -> None:
    async with anchoring_world(own) as anchoring:
        made = await commitments(own, 3)
        lease = await anchoring.claim()
        await anchoring.finalized(lease, await anchoring.planned(lease, made[:1]))
        assert await own.journal.request_anchor(made[1].batch_id, AUDIT)
        under_way = await anchoring.planned(lease, made[1:2])
        assert await sql(own.owner_dsn, "SELECT FROM work.anchor_requests") == []
        before = await own.journal.anchor_summary()
        assert (before.waiting, before.open_anchors, before.anchored_events) == (1, {"pending": 1}, 2)
        await sql(
            own.owner_dsn,
            "TRUNCATE work.anchor_backlog, work.open_anchors, work.anchor_totals",
            "INSERT INTO work.open_anchors VALUES (1)",
            f"INSERT INTO work.anchor_requests VALUES ('{made[0].batch_id.hex()}', now())",
        )
        lost = await own.journal.anchor_summary()
        assert (lost.waiting, lost.open_anchors, lost.anchored_events) == (0, {"finalized": 1}, 0)
        assert await anchoring.anchor.refill_backlog() == 1
        after = await own.journal.anchor_summary()
        assert after == msgspec.structs.replace(before, now_us=after.now_us)
        assert [one.anchor for one in await anchoring.other.read_open(CHAIN, CONTRACT, limit=9)] == [
            under_way
        ]
        assert await sql(own.owner_dsn, "SELECT FROM work.anchor_requests") == []
        assert await anchoring.anchor.refill_backlog() == 0


# How it is looked up.


async def fill(dsn: str, tenant: bytes, store: bytes, count: int) -> None:
    """So many commitments of a stream, each in a finalized anchor of its own but the last. No statistics, and
    without the sums: one transaction would change their row too often."""
    hash_, address = f"'\\x{bytes(32).hex()}'::bytea", f"'\\x{bytes(20).hex()}'::bytea"
    await sql(
        dsn,
        "INSERT INTO record.ves_commitments (batch_id, tenant_id, store_id, ves_version, tree_depth, "
        "leaf_count, padded_leaf_count, merkle_root, prev_state_root, new_state_root, sequence_start, "
        "sequence_end, committed_at, levels) SELECT gen_random_uuid(), "
        f"'{tenant.hex()}', '{store.hex()}', 1, 0, 1, 1, {hash_}, {hash_}, {hash_}, n, n, now(), {hash_} "
        f"FROM generate_series(1, {count}) n",
        f"INSERT INTO record.anchors SELECT sequence_start, 1, {address}, 'aggregate', 1, 1, committed_at, "
        f"{hash_}, sequence_start, {hash_}, now(), 1 FROM record.ves_commitments "
        f"WHERE sequence_start < {count}",
        f"INSERT INTO record.anchor_batches SELECT batch_id, sequence_start, 0, {hash_} "
        f"FROM record.ves_commitments WHERE sequence_start < {count}",
        f"INSERT INTO record.anchor_transactions SELECT 1, {address}, anchor_number, 1, anchor_number, "
        "'anchor', sha256(anchor_number::text::bytea), '', 1, 1, 1, now(), 1 FROM record.anchors",
        "ALTER TABLE record.anchor_transitions DISABLE TRIGGER follow_an_anchor",
        "INSERT INTO record.anchor_transitions SELECT anchor_number, 1, 'finalized', NULL, tx_hash, 1, "
        f"{hash_}, 1, 1, now(), 1 FROM record.anchor_transactions",
        f"DELETE FROM work.anchor_backlog WHERE sequence_start < {count}",
    )


class Planned(Exception):
    """Instead of a row."""


class Explaining:
    """A connection that plans and never runs."""

    def __init__(self, connection: Any) -> None:
        self._connection = connection
        self.plan = ""

    async def fetch(self, statement: str, *arguments: Any) -> list[Any]:
        rows = await self._connection.fetch(f"EXPLAIN {statement}", *arguments)
        self.plan += "\n".join(row[0] for row in rows)
        return []

    async def fetchrow(self, statement: str, *arguments: Any) -> None:
        await self.fetch(statement, *arguments)
        raise Planned

    fetchval = fetchrow


async def plan_of(world: PostgresWorld, act: Callable[[Any], Awaitable[Any]]) -> str:
    async def run() -> str:
        async with world.pool.acquire() as connection:
            explaining = Explaining(connection)
            with suppress(Planned):
                await act(explaining)
            return explaining.plan

    plan = await cross(run)
    assert "Index" in plan
    return plan


async def test_nothing_reads_all_anchors_or_all_commitments(own: PostgresWorld) -> None:
    tenant, store = uuid(), uuid()
    await fill(own.owner_dsn, tenant, store, 3000)
    account = (1, bytes(20), bytes(20))
    statements: list[Any] = [
        anchored.summary,
        lambda c: anchored.list_pending(c, 100),
        lambda c: anchored.read_anchors(c, [uuid() for _ in range(100)]),
        lambda c: anchored.read_evidence(c, uuid()),
        lambda c: anchor_reads.standing(c, *account),
        lambda c: anchor_reads.read_newest_finalized(c, *account[:2]),
        lambda c: anchor_reads.read_backlog(c, 100),
        lambda c: anchor_reads.spent_since(c, *account[:2], 1 << 50),
        lambda c: anchor_reads.read_transactions(c, *account[:2], 5, 100),
        *(
            lambda c, anchored=anchored: commitment_statements.list_page(c, tenant, store, 1, 50, anchored)
            for anchored in (True, False, None)
        ),
    ]
    for number, act in enumerate(statements):
        plan = await plan_of(own, act)
        for greedy in (
            "anchors",
            "anchor_batches",
            "anchor_transactions",
            "anchor_transitions",
            "ves_commitments",
        ):
            assert f"Seq Scan on {greedy}" not in plan, (number, plan)


@pytest.mark.slow
async def test_many_thousand_commitments_cost_the_doors_no_more(own: PostgresWorld) -> None:
    tenant, store = uuid(), uuid()
    await fill(own.owner_dsn, tenant, store, 30_000)
    async with open_anchor_journal(anchor_dsn(own.dsn), holder=uuid()) as anchor:
        assert await anchor.refill_backlog() == 0
    with trio.fail_after(1.0):
        for _ in range(10):
            told = await own.journal.anchor_summary()
            page = await own.journal.list_commitments(tenant, store, from_sequence=1, limit=9, anchored=False)
            pending = await own.journal.list_pending_anchors(limit=1000)
    assert (told.waiting, told.anchored_batches, told.gas_used) == (1, 29_999, 29_999)
    assert [one.sequence_start for one in page.commitments] == [30_000]
    assert len(pending) == 1
