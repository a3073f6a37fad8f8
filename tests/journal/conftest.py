"""One real PostgreSQL for the journal's tests, migrated, and the two worlds every contract runs in."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import pytest
import trio
from journal_worlds import MemoryWorld, PostgresWorld, World, postgres_world

from journal.aio import open_loop
from journal.embedded import EmbeddedPostgres
from journal.embedded_cluster import APP_LOGIN
from journal.migrate import migrate


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedPostgres]:
    home = tmp_path_factory.mktemp("postgres")
    home.chmod(0o700)
    with EmbeddedPostgres(home) as running:
        trio.run(_migrate, running.owner_dsn)
        yield running


async def _migrate(dsn: str) -> None:
    async with open_loop():
        await migrate(dsn, APP_LOGIN)


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
