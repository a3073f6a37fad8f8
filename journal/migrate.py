"""Migrations: the schema's numbered steps, each applied once, in one transaction, under a lock.

The files are ``migrations/NNNN_name.sql``; what was applied is a row with the file's SHA-256. Never changes a
schema it does not recognise: a step that was edited afterwards or a newer schema than this code is refused.
"""

from __future__ import annotations

import hashlib
import re
from functools import cache
from importlib import resources
from typing import TYPE_CHECKING, NamedTuple

import asyncpg

from journal import hosts
from journal.aio import cross
from journal.connections import Limits, session_settings
from journal.port import SchemaMismatch
from journal.units import Checkpoint, not_stored

if TYPE_CHECKING:
    from journal.connections import Connection

_LOCK = 0x5645535F4D494752  # "VES_MIGR"
_CONNECT_S = 15.0
_LOCK_WAIT_S = 60.0
"""For another migration that is running."""
_STEP_S = 3600.0
_OWNER = "set DATABASE_ADMIN_URL to a role that owns the database"
_REMEDY = f"run `sequencer migrate`; {_OWNER}"


class Migration(NamedTuple):
    version: int
    name: str
    sql: str
    checksum: bytes


@cache
def migrations() -> tuple[Migration, ...]:
    """In order, without a hole."""
    found = []
    for file in resources.files("journal").joinpath("migrations").iterdir():
        match = re.fullmatch(r"(\d{4})_(\w+)\.sql", file.name)
        if match:
            raw = file.read_bytes()
            found.append(Migration(int(match[1]), match[2], raw.decode(), hashlib.sha256(raw).digest()))
    found.sort()
    if [m.version for m in found] != list(range(1, len(found) + 1)):
        raise RuntimeError("the migration files are not numbered 1, 2, 3, …: a damaged installation")
    return tuple(found)


class Logins(NamedTuple):
    """Logins to make, for an embedded server without passwords."""

    app: str | None = None
    """A member of sequencer_app."""
    admin: str | None = None
    """A member of sequencer_admin."""
    anchor: str | None = None
    """A member of sequencer_anchor."""

    def with_roles(self) -> list[tuple[str, str]]:
        """Each login to make, and the role it is for."""
        roles = ("sequencer_app", "sequencer_admin", "sequencer_anchor")
        return [(login, role) for login, role in zip(self, roles, strict=True) if login is not None]


NO_LOGINS = Logins()


async def migrate(
    dsn: str, logins: Logins = NO_LOGINS, *, checkpoint: Checkpoint = lambda name: None
) -> list[str]:
    """Brings the schema up to date and returns the names of the steps just applied. ``dsn``: a role that may
    create schemas (and roles, if ours do not exist). Safe to run twice, or twice at once.
    Raises SchemaMismatch, JournalAway; a failing step leaves nothing and surfaces as the PostgreSQL error."""
    return await cross(lambda: _migrate(dsn, logins, checkpoint))


async def check_schema(connection: Connection) -> None:
    """Raises SchemaMismatch unless exactly the steps we know were applied."""
    waiting = _waiting(await _applied(connection))
    if waiting:
        raise SchemaMismatch(f"the database schema lacks step {waiting[0].version}: {_REMEDY}")


async def _migrate(dsn: str, logins: Logins, checkpoint: Checkpoint) -> list[str]:
    # The session ends a wait for locks and a step by itself.
    limits = Limits(statement_timeout_s=_STEP_S, lock_timeout_s=_LOCK_WAIT_S)
    settings = session_settings(limits, "sequencer migrate") | {"search_path": "pg_catalog"}
    try:
        connection = await hosts.connect(dsn, timeout=_CONNECT_S, server_settings=settings)
        try:
            done = []
            while (name := await _step(connection, checkpoint)) is not None:
                checkpoint("migrate.committed")
                done.append(name)
            for login, role in logins.with_roles():
                await _make_login(connection, login, role)
                checkpoint("migrate.login_made")
            await connection.close(timeout=_CONNECT_S)
            return done
        finally:
            connection.terminate()
    except asyncpg.InsufficientPrivilegeError as error:
        raise SchemaMismatch(
            f"this login may not migrate: {error.args[0]}; {error.hint or _OWNER}"
        ) from error
    except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError) as error:
        not_stored(error)


async def _step(connection: Connection, checkpoint: Checkpoint) -> str | None:
    """Applies the next step and returns its name; None when there is none."""
    async with connection.transaction():
        await connection.execute(f"SELECT pg_advisory_xact_lock({_LOCK})")
        waiting = _waiting(await _applied(connection))
        if not waiting:
            return None
        step = waiting[0]
        await connection.execute(step.sql)
        await connection.execute(
            "INSERT INTO record.schema_migrations (version, name, checksum) VALUES ($1, $2, $3)",
            step.version,
            step.name,
            step.checksum,
        )
        checkpoint("migrate.applied")
        return step.name


async def _make_login(connection: Connection, name: str, role: str) -> None:
    quoted = '"' + name.replace('"', '""') + '"'
    async with connection.transaction():
        await connection.execute(f"SELECT pg_advisory_xact_lock({_LOCK})")
        if await connection.fetchval("SELECT 1 FROM pg_roles WHERE rolname = $1", name) is None:
            await connection.execute(f"CREATE ROLE {quoted} LOGIN")
        await connection.execute(f"GRANT {role} TO {quoted}")


async def _applied(connection: Connection) -> dict[int, bytes]:
    # to_regclass would need a privilege on the schema; the catalogue can be read by everybody.
    exists = await connection.fetchval(
        "SELECT 1 FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace "
        "WHERE n.nspname = 'record' AND c.relname = 'schema_migrations'"
    )
    if exists is None:
        return {}
    try:
        rows = await connection.fetch("SELECT version, checksum FROM record.schema_migrations")
    except asyncpg.InsufficientPrivilegeError as error:
        raise SchemaMismatch(
            "this login may not read the schema: make it a member of sequencer_app "
            "(GRANT sequencer_app TO the role of DATABASE_URL)"
        ) from error
    return {row[0]: row[1] for row in rows}


def _waiting(applied: dict[int, bytes]) -> list[Migration]:
    """The steps not applied yet. Raises SchemaMismatch for a schema that is not ours."""
    known = {m.version: m for m in migrations()}
    newer = sorted(applied.keys() - known.keys())
    if newer:
        raise SchemaMismatch(
            f"the database schema is at step {newer[-1]}, newer than this program knows ({len(known)}): "
            "run the newer version of the program (`sequencer migrate` never goes back)"
        )
    for version, checksum in applied.items():
        if known[version].checksum != checksum:
            raise SchemaMismatch(
                f"step {version} ({known[version].name}) was applied to this database from another text "
                "than this program carries; `sequencer migrate` will not touch it. "
                "Is this the right version of the program?"
            )
    return [m for m in known.values() if m.version not in applied]
