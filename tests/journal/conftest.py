"""One real PostgreSQL for the journal's tests, migrated, and the two worlds every contract runs in."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit, urlunsplit

import pytest
import trio
from anchoring_worlds import AnchoringWorld, anchoring_world
from journal_builders import Database
from journal_worlds import MemoryWorld, PostgresWorld, World, postgres_world, sql

from journal.aio import open_loop
from journal.embedded import EmbeddedPostgres
from journal.embedded_cluster import EMBEDDED_LOGINS
from journal.migrate import migrate
from tests.clusters import lend


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedPostgres]:
    with EmbeddedPostgres(lend(tmp_path_factory.mktemp("journal") / "postgres")) as running:
        trio.run(_migrate, running.owner_dsn)
        yield running


async def _migrate(dsn: str) -> None:
    async with open_loop():
        await migrate(dsn, EMBEDDED_LOGINS)


@contextmanager
def a_database(server: EmbeddedPostgres, template: str = "template1") -> Iterator[Database]:
    name = f"t{secrets.token_hex(6)}"
    trio.run(_execute, server.owner_dsn, f"CREATE DATABASE {name} TEMPLATE {template}")
    yield Database(*(_renamed(dsn, name) for dsn in (server.owner_dsn, server.app_dsn)))
    trio.run(_execute, server.owner_dsn, f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture
def as_if_large(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every group is appended as one of many events is: by BEGIN, COPY and COMMIT, with moments between."""
    monkeypatch.setattr("journal.append.AT_ONCE_MAX", 0)


@pytest.fixture
def empty_database(server: EmbeddedPostgres) -> Iterator[Database]:
    """Nothing in it, on the server that has our roles already."""
    with a_database(server) as database:
        yield database


@pytest.fixture(scope="module")
def common_database(server: EmbeddedPostgres) -> Iterator[Database]:
    """Migrated, for all tests of a module: they leave it as they found it."""
    with a_database(server) as database:
        trio.run(_migrate, database.owner_dsn)
        yield database


@pytest.fixture
def database(empty_database: Database) -> Database:
    """Migrated."""
    trio.run(_migrate, empty_database.owner_dsn)
    return empty_database


def _renamed(dsn: str, name: str) -> str:
    return urlunsplit(urlsplit(dsn)._replace(path=f"/{name}"))


@pytest.fixture(scope="session")
def template(server: EmbeddedPostgres) -> Iterator[str]:
    """The name of a migrated database that nobody is connected to: its copies are made faster."""
    with a_database(server) as database:
        trio.run(_migrate, database.owner_dsn)
        yield database.owner_dsn.rpartition("/")[2].partition("?")[0]


async def _execute(dsn: str, statement: str) -> None:
    async with open_loop():
        await sql(dsn, statement)


@pytest.fixture
async def postgres(server: EmbeddedPostgres) -> AsyncIterator[PostgresWorld]:
    async with postgres_world(server.app_dsn, server.owner_dsn) as world:
        yield world


@pytest.fixture(params=["memory", "postgres"])
async def world(request: pytest.FixtureRequest, server: EmbeddedPostgres) -> AsyncIterator[World]:
    if request.param == "memory":
        yield MemoryWorld()
        return
    async with postgres_world(server.app_dsn, server.owner_dsn) as world:
        yield world


@pytest.fixture(params=["memory", "postgres"])
def own_database(
    request: pytest.FixtureRequest, server: EmbeddedPostgres, template: str
) -> Iterator[Database | None]:
    """Migrated; None: memory."""
    if request.param == "memory":
        yield None
        return
    with a_database(server, template) as database:
        yield database


@pytest.fixture
async def own_world(own_database: Database | None) -> AsyncIterator[World]:
    """A world on a database of its own, for what exists once per database."""
    if own_database is None:
        yield MemoryWorld()
        return
    async with postgres_world(own_database.app_dsn, own_database.owner_dsn) as world:
        yield world


@pytest.fixture
async def anchoring(own_world: World) -> AsyncIterator[AnchoringWorld]:
    async with anchoring_world(own_world) as world:
        yield world
