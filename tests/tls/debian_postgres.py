"""Debian's PostgreSQL, which speaks TLS, with a certificate of one's choice: on loopback, for one test.

``LOCALHOST`` stands for another machine: it leads here like localhost, but only the name localhost is known
to be this machine.
"""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import asyncpg
import pytest

from journal.embedded_cluster import OWNER, Cluster
from tests.chaos.database import Postgres

ELSEWHERE = "LOCALHOST"
PASSWORD = "correct-horse-battery"
HBA = """local all all trust
hostssl all all 127.0.0.1/32 scram-sha-256
hostnossl all all 127.0.0.1/32 scram-sha-256
"""


def binaries() -> Path:
    """Debian's newest; without one the test is skipped, but not where everything has to run."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: int(path.parts[4]))
    if not found:
        if os.environ.get("CI"):
            pytest.fail("Debian's postgresql is not installed: .ci/tools installs it")
        pytest.skip("Debian's postgresql is not installed")
    return found[-1].parent


class DebianPostgres(Postgres):
    def __init__(self, home: Path, **settings: str) -> None:
        super().__init__(home, **settings)
        self.cluster = Cluster(home, binaries())

    def address(self, user: str, query: str, *, host: str = ELSEWHERE, port: int | None = None) -> str:
        return f"postgresql://{user}:{PASSWORD}@{host}:{port or self.port}/postgres?{query}"

    @property
    def local(self) -> str:
        """The superuser's, over the unix socket."""
        return f"postgresql://{OWNER}@/postgres?host={self.cluster.socket_dir}&port={self.port}"

    def execute(self, *statements: str) -> list[list[asyncpg.Record]]:
        async def run() -> list[list[asyncpg.Record]]:
            connection = await asyncpg.connect(self.local)
            try:
                return [await connection.fetch(statement) for statement in statements]
            finally:
                await connection.close()

        return asyncio.run(run())

    @contextmanager
    def running(self, **settings: str) -> Iterator[DebianPostgres]:
        """With these settings, other than its own, for a while."""
        usual = self._settings
        self._settings = usual | settings
        try:
            self.vacate()
            self.cluster.prepare()
            (self.cluster.data / "pg_hba.conf").write_text(HBA)
            self.start()
            yield self
        finally:
            self._settings = usual
            self.end(signal.SIGINT)
