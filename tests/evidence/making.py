"""An evidence file that holds in every link, made from the formulas and a block of our own.

Two streams' commitments share the aggregate, the receipt shares its block, the sequencer's key has been
rotated, the agent's key is in the middle of an audit commitment.
"""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import sha256
from typing import Any

from coincurve import PrivateKey

from journal.audit import entry_text
from journal.port import (
    AgentKey,
    AnchorEvidence,
    AuditEntry,
    CommitmentAnchor,
    PossessionProof,
    ReceiptKey,
)
from tests.ves.blocks import block, receipt
from transport.http.evidence_making import AgentFacts, CommittedFacts, RegistrationFacts, evidence_of
from ves import anchor_calls
from ves.anchor_transactions import (
    UnsignedTransaction,
    signed_bytes,
    signing_digest,
    transaction_hash,
)
from ves.anchoring import aggregate_head, aggregate_root, anchor_leaf
from ves.audit import AuditRecord, entry_hash, next_audit_commitment
from ves.canonical import jcs
from ves.commitments import next_commitment
from ves.constants import ZERO_HASH
from ves.encoding import prefixed_hex, uuid_text
from ves.events import EventHeader, event_signing_hash, payload_plain_hash, sign_event
from ves.evidence import Trust
from ves.evidence_file import Evidence
from ves.merkle import build_levels, inclusion_path, leaf_hash
from ves.receipt_keys import sign_rotation
from ves.receipts import sign_receipt
from ves.records import Commitment, KeyName, Receipt, StoredEvent
from ves.secp256k1 import address_of
from ves.signatures import Signer, pop_challenge_v2

CHAIN_ID = 84_532_001
CONTRACT = bytes(range(100, 120))
TENANT, STORE, AGENT, NODE, SEQUENCER = (
    sha256(name).digest()[:16] for name in (b"t", b"s", b"a", b"n", b"q")
)
ACCOUNT = PrivateKey(sha256(b"account").digest())
ADDRESS = address_of(ACCOUNT.public_key.format(compressed=False))
EVENTS = 5
AT = 3
"""Which of them the file is about, from 0."""
PAYLOAD = jcs({"delta": 100, "reason": "t\u00e9st", "list": [1, 1.5, None, True]})
BLOCK_TIME_S = 1_700_000_000
"""As ``tests.ves.blocks`` writes it."""


def signer(name: str) -> Signer:
    return Signer(sha256(name.encode()).digest())


@dataclass(frozen=True)
class Made:
    evidence: Evidence
    trust: Trust


def make(
    *,
    road: str = "aggregate",
    with_payload: bool = True,
    action: str = "agent_key.register",
    status: int = 1,
    value: int = 0,
) -> Made:
    """``action`` of the audit entry, ``status`` of the receipt, ``value`` of the transaction: what a liar who
    computes every hash anew would have there."""
    agent, first, second = signer("agent"), signer("first"), signer("second")
    events = [_event(agent, second, number) for number in range(1, EVENTS + 1)]
    leaves = [
        leaf_hash(TENANT, STORE, e.receipt.sequence_number, e.event_signing_hash, e.agent_signature)
        for e in events
    ]
    levels = build_levels(leaves)
    commitment = _commitment(STORE, levels[-1][0], EVENTS)
    keys = [
        ReceiptKey(SEQUENCER, 1, first.public_key, 1, False),
        ReceiptKey(
            SEQUENCER, 2, second.public_key, 2, True, sign_rotation(first, SEQUENCER, 2, second.public_key)
        ),
    ]
    evidence = evidence_of(
        events[AT],
        PAYLOAD if with_payload else None,
        _agent(agent, action),
        keys,
        CommittedFacts(commitment, AT, inclusion_path(levels, AT), anchored(commitment, road, status, value)),
    )
    trust = Trust(
        receipt_keys={(SEQUENCER, 1): first.public_key},
        chain_id=CHAIN_ID,
        contract=CONTRACT,
        anchoring_accounts=frozenset({ADDRESS}),
        agent_keys={KeyName(TENANT, AGENT, 7): agent.public_key},
        audit_state_roots=frozenset({_registration(agent, action).held.new_state_root}),  # type: ignore[union-attr]
    )
    return Made(evidence, trust)


def trust_file(trust: Trust) -> dict[str, Any]:
    """The same as the JSON of ``--trust``."""
    return {
        "sequencer_id": uuid_text(SEQUENCER),
        "receipt_keys": [
            {
                "key_version": version,
                "alg": "ed25519",
                "public_key": prefixed_hex(key),
                "sequencer_id": uuid_text(owner),
            }
            for (owner, version), key in trust.receipt_keys.items()
        ],
        "agent_keys": [
            {
                "tenant_id": uuid_text(name.tenant_id),
                "agent_id": uuid_text(name.agent_id),
                "key_id": name.key_id,
                "public_key": prefixed_hex(key),
            }
            for name, key in trust.agent_keys.items()
        ],
        "chain_id": trust.chain_id,
        "contract": None if trust.contract is None else prefixed_hex(trust.contract),
        "anchoring_accounts": [prefixed_hex(one) for one in trust.anchoring_accounts],
        "audit_state_roots": [prefixed_hex(one) for one in trust.audit_state_roots],
    }


def _commitment(store: bytes, root: bytes, count: int) -> Commitment:
    return next_commitment(
        batch_id=sha256(b"batch" + store).digest()[:16],
        tenant_id=TENANT,
        store_id=store,
        merkle_root=root,
        prev_state_root=ZERO_HASH,
        sequence_start=1,
        sequence_end=count,
        committed_at_us=3_000_000,
    )


def _event(agent: Signer, sequencer: Signer, number: int) -> StoredEvent:
    header = EventHeader(
        tenant_id=TENANT,
        store_id=STORE,
        event_id=sha256(b"event %d" % number).digest()[:16],
        source_agent_id=AGENT,
        agent_key_id=7,
        entity_type="Order",
        entity_id="o-\u00fc",
        event_type="OrderPlaced",
        created_at="2026-01-01T00:00:00Z",
    )
    plain = payload_plain_hash(PAYLOAD)
    digest = event_signing_hash(header.encoded(), 0, plain, ZERO_HASH)
    receipt_digest, signature = sign_receipt(sequencer, TENANT, STORE, header.event_id, number, digest)
    return StoredEvent(
        tenant_id=TENANT,
        store_id=STORE,
        source_agent_id=AGENT,
        agent_key_id=7,
        entity_type=header.entity_type,
        entity_id=header.entity_id,
        event_type=header.event_type,
        created_at=header.created_at,
        payload_kind=0,
        payload_sealed=b"",
        payload_plain_hash=plain,
        payload_cipher_hash=ZERO_HASH,
        agent_signature=sign_event(agent, header, 0, plain, ZERO_HASH),
        event_signing_hash=digest,
        command_id=None,
        base_version=None,
        receipt=Receipt(header.event_id, number, 2_000_000, receipt_digest, SEQUENCER, 2, signature),
    )


def _agent(agent: Signer, action: str) -> AgentFacts:
    name = KeyName(TENANT, AGENT, 7)
    key = AgentKey(name, agent.public_key, 1, None, None, 1_000_000, 2)
    proof = PossessionProof(2, agent.sign(pop_challenge_v2(name, agent.public_key)))
    return AgentFacts(key, proof, _registration(agent, action))


def _registration(agent: Signer, action: str) -> RegistrationFacts:
    records: list[AuditRecord] = []
    for number in range(1, 4):
        entry = AuditEntry(
            actor="api_key:x",
            action=action,
            subject=f"{uuid_text(AGENT)}/{number + 5}",
            tenant_id=TENANT,
            details={"public_key": agent.public_key.hex(), "proof_of_possession": 2},
        )
        text = entry_text(NODE, number, number * 1000, entry)
        previous = records[-1].entry_hash if records else ZERO_HASH
        digest = entry_hash(previous, text)
        records.append(
            AuditRecord(
                NODE,
                number,
                number * 1000,
                TENANT,
                entry.actor,
                entry.action,
                entry.subject,
                text,
                previous,
                digest,
            )
        )
    held = next_audit_commitment(
        NODE,
        entry_start=1,
        entry_hashes=[one.entry_hash for one in records],
        prev_state_root=ZERO_HASH,
        committed_at_us=9,
    )
    return RegistrationFacts(records[1], held, records)


def anchored(commitment: Commitment, road: str, status: int, value: int) -> AnchorEvidence:
    """Anchored in block 7, as the second transaction of three."""
    other = _commitment(sha256(b"other").digest()[:16], sha256(b"root").digest(), 9)
    leaves = [anchor_leaf(CHAIN_ID, CONTRACT, one) for one in (other, other, commitment)]
    root, first_index, before = aggregate_root(leaves), 41, sha256(b"head").digest()
    if road == "aggregate":
        data = anchor_calls.anchor_many(root, 3, first_index)
        head = aggregate_head(before, root, first_index, 3)
        words = [anchor_calls.number_word(3), before, head, anchor_calls.number_word(BLOCK_TIME_S)]
        topics = [anchor_calls.AGGREGATE_ANCHORED, root, anchor_calls.number_word(first_index)]
    else:
        data = anchor_calls.anchor(commitment)
        batch, tenant, store, *words = [data[at : at + 32] for at in range(4, len(data), 32)]
        topics = [anchor_calls.COMMITMENT_ANCHORED, batch, tenant]
        words = [store, *words, anchor_calls.number_word(BLOCK_TIME_S)]
    ours = receipt([(CONTRACT, topics, b"".join(words))], status=status)
    unsigned = UnsignedTransaction(CHAIN_ID, 3, 1, 2, 100_000, CONTRACT, data, value)
    signature = ACCOUNT.sign_recoverable(signing_digest(unsigned), hasher=None)
    r, s = int.from_bytes(signature[:32], "big"), int.from_bytes(signature[32:64], "big")
    raw = signed_bytes(unsigned, signature[64], r, s)
    inclusion = block([receipt(), ours, receipt(kind=0)], 1)
    alone = road == "single"
    return AnchorEvidence(
        anchor=CommitmentAnchor(
            batch_id=commitment.batch_id,
            state="included",
            since_us=5_000_000,
            chain_id=CHAIN_ID,
            contract=CONTRACT,
            road="single" if alone else "aggregate",
            anchor_number=1,
            position=0 if alone else 2,
            batch_count=1 if alone else 3,
            tx_hash=transaction_hash(raw),
            block_number=inclusion.block_number,
            block_hash=inclusion.block_hash,
            gas_used=21_000,
            effective_gas_price=1,
            cause=None,
        ),
        root=commitment.merkle_root if alone else root,
        first_index=None if alone else first_index,
        previous_head=None if alone else before,
        leaves=[] if alone else leaves,
        raw_transaction=raw,
        inclusion=inclusion,
    )
