"""Commitments of the legacy stream (VES 3.10): a range under one root, and the versions of all entities.

It alone computes the legacy state root. Unlike that of VES it is no chain: it is a hash of all entity
versions of the store, of both streams, as they are at the moment of the commitment.
"""

from __future__ import annotations

from hashlib import sha256

import msgspec

from ves.records import Uuid


class LegacyCommitment(msgspec.Struct, frozen=True):
    """One row of ``batch_commitments``, in the order of its columns here."""

    batch_id: Uuid
    tenant_id: Uuid
    store_id: Uuid
    sequence_start: int
    sequence_end: int
    event_count: int
    committed_at_us: int
    events_root: bytes
    prev_state_root: bytes
    """The new one of the commitment before; 32 zero bytes for the first."""
    new_state_root: bytes


class EntityVersions:
    """The state root, fed entity by entity in the byte order of (entity_type, entity_id)."""

    def __init__(self, tenant_id: Uuid, store_id: Uuid) -> None:
        self._hash = sha256(tenant_id + store_id)

    def add(self, entity_type: str, entity_id: str, version: int) -> None:
        """Raw bytes without lengths, as the original has it: two histories can share a root."""
        self._hash.update(entity_type.encode() + entity_id.encode() + version.to_bytes(8, "little"))

    def state_root(self) -> bytes:
        return self._hash.digest()
