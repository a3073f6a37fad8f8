"""The schema defended by the database itself, attacked as every role, and the migrations that make it."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
from pathlib import Path
from typing import Any

import asyncpg
import msgspec
import pytest
import trio
from journal_builders import (
    AUDIT,
    Database,
    a_commitment,
    a_schema,
    an_agent_key,
    an_api_key,
    an_event,
    decided,
    uuid,
)
from journal_worlds import PostgresWorld, admin_dsn, sql

from journal import migrate as migrations_room
from journal.aio import cross, open_loop
from journal.embedded_cluster import EMBEDDED_LOGINS
from journal.migrate import migrate, migrations
from journal.port import JournalAway, KeyRotation, SchemaMismatch
from journal.postgres import UnfitServer, open_journal
from ves.audit import next_audit_commitment

IN_PLACE = {
    "ves_sequence_counters",
    "ves_commitment_counters",
    "api_key_revocation_counters",
    "audit_counters",
    "policy_change_counters",
    "sequence_counters",
    "entity_versions",
    "tenant_epochs",
    "anchor_leases",
}
THE_ANCHORS = {
    "anchors",
    "anchor_batches",
    "anchor_transactions",
    "anchor_transitions",
    "anchor_inclusions",
    "anchor_resumptions",
    "anchor_leases",
}
NOT_THE_SERVERS = {"schema_migrations", "events_archive", "ves_events_archive"} | THE_ANCHORS
"""It only reads them."""


async def tables(dsn: str) -> list[str]:
    rows = await sql(dsn, "SELECT tablename FROM pg_tables WHERE schemaname = 'record' ORDER BY 1")
    return [row[0] for row in rows]


async def refused(dsn: str, *statements: str) -> str:
    """The SQLSTATE with which the last statement is refused."""
    with pytest.raises(asyncpg.PostgresError) as caught:
        await sql(dsn, *statements)
    return str(caught.value.sqlstate)


async def a_row_in_every_table(world: PostgresWorld) -> None:
    tenant, store = uuid(), uuid()
    await world.journal.append(
        await decided(world.journal, tenant, store, an_event(command=uuid()), an_event())
    )
    commitment, levels, believed = await a_commitment(world.journal, tenant, store, 1)
    await world.journal.commit(commitment, levels=levels, believed_through=believed)
    key = msgspec.structs.replace(an_agent_key(tenant), proof=b"p" * 64)
    await world.journal.register_agent_key(key, AUDIT)
    successor = an_agent_key(tenant, agent=key.name.agent_id, key_id=2)
    await world.journal.rotate_agent_key(KeyRotation(successor, 1, 60), AUDIT)
    await world.journal.revoke_agent_key(key.name, "lost", AUDIT)
    api_key = await world.journal.create_api_key(an_api_key(tenant), AUDIT)
    await world.journal.revoke_api_key(api_key.id, tenant_id=None, audit=AUDIT)
    await world.journal.create_schema(a_schema(tenant), believed_stamp=0, audit=AUDIT)
    await world.journal.set_policy(tenant, entity_types=("order",), schema_mode="warn", audit=AUDIT)
    await world.journal.set_regions(tenant, regions=("eu-west-1",), audit=AUDIT)
    await world.journal.revoke_tokens(tenant, uuid(), ahead_s=60, reason="lost", audit=AUDIT)
    await world.journal.claim_receipt_key(uuid(), b"k" * 32)
    if not await sql(world.owner_dsn, "SELECT FROM record.at_rest_keys"):
        await world.journal.claim_at_rest_keys([b"k" * 8], {tenant: [b"k" * 8]})
    [[key_id]] = await sql(world.owner_dsn, "SELECT min(key_id) FROM record.at_rest_keys")
    await world.journal.retire_at_rest_key(key_id, AUDIT)
    await an_anchor(world.owner_dsn, commitment.batch_id)
    await a_legacy_row_and_archived_rows(world.owner_dsn, tenant, store, commitment.batch_id)
    node = world.journal._node_id  # type: ignore[attr-defined]
    [entry, *_] = await world.journal.read_audit_chain(node, from_number=1, limit=1)
    await world.journal.commit_audit(
        next_audit_commitment(
            node,
            entry_start=1,
            entry_hashes=[entry.entry_hash],
            prev_state_root=bytes(32),
            committed_at_us=0,
        )
    )


async def an_anchor(owner_dsn: str, batch: bytes) -> None:
    """And a report of the same batch, which only an owner can write."""
    [[number]] = await sql(owner_dsn, "SELECT coalesce(max(anchor_number), 0) + 1 FROM record.anchors")
    tx_hash, zeros, contract = (
        f"'\\x{os.urandom(32).hex()}'",
        f"'\\x{bytes(32).hex()}'",
        f"'\\x{bytes(20).hex()}'",
    )
    await sql(
        owner_dsn,
        "INSERT INTO record.anchor_leases VALUES (true, gen_random_uuid(), 1, now()) ON CONFLICT DO NOTHING",
        f"INSERT INTO record.anchors VALUES ({number}, 1, {contract}, 'single', 1, 1, now(), {zeros}, NULL, "
        "NULL, now(), 1)",
        f"INSERT INTO record.anchor_batches VALUES ('{batch.hex()}', {number}, 0, {zeros})",
        f"INSERT INTO record.anchor_transactions VALUES (1, {contract}, {number}, 1, {number}, 'anchor', "
        f"{tx_hash}, '', 1, 1, 1, now(), 1)",
        f"INSERT INTO record.anchor_transitions VALUES ({number}, 1, 'pending', 'planned', NULL, NULL, NULL, "
        "NULL, NULL, now(), 1)",
        f"INSERT INTO record.anchor_inclusions VALUES ({number}, {zeros}, {tx_hash}, 1, '', 0, '', '{{}}')",
        "INSERT INTO record.anchor_resumptions SELECT coalesce(max(resumption_number), 0) + 1, 1, "
        f"{contract}, {contract}, 0, 0, {zeros}, now(), '' FROM record.anchor_resumptions",
        f"INSERT INTO record.anchor_reports VALUES ('{batch.hex()}', 1, {tx_hash}, NULL, now(), 'cli')",
    )


async def a_legacy_row_and_archived_rows(owner_dsn: str, tenant: bytes, store: bytes, batch: bytes) -> None:
    stream = f"'{tenant.hex()}'::uuid, '{store.hex()}'::uuid"
    hash_ = f"'\\x{bytes(32).hex()}'::bytea"
    await sql(
        owner_dsn,
        f"INSERT INTO record.sequence_counters VALUES ({stream}, 1, now())",
        f"INSERT INTO record.events SELECT n, now(), now(), NULL, {stream}, gen_random_uuid(), "
        f"gen_random_uuid(), NULL, 'order', '1', 'made', {hash_}, NULL, '{{}}' FROM generate_series(1, 2) n",
        f"INSERT INTO record.event_command_dedupe VALUES ({stream}, gen_random_uuid(), gen_random_uuid())",
        f"INSERT INTO record.batch_commitments VALUES (gen_random_uuid(), {stream}, 1, 1, 1, now(), "
        f"{hash_}, {hash_}, {hash_}, {hash_})",
        f"INSERT INTO record.restorations VALUES ('{batch.hex()}', now(), '{tenant.hex()}', 'backup', '')",
        f"INSERT INTO record.restoration_confirmations VALUES ('{batch.hex()}', now(), '', '')",
        f"INSERT INTO record.voided_numbers VALUES ({stream}, 9, 9, now(), '{batch.hex()}')",
        f"INSERT INTO record.ves_validity_proofs VALUES (gen_random_uuid(), '{batch.hex()}', {stream}, "
        f"now(), 1, 'other', {hash_}, NULL, 'proof')",
    )
    mine = f"WHERE tenant_id = '{tenant.hex()}' AND sequence_number = 1"
    await sql(
        admin_dsn(owner_dsn),
        "BEGIN",
        f"INSERT INTO record.events_archive SELECT *, now() FROM record.events {mine}",
        f"DELETE FROM record.events {mine}",
        f"INSERT INTO record.ves_events_archive SELECT *, now() FROM record.ves_events {mine}",
        f"DELETE FROM record.ves_events {mine}",
        "COMMIT",
    )


async def test_nobody_changes_or_removes_a_recorded_row_not_even_the_owner(postgres: PostgresWorld) -> None:
    await a_row_in_every_table(postgres)
    for table in await tables(postgres.owner_dsn):
        [[rows]] = await sql(postgres.owner_dsn, f"SELECT count(*) FROM record.{table}")
        assert rows, table
        [[column]] = await sql(
            postgres.owner_dsn,
            "SELECT attname FROM pg_attribute WHERE attnum > 0 AND NOT attisdropped "
            f"AND attrelid = 'record.{table}'::regclass ORDER BY attnum LIMIT 1",
        )
        for ours in (postgres.owner_dsn, postgres.dsn):
            expected = "23001" if ours is postgres.owner_dsn else "42501"
            assert await refused(ours, f"DELETE FROM record.{table}") == expected, table
            assert await refused(ours, f"TRUNCATE record.{table} CASCADE") == expected, table
            if table not in IN_PLACE:
                update = f"UPDATE record.{table} SET {column} = {column}"
                assert await refused(ours, update) == expected, table
        # The trick that silences ordinary triggers.
        quiet = "SET session_replication_role = replica"
        assert await refused(postgres.owner_dsn, quiet, f"DELETE FROM record.{table}") == "23001", table


async def test_the_application_may_do_exactly_what_it_is_granted(postgres: PostgresWorld) -> None:
    for table in await tables(postgres.owner_dsn):
        granted = {
            row[0]
            for row in await sql(
                postgres.owner_dsn,
                "SELECT p FROM unnest('{SELECT,INSERT,UPDATE,DELETE,TRUNCATE,REFERENCES,TRIGGER}'::text[]) p "
                f"WHERE has_table_privilege('sequencer_app', 'record.{table}', p)",
            )
        }
        expected = {"SELECT", "INSERT"} | ({"UPDATE"} if table in IN_PLACE else set())
        assert granted == ({"SELECT"} if table in NOT_THE_SERVERS else expected), table
        reader = await sql(
            postgres.owner_dsn,
            f"SELECT has_table_privilege('sequencer_reader', 'record.{table}', 'SELECT'), "
            f"has_table_privilege('sequencer_reader', 'record.{table}', 'INSERT, UPDATE, DELETE, TRUNCATE')",
        )
        assert tuple(reader[0]) == (True, False), table
    for attack in (
        "ALTER TABLE record.ves_events DISABLE TRIGGER ALL",
        "DROP TABLE record.ves_events",
        "CREATE TABLE record.mine (x int)",
        "CREATE OR REPLACE FUNCTION record.refuse_change() RETURNS trigger LANGUAGE plpgsql "
        "AS 'BEGIN RETURN OLD; END'",
        "SET session_replication_role = replica",
        "SET ROLE sequencer_admin",
    ):
        assert await refused(postgres.dsn, attack) == "42501", attack


async def test_only_an_explicit_member_of_the_admin_role_may_seal_a_payload_anew_and_nothing_else(
    postgres: PostgresWorld,
) -> None:
    tenant, store, event = uuid(), uuid(), an_event()
    await postgres.journal.append(await decided(postgres.journal, tenant, store, event))
    where = f"WHERE tenant_id = '{tenant.hex()}'"
    reseal = f"UPDATE record.ves_events SET payload_sealed = '\\x00ff' {where}"
    login = f"resealer_{tenant.hex()[:8]}"
    await sql(postgres.owner_dsn, f"CREATE ROLE {login} LOGIN IN ROLE sequencer_admin")
    admin = postgres.owner_dsn.replace("sequencer_owner@", f"{login}@")
    try:
        assert await refused(postgres.owner_dsn, reseal) == "23001"
        assert await refused(postgres.owner_dsn, "SET ROLE sequencer_admin", reseal) == "23001"
        assert await refused(postgres.dsn, reseal) == "42501"
        for other in ("event_type = 'x'", "payload_sealed = '\\x01', sequence_number = 7"):
            assert await refused(admin, f"UPDATE record.ves_events SET {other} {where}") == "42501"
        assert await refused(admin, f"DELETE FROM record.ves_events {where}") == "23001"
        await sql(postgres.owner_dsn, f"GRANT UPDATE ON record.ves_events TO {login}")
        for other in ("event_type = 'x'", "payload_sealed = '\\x01', sequence_number = 7"):
            assert await refused(admin, f"UPDATE record.ves_events SET {other} {where}") == "23001"
        await sql(admin, reseal)
        found = await postgres.journal.read_event(tenant, event.event_id, store_ids=None)
        assert found is not None
        assert found.payload_sealed == b"\x00\xff"
    finally:
        await sql(postgres.owner_dsn, f"DROP OWNED BY {login}", f"DROP ROLE {login}")


async def test_the_audit_chain_of_a_node_can_be_checked_with_the_table_alone(postgres: PostgresWorld) -> None:
    async with trio.open_nursery() as nursery:
        for _ in range(6):
            nursery.start_soon(postgres.journal.audit, AUDIT)
            nursery.start_soon(postgres.journal.register_agent_key, an_agent_key(uuid()), AUDIT)
            nursery.start_soon(postgres.other.audit, AUDIT)
    key = an_agent_key(uuid())
    for _ in range(2):
        await postgres.journal.register_agent_key(key, AUDIT)  # the second changes nothing: no entry
    node = postgres.journal._node_id  # type: ignore[attr-defined]
    rows = await sql(
        postgres.dsn,
        "SELECT entry_number, entry, prev_hash, entry_hash, actor FROM record.audit_log "
        f"WHERE node_id = '{node.hex()}' ORDER BY entry_number",
    )
    assert [row[0] for row in rows] == list(range(1, 14))
    previous = bytes(32)
    for number, entry, prev_hash, entry_hash, actor in rows:
        assert prev_hash == previous
        previous = hashlib.sha256(b"VES_AUDIT_ENTRY_V1" + previous + entry.encode()).digest()
        assert entry_hash == previous
        told = json.loads(entry)
        assert (told["number"], told["actor"], told["details"]) == (number, actor, AUDIT.details)


# Migrations.


async def test_migrating_again_does_nothing_and_twice_at_once_does_it_once(empty_database: Database) -> None:
    done: list[list[str]] = []

    async def one() -> None:
        done.append(await migrate(empty_database.owner_dsn, EMBEDDED_LOGINS))

    async with open_loop():
        async with trio.open_nursery() as nursery:
            for _ in range(3):
                nursery.start_soon(one)
        # Each step once, whoever of the three took it.
        assert sorted(name for names in done for name in names) == sorted(m.name for m in migrations())
        assert await migrate(empty_database.owner_dsn) == []
        rows = await sql(
            empty_database.app_dsn, "SELECT version, name, checksum FROM record.schema_migrations"
        )
        assert [tuple(row) for row in rows] == [(m.version, m.name, m.checksum) for m in migrations()]


async def opens(database: Database) -> None:
    async with open_journal(database.app_dsn, node_id=uuid()) as journal:
        await journal.ping()


async def test_a_schema_that_is_missing_older_newer_or_edited_is_refused_with_the_remedy(
    empty_database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    database = empty_database
    async with open_loop():
        with pytest.raises(SchemaMismatch, match="sequencer migrate"):
            await opens(database)
        await migrate(database.owner_dsn)
        await opens(database)
        step = migrations()[-1]._replace(version=len(migrations()) + 1, name="next", sql="SELECT 1")
        with monkeypatch.context() as newer_program:
            newer_program.setattr(migrations_room, "migrations", lambda: (*migrations(), step))
            with pytest.raises(SchemaMismatch, match="sequencer migrate"):
                await opens(database)
            assert await migrate(database.owner_dsn) == ["next"]
            await opens(database)
        for attempt in (opens(database), migrate(database.owner_dsn)):
            with pytest.raises(SchemaMismatch, match="newer"):
                await attempt
    async with open_loop():
        with monkeypatch.context() as edited:
            known = (migrations()[0]._replace(checksum=b"e" * 32), *migrations()[1:], step)
            edited.setattr(migrations_room, "migrations", lambda: known)
            for attempt in (opens(database), migrate(database.owner_dsn)):
                with pytest.raises(SchemaMismatch, match="another text"):
                    await attempt


async def test_a_migration_that_fails_leaves_nothing_behind(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = migrations()[-1]._replace(
        version=len(migrations()) + 1, sql="CREATE TABLE record.half (x int); SELECT 1/0"
    )
    monkeypatch.setattr(migrations_room, "migrations", lambda: (*migrations(), broken))
    async with open_loop():
        with pytest.raises(asyncpg.DivisionByZeroError):
            await migrate(database.owner_dsn)
        assert "half" not in await tables(database.owner_dsn)
        monkeypatch.undo()
        await opens(database)


async def test_a_login_that_may_not_create_roles_is_told_what_is_missing(empty_database: Database) -> None:
    owner = empty_database.owner_dsn
    name = owner.rpartition("/")[2].partition("?")[0]
    login = f"humble_{name}"
    humble = owner.replace("sequencer_owner@", f"{login}@")
    async with open_loop():
        await sql(owner, f"CREATE ROLE {login} LOGIN", f"GRANT CREATE ON DATABASE {name} TO {login}")
        try:
            await sql(owner, "ALTER ROLE sequencer_reader RENAME TO hidden_reader")
            try:
                with pytest.raises(SchemaMismatch, match="CREATEROLE"):
                    await migrate(humble)
            finally:
                await sql(owner, "ALTER ROLE hidden_reader RENAME TO sequencer_reader")
            assert await migrate(humble) == [m.name for m in migrations()]
        finally:
            await sql(owner, f"DROP OWNED BY {login} CASCADE", f"DROP ROLE {login}")


async def test_a_login_outside_the_application_role_is_told_to_join_it(database: Database) -> None:
    login = f"stranger_{uuid().hex()[:8]}"
    dsn = database.owner_dsn.replace("sequencer_owner@", f"{login}@")
    async with open_loop():
        await sql(database.owner_dsn, f"CREATE ROLE {login} LOGIN")
        try:
            with pytest.raises(SchemaMismatch, match="GRANT sequencer_app"):
                await opens(Database(database.owner_dsn, dsn))
        finally:
            await sql(database.owner_dsn, f"DROP ROLE {login}")


async def test_a_server_that_may_lose_what_it_acknowledged_is_refused(database: Database) -> None:
    async with open_loop():
        name = (await sql(database.app_dsn, "SELECT current_database()"))[0][0]
        await sql(database.owner_dsn, f"ALTER DATABASE {name} SET synchronous_commit = off")
        with pytest.raises(UnfitServer, match="synchronous_commit"):
            await opens(database)


async def test_a_database_that_is_not_there_is_away(tmp_path: Path) -> None:
    dsn = f"postgresql://nobody@/postgres?host={tmp_path}"
    async with open_loop():
        for attempt in (opens(Database(dsn, dsn)), migrate(dsn)):
            with pytest.raises(JournalAway):
                await attempt


async def test_a_stray_failure_on_the_asyncio_side_is_counted_and_takes_nothing_down() -> None:
    async def leave_a_stray() -> Any:
        asyncio.get_running_loop().call_soon(lambda: 1 / 0)
        await asyncio.sleep(0)

    async with open_loop() as strays:
        await cross(leave_a_stray)
        await cross(leave_a_stray)
        assert strays.count == 2
