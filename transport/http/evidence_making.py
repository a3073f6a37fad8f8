"""An evidence file from what the journal holds: records in, members of ``ves.evidence_file`` out.

Alone puts such a file together. Looks nothing up, and checks that stored trees lead to their stored roots
before anything leaves; whether the whole holds is for whoever reads it, with ``ves.evidence``.
"""

from __future__ import annotations

import msgspec
from msgspec import UNSET, Raw

from journal.port import AgentKey, AnchorEvidence, PossessionProof, ReceiptKey
from ves.anchoring import (
    aggregate_head,
    aggregate_levels,
    aggregate_path,
    anchor_leaf,
    verify_in_aggregate,
)
from ves.audit import AuditCommitment, AuditRecord, inclusion_path, is_included, leaf_hash
from ves.constants import ENCRYPTED
from ves.encoding import prefixed_hex, uuid_text
from ves.evidence_file import (
    FORMAT,
    AuditRange,
    Evidence,
    EvidenceAgentKey,
    EvidenceAggregate,
    EvidenceAnchor,
    EvidenceBlock,
    EvidenceCommitment,
    EvidenceReceipt,
    EvidenceReceiptKey,
    Possession,
    Registration,
    Said,
    SignedEvent,
)
from ves.records import Commitment, StoredEvent
from ves.timestamps import utc_text

IN_A_BLOCK = ("included", "safe", "finalized")


class StoredTreeCorrupt(Exception):
    """A stored tree does not lead to its stored root. An operator must look at the database."""


class RegistrationFacts(msgspec.Struct, frozen=True):
    """The audit entry of a key's registration, and the commitment that holds it with all its entries."""

    entry: AuditRecord
    held: AuditCommitment | None
    held_entries: list[AuditRecord]


class AgentFacts(msgspec.Struct, frozen=True):
    key: AgentKey
    possession: PossessionProof | None
    registration: RegistrationFacts | None


class CommittedFacts(msgspec.Struct, frozen=True):
    commitment: Commitment
    leaf_index: int
    path: list[bytes]
    """Checked."""
    anchored: AnchorEvidence | None


def evidence_of(
    event: StoredEvent,
    payload: bytes | None,
    agent: AgentFacts | None,
    receipt_keys: list[ReceiptKey],
    committed: CommittedFacts | None,
) -> Evidence:
    """``payload``: the opened one, None to leave it out. ``receipt_keys``: any; those of others are dropped.
    Raises StoredTreeCorrupt."""
    anchored = committed.anchored if committed else None
    return Evidence(
        format=FORMAT,
        event=_event(event, payload),
        agent_key=None if agent is None else _agent_key(agent),
        receipt=_receipt(event),
        sequencer_keys=_receipt_keys(event, receipt_keys),
        commitment=None if committed is None else _commitment(committed),
        anchor=None if committed is None or anchored is None else _anchor(committed.commitment, anchored),
        said=_said(event, committed),
    )


def _event(event: StoredEvent, payload: bytes | None) -> SignedEvent:
    encrypted = event.payload_kind == ENCRYPTED
    body = UNSET if payload is None else Raw(payload)
    return SignedEvent(
        ves_version=1,
        event_id=uuid_text(event.receipt.event_id),
        tenant_id=uuid_text(event.tenant_id),
        store_id=uuid_text(event.store_id),
        source_agent_id=uuid_text(event.source_agent_id),
        agent_key_id=event.agent_key_id,
        entity_type=event.entity_type,
        entity_id=event.entity_id,
        event_type=event.event_type,
        created_at=event.created_at,
        payload_kind=1 if encrypted else 0,
        payload_plain_hash=prefixed_hex(event.payload_plain_hash),
        payload_cipher_hash=prefixed_hex(event.payload_cipher_hash),
        agent_signature=prefixed_hex(event.agent_signature),
        payload=UNSET if encrypted else body,
        payload_encrypted=body if encrypted else UNSET,
    )


def _agent_key(agent: AgentFacts) -> EvidenceAgentKey:
    proof = agent.possession
    return EvidenceAgentKey(
        public_key=prefixed_hex(agent.key.public_key),
        possession=None
        if proof is None
        else Possession(2 if proof.version == 2 else 1, prefixed_hex(proof.signature)),
        registration=None if agent.registration is None else _registration(agent.registration),
    )


def _registration(facts: RegistrationFacts) -> Registration:
    entry, held = facts.entry, facts.held
    return Registration(
        node_id=uuid_text(entry.node_id),
        entry_number=entry.entry_number,
        text=entry.text,
        prev_hash=prefixed_hex(entry.prev_hash),
        committed=None
        if held is None
        else AuditRange(
            entry_start=held.entry_start,
            entry_end=held.entry_end,
            merkle_root=prefixed_hex(held.merkle_root),
            prev_state_root=prefixed_hex(held.prev_state_root),
            new_state_root=prefixed_hex(held.new_state_root),
        ),
        path=[] if held is None else [prefixed_hex(step) for step in _audit_path(facts, held)],
    )


def _audit_path(facts: RegistrationFacts, held: AuditCommitment) -> list[bytes]:
    entry = facts.entry
    leaves = [leaf_hash(one.node_id, one.entry_number, one.entry_hash) for one in facts.held_entries]
    if len(leaves) == held.leaf_count:
        path = inclusion_path(leaves, entry.entry_number - held.entry_start)
        if is_included(held, entry.entry_number, entry.entry_hash, path):
            return path
    raise StoredTreeCorrupt(f"audit chain {held.node_id.hex()}: entries from {held.entry_start}")


def _receipt(event: StoredEvent) -> EvidenceReceipt:
    receipt = event.receipt
    return EvidenceReceipt(
        sequencer_id=uuid_text(receipt.sequencer_id),
        key_version=receipt.sequencer_key_version,
        sequence_number=receipt.sequence_number,
        receipt_hash=prefixed_hex(receipt.receipt_hash),
        sequencer_signature=prefixed_hex(receipt.sequencer_signature),
    )


def _receipt_keys(event: StoredEvent, keys: list[ReceiptKey]) -> list[EvidenceReceiptKey]:
    own = [key for key in keys if key.sequencer_id == event.receipt.sequencer_id]
    return [
        EvidenceReceiptKey(
            key.key_version,
            prefixed_hex(key.public_key),
            None if key.previous_signature is None else prefixed_hex(key.previous_signature),
        )
        for key in sorted(own, key=lambda key: key.key_version)
    ]


def _commitment(facts: CommittedFacts) -> EvidenceCommitment:
    commitment = facts.commitment
    return EvidenceCommitment(
        batch_id=uuid_text(commitment.batch_id),
        sequence_start=commitment.sequence_start,
        sequence_end=commitment.sequence_end,
        leaf_count=commitment.leaf_count,
        merkle_root=prefixed_hex(commitment.merkle_root),
        prev_state_root=prefixed_hex(commitment.prev_state_root),
        new_state_root=prefixed_hex(commitment.new_state_root),
        leaf_index=facts.leaf_index,
        path=[prefixed_hex(step) for step in facts.path],
    )


def _anchor(commitment: Commitment, found: AnchorEvidence) -> EvidenceAnchor | None:
    """None as long as no block holds it: a reorganisation may have taken the one that did."""
    anchor, inclusion, raw = found.anchor, found.inclusion, found.raw_transaction
    if anchor.state not in IN_A_BLOCK or inclusion is None or raw is None:
        return None
    if anchor.contract is None or anchor.tx_hash is None:
        return None
    return EvidenceAnchor(
        chain_id=anchor.chain_id,
        contract=prefixed_hex(anchor.contract),
        aggregate=_aggregate(commitment, found, anchor.contract),
        transaction_hash=prefixed_hex(anchor.tx_hash),
        transaction=prefixed_hex(raw),
        block=EvidenceBlock(
            number=inclusion.block_number,
            hash=prefixed_hex(inclusion.block_hash),
            header=prefixed_hex(inclusion.block_header),
            transaction_index=inclusion.transaction_index,
            receipt=prefixed_hex(inclusion.receipt),
            receipt_proof=[prefixed_hex(node) for node in inclusion.proof],
        ),
    )


def _aggregate(commitment: Commitment, found: AnchorEvidence, contract: bytes) -> EvidenceAggregate | None:
    anchor = found.anchor
    if found.first_index is None or found.previous_head is None or anchor.position is None:
        return None
    leaf = anchor_leaf(anchor.chain_id, contract, commitment)
    path = aggregate_path(aggregate_levels(found.leaves), anchor.position)
    if not verify_in_aggregate(leaf, path, anchor.position, len(found.leaves), found.root):
        raise StoredTreeCorrupt(f"anchor {anchor.anchor_number}: leaf {anchor.position}")
    head = aggregate_head(found.previous_head, found.root, found.first_index, len(found.leaves))
    return EvidenceAggregate(
        leaf=prefixed_hex(leaf),
        position=anchor.position,
        count=len(found.leaves),
        path=[prefixed_hex(step) for step in path],
        root=prefixed_hex(found.root),
        first_index=found.first_index,
        previous_head=prefixed_hex(found.previous_head),
        head=prefixed_hex(head),
    )


def _said(event: StoredEvent, committed: CommittedFacts | None) -> Said:
    anchor = committed.anchored.anchor if committed and committed.anchored else None
    return Said(
        sequenced_at=utc_text(event.receipt.sequenced_at_us),
        committed_at=None if committed is None else utc_text(committed.commitment.committed_at_us),
        anchor_state="uncommitted" if committed is None else "unanchored" if anchor is None else anchor.state,
        anchor_state_since=None if anchor is None else utc_text(anchor.since_us),
    )
