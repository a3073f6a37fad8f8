"""The advisory lock of a tenant's keys: shared by its appends, exclusive for whoever changes its keys; and
the one lock of those who take commitments for an anchor.

So a revocation waits for the appends under way, and every append after it sees the new epoch. Alone knows
how a tenant becomes a lock number. All locks here end with their transaction.
"""

from __future__ import annotations

import hashlib
from functools import lru_cache
from typing import TYPE_CHECKING

from ves.records import Uuid

if TYPE_CHECKING:
    from journal.connections import Connection

_NAMESPACE = b"VES_TENANT_KEYS_V1"
_ANCHORING = 0x5645535F414E4348  # "VES_ANCH"


@lru_cache(maxsize=10_000)
def tenant_lock(tenant_id: Uuid) -> int:
    """A number of 64 bits, signed, as PostgreSQL wants it. Two tenants sharing one only wait in vain."""
    return int.from_bytes(hashlib.sha256(_NAMESPACE + tenant_id).digest()[:8], "big", signed=True)


def begin_sharing(tenant_id: Uuid) -> str:
    """BEGIN and the shared lock in one round trip. Every statement after it has a newer snapshot."""
    return f"BEGIN; SELECT pg_advisory_xact_lock_shared({tenant_lock(tenant_id)})"


def begin_together(lock_timeout_s: float) -> str:
    """BEGIN of a transaction for several tenants. It waits for nobody's lock longer than this: whoever has to
    wait does so alone. The key locks are taken by ``record.ves_advance_groups``, those that are free."""
    return f"BEGIN; SET LOCAL lock_timeout = {round(lock_timeout_s * 1000)}"


def begin_alone(tenant_id: Uuid) -> str:
    """BEGIN and the exclusive lock: no append of this tenant is under way once it is held."""
    return f"BEGIN; SELECT pg_advisory_xact_lock({tenant_lock(tenant_id)})"


def begin_anchoring() -> str:
    """BEGIN and the lock of whoever takes commitments for an anchor, ours or one that is reported."""
    return f"BEGIN; SELECT pg_advisory_xact_lock({_ANCHORING})"


async def raise_epoch(
    connection: Connection, tenant_id: Uuid, *, keys: int = 0, credentials: int = 0
) -> None:
    """Makes every fence read before now fail. Under the exclusive lock."""
    await connection.execute(
        "INSERT INTO record.tenant_epochs AS e (tenant_id, key_epoch, credential_epoch) VALUES ($1, $2, $3) "
        "ON CONFLICT (tenant_id) DO UPDATE SET key_epoch = e.key_epoch + EXCLUDED.key_epoch, "
        "credential_epoch = e.credential_epoch + EXCLUDED.credential_epoch",
        tenant_id,
        keys,
        credentials,
    )
