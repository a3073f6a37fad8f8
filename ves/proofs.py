"""Checking what the sequencer says (VES 3.6, 3.8, 3.9), offline, trusting nobody.

It alone decides whether an event, its receipt, an inclusion proof and a commitment belong together. Two
questions that must not be confused: ``path_leads_to_root`` is arithmetic on hashes somebody handed over and
proves nothing about an event (an inner node passes as a leaf); ``verify_inclusion`` recomputes everything
from the event itself. Use the second. Each check answers the list of problems found; empty means it holds.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import msgspec

from ves.canonical import NotCanonical, canonical_payload
from ves.commitments import state_root, stream_id
from ves.constants import (
    ENCRYPTED,
    I64_MAX,
    PLAINTEXT,
    PROOF_PATH_MAX,
    U32_MAX,
    VES_VERSION,
    ZERO_HASH,
)
from ves.events import EventHeader, event_signing_hash, payload_aad, payload_plain_hash
from ves.merkle import leaf_hash, node_hash, padded_leaf_count, tree_depth
from ves.payload_encryption import EncryptedPayloadRefused, cipher_hash, parse_payload_encrypted
from ves.receipts import receipt_hash
from ves.records import Commitment, Receipt, Uuid
from ves.signatures import verify_signature


class Problem(NamedTuple):
    """One thing that does not hold: a stable name for programs, a sentence for people."""

    name: str
    text: str


class SequencedEvent(msgspec.Struct, frozen=True):
    """An event as pulled from a sequencer: what its agent signed, and the place it is said to have."""

    header: EventHeader
    payload_kind: int
    payload: bytes
    """Kind 0: the payload's JSON text. Kind 1: the JSON text of ``payload_encrypted``."""
    payload_plain_hash: bytes
    payload_cipher_hash: bytes
    agent_signature: bytes
    sequence_number: int

    def signing_hash(self) -> bytes:
        """Recomputed from the fields; says nothing yet about the payload's bytes."""
        return event_signing_hash(
            self.header.encoded(), self.payload_kind, self.payload_plain_hash, self.payload_cipher_hash
        )


class InclusionProof(msgspec.Struct, frozen=True):
    """A proof as served: only ``leaf_index`` and ``proof_path`` are used, the rest is compared."""

    batch_id: Uuid
    sequence_number: int
    merkle_root: bytes
    leaf_hash: bytes
    leaf_index: int
    proof_path: list[bytes]


def path_leads_to_root(leaf: bytes, leaf_index: int, proof_path: Sequence[bytes], merkle_root: bytes) -> bool:
    """The wire's rule (VES 3.8): hash upwards, bit k of the index tells the side; at most 64 steps.

    Not a proof of inclusion by itself: index bits above the path are ignored and any node may be the leaf.
    """
    if len(proof_path) > PROOF_PATH_MAX or leaf_index < 0 or any(len(node) != 32 for node in proof_path):
        return False
    running = leaf
    for height, sibling in enumerate(proof_path):
        right = (leaf_index >> height) & 1
        running = node_hash(sibling, running) if right else node_hash(running, sibling)
    return running == merkle_root


def verify_event(event: SequencedEvent, agent_public_key: bytes | None = None) -> list[Problem]:
    """Payload hashes, and with a key the agent's signature. Without a key the signature is not judged."""
    if malformed := _malformed(event):
        return malformed
    problems = _payload_problems(event)
    if agent_public_key is not None and not verify_signature(
        agent_public_key, event.signing_hash(), event.agent_signature
    ):
        problems.append(Problem("agent_signature", "the agent's key did not sign this event"))
    return problems


def _malformed(event: SequencedEvent) -> list[Problem]:
    """Fields without a length prefix must have their length, or two events could share one preimage."""
    header = event.header
    lengths = [
        (16, (header.tenant_id, header.store_id, header.event_id, header.source_agent_id)),
        (32, (event.payload_plain_hash, event.payload_cipher_hash)),
        (64, (event.agent_signature,)),
    ]
    if any(len(field) != length for length, fields in lengths for field in fields):
        return [Problem("length", "an id, a hash or the signature does not have its length")]
    if not 1 <= event.sequence_number <= I64_MAX:
        return [Problem("sequence_number", "sequence numbers start at 1 and fit 63 bits")]
    if not 0 <= header.agent_key_id <= U32_MAX:
        return [Problem("agent_key_id", f"agent_key_id must be from 0 to {U32_MAX}")]
    try:
        header.encoded()
    except UnicodeEncodeError:
        return [Problem("names", "a name holds half of a surrogate pair")]
    return []


def _payload_problems(event: SequencedEvent) -> list[Problem]:
    if event.payload_kind == PLAINTEXT:
        return _plaintext_problems(event)
    if event.payload_kind == ENCRYPTED:
        return _ciphertext_problems(event)
    return [Problem("payload_kind", f"payload_kind must be 0 or 1, it is {event.payload_kind}")]


def _plaintext_problems(event: SequencedEvent) -> list[Problem]:
    problems = []
    try:
        found = payload_plain_hash(canonical_payload(event.payload))
    except NotCanonical as wrong:
        return [Problem("payload", f"the payload has no canonical form: {wrong}")]
    if found != event.payload_plain_hash:
        problems.append(Problem("payload_plain_hash", "the payload is not the one that was hashed"))
    if event.payload_cipher_hash != ZERO_HASH:
        problems.append(Problem("payload_cipher_hash", "a plaintext event's cipher hash must be zero"))
    return problems


def _ciphertext_problems(event: SequencedEvent) -> list[Problem]:
    try:
        sealed = parse_payload_encrypted(event.payload)
    except EncryptedPayloadRefused as wrong:
        return [Problem(wrong.field, str(wrong))]
    if cipher_hash(sealed, payload_aad(event.header.encoded(), event.payload_plain_hash)) != (
        event.payload_cipher_hash
    ):
        return [Problem("payload_cipher_hash", "the ciphertext is not the one that was hashed")]
    return []


def verify_receipt(event: SequencedEvent, receipt: Receipt, sequencer_public_key: bytes) -> list[Problem]:
    """Whether the sequencer promised exactly this event exactly this number (VES 3.6)."""
    if malformed := _malformed(event):
        return malformed
    problems = _receipt_problems(event, receipt)
    if not verify_signature(sequencer_public_key, receipt.receipt_hash, receipt.sequencer_signature):
        problems.append(Problem("sequencer_signature", "the sequencer's key did not sign this receipt"))
    return problems


def _receipt_problems(event: SequencedEvent, receipt: Receipt) -> list[Problem]:
    header = event.header
    problems = []
    if receipt.event_id != header.event_id:
        problems.append(Problem("event_id", "the receipt is for another event"))
    if receipt.sequence_number != event.sequence_number:
        problems.append(
            Problem(
                "sequence_number",
                f"the receipt says {receipt.sequence_number}, the event {event.sequence_number}",
            )
        )
    expected = receipt_hash(
        header.tenant_id, header.store_id, header.event_id, event.sequence_number, event.signing_hash()
    )
    if receipt.receipt_hash != expected:
        problems.append(Problem("receipt_hash", "the receipt hash is not this event's at this number"))
    return problems


def verify_commitment(commitment: Commitment) -> list[Problem]:
    """Whether a commitment agrees with itself: counts, depth, and the state root from the one before."""
    problems = []
    count = commitment.sequence_end - commitment.sequence_start + 1
    if commitment.ves_version != VES_VERSION:
        problems.append(Problem("ves_version", f"expected version 1, got {commitment.ves_version}"))
    if not 1 <= commitment.sequence_start <= commitment.sequence_end <= I64_MAX or count > U32_MAX:
        return [*problems, Problem("range", "sequence_start to sequence_end is no range of events")]
    if commitment.leaf_count != count:
        return [*problems, Problem("leaf_count", "the leaf count is not the length of the range")]
    if {len(commitment.tenant_id), len(commitment.store_id)} != {16} or {
        len(commitment.prev_state_root),
        len(commitment.merkle_root),
    } != {32}:
        return [*problems, Problem("length", "an id or a root does not have its length")]
    if commitment.tree_depth != tree_depth(count):
        problems.append(Problem("tree_depth", f"{count} leaves need a depth of {tree_depth(count)}"))
    if commitment.padded_leaf_count != padded_leaf_count(count):
        problems.append(Problem("padded_leaf_count", f"{count} leaves pad to {padded_leaf_count(count)}"))
    expected = state_root(
        stream_id(commitment.tenant_id, commitment.store_id),
        commitment.prev_state_root,
        commitment.merkle_root,
        commitment.sequence_start,
        commitment.sequence_end,
        count,
    )
    if commitment.new_state_root != expected:
        problems.append(Problem("new_state_root", "the state root does not follow from the one before"))
    return problems


def verify_inclusion(
    event: SequencedEvent, receipt: Receipt, commitment: Commitment, proof: InclusionProof
) -> list[Problem]:
    """Whether this event stands at its number in this commitment. Sound: the leaf is recomputed from the
    event, the path is as long as the tree is deep, and the index follows from the number.

    Signatures are not judged here: see ``verify_event`` and ``verify_receipt``.
    """
    if malformed := _malformed(event):
        return malformed
    header = event.header
    problems = _payload_problems(event) + _receipt_problems(event, receipt) + verify_commitment(commitment)
    if (header.tenant_id, header.store_id) != (commitment.tenant_id, commitment.store_id):
        problems.append(Problem("stream", "the commitment is of another stream"))
    if proof.batch_id != commitment.batch_id:
        problems.append(Problem("batch_id", "the proof is for another commitment"))
    if proof.merkle_root != commitment.merkle_root:
        problems.append(Problem("merkle_root", "the proof names another root than the commitment"))
    if proof.sequence_number != event.sequence_number:
        problems.append(Problem("proof.sequence_number", "the proof is for another sequence number"))
    index = event.sequence_number - commitment.sequence_start
    if not 0 <= index < commitment.leaf_count:
        return [*problems, Problem("range", "the event's number is outside the commitment's range")]
    if proof.leaf_index != index:
        problems.append(Problem("leaf_index", f"the leaf index must be {index}, not {proof.leaf_index}"))
    if len(proof.proof_path) != commitment.tree_depth:
        return [
            *problems,
            Problem(
                "path_length", f"{len(proof.proof_path)} steps, but the tree is {commitment.tree_depth} deep"
            ),
        ]
    leaf = leaf_hash(
        header.tenant_id,
        header.store_id,
        event.sequence_number,
        event.signing_hash(),
        event.agent_signature,
    )
    if proof.leaf_hash != leaf:
        problems.append(Problem("leaf_hash", "the proof's leaf is not this event's"))
    if not path_leads_to_root(leaf, index, proof.proof_path, commitment.merkle_root):
        problems.append(Problem("proof_path", "the path does not lead from this event to the root"))
    return problems
