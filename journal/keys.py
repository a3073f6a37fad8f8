"""Agent keys: bindings that never change; revocations, retirements and proofs are rows of their own.

(tenant, agent, key_id) -> public key is for ever; a public key belongs to one (tenant, agent) over the whole
database, which may know it under several key ids. Registering and revoking hold the tenant's key lock alone
and raise its key epoch, so no append decided before can be stored after. Judges no validity: that is
decided against ``sequenced_at``, elsewhere.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from journal.audit import write_audit
from journal.key_rules import adds_proof, binding
from journal.locks import raise_epoch
from journal.port import (
    AgentKey,
    AuditEntry,
    KeyConflict,
    KeyRegistered,
    KeyRevoked,
    KeysRevoked,
    PossessionProof,
)
from journal.units import Undo
from ves.records import KeyName, Uuid

if TYPE_CHECKING:
    from journal.connections import Connection

SELECT_KEY = """
SELECT k.tenant_id, k.agent_id, k.key_id, k.public_key, k.key_algorithm, k.valid_from, k.valid_to,
       k.registered_at, greatest(k.proof_of_possession, (
           SELECT max(p.version) FROM record.agent_key_proofs p
           WHERE (p.tenant_id, p.agent_id, p.key_id) = (k.tenant_id, k.agent_id, k.key_id)
       )), NULL, r.revoked_at, r.reason, t.retires_at, t.replaced_by, t.rotation_signature
FROM record.agent_keys k
LEFT JOIN record.agent_key_revocations r USING (tenant_id, agent_id, key_id)
LEFT JOIN LATERAL (
    SELECT t.retires_at, t.replaced_by, t.rotation_signature FROM record.agent_key_retirements t
    WHERE (t.tenant_id, t.agent_id, t.key_id) = (k.tenant_id, k.agent_id, k.key_id)
    ORDER BY t.retires_at, t.recorded_at DESC LIMIT 1
) t ON true
"""
_OF_AGENT = SELECT_KEY + "WHERE k.tenant_id = $1 AND k.agent_id = $2 AND "


async def find_public_keys(connection: Connection, names: list[KeyName]) -> dict[KeyName, bytes]:
    rows = await connection.fetch(
        "SELECT k.tenant_id, k.agent_id, k.key_id, k.public_key "
        "FROM unnest($1::uuid[], $2::uuid[], $3::bigint[]) AS q (tenant_id, agent_id, key_id) "
        "JOIN record.agent_keys k USING (tenant_id, agent_id, key_id)",
        [name.tenant_id for name in names],
        [name.agent_id for name in names],
        [name.key_id for name in names],
    )
    return {KeyName(*row[:3]): row[3] for row in rows}


async def register(
    connection: Connection, node_id: Uuid, key: AgentKey, audit: AuditEntry
) -> KeyRegistered | KeyConflict:
    """In a transaction that began alone. Undone when nothing is new."""
    present = await find_key(connection, key.name)
    if present is not None and binding(present) != binding(key):
        raise Undo(KeyConflict(same_name=True))
    if present is not None and not adds_proof(present, key):
        raise Undo(KeyRegistered(present, already=True))
    if present is None:
        await insert(connection, key)
        await raise_epoch(connection, key.name.tenant_id, keys=1)
    else:
        # No epoch: what a key may sign does not depend on it.
        await insert_proof(connection, key)
    registered = await find_key(connection, key.name)
    assert registered is not None, "inserted in this transaction"
    await write_audit(connection, node_id, audit)
    return KeyRegistered(registered, already=present is not None)


async def insert(connection: Connection, key: AgentKey) -> None:
    """A key that is not there yet, with its proof. Undone when its public key belongs to another agent, or
    to a key of this one that was revoked: whoever knows that one's secret could sign again."""
    if not await _take_public_key(connection, key) or await _was_revoked(connection, key):
        raise Undo(KeyConflict(same_name=False))
    await connection.execute(
        "INSERT INTO record.agent_keys (tenant_id, agent_id, key_id, key_algorithm, proof_of_possession, "
        "valid_from, valid_to, registered_at, public_key) "
        "VALUES ($1, $2, $3, $4, $5, $6, $7, clock_timestamp(), $8)",
        *key.name,
        key.key_algorithm,
        key.proof_of_possession,
        key.valid_from_us,
        key.valid_to_us,
        key.public_key,
    )
    if key.proof is not None:
        await insert_proof(connection, key)


async def insert_proof(connection: Connection, key: AgentKey) -> None:
    await connection.execute(
        "INSERT INTO record.agent_key_proofs (tenant_id, agent_id, key_id, version, recorded_at, signature) "
        "VALUES ($1, $2, $3, $4, clock_timestamp(), $5)",
        *key.name,
        key.proof_of_possession,
        key.proof,
    )


async def read_possession(connection: Connection, name: KeyName) -> PossessionProof | None:
    row = await connection.fetchrow(
        "SELECT version, signature FROM record.agent_key_proofs "
        "WHERE tenant_id = $1 AND agent_id = $2 AND key_id = $3 ORDER BY version DESC LIMIT 1",
        *name,
    )
    return None if row is None else PossessionProof(*row)


async def _take_public_key(connection: Connection, key: AgentKey) -> bool:
    """Whether this public key is this agent's, from now on or since before."""
    await connection.execute(
        "INSERT INTO record.agent_public_keys (public_key, tenant_id, agent_id) VALUES ($1, $2, $3) "
        "ON CONFLICT DO NOTHING",
        key.public_key,
        key.name.tenant_id,
        key.name.agent_id,
    )
    # A statement of its own: the owner may have committed while ours waited for it.
    owner = await connection.fetchrow(
        "SELECT tenant_id, agent_id FROM record.agent_public_keys WHERE public_key = $1", key.public_key
    )
    return owner is not None and tuple(owner) == key.name[:2]


async def _was_revoked(connection: Connection, key: AgentKey) -> bool:
    found: bool = await connection.fetchval(
        "SELECT EXISTS (SELECT FROM record.agent_keys "
        "JOIN record.agent_key_revocations USING (tenant_id, agent_id, key_id) "
        "WHERE tenant_id = $1 AND agent_id = $2 AND public_key = $3)",
        key.name.tenant_id,
        key.name.agent_id,
        key.public_key,
    )
    return found


async def list_keys(
    connection: Connection, tenant_id: Uuid, agent_id: Uuid, from_key_id: int, limit: int
) -> list[AgentKey]:
    rows = await connection.fetch(
        _OF_AGENT + "k.key_id >= $3 ORDER BY k.key_id LIMIT $4", tenant_id, agent_id, from_key_id, limit
    )
    return [_agent_key(row) for row in rows]


async def walk(
    connection: Connection, tenant_id: Uuid | None, after: KeyName | None, limit: int
) -> list[AgentKey]:
    tests: list[str] = []
    arguments: list[Any] = [limit]
    if tenant_id is not None:
        tests.append("k.tenant_id = $2")
        arguments.append(tenant_id)
    if after is not None:
        start = len(arguments) + 1
        tests.append(f"(k.tenant_id, k.agent_id, k.key_id) > (${start}, ${start + 1}, ${start + 2})")
        arguments += after
    where = f"WHERE {' AND '.join(tests)} " if tests else ""
    rows = await connection.fetch(
        SELECT_KEY + where + "ORDER BY k.tenant_id, k.agent_id, k.key_id LIMIT $1", *arguments
    )
    return [_agent_key(row) for row in rows]


async def revoke(
    connection: Connection, node_id: Uuid, name: KeyName, reason: str, audit: AuditEntry
) -> KeyRevoked | None:
    """In a transaction that began alone. Undone when there is no such key or it was revoked before."""
    present = await find_key(connection, name)
    if present is None:
        raise Undo(None)
    if present.revoked_at_us is not None:
        raise Undo(KeyRevoked(present, already=True))
    await connection.execute(
        "INSERT INTO record.agent_key_revocations (tenant_id, agent_id, key_id, revoked_at, reason) "
        "VALUES ($1, $2, $3, clock_timestamp(), $4)",
        *name,
        reason,
    )
    await raise_epoch(connection, name.tenant_id, keys=1)
    revoked = await find_key(connection, name)
    assert revoked is not None, "keys are never removed"
    await write_audit(connection, node_id, audit)
    return KeyRevoked(revoked, already=False)


async def revoke_all(
    connection: Connection, node_id: Uuid, tenant_id: Uuid, agent_id: Uuid, reason: str, audit: AuditEntry
) -> KeysRevoked | None:
    """In a transaction that began alone. Undone when nothing was left to revoke."""
    row = await connection.fetchrow(
        "WITH revoked AS (INSERT INTO record.agent_key_revocations "
        "(tenant_id, agent_id, key_id, revoked_at, reason) "
        "SELECT tenant_id, agent_id, key_id, clock_timestamp(), $3 FROM record.agent_keys "
        "WHERE tenant_id = $1 AND agent_id = $2 ON CONFLICT DO NOTHING RETURNING key_id) "
        "SELECT (SELECT count(*) FROM revoked), "
        "(SELECT count(*) FROM record.agent_keys WHERE tenant_id = $1 AND agent_id = $2)",
        tenant_id,
        agent_id,
        reason,
    )
    assert row is not None, "an aggregate has a row"
    revoked, there = row
    if not revoked:
        raise Undo(KeysRevoked(0, there) if there else None)
    await raise_epoch(connection, tenant_id, keys=1)
    await write_audit(connection, node_id, audit)
    return KeysRevoked(revoked, there - revoked)


async def find_key(connection: Connection, name: KeyName) -> AgentKey | None:
    row = await connection.fetchrow(_OF_AGENT + "k.key_id = $3", *name)
    return None if row is None else _agent_key(row)


def _agent_key(row: Any) -> AgentKey:
    return AgentKey(KeyName(*row[:3]), *row[3:])
