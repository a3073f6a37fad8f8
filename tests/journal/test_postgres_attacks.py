"""The database attacked with stolen logins, and with rights that were granted by mistake."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator

import asyncpg
import pytest
from journal_builders import Database
from journal_worlds import PostgresWorld, postgres_world, sql
from test_postgres_schema import IN_PLACE, a_row_in_every_table, refused, tables

from journal.aio import cross

SHADOWS = (
    "CREATE TEMP TABLE pg_roles AS SELECT 1::oid AS oid, r.rolname FROM "
    "(VALUES ('sequencer_admin'::name), (session_user::name)) r (rolname)",
    "CREATE TEMP TABLE pg_auth_members AS SELECT 1::oid AS roleid, 1::oid AS member, true AS inherit_option",
)
"""Says that everybody is an administrator, to whoever looks into pg_temp first."""
MISTAKE = "GRANT ALL ON ALL TABLES IN SCHEMA record TO sequencer_app, sequencer_reader, sequencer_admin"


@pytest.fixture
async def world(database: Database) -> AsyncIterator[PostgresWorld]:
    """A database of its own with a row in every table; what is granted here counts here only."""
    async with postgres_world(database.app_dsn, database.owner_dsn) as world:
        await a_row_in_every_table(world)
        yield world


@pytest.fixture
async def reader(world: PostgresWorld) -> AsyncIterator[str]:
    async for dsn in a_login(world, "sequencer_reader"):
        yield dsn


@pytest.fixture
async def admin(world: PostgresWorld) -> AsyncIterator[str]:
    async for dsn in a_login(world, "sequencer_admin"):
        yield dsn


async def a_login(world: PostgresWorld, role: str) -> AsyncIterator[str]:
    name = f"thief_{secrets.token_hex(4)}"
    await sql(world.owner_dsn, f"CREATE ROLE {name} LOGIN IN ROLE {role}")
    try:
        yield world.owner_dsn.replace("sequencer_owner@", f"{name}@")
    finally:
        await sql(world.owner_dsn, f"DROP OWNED BY {name} CASCADE", f"DROP ROLE {name}")


async def assert_refused(dsn: str, attacks: list[str], *codes: str) -> None:
    """Each in one session, with one of these SQLSTATEs."""

    async def run() -> None:
        connection = await asyncpg.connect(dsn)
        try:
            for attack in attacks:
                with pytest.raises(asyncpg.PostgresError) as caught:
                    await connection.execute(attack)
                assert caught.value.sqlstate in codes, (attack, caught.value)
        finally:
            await connection.close()

    await cross(run)


async def contents(world: PostgresWorld) -> dict[str, str]:
    """A digest of every table whose rows must not change."""
    digest = "SELECT '{0}', md5(string_agg(t::text, E'\\n' ORDER BY t::text)) FROM record.{0} t"
    query = " UNION ALL ".join(digest.format(table) for table in await tables(world.owner_dsn))
    return dict(await sql(world.owner_dsn, query))


async def key_of(world: PostgresWorld, table: str) -> tuple[str, str]:
    """The columns of the primary key, and one that is not in it (or is, where there is no other)."""
    rows = await sql(
        world.owner_dsn,
        "SELECT a.attname, a.attnum = ANY (i.indkey) FROM pg_index i "
        f"JOIN pg_attribute a ON a.attrelid = i.indrelid WHERE i.indrelid = 'record.{table}'::regclass "
        "AND i.indisprimary AND a.attnum > 0 AND NOT a.attisdropped ORDER BY a.attnum",
    )
    key = ", ".join(f'"{name}"' for name, is_key in rows if is_key)
    other = next((name for name, is_key in rows if not is_key), rows[0][0])
    return key, other


async def test_rights_granted_by_mistake_let_nobody_change_what_is_recorded(
    world: PostgresWorld, reader: str
) -> None:
    await sql(world.owner_dsn, MISTAKE)
    before = await contents(world)
    attacks: list[str] = []
    for table in await tables(world.owner_dsn):
        key, other = await key_of(world, table)
        on_key = " AND ".join(f"t.{column} = s.{column}" for column in key.split(", "))
        removals = [
            f"DELETE FROM record.{table}",
            f"WITH gone AS (DELETE FROM record.{table} RETURNING 1) SELECT count(*) FROM gone",
            f"TRUNCATE record.{table} CASCADE",
            f"MERGE INTO record.{table} t USING record.{table} s ON {on_key} WHEN MATCHED THEN DELETE",
        ]
        changes = [
            f"UPDATE record.{table} SET {other} = {other}",
            f"MERGE INTO record.{table} t USING record.{table} s ON {on_key} "
            f"WHEN MATCHED THEN UPDATE SET {other} = s.{other}",
            f"INSERT INTO record.{table} SELECT * FROM record.{table} "
            f"ON CONFLICT ({key}) DO UPDATE SET {other} = EXCLUDED.{other}",
        ]
        attacks += removals + ([] if table in IN_PLACE else changes)
    await assert_refused(world.dsn, attacks, "23001")
    await assert_refused(reader, attacks, "23001")
    view = "CREATE TEMP VIEW mine AS SELECT * FROM record.audit_log"
    assert await refused(world.dsn, view, "DELETE FROM mine") == "23001"
    assert await contents(world) == before


async def test_tables_of_ones_own_make_nobody_an_administrator(world: PostgresWorld, reader: str) -> None:
    await sql(world.owner_dsn, MISTAKE)
    assert await sql(world.dsn, *SHADOWS, "SELECT record.is_admin()") == [(False,)]
    before = await contents(world)
    for dsn in (world.dsn, reader):
        for table, sealed in (
            ("ves_events", "payload_sealed"),
            ("events", "payload_encrypted"),
            ("ves_validity_proofs", "proof"),
            ("ves_events_archive", "payload_sealed"),
            ("events_archive", "payload_encrypted"),
        ):
            change = f"UPDATE record.{table} SET {sealed} = 'forged'"
            assert await refused(dsn, *SHADOWS, change) == "23001", table
        for table in ("ves_events", "events"):
            assert await refused(dsn, *SHADOWS, f"DELETE FROM record.{table}") == "23001", table
    assert await contents(world) == before


async def test_triggers_functions_and_rules_of_ones_own_do_not_get_around_the_protection(
    world: PostgresWorld,
) -> None:
    await sql(world.owner_dsn, MISTAKE)
    before = await contents(world)
    swallow = (
        "CREATE FUNCTION pg_temp.swallow() RETURNS trigger LANGUAGE plpgsql AS "
        "'BEGIN IF TG_OP = ''UPDATE'' THEN NEW.event_type := ''forged''; RETURN NEW; END IF; RETURN OLD; END'"
    )
    first = (
        "CREATE TRIGGER aaa BEFORE UPDATE OR DELETE ON record.ves_events "
        "FOR EACH ROW EXECUTE FUNCTION pg_temp.swallow()"
    )
    for attack in ("DELETE FROM record.ves_events", "UPDATE record.ves_events SET event_type = event_type"):
        assert await refused(world.dsn, swallow, first, attack) == "23001"
    attacks = [
        "CREATE RULE r AS ON INSERT TO record.audit_log DO INSTEAD NOTHING",
        "CREATE TEMP TABLE child () INHERITS (record.ves_events)",
        "ALTER TABLE record.ves_events DISABLE TRIGGER append_only_delete",
        "ALTER TABLE record.ves_events RENAME TO away",
        "DROP TRIGGER append_only_delete ON record.ves_events",
        "ALTER TABLE record.ves_events ENABLE ROW LEVEL SECURITY",
        "CREATE POLICY p ON record.ves_events USING (false)",
        "ALTER FUNCTION record.is_admin() SET search_path = pg_temp",
        "CREATE FUNCTION record.refuse_change() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN OLD; END'",
        "CREATE FUNCTION work.mine() RETURNS int LANGUAGE sql AS 'SELECT 1'",
        "CREATE TABLE work.mine (x int)",
        "SELECT record.keep('ves_events')",
        "SET ROLE sequencer_admin",
        "SET SESSION AUTHORIZATION sequencer_owner",
        "SET session_replication_role = replica",
        "ALTER ROLE sequencer_app_login SUPERUSER",
        "GRANT sequencer_admin TO sequencer_app_login",
        "GRANT pg_write_all_data TO sequencer_app_login",
        "COPY record.ves_events TO PROGRAM 'cat >/tmp/stolen'",
        "COPY record.ves_events TO '/tmp/stolen'",
        "COPY record.ves_events FROM '/etc/passwd'",
        "SELECT pg_read_file('/etc/passwd')",
        "SELECT lo_import('/etc/passwd')",
        "CREATE PUBLICATION p FOR TABLE record.ves_events",
        "CREATE EVENT TRIGGER e ON ddl_command_start EXECUTE FUNCTION record.refuse_change()",
        "ALTER SYSTEM SET fsync = off",
    ]
    await assert_refused(world.dsn, attacks, "42501")
    assert await contents(world) == before


async def test_no_trigger_of_the_application_runs_as_somebody_else(world: PostgresWorld) -> None:
    """On a table of "work" it would run as whoever writes there next: a migration, the owner."""
    function = "CREATE FUNCTION pg_temp.as_you() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END'"
    for [table] in await sql(world.owner_dsn, "SELECT tablename FROM pg_tables WHERE schemaname = 'work'"):
        for attack in (
            f"CREATE TRIGGER t BEFORE INSERT ON work.{table} FOR EACH ROW EXECUTE FUNCTION pg_temp.as_you()",
            f"CREATE RULE r AS ON INSERT TO work.{table} DO INSTEAD NOTHING",
            f"TRUNCATE work.{table}",
        ):
            assert await refused(world.dsn, function, attack) == "42501", attack
    # What a later step makes there is granted the same, no more.
    await sql(world.owner_dsn, "CREATE TABLE work.later (x int)")
    granted = await sql(
        world.owner_dsn,
        "SELECT string_agg(p, ' ') FROM unnest('{SELECT,INSERT,UPDATE,DELETE,TRUNCATE,REFERENCES,TRIGGER}'"
        "::text[]) p WHERE has_table_privilege('sequencer_app', 'work.later', p)",
    )
    assert granted == [("SELECT INSERT UPDATE DELETE",)]


async def test_a_reader_only_reads(world: PostgresWorld, reader: str) -> None:
    before = await contents(world)
    for [schema, table] in await sql(
        world.owner_dsn, "SELECT schemaname, tablename FROM pg_tables WHERE schemaname IN ('record', 'work')"
    ):
        await sql(reader, f"SELECT count(*) FROM {schema}.{table}")
        attacks = [
            f"INSERT INTO {schema}.{table} SELECT * FROM {schema}.{table}",
            f"DELETE FROM {schema}.{table}",
            f"TRUNCATE {schema}.{table}",
            f"SELECT 1 FROM {schema}.{table} FOR UPDATE",
            f"DO 'BEGIN LOCK TABLE {schema}.{table} IN SHARE MODE; END'",
        ]
        await assert_refused(reader, attacks, "42501")
    call = (
        "SELECT record.ves_advance(gen_random_uuid(), 0, 0, '{}', '{}', '{}', '{}', '{}', '{}', '{}', '{}', "
    )
    assert await refused(reader, call + "'{}', '{}', '{}', '{}')") == "42501"
    assert await contents(world) == before


ARCHIVING_WRITES = ("tenant_epochs", "audit_log", "audit_counters", "at_rest_notes")
"""Archiving raises the tenant's epoch and is audited; a re-encryption notes what it has seen."""
IN_PLACE_TOO = ("tenant_epochs", "audit_counters")
DEFINERS = ("forbid_at_rest_keys", "refuse_anothers_chain")
"""Run with the owner's rights: one makes a trigger, for members of sequencer_admin alone; the other is a
trigger, which nobody calls, and reads what the anchor's login may not."""


async def test_an_administrator_seals_anew_and_archives_and_nothing_else(
    world: PostgresWorld, admin: str
) -> None:
    before = await contents(world)
    not_granted: list[str] = []
    for table in await tables(world.owner_dsn):
        _, other = await key_of(world, table)
        archive = table.endswith("events_archive")
        insert = f"INSERT INTO record.{table} SELECT * FROM record.{table}"
        delete = f"DELETE FROM record.{table}"
        update = f"UPDATE record.{table} SET {other} = {other}"
        not_granted.append(f"TRUNCATE record.{table} CASCADE")
        if table not in IN_PLACE_TOO:
            not_granted.append(update)
        if archive:  # only what stands in the stream, and that no longer does
            assert await refused(admin, insert) == "23001", table
        elif table not in ARCHIVING_WRITES:
            not_granted.append(insert)
        if table in ("ves_events", "events"):
            assert await refused(admin, delete) == "23001", table
        else:
            not_granted.append(delete)
    await assert_refused(admin, not_granted, "42501")
    for table in ("ves_events", "events"):
        columns = await sql(
            world.owner_dsn,
            "SELECT string_agg(CASE attname WHEN 'entity_id' THEN '''forged''' "
            "WHEN 'sequence_number' THEN '77' WHEN 'event_id' THEN 'gen_random_uuid()' ELSE attname END, "
            "', ' ORDER BY attnum) FROM pg_attribute "
            f"WHERE attrelid = 'record.{table}'::regclass AND attnum > 0",
        )
        forged = f"INSERT INTO record.{table}_archive SELECT {columns[0][0]}, now() FROM record.{table}"
        assert await refused(admin, forged) == "23001", table
    assert await contents(world) == before


async def test_who_created_the_admin_role_is_no_administrator_by_that(world: PostgresWorld) -> None:
    """Since PostgreSQL 16 the creator of a role is its member, with neither its rights nor SET ROLE."""
    name = f"maker_{secrets.token_hex(4)}"
    dsn = world.owner_dsn.replace("sequencer_owner@", f"{name}@")
    await sql(world.owner_dsn, f"CREATE ROLE {name} LOGIN CREATEROLE")
    try:
        await sql(
            world.owner_dsn, f"GRANT sequencer_admin TO {name} WITH ADMIN TRUE, INHERIT FALSE, SET FALSE"
        )
        await sql(world.owner_dsn, f"GRANT sequencer_reader TO {name}")
        assert await sql(dsn, "SELECT record.is_admin()") == [(False,)]
        await sql(world.owner_dsn, f"GRANT sequencer_admin TO {name} WITH INHERIT TRUE")
        assert await sql(dsn, "SELECT record.is_admin()") == [(True,)]
    finally:
        await sql(world.owner_dsn, f"DROP OWNED BY {name} CASCADE", f"DROP ROLE {name}")


async def test_every_function_looks_into_pg_temp_last_and_is_nobodys_to_call_by_default(
    world: PostgresWorld,
) -> None:
    rows = await sql(
        world.owner_dsn,
        "SELECT proname, proconfig, prosecdef, has_function_privilege('sequencer_app', p.oid, 'EXECUTE'), "
        "EXISTS (SELECT FROM aclexplode(coalesce(proacl, acldefault('f', proowner))) a WHERE a.grantee = 0) "
        "FROM pg_proc p WHERE pronamespace = 'record'::regnamespace ORDER BY 1",
    )
    assert len(rows) >= 9
    for name, config, definer, _, public in rows:
        assert "search_path=pg_catalog, pg_temp" in config, name
        assert definer is (name in DEFINERS), name
        assert not public, name
    assert {name for name, _, _, app, _ in rows if app} == {
        "ves_advance",
        "ves_advance_groups",
        "ves_append_groups",
        "legacy_advance",
        "is_admin",
    }


async def test_the_public_schema_is_not_used(world: PostgresWorld) -> None:
    """A function of somebody else's in "public" is never reached: our search_path is pg_catalog."""
    await sql(
        world.owner_dsn,
        "CREATE FUNCTION public.pg_is_in_recovery() RETURNS boolean LANGUAGE sql AS 'SELECT true'",
    )
    await world.journal.ping()


async def test_a_stolen_login_cannot_write_an_event_twice(world: PostgresWorld) -> None:
    with pytest.raises(asyncpg.UniqueViolationError):
        await sql(world.dsn, "INSERT INTO record.ves_events SELECT * FROM record.ves_events")
