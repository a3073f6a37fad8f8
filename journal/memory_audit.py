"""The audit trail in memory: what ``journal.audit_trail`` does in PostgreSQL, as functions over entry texts.

``Chains`` is node id -> (entry text, entry hash) by number, as ``journal.memory`` keeps them. Decides nothing
about transactions and failures; that is ``MemoryJournal``'s.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from journal.port import AuditChain, AuditWish
from ves.audit import AuditCommitment, AuditRecord
from ves.constants import ZERO_HASH
from ves.encoding import uuid_bytes
from ves.records import Uuid

Chains = Mapping[Uuid, Sequence[tuple[str, bytes]]]
Commitments = Mapping[Uuid, Sequence[AuditCommitment]]


def records(chains: Chains, node_id: Uuid) -> list[AuditRecord]:
    found, prev_hash = [], ZERO_HASH
    for text, digest in chains.get(node_id, ()):
        told: dict[str, Any] = msgspec.json.decode(text)
        tenant_id = None if told["tenant_id"] is None else uuid_bytes(told["tenant_id"])
        found.append(
            AuditRecord(
                node_id,
                told["number"],
                told["recorded_at_us"],
                tenant_id,
                told["actor"],
                told["action"],
                told["subject"],
                text,
                prev_hash,
                digest,
            )
        )
        prev_hash = digest
    return found


def chain(chains: Chains, commitments: Commitments, node_id: Uuid) -> AuditChain:
    entries = records(chains, node_id)
    last = commitments[node_id][-1] if commitments.get(node_id) else None
    through, root = (0, ZERO_HASH) if last is None else (last.entry_end, last.new_state_root)
    oldest_us = entries[through].recorded_at_us if through < len(entries) else 0
    return AuditChain(node_id, len(entries), entries[-1].entry_hash, through, root, oldest_us)


def newest_first(chains: Chains, wish: AuditWish) -> list[AuditRecord]:
    everything = [record for node_id in chains for record in records(chains, node_id)]
    return [one for one in sorted(everything, key=_place, reverse=True) if _wanted(one, wish)]


def _place(record: AuditRecord) -> tuple[int, Uuid, int]:
    return record.recorded_at_us, record.node_id, record.entry_number


def _wanted(record: AuditRecord, wish: AuditWish) -> bool:
    after = wish.after
    same = (
        wanted is None or wanted == found
        for wanted, found in (
            (wish.tenant_id, record.tenant_id),
            (wish.node_id, record.node_id),
            (wish.actor, record.actor),
            (wish.action, record.action),
        )
    )
    return (
        all(same)
        and (wish.from_us is None or record.recorded_at_us >= wish.from_us)
        and (wish.to_us is None or record.recorded_at_us < wish.to_us)
        and (after is None or _place(record) < (after.recorded_at_us, after.node_id, after.entry_number))
    )
