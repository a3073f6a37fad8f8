"""Validity proofs in memory: what ``journal.validity_proofs`` does with rows, done with a dict.

Part of the journal in memory, which owns when and whether a change is applied. Every method either reads, or
answers what a change would make of the table without touching it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import msgspec

from journal.port import ProofConflict, ProofSubmitted, StoredProof, ValidityProof
from ves.records import Uuid


@dataclass
class ProofTable:
    proofs: dict[Uuid, StoredProof] = field(default_factory=dict)

    def find(
        self, proof_id: Uuid, tenant_id: Uuid | None, store_ids: tuple[Uuid, ...] | None
    ) -> StoredProof | None:
        found = self.proofs.get(proof_id)
        if found is None or tenant_id not in (None, found.record.tenant_id):
            return None
        return found if store_ids is None or found.record.store_id in store_ids else None

    def listed(self, batch_id: Uuid, after: Uuid | None, limit: int) -> list[ValidityProof]:
        found = sorted((p.record for p in self.proofs.values() if p.record.batch_id == batch_id), key=_order)
        if after is not None:
            last = next((record for record in found if record.proof_id == after), None)
            found = [] if last is None else [record for record in found if _order(record) > _order(last)]
        return found[:limit]

    def present(self, wanted: ValidityProof) -> ProofSubmitted | ProofConflict | None:
        """What is there already in the place of this one; None: it would be the first of its kind."""
        for proof in self.proofs.values():
            if _kind(proof.record) == _kind(wanted):
                if proof.record.proof_hash == wanted.proof_hash:
                    return ProofSubmitted(proof.record, already=True)
                return ProofConflict(proof.record.proof_id)
        return None

    def submission(self, submitted: StoredProof, now_us: int) -> tuple[ProofSubmitted, Callable[[], None]]:
        record = msgspec.structs.replace(submitted.record, submitted_at_us=now_us)

        def keep() -> None:
            self.proofs[record.proof_id] = StoredProof(record, submitted.proof)

        return ProofSubmitted(record, already=False), keep


def _kind(record: ValidityProof) -> tuple[Uuid, str, int]:
    return record.batch_id, record.proof_type, record.proof_version


def _order(record: ValidityProof) -> tuple[int, Uuid]:
    return record.submitted_at_us, record.proof_id
