"""The file that carries an event's whole proof, format ``VES-EVIDENCE-1``: its members, spellings and bounds.

One JSON object; ``docs/evidence.md`` explains every member and the formula that it is checked by. Every value
has exactly one spelling: bytes are ``0x`` and lowercase hex, UUIDs lowercase with hyphens, and an unknown,
missing or doubled member is refused, so that no part of a file escapes the checks unseen. What no check can
cover stands in ``said``. It alone knows the members; whether any of it is true is for ``ves.evidence``.
"""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import UNSET, Meta, Raw, UnsetType

from ves.block_proofs import HEADER_BYTES_MAX, NODE_BYTES_MAX, PROOF_NODES_MAX, RECEIPT_BYTES_MAX
from ves.canonical import NotCanonical, exceeds_depth, parse_strictly
from ves.constants import BODY_DEPTH_MAX, I64_MAX, U32_MAX
from ves.encoding import hex_bytes, prefixed_hex

FORMAT: Literal["VES-EVIDENCE-1"] = "VES-EVIDENCE-1"
FILE_BYTES_MAX = 8 * 1024 * 1024
"""A payload of 1 MiB, a receipt and its trie node of 128 KiB in hex, and the rest."""

_RECEIPT_KEYS_MAX = 1000
_SMALL_PATH_MAX = 12  # audit commitments have at most 1,024 entries, aggregates 4,096 leaves
_TREE_PATH_MAX = 32  # a commitment's leaf_count is a U32
_TRANSACTION_BYTES_MAX = 131_072  # what nodes take into their pools
_TEXT_MAX = 16_384  # an audit entry's

Address = Annotated[str, Meta(pattern="^0x[0-9a-f]{40}$")]
Hash = Annotated[str, Meta(pattern="^0x[0-9a-f]{64}$")]
Key = Annotated[str, Meta(pattern="^0x[0-9a-f]{64}$")]
Signature = Annotated[str, Meta(pattern="^0x[0-9a-f]{128}$")]
Id = Annotated[str, Meta(pattern="^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$")]
U32 = Annotated[int, Meta(ge=0, le=U32_MAX)]
Number = Annotated[int, Meta(ge=1, le=I64_MAX)]
Index = Annotated[int, Meta(ge=0, le=I64_MAX)]
_HEX = "^0x([0-9a-f]{2})*$"


class _Part(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    pass


class SignedEvent(_Part, frozen=True):
    """What the agent signed. Without its payload when whoever asked may not read it, or did not keep it: the
    signature covers ``payload_plain_hash`` and ``payload_cipher_hash`` alone."""

    ves_version: Literal[1]
    event_id: Id
    tenant_id: Id
    store_id: Id
    source_agent_id: Id
    agent_key_id: U32
    entity_type: str
    entity_id: str
    event_type: str
    created_at: str
    payload_kind: Literal[0, 1]
    payload_plain_hash: Hash
    payload_cipher_hash: Hash
    agent_signature: Signature
    payload: Raw | UnsetType = UNSET
    """Of kind 0."""
    payload_encrypted: Raw | UnsetType = UNSET
    """Of kind 1."""


class AuditRange(_Part, frozen=True):
    """A commitment over entries of a node's audit chain."""

    entry_start: Number
    entry_end: Number
    merkle_root: Hash
    prev_state_root: Hash
    new_state_root: Hash


class Registration(_Part, frozen=True):
    """The audit entry about the key, and where it stands in its node's chain."""

    node_id: Id
    entry_number: Number
    text: Annotated[str, Meta(max_length=_TEXT_MAX)]
    """Canonical JSON, as it was hashed."""
    prev_hash: Hash
    """Of the entry before it."""
    committed: AuditRange | None
    """None: not yet, which takes a minute."""
    path: Annotated[list[Hash], Meta(max_length=_SMALL_PATH_MAX)]
    """From the entry's leaf to ``merkle_root``."""


class Possession(_Part, frozen=True):
    """The signature by which the key's holder showed that it has the key."""

    version: Literal[1, 2]
    signature: Signature


class EvidenceAgentKey(_Part, frozen=True):
    public_key: Key
    possession: Possession | None
    registration: Registration | None


class EvidenceReceipt(_Part, frozen=True):
    sequencer_id: Id
    key_version: U32
    sequence_number: Number
    receipt_hash: Hash
    sequencer_signature: Signature


class EvidenceReceiptKey(_Part, frozen=True):
    key_version: U32
    public_key: Key
    previous_signature: Signature | None
    """By the version before it; None of version 1."""


class EvidenceCommitment(_Part, frozen=True):
    """Of the event's stream; its depth and padding follow from ``leaf_count``."""

    batch_id: Id
    sequence_start: Number
    sequence_end: Number
    leaf_count: Annotated[int, Meta(ge=1, le=U32_MAX)]
    merkle_root: Hash
    prev_state_root: Hash
    new_state_root: Hash
    leaf_index: U32
    """Of the event."""
    path: Annotated[list[Hash], Meta(max_length=_TREE_PATH_MAX)]
    """From the event's leaf to ``merkle_root``."""


class EvidenceAggregate(_Part, frozen=True):
    """The tree over all commitments that went to the chain in one transaction."""

    leaf: Hash
    position: U32
    count: Annotated[int, Meta(ge=1, le=U32_MAX)]
    path: Annotated[list[Hash], Meta(max_length=_SMALL_PATH_MAX)]
    root: Hash
    first_index: Index
    previous_head: Hash
    head: Hash


class EvidenceBlock(_Part, frozen=True):
    number: Index
    hash: Hash
    header: Annotated[str, Meta(pattern=_HEX, max_length=2 + 2 * HEADER_BYTES_MAX)]
    """RLP."""
    transaction_index: U32
    receipt: Annotated[str, Meta(pattern=_HEX, max_length=2 + 2 * RECEIPT_BYTES_MAX)]
    """As it stands in the trie (EIP-2718)."""
    receipt_proof: Annotated[
        list[Annotated[str, Meta(pattern=_HEX, max_length=2 + 2 * NODE_BYTES_MAX)]],
        Meta(max_length=PROOF_NODES_MAX),
    ]
    """Nodes of the receipts trie from the root down, RLP each."""


class EvidenceAnchor(_Part, frozen=True):
    chain_id: Number
    contract: Address
    aggregate: EvidenceAggregate | None
    """None: the commitment went alone, its roots in the open (``anchor``)."""
    transaction_hash: Hash
    transaction: Annotated[str, Meta(pattern=_HEX, max_length=2 + 2 * _TRANSACTION_BYTES_MAX)]
    """The signed bytes."""
    block: EvidenceBlock


class Said(_Part, frozen=True):
    """What the server says and nothing proves; for people."""

    sequenced_at: str
    committed_at: str | None
    anchor_state: Literal[
        "uncommitted", "unanchored", "pending", "submitted", "included", "safe", "finalized", "reported"
    ]
    """uncommitted: no commitment holds the event yet; unanchored: no anchor holds the commitment yet;
    reported: an anchorer outside says that it did it, and the server has no proof of that."""
    anchor_state_since: str | None


class Evidence(_Part, frozen=True):
    format: Literal["VES-EVIDENCE-1"]
    event: SignedEvent
    agent_key: EvidenceAgentKey | None
    """None: the server did not find it."""
    receipt: EvidenceReceipt
    sequencer_keys: Annotated[list[EvidenceReceiptKey], Meta(min_length=1, max_length=_RECEIPT_KEYS_MAX)]
    """All versions of ``receipt.sequencer_id``."""
    commitment: EvidenceCommitment | None
    anchor: EvidenceAnchor | None
    """None until a block includes the transaction; ``said`` tells how far it is."""
    said: Said


class NotEvidence(ValueError):
    """The bytes are no file of this format; the text names the member."""


def read_evidence(raw: bytes) -> Evidence:
    """Raises NotEvidence, nothing else."""
    if len(raw) > FILE_BYTES_MAX:
        raise NotEvidence(f"more than {FILE_BYTES_MAX} bytes")
    if exceeds_depth(raw, BODY_DEPTH_MAX):
        raise NotEvidence(f"nested more than {BODY_DEPTH_MAX} deep")
    try:
        parse_strictly(raw)  # refuses what readers disagree about: doubled members, lone surrogates
        return msgspec.json.decode(raw, type=Evidence)
    except (NotCanonical, msgspec.DecodeError, UnicodeDecodeError, RecursionError) as wrong:
        raise NotEvidence(str(wrong)) from None


def raw_of(text: str) -> bytes:
    """Bytes of a member in hex. ValueError for a spelling that slipped through the pattern (a line's end)."""
    raw = hex_bytes(text, (len(text) - 2) // 2)
    if prefixed_hex(raw) != text:
        raise ValueError("expected 0x and lowercase hex digits")
    return raw
