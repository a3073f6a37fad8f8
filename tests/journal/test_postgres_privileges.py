"""The server's own login: which are refused, with what text, and when that is noticed."""

from __future__ import annotations

import secrets
from collections.abc import Iterator

import pytest
import trio
from journal_builders import Database, uuid
from journal_worlds import sql

from journal.aio import cross, open_loop
from journal.connections import Limits, make_pool
from journal.port import JournalAway, JournalRefused
from journal.postgres import open_journal
from journal.privileges import read_privileges, superfluous


@pytest.fixture
def login(common_database: Database) -> Iterator[Database]:
    """A login of its own beside the database's owner."""
    database = common_database
    name = f"login_{secrets.token_hex(4)}"
    trio.run(run_sql, database.owner_dsn, f"CREATE ROLE {name} LOGIN IN ROLE sequencer_app")
    yield Database(database.owner_dsn, database.owner_dsn.replace("sequencer_owner@", f"{name}@"))
    trio.run(
        run_sql,
        database.owner_dsn,
        f"REASSIGN OWNED BY {name} TO sequencer_owner",
        f"DROP OWNED BY {name} CASCADE",
        f"DROP ROLE {name}",
    )


async def run_sql(dsn: str, *statements: str) -> None:
    async with open_loop():
        await sql(dsn, *statements)


def name_of(login: Database) -> str:
    return login.app_dsn.partition("://")[2].partition("@")[0]


async def serves(dsn: str) -> None:
    async with open_journal(dsn, node_id=uuid(), as_server=True) as journal:
        await journal.ping()


async def refusal(dsn: str) -> str:
    with pytest.raises(JournalRefused) as caught:
        await serves(dsn)
    return str(caught.value)


async def test_a_superuser_is_refused_and_the_embedded_login_is_none(common_database: Database) -> None:
    async with open_loop():
        await serves(common_database.app_dsn)
        text = await refusal(common_database.owner_dsn)
    assert "sequencer_owner" in text
    assert "ALTER ROLE sequencer_owner NOSUPERUSER" in text
    assert "CREATE ROLE sequencer_server LOGIN" in text


@pytest.mark.parametrize(
    ("given", "taken", "told"),
    [
        ("ALTER ROLE {} CREATEROLE", "ALTER ROLE {} NOCREATEROLE", "CREATEROLE"),
        ("ALTER ROLE {} REPLICATION", "ALTER ROLE {} NOREPLICATION", "REPLICATION"),
        ("GRANT sequencer_admin TO {}", "REVOKE sequencer_admin FROM {}", "REVOKE sequencer_admin FROM {}"),
        ("GRANT sequencer_owner TO {}", "REVOKE sequencer_owner FROM {}", "SUPERUSER"),
        ("GRANT pg_write_all_data TO {}", "REVOKE pg_write_all_data FROM {}", "REVOKE pg_write_all_data"),
        (
            "GRANT pg_execute_server_program TO {}",
            "REVOKE pg_execute_server_program FROM {}",
            "REVOKE pg_execute_server_program FROM {}",
        ),
        (
            "ALTER TABLE record.ves_events OWNER TO {}",
            "ALTER TABLE record.ves_events OWNER TO sequencer_owner",
            "owns table record.ves_events",
        ),
        (
            "ALTER FUNCTION record.refuse_change OWNER TO {}",
            "ALTER FUNCTION record.refuse_change OWNER TO sequencer_owner",
            "owns function refuse_change",
        ),
        (
            "ALTER SCHEMA record OWNER TO {}",
            "ALTER SCHEMA record OWNER TO sequencer_owner",
            "owns schema record",
        ),
        (
            "ALTER ROLE {} SET synchronous_commit = off",
            "ALTER ROLE {} RESET synchronous_commit",
            "ALTER ROLE {} RESET synchronous_commit",
        ),
    ],
    ids=lambda text: text.partition(" TO")[0].replace(" ", "_")[:40] if "{}" in text else "",
)
async def test_a_login_above_the_grants_is_refused_with_the_statement_that_helps(
    login: Database, given: str, taken: str, told: str
) -> None:
    name = name_of(login)
    async with open_loop():
        await serves(login.app_dsn)
        await sql(login.owner_dsn, given.format(name))
        try:
            text = await refusal(login.app_dsn)
            assert told.format(name) in text
            assert name in text
        finally:
            await sql(login.owner_dsn, taken.format(name))
        await serves(login.app_dsn)


async def test_an_owner_of_the_database_and_who_may_become_one_is_refused(login: Database) -> None:
    name, between = name_of(login), f"between_{secrets.token_hex(4)}"
    async with open_loop():
        [[database]] = await sql(login.owner_dsn, "SELECT current_database()")
        await sql(login.owner_dsn, f"CREATE ROLE {between} NOLOGIN", f"GRANT {between} TO {name}")
        try:
            for owner in (name, between):
                await sql(login.owner_dsn, f"ALTER DATABASE {database} OWNER TO {owner}")
                assert f"owns database {database}" in await refusal(login.app_dsn)
            await sql(login.owner_dsn, f"REVOKE {between} FROM {name}")
            await sql(login.owner_dsn, f"GRANT {between} TO {name} WITH ADMIN TRUE, INHERIT FALSE, SET FALSE")
            await serves(login.app_dsn)  # a member on paper only
        finally:
            await sql(
                login.owner_dsn, f"ALTER DATABASE {database} OWNER TO sequencer_owner", f"DROP ROLE {between}"
            )


async def test_rights_given_while_we_run_are_noticed_by_the_next_connection(login: Database) -> None:
    name = name_of(login)
    async with open_loop(), open_journal(login.app_dsn, node_id=uuid(), as_server=True) as journal:
        await journal.ping()
        await sql(login.owner_dsn, f"ALTER ROLE {name} CREATEROLE")
        await journal.ping()
        end = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = $1"
        await sql(login.owner_dsn, end, arguments=(name,))
        said = ""
        while "CREATEROLE" not in said:  # the ended connection is found out first
            try:
                await journal.ping()
            except JournalAway as error:
                said = str(error)
            await trio.sleep(0.05)
        await sql(login.owner_dsn, f"ALTER ROLE {name} NOCREATEROLE")
        await journal.ping()


async def test_what_a_login_does_not_need_is_named_and_not_refused(login: Database) -> None:
    name = name_of(login)
    async with open_loop():
        await sql(
            login.owner_dsn,
            f"ALTER ROLE {name} CREATEDB BYPASSRLS",
            f"GRANT pg_signal_backend, pg_read_all_data TO {name}",
            "GRANT DELETE ON record.ves_events TO sequencer_app",
        )
        await serves(login.app_dsn)

        async def look() -> list[str]:
            async with make_pool(login.app_dsn, Limits(), application_name="t") as pool, pool.acquire() as c:
                return superfluous(await read_privileges(c))

        told = await cross(look)
        await sql(login.owner_dsn, "REVOKE DELETE ON record.ves_events FROM sequencer_app")
    assert told == [
        f"BYPASSRLS: ALTER ROLE {name} NOBYPASSRLS",
        f"CREATEDB: ALTER ROLE {name} NOCREATEDB",
        f"pg_read_all_data: REVOKE pg_read_all_data FROM {name}",
        f"pg_signal_backend: REVOKE pg_signal_backend FROM {name}",
        "ves_events: DELETE: REVOKE it",
    ]
