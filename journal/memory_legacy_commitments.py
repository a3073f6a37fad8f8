"""Commitments of the legacy stream in memory: what ``journal.legacy_commitments`` does with rows.

Part of the journal in memory, which owns heads and versions, and when a change is applied.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from journal.port import CommitmentCounter, LegacyCommitmentPage
from ves.constants import ZERO_HASH
from ves.legacy_commitments import LegacyCommitment
from ves.records import Uuid


@dataclass
class LegacyCommitmentTable:
    commitments: dict[Uuid, tuple[LegacyCommitment, bytes]] = field(default_factory=dict)

    def of(self, tenant_id: Uuid, store_id: Uuid) -> list[LegacyCommitment]:
        """A stream's, by range."""
        found = [
            c for c, _ in self.commitments.values() if (c.tenant_id, c.store_id) == (tenant_id, store_id)
        ]
        return sorted(found, key=lambda c: c.sequence_start)

    def counter(self, tenant_id: Uuid, store_id: Uuid, head: int) -> CommitmentCounter:
        for last in reversed(self.of(tenant_id, store_id)):
            return CommitmentCounter(last.sequence_end, last.new_state_root, head)
        return CommitmentCounter(0, ZERO_HASH, head)

    def find(
        self, batch_id: Uuid, tenant_id: Uuid | None, store_ids: tuple[Uuid, ...] | None
    ) -> LegacyCommitment | None:
        found, _ = self.commitments.get(batch_id, (None, b""))
        if found is None or tenant_id not in (None, found.tenant_id):
            return None
        return found if store_ids is None or found.store_id in store_ids else None

    def over(self, tenant_id: Uuid, store_id: Uuid, sequence_number: int) -> LegacyCommitment | None:
        stream = self.of(tenant_id, store_id)
        return next((c for c in stream if c.sequence_start <= sequence_number <= c.sequence_end), None)

    def page(self, tenant_id: Uuid, store_id: Uuid, from_sequence: int, limit: int) -> LegacyCommitmentPage:
        found = [c for c in self.of(tenant_id, store_id) if c.sequence_start >= from_sequence]
        told = found[:limit]
        next_from = told[-1].sequence_end + 1 if told else from_sequence
        return LegacyCommitmentPage(told, len(found) > limit, next_from)

    def nodes(self, batch_id: Uuid, positions: list[int]) -> list[bytes]:
        _, levels = self.commitments.get(batch_id, (None, b""))
        if not all(0 <= position < len(levels) // 32 for position in positions):
            raise LookupError("no such commitment, or no such node in it")
        return [levels[32 * position : 32 * position + 32] for position in positions]
