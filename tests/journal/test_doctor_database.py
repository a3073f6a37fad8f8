"""Every check of the database: passes on a fresh one, and fails for its own reason."""

from __future__ import annotations

import secrets
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any

import asyncpg
import pytest
from journal_builders import AUDIT, Database, an_agent_key, decided, uuid
from journal_builders import an_event as event
from journal_worlds import PostgresWorld, postgres_world, sql
from test_postgres_schema import a_row_in_every_table

from config.settings import Settings
from journal import examination
from journal.aio import cross, open_loop
from journal.connections import use_our_types
from supervisor.doctor.checks import Verdict
from supervisor.doctor.database import DATABASE, Examined

Spoil = Callable[[PostgresWorld], Awaitable[dict[str, Any]]]
"""Answers settings."""


@asynccontextmanager
async def examined(dsn: str, remote: tuple[str, ...] = (), **settings: Any) -> AsyncIterator[Examined]:
    async def connect() -> asyncpg.Connection[asyncpg.Record]:
        connection: asyncpg.Connection[asyncpg.Record] = await asyncpg.connect(dsn)
        await use_our_types(connection)
        return connection

    connection = await cross(connect)
    try:
        yield Examined(connection, Settings(**settings), remote)
    finally:
        await cross(connection.close)


async def verdicts(dsn: str, remote: tuple[str, ...] = (), **settings: Any) -> dict[str, Verdict]:
    async with examined(dsn, remote, **settings) as at:
        return {finding.item: finding.verdict for finding in await DATABASE.run(at)}


@pytest.fixture
async def world(database: Database) -> AsyncIterator[PostgresWorld]:
    async with postgres_world(database.app_dsn, database.owner_dsn) as world:
        await world.journal.claim_receipt_key(uuid(), b"k" * 32)
        await world.journal.register_agent_key(an_agent_key(uuid()), AUDIT)
        yield world


async def test_a_fresh_database_passes_all_it_can(world: PostgresWorld) -> None:
    found = await verdicts(world.dsn)
    assert {item: (v.kind, v.evidence) for item, v in found.items() if v.kind != "pass"} == {
        "writes past the server are logged (pgaudit)": ("warn", "pgaudit is not loaded"),
        "the write-ahead log is kept elsewhere": (
            "warn",
            "neither archived nor replicated: what the last backup lacks is lost with the disk",
        ),
    }


async def statements(world: PostgresWorld, *texts: str, **settings: Any) -> dict[str, Any]:
    name = world.owner_dsn.rpartition("/")[2].partition("?")[0]
    await sql(world.owner_dsn, *(text.replace("THIS", name) for text in texts))
    return settings


def run(*texts: str, **settings: Any) -> Spoil:
    return lambda world: statements(world, *texts, **settings)


async def plain_rows(world: PostgresWorld) -> dict[str, Any]:
    await a_row_in_every_table(world)
    return {}


BAD: dict[str, tuple[str, str, Spoil]] = {
    "the database's schema is this program's": (
        "FAIL",
        "newer than this program knows",
        run(
            "INSERT INTO record.schema_migrations (version, name, checksum) "
            "SELECT 999, 'next', checksum FROM record.schema_migrations WHERE version = 1"
        ),
    ),
    "triggers, functions and grants are as the migrations made them": (
        "FAIL",
        "gone: trigger A CREATE TRIGGER append_only_delete BEFORE DELETE ON record.ves_events",
        run("ALTER TABLE record.ves_events DISABLE TRIGGER append_only_delete"),
    ),
    "what is acknowledged is durable": (
        "FAIL",
        "synchronous_commit is off",
        run("ALTER DATABASE THIS SET synchronous_commit = off"),
    ),
    "PostgreSQL's log holds no payload": (
        "FAIL",
        "statements are logged with their parameters",
        run(
            "ALTER DATABASE THIS SET log_statement = 'mod'",
            "ALTER DATABASE THIS SET log_parameter_max_length = -1",
        ),
    ),
    "the audit trail's ends verify": (
        "FAIL",
        "at entry ",
        run(
            "ALTER TABLE record.audit_log DISABLE TRIGGER append_only_update",
            "UPDATE record.audit_log SET entry = replace(entry, 'cli', 'clx')",
        ),
    ),
    "receipt keys are young enough": (
        "FAIL",
        "200 days old",
        run(
            "INSERT INTO record.receipt_keys (sequencer_id, key_version, created_at, public_key) "
            "VALUES (gen_random_uuid(), 1, now() - interval '200 days', decode(repeat('00', 32), 'hex'))"
        ),
    ),
    "agents' keys are young enough": (
        "FAIL",
        "1 older than 90 days",
        run(
            "ALTER TABLE record.agent_keys DISABLE TRIGGER append_only_update",
            "UPDATE record.agent_keys SET registered_at = now() - interval '91 days'",
        ),
    ),
    "what is stored is encrypted, under one key": ("FAIL", "record.events: 1 of 1", plain_rows),
}
ELSEWHERE = {
    "the server's database login is bound by grants",
    "the connection to the database is verified TLS",
    "who may seal anew and archive is known",
    "the clocks agree",
    # Against a PostgreSQL with pgaudit and an archive: tests/tls/test_debian_doctor.py.
    "writes past the server are logged (pgaudit)",
    "the write-ahead log is kept elsewhere",
}


def test_every_check_of_the_database_is_made_to_fail() -> None:
    assert {check.item for check in DATABASE} == BAD.keys() | ELSEWHERE


@pytest.mark.parametrize("item", BAD)
async def test_a_spoiled_database_fails_for_that_reason(item: str, world: PostgresWorld) -> None:
    kind, evidence, spoil = BAD[item]
    settings = await spoil(world)
    found = (await verdicts(world.dsn, **settings))[item]
    assert found.kind == kind
    assert evidence in found.evidence
    assert found.remedy


async def test_an_owner_is_no_login_for_a_server_and_a_needless_right_is_told(world: PostgresWorld) -> None:
    item = "the server's database login is bound by grants"
    assert (await verdicts(world.owner_dsn))[item].kind == "FAIL"
    await sql(world.owner_dsn, "GRANT TRUNCATE ON record.audit_log TO sequencer_app")
    found = (await verdicts(world.dsn))[item]
    assert found.kind == "warn"
    assert "audit_log: TRUNCATE" in found.evidence


async def test_a_login_that_is_both_server_and_administrator_fails(world: PostgresWorld) -> None:
    name = f"both_{secrets.token_hex(4)}"
    await sql(world.owner_dsn, f"CREATE ROLE {name} IN ROLE sequencer_app, sequencer_admin")
    try:
        found = (await verdicts(world.dsn))["who may seal anew and archive is known"]
    finally:
        await sql(world.owner_dsn, f"DROP ROLE {name}")
    assert found.kind == "FAIL"
    assert name in found.evidence


async def test_a_connection_to_elsewhere_that_is_not_verified_fails(world: PostgresWorld) -> None:
    item = "the connection to the database is verified TLS"
    found = (await verdicts(world.dsn, ("db",), database_tls="insecure-allowed"))[item]
    assert (found.kind, "clear text" in found.evidence) == ("FAIL", True)
    assert (await verdicts(world.dsn, ("db",)))[item].kind == "FAIL"


@pytest.mark.parametrize(("off_s", "kind"), [(-9, "FAIL"), (9, "FAIL"), (2, "warn")])
async def test_a_clock_that_is_off_fails(
    off_s: float, kind: str, world: PostgresWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(examination, "time", SimpleNamespace(time=lambda: time.time() + off_s))
    found = (await verdicts(world.dsn))["the clocks agree"]
    assert found.kind == kind
    assert ("behind" if off_s > 0 else "ahead") in found.evidence


async def test_older_frames_beside_newer_ones_are_told(world: PostgresWorld) -> None:
    tenant, store = uuid(), uuid()
    for _ in range(2):
        await world.journal.append(await decided(world.journal, tenant, store, event()))
    await sql(
        world.owner_dsn,
        "ALTER TABLE record.ves_events DISABLE TRIGGER append_only_update",
        "UPDATE record.ves_events SET payload_sealed = CASE sequence_number "
        "WHEN 1 THEN 'SSE1'::bytea ELSE 'SSE2'::bytea END || payload_sealed",
    )
    found = (await verdicts(world.dsn))["what is stored is encrypted, under one key"]
    assert (found.kind, "1 keys in use, 1 older frames" in found.evidence) == ("warn", True)


async def test_a_missing_last_entry_of_the_audit_trail_is_found(world: PostgresWorld) -> None:
    await sql(
        world.owner_dsn,
        "ALTER TABLE record.audit_log DISABLE TRIGGER append_only_delete",
        "DELETE FROM record.audit_log WHERE (node_id, entry_number) IN "
        "(SELECT node_id, last_number FROM record.audit_counters)",
    )
    assert (await verdicts(world.dsn))["the audit trail's ends verify"].kind == "FAIL"


async def test_a_database_without_our_schema_is_told_apart(empty_database: Database) -> None:
    dsn = empty_database.owner_dsn
    async with open_loop():
        found = await verdicts(dsn)
    assert found["the database's schema is this program's"].kind == "FAIL"
    assert found["the audit trail's ends verify"] == Verdict("cannot tell", "UndefinedTableError", "")
