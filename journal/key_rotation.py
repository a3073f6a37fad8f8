"""One agent key takes the place of another: the new one registered and the old one's end, in one transaction.

Under the tenant's key lock, alone. A key ends at the earliest of its retirements, so a row that would end it
later is written with the end that stands. Judges signatures as little as its neighbour ``journal.keys``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from journal.audit import write_audit
from journal.key_rules import Retire, adds_proof, judge
from journal.keys import find_key, insert, insert_proof
from journal.locks import raise_epoch
from journal.port import AuditEntry, KeyConflict, KeyEnded, KeyRotated, KeyRotation
from journal.units import Undo
from ves.records import KeyName, Uuid

if TYPE_CHECKING:
    from journal.connections import Connection

# Not before what the tenant has sequenced: a clock that was set back must not make a signature invalid that
# was valid when its event was numbered.
_END = """
SELECT clock_timestamp(), greatest(
    clock_timestamp() + $2::bigint * interval '1 second',
    (SELECT max(last_sequenced_at) FROM record.ves_sequence_counters WHERE tenant_id = $1)
)
"""


async def rotate(
    connection: Connection, node_id: Uuid, rotation: KeyRotation, audit: AuditEntry
) -> KeyRotated | KeyConflict | KeyEnded | None:
    """Undone when nothing is new or nothing may be done."""
    key = rotation.key
    old_name = key.name._replace(key_id=rotation.replaces)
    old, new = await find_key(connection, old_name), await find_key(connection, key.name)
    done = await _was_replaced(connection, old_name, key.name.key_id)
    now_us, ends_us = await _end(connection, rotation)
    verdict = judge(rotation, old, new, done=done, now_us=now_us, ends_us=ends_us)
    if not isinstance(verdict, Retire):
        raise Undo(verdict)
    if new is None:
        await insert(connection, key)
    elif adds_proof(new, key):
        await insert_proof(connection, key)
    await _retire(connection, old_name, key.name.key_id, verdict)
    await raise_epoch(connection, key.name.tenant_id, keys=1)
    replaced, registered = await find_key(connection, old_name), await find_key(connection, key.name)
    assert replaced is not None, "keys are never removed"
    assert registered is not None, "inserted in this transaction or before"
    await write_audit(connection, node_id, audit)
    return KeyRotated(registered, replaced, already=False)


async def _end(connection: Connection, rotation: KeyRotation) -> tuple[int, int]:
    row = await connection.fetchrow(_END, rotation.key.name.tenant_id, rotation.grace_s)
    assert row is not None, "it reads the clock"
    return row[0], row[1]


async def _was_replaced(connection: Connection, old: KeyName, by: int) -> bool:
    found: bool = await connection.fetchval(
        "SELECT EXISTS (SELECT FROM record.agent_key_retirements "
        "WHERE tenant_id = $1 AND agent_id = $2 AND key_id = $3 AND replaced_by = $4)",
        *old,
        by,
    )
    return found


async def _retire(connection: Connection, old: KeyName, by: int, verdict: Retire) -> None:
    await connection.execute(
        "INSERT INTO record.agent_key_retirements "
        "(tenant_id, agent_id, key_id, replaced_by, retires_at, recorded_at, rotation_signature) "
        "VALUES ($1, $2, $3, $4, $5, clock_timestamp(), $6)",
        *old,
        by,
        verdict.retires_at_us,
        verdict.rotation_signature,
    )
