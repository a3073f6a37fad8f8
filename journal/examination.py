"""What ``sequencer doctor`` wants to know of a database: facts, each by one bounded statement.

Reads only, with the server's own login, beside a server that works. Never judges: ``supervisor.doctor`` does.
"""

from __future__ import annotations

import time
from hashlib import sha256
from typing import TYPE_CHECKING, Any, NamedTuple

from ves.constants import ATREST_MAGIC, ATREST_MAGIC_2, AUDIT_ENTRY

if TYPE_CHECKING:
    from journal.connections import Connection

ROWS_MAX = 1000
"""Of each table, as they come: the oldest, where nothing was rewritten."""
CHAINS_MAX = 64
ENTRIES_MAX = 200
"""The last ones of each chain."""
_SEALED = (
    ("record.ves_events", "payload_sealed"),
    ("record.events", "payload_encrypted"),
    ("record.ves_events_archive", "payload_sealed"),
    ("record.events_archive", "payload_encrypted"),
    ("record.ves_validity_proofs", "proof"),
)
_KEY_ID = 8


async def server_settings(connection: Connection, names: list[str]) -> dict[str, str]:
    """Of the server, as this session sees them; those it does not have or we may not see are missing."""
    ask = "SELECT name, setting FROM pg_catalog.pg_settings WHERE name = ANY ($1::text[])"
    return {row[0]: row[1] for row in await connection.fetch(ask, names)}


async def protocol_of_session(connection: Connection) -> str | None:
    """The TLS version of this very connection; None: none, or a unix socket."""
    ask = "SELECT version FROM pg_catalog.pg_stat_ssl WHERE pid = pg_catalog.pg_backend_pid() AND ssl"
    version: str | None = await connection.fetchval(ask)
    return version


async def clock_off_s(connection: Connection) -> float:
    """By how much the database's clock is ahead of ours, give or take half a round trip."""
    before = time.time()
    theirs: float = await connection.fetchval(
        "SELECT extract(epoch FROM pg_catalog.clock_timestamp())::double precision"
    )
    return theirs - (before + time.time()) / 2


class Archiving(NamedTuple):
    mode: str
    archived_ago_s: float | None
    failed_since: bool
    """The last attempt to archive a segment failed."""
    slots: int
    """Of replication: somebody streams the WAL away."""


async def archiving(connection: Connection) -> Archiving:
    row = await connection.fetchrow(
        "SELECT pg_catalog.current_setting('archive_mode'), "
        "extract(epoch FROM pg_catalog.clock_timestamp() - last_archived_time)::double precision, "
        "coalesce(last_failed_time > coalesce(last_archived_time, '-infinity'), false), "
        "(SELECT count(*) FROM pg_catalog.pg_replication_slots WHERE slot_type = 'physical') "
        "FROM pg_catalog.pg_stat_archiver"
    )
    assert row is not None
    return Archiving(*row)


async def members_of(connection: Connection, role: str) -> list[str]:
    """Direct ones."""
    rows = await connection.fetch(
        "SELECT m.rolname FROM pg_catalog.pg_auth_members a "
        "JOIN pg_catalog.pg_roles m ON m.oid = a.member JOIN pg_catalog.pg_roles g ON g.oid = a.roleid "
        "WHERE g.rolname = $1 ORDER BY 1 LIMIT 1000",
        role,
    )
    return [row[0] for row in rows]


class Sample(NamedTuple):
    table: str
    rows: int
    plain: int
    """Not encrypted at rest."""
    old_frames: int
    """SSE1: which key sealed them is not to be seen."""
    key_ids: list[bytes]
    """Of the SSE2 frames."""


async def sealed_samples(connection: Connection) -> list[Sample]:
    return [await _sample(connection, table, column) for table, column in _SEALED]


async def _sample(connection: Connection, table: str, column: str) -> Sample:
    rows = await connection.fetch(
        f"SELECT pg_catalog.substr({column}, 1, {len(ATREST_MAGIC_2) + _KEY_ID}) AS head, count(*) "  # noqa: S608 - our own names
        f"FROM (SELECT {column} FROM {table} LIMIT {ROWS_MAX}) s GROUP BY 1"
    )
    kinds: dict[bytes, int] = {}
    keys: set[bytes] = set()
    for head, count in rows:
        magic = bytes(head[: len(ATREST_MAGIC_2)])
        kinds[magic] = kinds.get(magic, 0) + count
        if magic == ATREST_MAGIC_2:
            keys.add(bytes(head[len(magic) :]))
    old, new = kinds.get(ATREST_MAGIC, 0), kinds.get(ATREST_MAGIC_2, 0)
    total = sum(kinds.values())
    return Sample(table, total, total - old - new, old, sorted(keys))


async def at_rest_keys(connection: Connection) -> int:
    """Not yet retired."""
    count: int = await connection.fetchval(
        "SELECT count(*) FROM record.at_rest_keys "
        "WHERE key_id NOT IN (SELECT key_id FROM record.at_rest_key_retirements)"
    )
    return count


async def receipt_key_age_days(connection: Connection) -> list[float]:
    """Of each node's newest receipt key, the oldest first."""
    rows = await connection.fetch(
        "SELECT extract(epoch FROM pg_catalog.clock_timestamp() - max(created_at))::double precision / 86400 "
        "FROM record.receipt_keys GROUP BY sequencer_id ORDER BY 1 DESC LIMIT 1000"
    )
    return [row[0] for row in rows]


async def agent_keys_older_than(connection: Connection, days: int) -> int:
    """Neither revoked nor retired, up to ROWS_MAX."""
    count: int = await connection.fetchval(
        "SELECT count(*) FROM (SELECT FROM record.agent_keys k "
        "WHERE k.registered_at < pg_catalog.clock_timestamp() - pg_catalog.make_interval(days => $1) "
        "AND coalesce(k.valid_to, 'infinity') > pg_catalog.clock_timestamp() "
        "AND NOT EXISTS (SELECT FROM record.agent_key_revocations r "
        "WHERE (r.tenant_id, r.agent_id, r.key_id) = (k.tenant_id, k.agent_id, k.key_id)) "
        "AND NOT EXISTS (SELECT FROM record.agent_key_retirements r "
        "WHERE (r.tenant_id, r.agent_id, r.key_id) = (k.tenant_id, k.agent_id, k.key_id)) "
        "LIMIT $2) overdue",
        days,
        ROWS_MAX,
    )
    return count


class Chain(NamedTuple):
    node_id: Any
    entries: int
    looked_at: int
    broken_at: int | None
    """The first entry that does not follow from the one before it, or is not there."""


async def audit_heads(connection: Connection) -> list[Chain]:
    """The ends of the audit chains, computed anew."""
    counters = await connection.fetch(
        "SELECT node_id, last_number, last_hash FROM record.audit_counters ORDER BY 1 LIMIT $1", CHAINS_MAX
    )
    return [await _head(connection, *counter) for counter in counters]


async def _head(connection: Connection, node_id: Any, last_number: int, last_hash: bytes) -> Chain:
    rows = await connection.fetch(
        "SELECT entry_number, entry, prev_hash, entry_hash FROM record.audit_log "
        "WHERE node_id = $1 AND entry_number > $2 ORDER BY entry_number",
        node_id,
        max(0, last_number - ENTRIES_MAX),
    )
    expected, previous = max(0, last_number - ENTRIES_MAX) + 1, None
    for number, entry, prev_hash, entry_hash in rows:
        whole = sha256(AUDIT_ENTRY + prev_hash + entry.encode()).digest() == entry_hash
        if number != expected or not whole or previous not in (None, prev_hash):
            return Chain(node_id, last_number, len(rows), expected)
        if number == last_number and entry_hash != last_hash:
            return Chain(node_id, last_number, len(rows), number)
        expected, previous = number + 1, entry_hash
    # Entries written since the counter was read are fine; fewer than it says are not.
    return Chain(node_id, last_number, len(rows), None if expected > last_number else expected)
