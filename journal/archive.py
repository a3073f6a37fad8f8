"""Moving old events into the archive: which committed range is due, its rows, and the move itself.

A range moves in steps, each one transaction: the rows are copied and locked, the tenant's key lock is taken
alone and its epoch raised (an append that was decided before an event_id left the table's unique index is
decided anew), the rows are deleted, COMMIT. The triggers of 0011 see to it that a row is in exactly one of
the two tables afterwards. Reading over both is everybody's business, through the views ``ves_events_all`` and
``events_all``. Runs as a member of sequencer_admin; never looks into a payload.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple, TypeVar

from journal.aio import cross
from journal.audit import write_audit
from journal.connections import Limits
from journal.locks import raise_epoch, tenant_lock
from journal.migrate import check_schema
from journal.pools import open_units
from journal.port import AuditEntry, JournalError
from journal.restorations import rest_until_confirmed
from journal.units import Checkpoint, Units
from ves.records import Uuid

if TYPE_CHECKING:
    from journal.connections import Connection

T = TypeVar("T")

_STREAMS_A_PAGE = 500


@dataclass(frozen=True)
class EventTable:
    """A table that is archived, and the table of the commitments it is archived under."""

    name: str
    commitments: str
    columns: tuple[str, ...]


VES_EVENTS = EventTable(
    "ves_events",
    "ves_commitments",
    (
        *("sequence_number", "sequenced_at", "agent_key_id", "base_version", "sequencer_key_version"),
        *("payload_kind", "tenant_id", "store_id", "event_id", "source_agent_id", "command_id"),
        *("sequencer_id", "entity_type", "entity_id", "event_type", "created_at", "payload_plain_hash"),
        *("payload_cipher_hash", "agent_signature", "event_signing_hash", "receipt_hash"),
        *("sequencer_signature", "payload_sealed"),
    ),
)
LEGACY_EVENTS = EventTable(
    "events",
    "batch_commitments",
    (
        *("sequence_number", "sequenced_at", "created_at", "base_version", "tenant_id", "store_id"),
        *("event_id", "source_agent", "command_id", "entity_type", "entity_id", "event_type"),
        *("payload_hash", "signature", "payload_encrypted"),
    ),
)


class StreamName(NamedTuple):
    tenant_id: Uuid
    store_id: Uuid


class DueRange(NamedTuple):
    """A committed range whose youngest event is old enough. ``first``: its first event still in the table; a
    run that was ended inside of the range has moved those before it."""

    batch_id: Uuid
    sequence_start: int
    sequence_end: int
    first: int


class ArchiveRefused(JournalError):
    """This login may not archive, or the rows are not what they were: nothing was moved."""


# $1 tenant, $2 store, $3 from, $4 before. sequenced_at never falls along the numbers: the last one decides.
_DUE = """
SELECT c.batch_id, c.sequence_start, c.sequence_end, f.sequence_number
FROM (SELECT sequence_number FROM record.{table}
      WHERE tenant_id = $1 AND store_id = $2 AND sequence_number >= $3 ORDER BY sequence_number LIMIT 1) f,
LATERAL (SELECT batch_id, sequence_start, sequence_end FROM record.{commitments}
         WHERE tenant_id = $1 AND store_id = $2 AND sequence_start <= f.sequence_number
         ORDER BY sequence_start DESC LIMIT 1) c,
LATERAL (SELECT sequenced_at FROM record.{table}_all
         WHERE tenant_id = $1 AND store_id = $2 AND sequence_number = c.sequence_end LIMIT 1) l
WHERE c.sequence_end >= f.sequence_number AND l.sequenced_at < $4
"""
_STREAMS = """
WITH RECURSIVE streams AS (
    (SELECT tenant_id, store_id FROM record.{commitments}
     WHERE ($1::uuid IS NULL OR tenant_id = $1) AND ($2::uuid IS NULL OR store_id = $2)
       AND (tenant_id, store_id) > ($3, $4)
     ORDER BY tenant_id, store_id LIMIT 1)
    UNION ALL
    SELECT n.tenant_id, n.store_id FROM streams s, LATERAL (
        SELECT tenant_id, store_id FROM record.{commitments}
        WHERE ($1::uuid IS NULL OR tenant_id = $1) AND ($2::uuid IS NULL OR store_id = $2)
          AND (tenant_id, store_id) > (s.tenant_id, s.store_id)
        ORDER BY tenant_id, store_id LIMIT 1) n
)
SELECT tenant_id, store_id FROM streams LIMIT $5
"""
_COPY = """
WITH copied AS (
    INSERT INTO record.{table}_archive ({columns}, archived_at)
    SELECT {columns}, clock_timestamp() FROM (
        SELECT * FROM record.{table}
        WHERE tenant_id = $1 AND store_id = $2 AND sequence_number BETWEEN $3 AND $4
        ORDER BY sequence_number FOR UPDATE) e
    RETURNING 1
)
SELECT count(*) FROM copied
"""
_DELETE = """
WITH deleted AS (
    DELETE FROM record.{table}
    WHERE tenant_id = $1 AND store_id = $2 AND sequence_number BETWEEN $3 AND $4
    RETURNING 1
)
SELECT count(*) FROM deleted
"""
_COUNT = """
SELECT count(*) FROM record.{table}_archive
WHERE tenant_id = $1 AND store_id = $2 AND sequence_number BETWEEN $3 AND $4
"""
_ROWS = """
SELECT row_to_json(e)::text FROM record.{table}_all e
WHERE tenant_id = $1 AND store_id = $2 AND sequence_number BETWEEN $3 AND $4
ORDER BY sequence_number
"""
_COMMITMENT = "SELECT (to_jsonb(c) - 'levels')::text FROM record.{commitments} c WHERE batch_id = $1"


def _of(table: EventTable, statement: str) -> str:
    return statement.format(table=table.name, commitments=table.commitments, columns=", ".join(table.columns))


@asynccontextmanager
async def open_archive(
    dsn: str, *, node_id: Uuid, limits: Limits, checkpoint: Checkpoint
) -> AsyncIterator[Archive]:
    """``dsn`` logs in as a member of sequencer_admin. ``checkpoint`` is called at ``archive.copied``,
    ``archive.deleted`` and the points of a unit named ``archive``. Raises JournalAway, SchemaMismatch and,
    when the login is no such member, ArchiveRefused."""
    async with open_units(
        dsn, limits=limits, checkpoint=checkpoint, application_name="sequencer archive"
    ) as units:
        archive = Archive(units, node_id, checkpoint)
        await archive.check_fitness()
        await rest_until_confirmed(units)
        yield archive


class Archive:
    """One database's archive, as one who may move rows into it sees it."""

    def __init__(self, units: Units, node_id: Uuid, checkpoint: Checkpoint) -> None:
        self._units = units
        self._node_id = node_id
        self._checkpoint = checkpoint

    async def _read(self, act: Callable[[Connection], Awaitable[T]]) -> T:
        return await cross(lambda: self._units.read(act))

    async def check_fitness(self) -> None:
        async def look(connection: Connection) -> None:
            await check_schema(connection)
            if not await connection.fetchval("SELECT record.is_admin()"):
                user = await connection.fetchval("SELECT session_user")
                raise ArchiveRefused(
                    f"the login {user} is no member of sequencer_admin: GRANT sequencer_admin TO it, or set "
                    "DATABASE_ADMIN_URL to a login that is one (CREATE ROLE … LOGIN IN ROLE sequencer_admin)"
                )

        await self._read(look)

    async def cutoff_us(self, *, seconds_ago: int) -> int:
        """By the database's clock, which also dated the events."""
        return await self._read(
            lambda c: c.fetchval("SELECT clock_timestamp() - make_interval(secs => $1)", seconds_ago)
        )

    async def streams(
        self, table: EventTable, *, tenant_id: Uuid | None, store_id: Uuid | None, after: StreamName | None
    ) -> list[StreamName]:
        """The next streams, in order, that have a commitment; empty at the end."""
        start = after or StreamName(bytes(16), bytes(16))
        rows = await self._read(
            lambda c: c.fetch(_of(table, _STREAMS), tenant_id, store_id, *start, _STREAMS_A_PAGE)
        )
        return [StreamName(*row) for row in rows]

    async def next_due(
        self, table: EventTable, stream: StreamName, *, from_number: int, before_us: int
    ) -> DueRange | None:
        """The range of the first event from ``from_number`` on that is still in the table, if the range is
        committed and all of it older than ``before_us``."""
        row = await self._read(lambda c: c.fetchrow(_of(table, _DUE), *stream, from_number, before_us))
        return None if row is None else DueRange(*row)

    async def move(self, table: EventTable, stream: StreamName, first: int, last: int) -> int:
        """How many rows were moved, in one transaction; those another run moved meanwhile are not counted.
        Raises JournalAway (nothing was moved) and JournalOutcomeUnknown (``archived`` tells)."""
        between = (*stream, first, last)

        async def act(connection: Connection) -> int:
            copied: int = await connection.fetchval(_of(table, _COPY), *between)
            self._checkpoint("archive.copied")
            # From here on no append of the tenant is under way, and none that was decided before is stored.
            await connection.execute(f"SELECT pg_advisory_xact_lock({tenant_lock(stream.tenant_id)})")
            await raise_epoch(connection, stream.tenant_id, keys=1)
            deleted = await connection.fetchval(_of(table, _DELETE), *between)
            if deleted != copied:
                raise ArchiveRefused(f"{copied} rows were copied and {deleted} deleted: nothing was moved")
            self._checkpoint("archive.deleted")
            return copied

        return await cross(lambda: self._units.write(act, named="archive"))

    async def archived(self, table: EventTable, stream: StreamName, first: int, last: int) -> int:
        """How many of these numbers are in the archive."""
        return await self._read(lambda c: c.fetchval(_of(table, _COUNT), *stream, first, last))

    async def rows(self, table: EventTable, stream: StreamName, first: int, last: int) -> list[str]:
        """The rows as PostgreSQL's JSON, wherever they are."""
        found = await self._read(lambda c: c.fetch(_of(table, _ROWS), *stream, first, last))
        return [row[0] for row in found]

    async def commitment(self, table: EventTable, batch_id: Uuid) -> str:
        """A commitment's row without its levels, as PostgreSQL's JSON."""
        return await self._read(lambda c: c.fetchval(_of(table, _COMMITMENT), batch_id))

    async def audit(self, entry: AuditEntry) -> None:
        await cross(
            lambda: self._units.write(lambda c: write_audit(c, self._node_id, entry), named="archive_audit")
        )
