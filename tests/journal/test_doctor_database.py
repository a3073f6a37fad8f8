"""Every check of the database: passes on a fresh one, and fails for its own reason."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any

import asyncpg
import pytest
from anchoring_worlds import anchor_dsn
from journal_builders import AUDIT, Database, an_agent_key, uuid
from journal_worlds import PostgresWorld, postgres_world, sql

from config.settings import Settings
from journal import examination
from journal.aio import cross, open_loop
from journal.connections import use_our_types
from supervisor.doctor.checks import Verdict
from supervisor.doctor.database import DATABASE, Examined, pgaudit_lacks


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
async def world(common_database: Database) -> AsyncIterator[PostgresWorld]:
    """With a receipt key, an agent's key and the start of an audit chain in it."""
    async with postgres_world(common_database.app_dsn, common_database.owner_dsn) as world:
        if not await world.journal.receipt_keys():
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


PLAIN = (
    "INSERT INTO record.events VALUES (1, now(), now(), NULL, gen_random_uuid(), gen_random_uuid(), "
    "gen_random_uuid(), gen_random_uuid(), NULL, 'order', '1', 'made', decode(repeat('00', 32), 'hex'), "
    "NULL, '{}')"
)
BAD: dict[str, tuple[str, str]] = {
    "the database's schema is this program's": (
        "newer than this program knows",
        "INSERT INTO record.schema_migrations (version, name, checksum) "
        "SELECT 999, 'next', checksum FROM record.schema_migrations WHERE version = 1",
    ),
    "triggers, functions and grants are as the migrations made them": (
        "new: trigger D CREATE TRIGGER append_only_delete BEFORE DELETE ON record.ves_events",
        "ALTER TABLE record.ves_events DISABLE TRIGGER append_only_delete",
    ),
    "the anchor's database login is its own": (
        "sequencer_anchor_login: sequencer_app as well",
        "GRANT sequencer_app TO sequencer_anchor_login",
    ),
    "what is acknowledged is durable": ("synchronous_commit is off", "SET synchronous_commit = off"),
    "PostgreSQL's log holds no payload": (
        "statements are logged with their parameters",
        "SET log_statement = 'mod'; SET log_parameter_max_length = -1",
    ),
    "the audit trail's ends verify": (
        "at entry 1",
        "ALTER TABLE record.audit_log DISABLE TRIGGER append_only_update; "
        "UPDATE record.audit_log SET entry = entry || ' '",
    ),
    "receipt keys are young enough": (
        "200 days old",
        "INSERT INTO record.receipt_keys (sequencer_id, key_version, created_at, public_key) "
        "VALUES (gen_random_uuid(), 1, now() - interval '200 days', decode(repeat('00', 32), 'hex'))",
    ),
    "agents' keys are young enough": (
        "1 older than 90 days",
        "ALTER TABLE record.agent_keys DISABLE TRIGGER append_only_update; "
        "UPDATE record.agent_keys SET registered_at = now() - interval '91 days'",
    ),
    "what is stored is encrypted, under one key": ("record.events: 1 of 1", PLAIN),
    "who may seal anew and archive is known": (
        "both_by_mistake: sequencer_app as well",
        "CREATE ROLE both_by_mistake IN ROLE sequencer_app, sequencer_admin",
    ),
    "the server's database login is bound by grants": (
        "is, or may become, a role with SUPERUSER",
        "SELECT 1",
    ),
}
"""What it says, and what the owner did."""
ELSEWHERE = {
    "the connection to the database is verified TLS",
    "the clocks agree",
    # Against a PostgreSQL with pgaudit and an archive: tests/tls/test_debian_doctor.py.
    "writes past the server are logged (pgaudit)",
    "the write-ahead log is kept elsewhere",
}


def test_every_check_of_the_database_is_made_to_fail() -> None:
    assert {check.item for check in DATABASE} == BAD.keys() | ELSEWHERE


@pytest.mark.parametrize("item", BAD)
async def test_a_spoiled_database_fails_for_that_reason(item: str, world: PostgresWorld) -> None:
    evidence, spoil = BAD[item]
    async with examined(world.owner_dsn) as at:  # as the owner, and nothing of it stays
        await cross(lambda: at.connection.execute(f"BEGIN; {spoil}"))
        [found] = [f.verdict for f in await DATABASE.run(at) if f.item == item]
    assert found.kind == "FAIL"
    assert evidence in found.evidence
    assert found.remedy


async def test_a_right_that_is_not_needed_is_told(world: PostgresWorld) -> None:
    await sql(world.owner_dsn, "GRANT TRUNCATE ON record.audit_log TO sequencer_app")
    found = (await verdicts(world.dsn))["the server's database login is bound by grants"]
    await sql(world.owner_dsn, "REVOKE TRUNCATE ON record.audit_log FROM sequencer_app")
    assert found.kind == "warn"
    assert "audit_log: TRUNCATE" in found.evidence


async def test_a_connection_to_elsewhere_that_is_not_verified_fails(world: PostgresWorld) -> None:
    item = "the connection to the database is verified TLS"
    found = (await verdicts(world.dsn, ("db",), database_tls="insecure-allowed"))[item]
    assert (found.kind, "clear text" in found.evidence) == ("FAIL", True)
    assert (await verdicts(world.dsn, ("db",)))[item].kind == "FAIL"


async def test_an_anchors_login_that_is_more_than_that_fails(world: PostgresWorld) -> None:
    item = "the anchor's database login is its own"
    found = (await verdicts(world.dsn))[item]
    assert (found.kind, "sequencer_anchor_login" in found.evidence) == ("pass", True)
    own = (await verdicts(world.dsn, anchor_database_url=anchor_dsn(world.dsn)))[item]
    assert own == Verdict(
        "pass", "sequencer_anchor_login: a member of sequencer_anchor and of nothing else", ""
    )
    servers = (await verdicts(world.dsn, anchor_database_url=world.dsn))[item]
    assert (servers.kind, "no member of sequencer_anchor" in servers.evidence) == ("FAIL", True)
    away = (await verdicts(world.dsn, anchor_database_url="postgresql://nobody@/none?host=/none"))[item]
    assert away.kind == "cannot tell"
    await sql(world.owner_dsn, "GRANT sequencer_app TO sequencer_anchor_login")
    try:
        both = (await verdicts(world.dsn))[item]
        assert (both.kind, both.remedy) == ("FAIL", "REVOKE sequencer_app FROM sequencer_anchor_login")
    finally:
        await sql(world.owner_dsn, "REVOKE sequencer_app FROM sequencer_anchor_login")


@pytest.mark.parametrize(("off_s", "kind"), [(-9, "FAIL"), (9, "FAIL"), (2, "warn")])
async def test_a_clock_that_is_off_fails(
    off_s: float, kind: str, world: PostgresWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(examination, "time", SimpleNamespace(time=lambda: time.time() + off_s))
    found = (await verdicts(world.dsn))["the clocks agree"]
    assert found.kind == kind
    assert ("behind" if off_s > 0 else "ahead") in found.evidence


@pytest.mark.parametrize(
    ("frames", "evidence"),
    [
        (("SSE1", "SSE2aaaaaaaa"), "1 keys in use, 1 older frames"),
        (("SSE2aaaaaaaa", "SSE2bbbbbbbb"), "2 keys in use"),
    ],
    ids=["older frames", "two keys"],
)
async def test_more_than_one_key_in_use_is_told(
    frames: tuple[str, ...], evidence: str, world: PostgresWorld
) -> None:
    rows = "; ".join(PLAIN.replace("'{}'", f"'{frame}'") for frame in frames)
    async with examined(world.owner_dsn) as at:
        await cross(lambda: at.connection.execute(f"BEGIN; {rows}"))
        item = "what is stored is encrypted, under one key"
        [found] = [f.verdict for f in await DATABASE.run(at) if f.item == item]
    assert (found.kind, evidence in found.evidence) == ("warn", True)


async def test_a_missing_last_entry_of_the_audit_trail_is_found(world: PostgresWorld) -> None:
    spoil = (
        "ALTER TABLE record.audit_log DISABLE TRIGGER append_only_delete; "
        "DELETE FROM record.audit_log WHERE (node_id, entry_number) IN "
        "(SELECT node_id, last_number FROM record.audit_counters)"
    )
    async with examined(world.owner_dsn) as at:
        await cross(lambda: at.connection.execute(f"BEGIN; {spoil}"))
        [found] = [f.verdict for f in await DATABASE.run(at) if f.item == "the audit trail's ends verify"]
    assert found.kind == "FAIL"


async def test_a_database_without_our_schema_is_told_apart(empty_database: Database) -> None:
    dsn = empty_database.owner_dsn
    async with open_loop():
        found = await verdicts(dsn)
    assert found["the database's schema is this program's"].kind == "FAIL"
    assert found["the audit trail's ends verify"] == Verdict("cannot tell", "UndefinedTableError", "")


@pytest.mark.parametrize(
    ("setting", "lacking"),
    [
        ("all", []),
        ("Write, ddl,role", []),
        ("read", ["ddl", "role", "write"]),
        ("all, -write", ["write"]),
        ("none", ["ddl", "role", "write"]),
    ],
)
def test_what_pgaudit_leaves_out_is_seen(setting: str, lacking: list[str]) -> None:
    assert pgaudit_lacks(setting) == lacking
