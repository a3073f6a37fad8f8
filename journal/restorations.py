"""After a database was brought back from a copy: whether somebody confirmed it, and which numbers are void.

Alone knows the three tables of it. A restoration without a confirmation keeps servers read-only. Voided
numbers were given to events that are lost: the confirmation moves the stream's counter past them in the same
transaction, so that no number is ever given to a second event, and commitments go around them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, NamedTuple

from journal.aio import cross
from journal.audit import write_audit
from journal.port import AuditEntry, JournalError, Voided
from journal.units import Undo, Units
from ves.constants import ZERO_HASH
from ves.records import Uuid

if TYPE_CHECKING:
    from journal.connections import Connection

GIVEN_MAX = 1000
"""Numbers looked up in one statement."""
UNCONFIRMED = (
    "this database was restored and nobody has confirmed it yet, so nothing was written: "
    "sequencer restore confirm first"
)

Cause = Literal["backup", "behind"]


class RestorationMoved(JournalError):
    """What was compared is no longer so: nothing was confirmed. Compare again."""


@dataclass(frozen=True)
class Restoration:
    """``cause``: restored from a backup, or found behind what this node had acknowledged."""

    restoration_id: Uuid
    restored_at_us: int
    cause: Cause
    details: str


class Given(NamedTuple):
    """A number that was given to an event, as somebody can show."""

    tenant_id: Uuid
    store_id: Uuid
    sequence_number: int
    event_id: Uuid

    @property
    def stream(self) -> tuple[Uuid, Uuid]:
        return self.tenant_id, self.store_id


class KnownHead(NamedTuple):
    tenant_id: Uuid
    store_id: Uuid
    head_sequence: int
    committed_through: int
    state_root: bytes


async def pending(connection: Connection) -> Restoration | None:
    """The oldest one that nobody has confirmed."""
    row = await connection.fetchrow(
        "SELECT r.restoration_id, r.restored_at, r.cause, r.details FROM record.restorations r "
        "WHERE NOT EXISTS (SELECT FROM record.restoration_confirmations c "
        "WHERE c.restoration_id = r.restoration_id) ORDER BY r.restored_at LIMIT 1"
    )
    return None if row is None else Restoration(*row)


async def rest_until_confirmed(units: Units) -> None:
    """While a restoration waits nothing is written through these, or a restore to a later time would lose it,
    and the audit chain would have two ends."""
    if await cross(lambda: units.read(pending)) is not None:
        units.condition.resting = UNCONFIRMED


async def record(
    connection: Connection, restoration_id: Uuid, node_id: Uuid, cause: Cause, details: str
) -> None:
    await connection.execute(
        "INSERT INTO record.restorations (restoration_id, restored_at, node_id, cause, details) "
        "VALUES ($1, clock_timestamp(), $2, $3, $4) ON CONFLICT DO NOTHING",
        restoration_id,
        node_id,
        cause,
        details,
    )


async def confirm(
    connection: Connection,
    node_id: Uuid,
    restoration_id: Uuid,
    reason: str,
    compared: str,
    voids: Sequence[Voided],
    audit: AuditEntry,
) -> RestorationMoved | None:
    """One transaction. Undone with RestorationMoved when it is confirmed already or a head has moved."""
    done = await connection.execute(
        "INSERT INTO record.restoration_confirmations (restoration_id, confirmed_at, reason, compared) "
        "VALUES ($1, clock_timestamp(), $2, $3) ON CONFLICT DO NOTHING",
        restoration_id,
        reason,
        compared,
    )
    if done != "INSERT 0 1":
        raise Undo(RestorationMoved("this restoration has been confirmed meanwhile"))
    for void in sorted(voids, key=lambda one: (one.tenant_id, one.store_id)):
        await _void(connection, restoration_id, void)
    await write_audit(connection, node_id, audit)
    return None


async def _void(connection: Connection, restoration_id: Uuid, void: Voided) -> None:
    stream = (void.tenant_id, void.store_id)
    if void.first_number == 1:
        done = await connection.execute(
            "INSERT INTO record.ves_sequence_counters (tenant_id, store_id, current_sequence, "
            "last_sequenced_at) VALUES ($1, $2, $3, clock_timestamp()) ON CONFLICT DO NOTHING",
            *stream,
            void.last_number,
        )
        moved = done != "INSERT 0 1"
    else:
        done = await connection.execute(
            "UPDATE record.ves_sequence_counters SET current_sequence = $4 "
            "WHERE tenant_id = $1 AND store_id = $2 AND current_sequence = $3",
            *stream,
            void.first_number - 1,
            void.last_number,
        )
        moved = done != "UPDATE 1"
    if moved:
        raise Undo(RestorationMoved("a stream has another head than the one that was compared"))
    await connection.execute(
        "INSERT INTO record.voided_numbers (tenant_id, store_id, first_number, last_number, voided_at, "
        "restoration_id) VALUES ($1, $2, $3, $4, clock_timestamp(), $5)",
        *stream,
        void.first_number,
        void.last_number,
        restoration_id,
    )
    # Where everything before was committed, the next commitment starts after the void; else the one that
    # ends before it takes the counter along (journal.commitments).
    if void.first_number == 1:
        await connection.execute(
            "INSERT INTO record.ves_commitment_counters (tenant_id, store_id, committed_through, state_root) "
            "VALUES ($1, $2, $3, $4) ON CONFLICT DO NOTHING",
            *stream,
            void.last_number,
            ZERO_HASH,
        )
    await connection.execute(
        "UPDATE record.ves_commitment_counters SET committed_through = $4 "
        "WHERE tenant_id = $1 AND store_id = $2 AND committed_through = $3",
        *stream,
        void.first_number - 1,
        void.last_number,
    )


async def standing_at(connection: Connection, given: Sequence[Given]) -> list[Uuid | None]:
    """Which event stands at each number, in order; None: no event does."""
    if len(given) > GIVEN_MAX:
        raise ValueError(f"at most {GIVEN_MAX} numbers a call")
    rows = await connection.fetch(
        "SELECT e.event_id FROM unnest($1::uuid[], $2::uuid[], $3::bigint[]) "
        "WITH ORDINALITY AS g (tenant_id, store_id, sequence_number, place) "
        "LEFT JOIN LATERAL ("
        "(SELECT event_id FROM record.ves_events e WHERE e.tenant_id = g.tenant_id "
        "AND e.store_id = g.store_id AND e.sequence_number = g.sequence_number LIMIT 1) UNION ALL "
        "(SELECT event_id FROM record.ves_events_archive a WHERE a.tenant_id = g.tenant_id "
        "AND a.store_id = g.store_id AND a.sequence_number = g.sequence_number LIMIT 1) LIMIT 1"
        ") e ON true ORDER BY g.place",
        [one.tenant_id for one in given],
        [one.store_id for one in given],
        [one.sequence_number for one in given],
    )
    return [row[0] for row in rows]


async def absent_commitments(connection: Connection, batch_ids: Sequence[Uuid]) -> list[Uuid]:
    rows = await connection.fetch(
        "SELECT b FROM unnest($1::uuid[]) AS b WHERE NOT EXISTS "
        "(SELECT FROM record.ves_commitments c WHERE c.batch_id = b)",
        list(batch_ids),
    )
    return [row[0] for row in rows]


async def holds_audit_entry(
    connection: Connection, node_id: Uuid, entry_number: int, entry_hash: bytes
) -> bool:
    return entry_number == 0 or bool(
        await connection.fetchval(
            "SELECT true FROM record.audit_log WHERE node_id = $1 AND entry_number = $2 AND entry_hash = $3",
            node_id,
            entry_number,
            entry_hash,
        )
    )


async def heads(connection: Connection, after: tuple[Uuid, Uuid] | None, limit: int) -> list[KnownHead]:
    tenant_id, store_id = after or (None, None)
    rows = await connection.fetch(
        "SELECT c.tenant_id, c.store_id, c.current_sequence, coalesce(k.committed_through, 0), k.state_root "
        "FROM record.ves_sequence_counters c "
        "LEFT JOIN record.ves_commitment_counters k USING (tenant_id, store_id) "
        "WHERE $1::uuid IS NULL OR (c.tenant_id, c.store_id) > ($1, $2::uuid) "
        "ORDER BY c.tenant_id, c.store_id LIMIT $3",
        tenant_id,
        store_id,
        limit,
    )
    return [KnownHead(row[0], row[1], row[2], row[3], row[4] or ZERO_HASH) for row in rows]


async def voided(connection: Connection, tenant_id: Uuid, store_id: Uuid, limit: int) -> list[Voided]:
    rows = await connection.fetch(
        "SELECT tenant_id, store_id, first_number, last_number, voided_at FROM record.voided_numbers "
        "WHERE tenant_id = $1 AND store_id = $2 ORDER BY first_number LIMIT $3",
        tenant_id,
        store_id,
        limit,
    )
    return [Voided(*row) for row in rows]
