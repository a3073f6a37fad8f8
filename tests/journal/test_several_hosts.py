"""An address with several hosts: whoever takes writes is found at once, also behind one that is silent; and a
connection that turns out to take none is not kept."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import asyncpg
import pytest
import trio
from journal_worlds import sql

from journal import hosts
from journal.aio import cross, open_loop
from journal.connections import Limits
from journal.port import JournalAway
from journal.postgres import open_journal

if TYPE_CHECKING:
    from journal_builders import Database

FAST_S = 5.0
"""Against the fifteen that a connection is given."""


def test_each_host_gets_the_address_for_itself_alone() -> None:
    address = "postgresql://u:p%2C@one:1,[::1]:2,%2Ftmp%2Fx/shop?sslmode=verify-full&sslrootcert=/a,b"
    assert hosts.addresses(address) == [
        f"postgresql://u:p%2C@{host}/shop?sslmode=verify-full&sslrootcert=/a,b"
        for host in ("one:1", "[::1]:2", "%2Ftmp%2Fx")
    ]
    for alone in ("postgresql://u@db/shop", "postgresql:///shop?host=/tmp", "postgresql://u,v@db/shop"):
        assert hosts.addresses(alone) == [alone]


@contextmanager
def silent_host() -> Iterator[str]:
    """The kernel takes the connection, and nobody ever says a word: a stopped process, a pulled cable."""
    with socket.socket() as door:
        door.bind(("127.0.0.1", 0))
        door.listen()
        yield f"127.0.0.1:{door.getsockname()[1]}"


def refusing_host() -> str:
    with socket.socket() as door:
        door.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{door.getsockname()[1]}"


def led(database: Database, *others: str) -> str:
    """Its address with the others before it."""
    path = database.app_dsn.partition("host=")[2].partition("&")[0]
    user, name = database.app_dsn.split("//")[1].split("@")[0], database.app_dsn.split("/")[3].split("?")[0]
    there = path.replace("/", "%2F").replace("%252F", "%2F")
    return f"postgresql://{user}@{','.join([*others, there])}/{name}?target_session_attrs=read-write"


async def connected(address: str) -> asyncpg.Connection[asyncpg.Record]:
    return await cross(lambda: hosts.connect(address, timeout=15))


async def test_who_takes_writes_is_found_behind_one_that_is_silent_and_one_that_refuses(
    common_database: Database,
) -> None:
    with silent_host() as silent:
        address = led(common_database, silent, refusing_host())
        async with open_loop():
            with trio.fail_after(FAST_S):
                connection = await connected(address)
                assert await cross(lambda: connection.fetchval("SELECT 1")) == 1
                await cross(connection.close)


async def test_when_all_others_said_no_nobody_waits_long_for_one_that_is_silent() -> None:
    with silent_host() as silent:
        async with open_loop() as strays:
            with trio.fail_after(FAST_S), pytest.raises(ConnectionError):
                await connected(f"postgresql://u@{silent},{refusing_host()}/shop")
            await trio.sleep(0.1)
        assert strays.count == 0


async def test_what_needs_an_operator_is_told_before_what_may_pass(common_database: Database) -> None:
    address = led(common_database, refusing_host()).replace("//", "//nobody_of_this_name:x@", 1)
    address = address.replace("x@sequencer_app_login@", "x@")
    async with open_loop():
        with pytest.raises(asyncpg.PostgresError, match="nobody_of_this_name"):
            await connected(address)


async def test_of_those_that_were_not_chosen_no_connection_stays(common_database: Database) -> None:
    other = led(common_database).split("@")[1].split("/")[0]
    address = led(common_database, other, other)
    counting = (
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
    )
    async with open_loop():
        connection = await connected(address)
        with trio.fail_after(FAST_S):
            while await cross(lambda: connection.fetchval(counting)):  # noqa: ASYNC110 - they are going
                await trio.sleep(0.02)
        await cross(connection.close)


async def test_a_connection_that_takes_no_writes_is_not_kept(database: Database) -> None:
    """As after a change of primary behind one name: the old one answers, and would be asked for ever."""
    name = database.app_dsn.split("/")[3].split("?")[0]

    async def owner(*statements: str) -> Any:
        return await sql(database.owner_dsn, *statements)

    async with open_loop():
        await owner(f"ALTER DATABASE {name} SET default_transaction_read_only = on")
        limits = Limits(connections_max=1)
        async with open_journal(database.app_dsn, node_id=bytes(16), limits=limits) as journal:
            with pytest.raises(JournalAway):
                await journal.ping()
            await owner("SET default_transaction_read_only = off", f"ALTER DATABASE {name} RESET ALL")
            await journal.ping()
