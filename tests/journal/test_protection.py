"""What the migrations make is on file, and every way to tamper with it is seen."""

from __future__ import annotations

import os
from pathlib import Path

import asyncpg
import pytest
from journal_builders import Database
from journal_worlds import sql

from journal import protection
from journal.aio import cross, open_loop
from journal.connections import Limits, make_pool
from journal.embedded import EmbeddedPostgres
from journal.protection import Differences, differences, expected, read_protection

FILE = Path(protection.__file__).with_name("protection.txt")
HEADER = """# What the migrations make: journal/protection.py reads a database like this. After a new step:
# WRITE_PROTECTION=1 python -m pytest tests/journal/test_protection.py -k on_file
"""


async def look(dsn: str) -> Differences:
    async def run() -> Differences:
        async with make_pool(dsn, Limits(), application_name="t") as pool, pool.acquire() as connection:
            return await differences(connection)

    return await cross(run)


async def test_what_the_migrations_make_is_on_file(database: Database) -> None:
    async def run() -> list[str]:
        async with make_pool(database.app_dsn, Limits(), application_name="t") as pool, pool.acquire() as c:
            return await read_protection(c)

    async with open_loop():
        found = await cross(run)
    if os.environ.get("WRITE_PROTECTION"):
        FILE.write_text(HEADER + "".join(line + "\n" for line in found))
        expected.cache_clear()
    assert found == sorted(expected())


TAMPERING = {
    "a trigger switched off": (
        "ALTER TABLE record.ves_events DISABLE TRIGGER append_only_delete",
        "trigger D CREATE TRIGGER append_only_delete BEFORE DELETE ON record.ves_events",
    ),
    "a trigger made ordinary": (
        "ALTER TABLE record.audit_log ENABLE TRIGGER append_only_update",
        "trigger O CREATE TRIGGER append_only_update BEFORE UPDATE ON record.audit_log",
    ),
    "a trigger of one's own": (
        "CREATE FUNCTION public.mine() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END'; "
        "CREATE TRIGGER aaa BEFORE INSERT ON record.audit_log FOR EACH ROW EXECUTE FUNCTION public.mine()",
        "trigger O CREATE TRIGGER aaa BEFORE INSERT ON record.audit_log",
    ),
    "a function rewritten": (
        "CREATE OR REPLACE FUNCTION record.is_admin() RETURNS boolean LANGUAGE sql STABLE "
        "SET search_path = pg_catalog, pg_temp AS 'SELECT true'",
        "function record.is_admin sql s search_path=pg_catalog, pg_temp ",
    ),
    "a function's path": (
        "ALTER FUNCTION record.is_admin() RESET search_path",
        "function record.is_admin sql s no settings",
    ),
    "a right given": (
        "GRANT DELETE ON record.ves_events TO sequencer_app",
        "grant table record.ves_events to sequencer_app: DELETE INSERT SELECT",
    ),
    "a right of a column": (
        "GRANT UPDATE (entity_id) ON record.ves_events TO sequencer_admin",
        "grant column record.ves_events.entity_id to sequencer_admin: UPDATE",
    ),
    "a right for everybody": (
        "GRANT EXECUTE ON FUNCTION record.keep TO PUBLIC",
        "grant function record.keep to PUBLIC: EXECUTE",
    ),
    "a schema opened": (
        "GRANT CREATE ON SCHEMA record TO sequencer_app",
        "grant schema record to sequencer_app: CREATE USAGE",
    ),
    "a rule": (
        "CREATE RULE quiet AS ON INSERT TO record.audit_log DO INSTEAD NOTHING",
        "rule record.audit_log quiet",
    ),
    "row security": (
        "ALTER TABLE record.ves_events ENABLE ROW LEVEL SECURITY",
        "row security on record.ves_events",
    ),
    "a child": (
        "CREATE TABLE public.child () INHERITS (record.ves_events)",
        "inherits from record.ves_events: ",
    ),
    "a foreign key switched off": (
        "ALTER TABLE record.agent_keys DISABLE TRIGGER ALL",
        "foreign key not enforced on record.agent_keys",
    ),
    "another owner": (
        "ALTER TABLE record.ves_events OWNER TO sequencer_admin",
        "another owner than its schema's: record.ves_events",
    ),
}


@pytest.mark.parametrize("how", TAMPERING)
async def test_tampering_is_seen(how: str, server: EmbeddedPostgres) -> None:
    statements, line = TAMPERING[how]

    async def run() -> Differences:
        connection = await asyncpg.connect(server.owner_dsn)
        try:
            await connection.execute(f"BEGIN; {statements}")
            return await differences(connection)
        finally:
            await connection.close()  # nothing of it stays

    async with open_loop():
        assert any(added.startswith(line) for added in (await cross(run)).added)


async def test_what_is_gone_is_seen(database: Database) -> None:
    async with open_loop():
        await sql(
            database.owner_dsn,
            "DROP TRIGGER append_only_truncate ON record.audit_log",
            "ALTER TABLE record.ves_events DROP CONSTRAINT ves_events_names",
            "REVOKE INSERT ON record.audit_log FROM sequencer_app",
        )
        missing = (await look(database.app_dsn)).missing
    assert [line.partition(" (")[0].partition(" ON ")[0] for line in missing] == [
        "constraint record.ves_events ves_events_names CHECK",
        "grant table record.audit_log to sequencer_app: INSERT SELECT",
        "trigger A CREATE TRIGGER append_only_truncate BEFORE TRUNCATE",
    ]


@pytest.mark.parametrize("count", [1, 3])
async def test_what_a_retirement_makes_is_no_difference_and_its_loss_is(
    count: int, database: Database
) -> None:
    keys = [os.urandom(8).hex() for _ in range(count)]
    tables = ("ves_events", "ves_events_archive", "events", "events_archive", "ves_validity_proofs")
    listed = ", ".join(rf"'\x{key}'::bytea" for key in keys)
    async with open_loop():
        for table in tables:
            await sql(database.owner_dsn, f"SELECT record.forbid_at_rest_keys('{table}', ARRAY[{listed}])")
        assert len((await look(database.app_dsn)).added) == len(tables), "not recorded: nobody retired them"
        for key in keys:
            await sql(
                database.owner_dsn,
                rf"INSERT INTO record.at_rest_key_retirements (key_id, retired_at) VALUES ('\x{key}', now())",
            )
        assert await look(database.app_dsn) == Differences([], [])
        await sql(database.owner_dsn, "DROP TRIGGER retired_keys ON record.events")
        [gone] = (await look(database.app_dsn)).missing
    assert gone.startswith("trigger A CREATE TRIGGER retired_keys AFTER INSERT OR UPDATE ON record.events ")


async def test_a_role_that_may_log_in_is_seen(database: Database) -> None:
    """Roles are the whole server's, so this one goes back at once."""
    async with open_loop():
        await sql(database.owner_dsn, "ALTER ROLE sequencer_reader LOGIN")
        try:
            assert "role sequencer_reader LOGIN" in (await look(database.app_dsn)).added
        finally:
            await sql(database.owner_dsn, "ALTER ROLE sequencer_reader NOLOGIN")
