"""The database as a member of sequencer_admin sees it who seals stored values anew.

Pages in the order of keys, over a table and its archive in one statement; exchanges of one sealed value for
another, only where the old one is still there (compare-and-set), so that neither a second run, nor the
archive, nor anybody else is overwritten; and notes of where plaintext ended. Never opens or makes a frame.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from functools import cache
from typing import TYPE_CHECKING, NamedTuple

from journal.aio import cross
from journal.connections import Limits
from journal.migrate import check_schema
from journal.own_keys import is_at_rest_key
from journal.pools import open_units
from journal.port import SchemaMismatch
from journal.restorations import rest_until_confirmed
from journal.sealed_tables import SEALED_TABLES, Key, SealedTable
from journal.units import Checkpoint, Undo, Units
from ves.records import Uuid

if TYPE_CHECKING:
    import asyncpg

    from journal.connections import Connection

PAGE_BYTES_MAX = 16 * 1024 * 1024
"""Of sealed values read at once, unless a single one is larger."""
_PLAINTEXT_LOCK = 0x5645535F50545854  # "VES_PTXT": as in record.note_plaintext
# Keys and old values are given: each row is looked up by its key, whatever the statistics say.
_BEGIN = (
    "BEGIN; SET LOCAL enable_seqscan = off; SET LOCAL enable_hashjoin = off; SET LOCAL enable_mergejoin = off"
)
_BEGIN_ALONE = f"BEGIN; SELECT pg_advisory_xact_lock({_PLAINTEXT_LOCK})"


class Scope(NamedTuple):
    tenant_id: Uuid | None = None
    store_id: Uuid | None = None


class Exchange(NamedTuple):
    """One sealed value for another, where the old one still is."""

    key: Key
    archived: bool
    old: bytes
    new: bytes


class ResealingJournal:
    """Every method raises JournalAway; those that write JournalOutcomeUnknown too, and may be repeated."""

    def __init__(self, units: Units) -> None:
        self._units = units

    async def check_fitness(self) -> None:
        """Raises SchemaMismatch when the login may not seal anew, or the schema is not ours."""
        await cross(lambda: self._units.read(_check_fitness))

    async def total(self, table: SealedTable, scope: Scope) -> int:
        """How many rows a walk over the scope will meet, for a progress bar."""
        return int(await cross(lambda: self._units.read(lambda c: c.fetchval(table.total, *scope))))

    async def page(
        self, table: SealedTable, scope: Scope, after: Key, rows_max: int, *, whole: bool = True
    ) -> list[asyncpg.Record]:
        """The next rows by key, each with ``archived`` and ``sealed``; none at the end. Not ``whole``: of a
        value that is no SSE1 frame only its first 12 bytes."""
        text = _page(table, whole)
        arguments = (rows_max, PAGE_BYTES_MAX, *scope, *after)
        return list(await cross(lambda: self._units.read(lambda c: c.fetch(text, *arguments))))

    async def rows(self, table: SealedTable, keys: Sequence[Key]) -> list[asyncpg.Record]:
        """These rows as they are now, wherever they are now."""
        text, columns = _these(table), _columns_of(keys)
        return list(await cross(lambda: self._units.read(lambda c: c.fetch(text, *columns))))

    async def exchange(self, table: SealedTable, exchanges: Sequence[Exchange]) -> set[Key]:
        """The keys of those that took place, durable."""

        async def act(connection: Connection) -> set[Key]:
            done: set[Key] = set()
            for name, archived in ((table.name, False), (table.archive, True)):
                mine = [one for one in exchanges if one.archived == archived]
                if name is not None and mine:
                    found = await connection.fetch(_exchange(table, name), *_columns_of_exchanges(mine))
                    done |= {tuple(row) for row in found}
            return done

        return await cross(lambda: self._units.write(act, begin=_BEGIN, named="reencrypt"))

    async def is_at_rest_key(self, key_id: bytes) -> bool | None:
        """Whether it is retired; None when no node has ever had it."""
        return await cross(lambda: self._units.read(lambda c: is_at_rest_key(c, key_id)))

    async def begin_sweep(self, table: SealedTable) -> int | None:
        """Plaintext written from now on will be noted anew. The number to give to ``end_plaintext``; None
        when there is no plaintext in the table."""

        async def act(connection: Connection) -> int | None:
            last = await connection.fetchrow(
                "SELECT note_number, noted FROM record.at_rest_notes "
                "WHERE table_name = $1 AND noted <> 'sweep' ORDER BY note_number DESC LIMIT 1",
                table.name,
            )
            if last is None or last[1] == "clear":
                raise Undo(None)
            return await _note(connection, table.name, "sweep")

        return await cross(lambda: self._units.write(act, begin=_BEGIN_ALONE, named="begin_sweep"))

    async def end_plaintext(self, table: SealedTable, since: int) -> bool:
        """Whoever saw that no plaintext is left since the sweep began notes it; False when some was written
        meanwhile."""

        async def act(connection: Connection) -> bool:
            meanwhile = await connection.fetchval(
                "SELECT EXISTS (SELECT FROM record.at_rest_notes "
                "WHERE table_name = $1 AND note_number > $2 AND noted = 'plaintext')",
                table.name,
                since,
            )
            if meanwhile:
                raise Undo(False)
            await _note(connection, table.name, "clear")
            return True

        return await cross(lambda: self._units.write(act, begin=_BEGIN_ALONE, named="end_plaintext"))

    async def forbid(self, key_ids: Sequence[bytes]) -> None:
        """From now on no frame under these keys, or under a retired one, enters a table. Waits for whoever
        writes; without any key only the retired ones are forbidden."""
        for table in SEALED_TABLES.values():  # each by itself: nobody waits while holding another's lock
            for name in filter(None, (table.name, table.archive)):
                await self._forbid(name, list(key_ids))

    async def _forbid(self, table: str, key_ids: list[bytes]) -> None:
        async def act(connection: Connection) -> None:
            await connection.execute("SELECT record.forbid_at_rest_keys($1, $2)", table, key_ids)

        await cross(lambda: self._units.write(act, named="forbid_at_rest_keys"))


@asynccontextmanager
async def open_resealing(
    dsn: str, *, limits: Limits, checkpoint: Checkpoint
) -> AsyncIterator[ResealingJournal]:
    """``dsn``: of a member of sequencer_admin. Inside ``journal.aio.open_loop`` only. Raises SchemaMismatch,
    JournalAway."""
    async with open_units(
        dsn, limits=limits, checkpoint=checkpoint, application_name="sequencer admin"
    ) as units:
        journal = ResealingJournal(units)
        await journal.check_fitness()
        await rest_until_confirmed(units)
        yield journal


async def _check_fitness(connection: Connection) -> None:
    await check_schema(connection)
    if not await connection.fetchval("SELECT record.is_admin()"):
        raise SchemaMismatch(
            "this login may not seal anew: DATABASE_ADMIN_URL has to name a login that was made a member of "
            "sequencer_admin (GRANT sequencer_admin TO …; being owner or superuser is not enough)"
        )


async def _note(connection: Connection, table: str, noted: str) -> int:
    number: int = await connection.fetchval(
        "INSERT INTO record.at_rest_notes (table_name, note_number, noted, noted_at) "
        "SELECT $1, coalesce(max(note_number), 0) + 1, $2, clock_timestamp() "
        "FROM record.at_rest_notes WHERE table_name = $1 RETURNING note_number",
        table,
        noted,
    )
    return number


# Statements: texts of this module and names of ``journal.sealed_tables`` only.


def _places(table: SealedTable) -> list[tuple[str, str]]:
    places = [(table.name, "false")]
    return places if table.archive is None else [*places, (table.archive, "true")]


@cache
def _page(table: SealedTable, whole: bool) -> str:
    """$1 rows, $2 bytes, $3 tenant, $4 store, $5… the key to go on after."""
    key = ", ".join(table.key)
    after = ", ".join(f"${n}" for n in range(5, 5 + len(table.key)))
    sealed = table.column
    if not whole:
        sealed = (
            f"CASE WHEN substr({sealed}, 1, 4) = 'SSE1'::bytea THEN {sealed} ELSE substr({sealed}, 1, 12) END"
        )
    both = " UNION ALL ".join(
        f"(SELECT {archived} AS archived, {', '.join((*table.key, *table.others))}, {sealed} AS sealed "
        f"FROM record.{name} WHERE ({key}) > ({after}) "
        "AND ($3::uuid IS NULL OR tenant_id = $3) AND ($4::uuid IS NULL OR store_id = $4) "
        f"ORDER BY {key} LIMIT $1)"
        for name, archived in _places(table)
    )
    return (
        "SELECT * FROM (SELECT *, sum(octet_length(sealed)) OVER w - octet_length(sealed) AS bytes_before "
        f"FROM (SELECT * FROM ({both}) both_tables ORDER BY {key} LIMIT $1) page "
        f"WINDOW w AS (ORDER BY {key} ROWS UNBOUNDED PRECEDING)) counted "
        f"WHERE bytes_before < $2 ORDER BY {key}"
    )


def _given(table: SealedTable) -> str:
    return ", ".join(f"${n}::{kind}[]" for n, kind in enumerate(table.key_types, 1))


@cache
def _these(table: SealedTable) -> str:
    key = ", ".join(table.key)
    return " UNION ALL ".join(
        f"SELECT {archived} AS archived, {', '.join((*table.key, *table.others))}, {table.column} AS sealed "
        f"FROM record.{name} WHERE ({key}) IN (SELECT * FROM unnest({_given(table)}))"
        for name, archived in _places(table)
    )


@cache
def _exchange(table: SealedTable, name: str) -> str:
    size = len(table.key)
    same = " AND ".join(f"e.{column} = given.{column}" for column in table.key)
    return (
        f"UPDATE record.{name} AS e SET {table.column} = given.new "
        f"FROM unnest({_given(table)}, ${size + 1}::bytea[], ${size + 2}::bytea[]) "
        f"AS given ({', '.join(table.key)}, old, new) "
        f"WHERE {same} AND e.{table.column} = given.old "
        f"RETURNING {', '.join(f'e.{column}' for column in table.key)}"
    )


def _columns_of(keys: Iterable[Key]) -> list[list[Uuid | int]]:
    return [list(column) for column in zip(*keys, strict=True)]


def _columns_of_exchanges(exchanges: Sequence[Exchange]) -> list[list[Uuid | int]]:
    keys = _columns_of(one.key for one in exchanges)
    return [*keys, [one.old for one in exchanges], [one.new for one in exchanges]]
