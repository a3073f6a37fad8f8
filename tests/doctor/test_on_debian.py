"""The documented configuration of a PostgreSQL with pgaudit, tried on Debian's server."""

from __future__ import annotations

import json
import re
import secrets
import time
from pathlib import Path

import asyncpg
import pytest
import trio

from journal.aio import cross, open_loop
from journal.migrate import migrate
from journal.protection import differences
from tests.e2e.world import ROOT, Server, Tenant
from tests.tls.debian_postgres import PASSWORD, DebianPostgres, binaries

pytestmark = pytest.mark.slow

PGAUDIT = "writes past the server are logged (pgaudit)"
ARCHIVE = "the write-ahead log is kept elsewhere"


def documented() -> dict[str, str]:
    """The lines of docs/database.md."""
    [block] = re.findall(r"```ini\n(.*?)```", (ROOT / "docs" / "database.md").read_text(), re.DOTALL)
    lines = [line.partition(" = ") for line in block.splitlines()]
    return {name: value.strip("'") for name, _, value in lines}


@pytest.fixture(scope="module")
def postgres(tmp_path_factory: pytest.TempPathFactory) -> DebianPostgres:
    home = tmp_path_factory.mktemp("debian")
    home.chmod(0o700)
    server = DebianPostgres(home / "pg")
    with server.running():
        trio.run(migrated, server.local)
        server.execute(
            f"CREATE ROLE shop_server LOGIN PASSWORD '{PASSWORD}' IN ROLE sequencer_app",
            "CREATE ROLE stranger LOGIN SUPERUSER",
        )
    return server


async def migrated(address: str) -> None:
    async with open_loop():
        await migrate(address)


def test_debians_postgresql_has_the_protection_that_is_on_file(postgres: DebianPostgres) -> None:
    """It is written with another version: the lines must be the same on both."""

    async def run() -> tuple[list[str], list[str]]:
        async def look() -> tuple[list[str], list[str]]:
            connection = await asyncpg.connect(postgres.local)
            try:
                return await differences(connection)
            finally:
                await connection.close()

        async with open_loop():
            return await cross(look)

    with postgres.running():
        assert trio.run(run) == ([], [])


def verdicts(node: Server) -> dict[str, tuple[str, str]]:
    said = node.command("doctor", "--json")
    assert PASSWORD not in said.stdout + said.stderr
    return {c["item"]: (c["verdict"], c["evidence"]) for c in json.loads(said.stdout)["checks"]}


def test_the_documented_lines_log_a_strangers_write_and_no_payload(
    postgres: DebianPostgres, tmp_path: Path
) -> None:
    if not (binaries().parent / "lib" / "pgaudit.so").exists():
        pytest.skip("postgresql-15-pgaudit is not installed")
    canary = "canary-" + secrets.token_hex(12)
    url = postgres.address("shop_server", "sslmode=prefer", host="localhost")
    node = Server(tmp_path / "data", DATABASE_URL=url)
    with postgres.running(**documented()):
        postgres.execute("CREATE EXTENSION IF NOT EXISTS pgaudit")
        node.start()
        try:
            node.wait_ready()
            tenant = Tenant(node)
            assert tenant.post(tenant.agent.event({"secret": canary})).status_code == 200
            found = verdicts(node)
        finally:
            assert node.terminate() == 0
        stranger = postgres.local.replace("sequencer_owner@", "stranger@")
        trio.run(writes_past_us, stranger, canary)
    log = postgres.log.read_text(errors="replace")
    assert found[PGAUDIT] == ("pass", "pgaudit.log = 'write, ddl, role'")
    assert found["PostgreSQL's log holds no payload"][0] == "pass"
    assert re.search(r"user=stranger .*AUDIT: SESSION,\d+,\d+,WRITE,INSERT,TABLE,record.at_rest_keys", log)
    assert re.search(r"user=stranger .*AUDIT: SESSION,\d+,\d+,DDL,ALTER TABLE", log)
    assert re.search(r"user=stranger .*AUDIT: SESSION,\d+,\d+,ROLE,GRANT", log)
    assert re.search(r"user=shop_server .*AUDIT: .*record.ves_events", log), "the server's writes are seen"
    assert canary not in log
    assert canary.encode().hex() not in log
    assert "user=shop_server" in log


async def writes_past_us(address: str, canary: str) -> None:
    async def run() -> None:
        connection = await asyncpg.connect(address)
        try:
            insert = "INSERT INTO record.at_rest_keys VALUES ($1, now())"
            await connection.execute(insert, secrets.token_bytes(8))
            with pytest.raises(asyncpg.CheckViolationError):
                await connection.execute(insert, canary.encode())
            await connection.execute("ALTER TABLE record.audit_log DISABLE TRIGGER append_only_delete")
            await connection.execute("ALTER TABLE record.audit_log ENABLE ALWAYS TRIGGER append_only_delete")
            await connection.execute("GRANT DELETE ON record.audit_log TO sequencer_app")
            await connection.execute("REVOKE DELETE ON record.audit_log FROM sequencer_app")
        finally:
            await connection.close()

    async with open_loop():
        await cross(run)


def test_too_little_logged_and_a_broken_archive_fail(postgres: DebianPostgres, tmp_path: Path) -> None:
    url = postgres.address("shop_server", "sslmode=prefer", host="localhost")
    node = Server(tmp_path / "data", DATABASE_URL=url)
    lines = documented() | {"pgaudit.log": "read", "pgaudit.log_parameter": "on"}
    archive = {"archive_mode": "on", "archive_command": "false", "wal_level": "replica"}
    with postgres.running(**(lines | archive)):
        postgres.execute("CREATE TABLE public.something AS SELECT 1", "SELECT pg_switch_wal()")
        give_up = time.monotonic() + 30
        while not postgres.execute("SELECT failed_count FROM pg_stat_archiver")[0][0][0]:
            assert time.monotonic() < give_up
            time.sleep(0.2)
        found = verdicts(node)
    assert found[PGAUDIT] == ("FAIL", "pgaudit.log = 'read' lacks ddl, role, write")
    assert found["PostgreSQL's log holds no payload"] == ("FAIL", "pgaudit logs parameters")
    assert found[ARCHIVE] == ("FAIL", "archiving fails")
    with postgres.running(**(documented() | archive | {"archive_command": "true"})):
        postgres.execute("CREATE TABLE public.more AS SELECT 1", "SELECT pg_switch_wal()")
        give_up = time.monotonic() + 30
        while verdicts(node)[ARCHIVE][0] != "pass":
            assert time.monotonic() < give_up
            time.sleep(0.2)
