"""The wire's JSON as types: what requests must look like and what answers look like.

The same structs decode, encode and describe themselves in the OpenAPI document. Field names are the wire's:
snake_case for events, streams, commitments and proofs, camelCase for the ingest reply, receipts, agent keys
and API keys. No behaviour. Unknown members of a request are ignored.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
from msgspec import UNSET, Meta, Raw, UnsetType

from actors.dead_letters import DeadLetter
from actors.views import CHILDREN_MAX, ActorView, Order, TreeView
from transport.http.rate_shapes import RateLimitsReply
from ves.constants import (
    ENTITY_ID_BYTES_MAX,
    ENTITY_TYPE_BYTES_MAX,
    EVENT_TYPE_BYTES_MAX,
    EVENTS_PER_REQUEST_MAX,
    INTEGER_MAX,
    PROOF_PATH_MAX,
    U32_MAX,
)

PAGE_DEFAULT = 100
PAGE_MAX = 1000
WAIT_S_MAX = 30
LEAVES_MAX = 65_536

_UUID = (
    "^([0-9a-fA-F]{32}|(urn:uuid:)?[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}"
    "|\\{[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}\\})$"
)
UuidText = Annotated[
    str,
    Meta(
        pattern=_UUID,
        description="A UUID: hyphenated (what we write), 32 hex digits, urn:uuid: or braced; any case.",
        examples=["6f1c1c6e-7c1b-4c0e-9f44-0d5c3f0f2a11"],
    ),
]


Hex32In = Annotated[str, Meta(pattern="^(0x)?[0-9a-fA-F]{64}$", description="32 bytes in hex, 0x optional.")]
Hex64In = Annotated[str, Meta(pattern="^(0x)?[0-9a-fA-F]{128}$", description="64 bytes in hex, 0x optional.")]
BareHex32In = Annotated[str, Meta(pattern="^[0-9a-fA-F]{64}$", description="32 bytes in hex, without 0x.")]
Hex32 = Annotated[str, Meta(pattern="^[0-9a-f]{64}$", description="32 bytes, lowercase hex.")]
Hex64 = Annotated[str, Meta(pattern="^[0-9a-f]{128}$", description="64 bytes, lowercase hex.")]
PrefixedHex32 = Annotated[str, Meta(pattern="^0x[0-9a-f]{64}$", description="32 bytes, 0x lowercase hex.")]
PrefixedHex64 = Annotated[str, Meta(pattern="^0x[0-9a-f]{128}$", description="64 bytes, 0x lowercase hex.")]
TimeIn = Annotated[str, Meta(max_length=64, description="RFC 3339.", examples=["2026-01-31T12:00:00Z"])]
Time = Annotated[str, Meta(description="RFC 3339, 0, 3 or 6 fraction digits.")]
U32 = Annotated[int, Meta(ge=0, le=U32_MAX)]
Sequence = Annotated[int, Meta(ge=1, le=INTEGER_MAX)]
From = Annotated[int, Meta(ge=0, le=INTEGER_MAX, description="First one wanted, inclusive; 0 means 1.")]
Limit = Annotated[int, Meta(ge=1, le=PAGE_MAX)]
Count = Annotated[int, Meta(ge=0)]
# No control characters: they have no business in a name or a reason, and PostgreSQL cannot store U+0000.
ShortText = Annotated[str, Meta(min_length=1, max_length=200, pattern=r"^[^\u0000-\u001f\u007f]*$")]


# Query strings and paths.


class NoParameters(msgspec.Struct):
    pass


class StreamQuery(msgspec.Struct):
    tenant_id: UuidText
    store_id: UuidText


class OptionalStreamQuery(msgspec.Struct):
    """The tenant must be named by a caller who is not bound to one."""

    tenant_id: UuidText | None = None
    store_id: UuidText | None = None


class EvidenceQuery(OptionalStreamQuery):
    payload: bool = False
    """With the event's payload; needs events:read. Its hashes are in it always."""


class EventsQuery(StreamQuery):
    from_: From = msgspec.field(default=1, name="from")
    limit: Limit = PAGE_DEFAULT
    wait_s: Annotated[
        float,
        Meta(ge=0, le=WAIT_S_MAX, description="If there is nothing yet, wait so many seconds for an event."),
    ] = 0


class EntityQuery(StreamQuery):
    from_: From = msgspec.field(default=1, name="from")
    limit: Limit = PAGE_DEFAULT


class CommitmentsQuery(StreamQuery):
    from_: Annotated[From, Meta(description="Smallest sequence_start wanted.")] = msgspec.field(
        default=1, name="from"
    )
    limit: Limit = PAGE_DEFAULT
    anchored: bool | None = None


class ProofQuery(StreamQuery):
    batch_id: UuidText | None = None


class AgentKeysQuery(msgspec.Struct):
    tenant_id: UuidText | None = None
    from_: Annotated[int, Meta(ge=0, le=U32_MAX, description="Smallest keyId wanted.")] = msgspec.field(
        default=0, name="from"
    )
    limit: Limit = PAGE_DEFAULT


class EventPath(msgspec.Struct):
    event_id: UuidText


class EntityPath(msgspec.Struct):
    """Limits are in bytes of UTF-8; percent-encode the text, ``/`` too."""

    entity_type: Annotated[str, Meta(min_length=1, max_length=ENTITY_TYPE_BYTES_MAX)]
    entity_id: Annotated[str, Meta(min_length=1, max_length=ENTITY_ID_BYTES_MAX)]


class BatchPath(msgspec.Struct):
    batch_id: UuidText


class SequencePath(msgspec.Struct):
    sequence_number: Sequence


class AgentPath(msgspec.Struct):
    agent_id: UuidText


# Ingest. The verifiers decode the body itself, event by event; these describe it.


class HpkeSuite(msgspec.Struct):
    mode: Literal["base"]
    kem: Literal["X25519-HKDF-SHA256"]
    kdf: Literal["HKDF-SHA256"]
    aead: Literal["AES-256-GCM"]


class Recipient(msgspec.Struct):
    """Sorted by ``recipient_kid``, each once."""

    recipient_kid: U32
    enc_b64u: str
    ct_b64u: str


class PayloadEncrypted(msgspec.Struct):
    """A VES-ENC-1 payload."""

    enc_version: Literal[1]
    aead: Literal["AES-256-GCM"]
    nonce_b64u: str
    ciphertext_b64u: str
    tag_b64u: str
    hpke: HpkeSuite
    recipients: Annotated[list[Recipient], Meta(min_length=1)]


class EventEnvelope(msgspec.Struct):
    """A signed event. ``payload`` belongs to kind 0 (plaintext), ``payload_encrypted`` to kind 1."""

    ves_version: U32
    event_id: UuidText
    tenant_id: UuidText
    store_id: UuidText
    source_agent_id: UuidText
    agent_key_id: U32
    entity_type: Annotated[str, Meta(description=f"1 to {ENTITY_TYPE_BYTES_MAX} bytes of UTF-8.")]
    entity_id: Annotated[str, Meta(description=f"1 to {ENTITY_ID_BYTES_MAX} bytes of UTF-8.")]
    event_type: Annotated[str, Meta(description=f"1 to {EVENT_TYPE_BYTES_MAX} bytes of UTF-8.")]
    created_at: Annotated[str, Meta(description="RFC 3339; kept and signed exactly as sent.")]
    payload_kind: Literal[0, 1]
    payload_plain_hash: Hex32In
    payload_cipher_hash: Hex32In
    agent_signature: Hex64In
    payload: Any | UnsetType = UNSET
    payload_encrypted: PayloadEncrypted | UnsetType = UNSET
    command_id: UuidText | None = None
    base_version: Annotated[int, Meta(ge=0, le=INTEGER_MAX)] | None = None


class IngestBody(msgspec.Struct):
    """Signed events of one agent for one tenant and store."""

    agent_id: UuidText = msgspec.field(name="agentId")
    events: Annotated[list[EventEnvelope], Meta(min_length=1, max_length=EVENTS_PER_REQUEST_MAX)]


class ReceiptReply(msgspec.Struct, rename="camel", gc=False):
    """The sequencer's signed promise that the event stands at this number of its stream."""

    sequencer_id: UuidText
    event_id: UuidText
    sequence_number: Sequence
    sequenced_at: Time
    receipt_hash: Hex32
    signature_alg: Literal["ed25519"]
    sequencer_signature: Hex64
    sequencer_key_version: U32
    receipt_signature_scheme: Literal[1]


class RejectionReply(msgspec.Struct, gc=False):
    event_id: UuidText
    reason: str
    message: str


class IngestReply(msgspec.Struct, rename="camel"):
    """accepted + replayed + rejected = sent. Receipts (of new and replayed events) in request order."""

    batch_id: UuidText
    events_accepted: Count
    events_replayed: Count
    events_rejected: Count
    sequence_start: Sequence | None
    sequence_end: Sequence | None
    head_sequence: Count
    rejections: list[RejectionReply] | UnsetType = UNSET
    receipts: list[ReceiptReply] | UnsetType = UNSET


# Reading.


class EventReply(msgspec.Struct, omit_defaults=True):
    """The envelope as accepted, its payload as signed (canonical JSON), its place and its receipt."""

    ves_version: Literal[1]
    event_id: UuidText
    tenant_id: UuidText
    store_id: UuidText
    source_agent_id: UuidText
    agent_key_id: U32
    entity_type: str
    entity_id: str
    event_type: str
    created_at: str
    payload_kind: Literal[0, 1]
    payload_plain_hash: PrefixedHex32
    payload_cipher_hash: PrefixedHex32
    agent_signature: PrefixedHex64
    sequence_number: Sequence
    sequenced_at: Time
    event_signing_hash: PrefixedHex32
    receipt: ReceiptReply
    payload: Raw | UnsetType = UNSET
    payload_encrypted: Raw | UnsetType = UNSET
    command_id: UuidText | UnsetType = UNSET
    base_version: Count | UnsetType = UNSET


class EventsReply(msgspec.Struct):
    """``next_from`` is the ``from`` of the next page, also when this one is empty."""

    events: list[EventReply]
    count: Count
    head_sequence: Count
    has_more: bool
    next_from: Sequence


class EntityReply(msgspec.Struct):
    """``version`` counts the entity's accepted events; 0 for an unknown one."""

    entity_type: str
    entity_id: str
    version: Count
    events: list[EventReply]
    count: Count
    has_more: bool
    next_from: Sequence


class VoidedReply(msgspec.Struct):
    """Numbers, both ends included, whose events a restored database has lost: never given again."""

    first_number: Count
    last_number: Count
    voided_at: str


class HeadReply(msgspec.Struct, omit_defaults=True):
    head_sequence: Count
    voided: list[VoidedReply] = []


# Commitments and proofs.


class CommitBody(msgspec.Struct):
    """Without a range: everything not yet committed, up to 65,536 events. camelCase is read too."""

    tenant_id: UuidText
    store_id: UuidText
    sequence_start: Sequence | None = None
    sequence_end: Sequence | None = None


class CommitmentReply(msgspec.Struct, kw_only=True):
    batch_id: UuidText
    tenant_id: UuidText
    store_id: UuidText
    ves_version: Literal[1]
    tree_depth: Count
    leaf_count: Sequence
    padded_leaf_count: Sequence
    merkle_root: Hex32
    prev_state_root: Hex32
    new_state_root: Hex32
    sequence_start: Sequence
    sequence_end: Sequence
    committed_at: Time
    is_anchored: Annotated[
        bool,
        Meta(description="In a block now, or reported: anchor.state says which, and whether it is final."),
    ] = False


class CommitmentAnchorReply(msgspec.Struct, kw_only=True):
    """Where a commitment stands on its way to a chain; what is not known yet is null."""

    state: Annotated[
        Literal["pending", "submitted", "included", "safe", "finalized", "reported"],
        Meta(
            description="pending: nothing is on the chain; submitted: sent; included: in a block that a "
            "reorganisation can take back; safe; finalized; reported: somebody else says so, nobody here "
            "verified it."
        ),
    ]
    since: Annotated[Time, Meta(description="When it entered the state.")]
    cause: Annotated[str | None, Meta(description="Of the last change, for people.")]
    road: Annotated[Literal["aggregate", "single"] | None, Meta(description="null: reported.")]
    chain_id: Annotated[int, Meta(ge=0)]
    contract: Annotated[str, Meta(pattern="^0x[0-9a-f]{40}$", description="Its address.")] | None
    local_chain: Annotated[
        bool | None,
        Meta(
            description="true: the chain is the sequencer's own, and no third party witnesses it; null: this "
            "node does not look at that chain."
        ),
    ]
    tx_hash: Hex32 | None
    block_number: Count | None
    block_hash: Hex32 | None
    confirmations: Annotated[
        Count | None, Meta(description="null: not in a block, or the chain's height is unknown here.")
    ]
    batch_count: Annotated[Count, Meta(description="How many commitments share the transaction.")]
    position: Annotated[Count | None, Meta(description="Among them.")]
    gas_used: Annotated[Count | None, Meta(description="Of the whole transaction.")]
    cost_wei: (
        Annotated[
            str,
            Meta(
                pattern="^[0-9]+$",
                description="This commitment's share, decimal: too large for JSON numbers.",
            ),
        ]
        | None
    )


class AnchoredCommitmentReply(CommitmentReply, kw_only=True):
    """With the chain's part. ``chain_tx_hash`` and ``chain_id`` are known when a transaction was sent, the
    block when one includes it; ``anchored_at`` is when it was seen to be final."""

    chain_id: int | None = None
    chain_tx_hash: Hex32 | None = None
    chain_block_number: int | None = None
    anchored_at: Time | None = None
    anchor: Annotated[CommitmentAnchorReply | None, Meta(description="null: no anchor holds it.")] = None


class CommittedReply(AnchoredCommitmentReply, kw_only=True):
    """``remaining`` events of the stream stay uncommitted."""

    remaining: Count


class CommitmentsReply(msgspec.Struct):
    commitments: list[AnchoredCommitmentReply]
    count: Count
    has_more: bool
    next_from: Sequence


class LeavesReply(msgspec.Struct):
    """All leaf hashes in sequence order, without padding."""

    batch_id: UuidText
    sequence_start: Sequence
    sequence_end: Sequence
    leaf_count: Sequence
    merkle_root: Hex32
    leaf_hashes: Annotated[list[Hex32], Meta(max_length=LEAVES_MAX)]


class ProofReply(msgspec.Struct):
    """``directions[k]`` is true where the running hash is the left input. A sound check recomputes the leaf
    from the event, wants len(proof_path) = tree_depth and leaf_index = sequence_number - sequence_start."""

    sequence_number: Sequence
    batch_id: UuidText
    merkle_root: Hex32
    leaf_hash: Hex32
    leaf_index: Count
    proof_path: list[Hex32]
    directions: list[bool]
    tree_depth: Count
    leaf_count: Sequence
    sequence_start: Sequence
    sequence_end: Sequence


class VerifyProofBody(msgspec.Struct):
    leaf_hash: BareHex32In
    merkle_root: BareHex32In
    proof_path: Annotated[list[BareHex32In], Meta(max_length=PROOF_PATH_MAX)]
    leaf_index: Annotated[int, Meta(ge=0, le=INTEGER_MAX)]


class VerifyProofReply(msgspec.Struct):
    """Arithmetic only: it says nothing about which event the leaf belongs to."""

    leaf_hash: str
    merkle_root: str
    valid: bool


# Agent keys.


class PossessionBundle(msgspec.Struct):
    ed25519_pop: Hex64In | None = msgspec.field(default=None, name="ed25519Pop")


class PublicKeyBundle(msgspec.Struct):
    """The original's. Keys of other algorithms in it are ignored."""

    ed25519_public_key: Hex32In | None = msgspec.field(default=None, name="ed25519PublicKey")


class RegisterKeyBody(msgspec.Struct, rename="camel"):
    """An Ed25519 signing key of an agent. snake_case is read too. The proof of possession is a signature
    over H("VES_POP_V2" || tenant || agent || U32(keyId) || key) or, older, H("VES_POP_V1" || key), and may
    come with a later registration of the same key too."""

    tenant_id: UuidText
    agent_id: UuidText
    key_id: U32
    public_key: Hex32In
    valid_from: TimeIn | None = None
    valid_to: TimeIn | None = None
    key_algorithm: Annotated[int, Meta(description="0 or 1: Ed25519; others are refused.")] | None = None
    proof_of_possession: Hex64In | None = None
    proof_of_possession_bundle: PossessionBundle | None = None
    public_key_bundle: PublicKeyBundle | None = None


class KeyRegisteredReply(msgspec.Struct, rename="camel"):
    """``alreadyRegistered``: this very key was there before; at most a better proof of possession was added.
    ``proofOfPossession``: which challenge was proven, as recorded."""

    success: bool
    message: str
    tenant_id: UuidText
    agent_id: UuidText
    key_id: U32
    key_algorithm: int
    public_key: PrefixedHex32
    registered_at: Time
    already_registered: bool
    proof_of_possession: int | None


class RevokeKeyBody(msgspec.Struct, rename="camel"):
    """One key by its keyId, or all of the agent's. ``reason``: any text; ``suspected_compromise`` is told
    apart in alerts. snake_case is read too."""

    tenant_id: UuidText
    agent_id: UuidText
    key_id: U32 | None = None
    reason: ShortText | None = None
    all_keys: bool = False


class KeyRevokedReply(msgspec.Struct, rename="camel"):
    """``keyId`` and ``revokedAt`` are null when all keys were meant. ``keysRevoked``: by this request."""

    success: bool
    message: str
    tenant_id: UuidText
    agent_id: UuidText
    key_id: U32 | None
    revoked_at: Time | None
    reason: str | None
    already_revoked: bool
    keys_revoked: Count


class AgentKeyReply(msgspec.Struct, rename="camel"):
    """``retiresAt``: its last moment, since ``replacedBy`` (a keyId) takes its place. ``rotationSignature``:
    this key's own signature for its successor, where it gave one."""

    tenant_id: UuidText
    agent_id: UuidText
    key_id: U32
    key_algorithm: int
    public_key: PrefixedHex32
    valid_from: Time | None
    valid_to: Time | None
    registered_at: Time
    proof_of_possession: Literal[1, 2] | None
    revoked_at: Time | None
    revocation_reason: str | None
    retires_at: Time | None
    replaced_by: U32 | None
    rotation_signature: PrefixedHex64 | None


class AgentKeysReply(msgspec.Struct):
    keys: list[AgentKeyReply]
    count: Count
    has_more: bool
    next_from: Count


# The supervision tree (admin listener).

ActorPath = Annotated[
    str,
    Meta(
        min_length=1,
        max_length=300,
        pattern=r"^[^\u0000-\u001f\u007f]*$",
        description="Names joined by /, as the tree shows them, the house first.",
    ),
]
ChildrenMax = Annotated[int, Meta(ge=0, le=1000, description="Dynamic children shown at most, by name.")]
DeadLetterId = Annotated[int, Meta(ge=1, le=INTEGER_MAX)]


class ActorsQuery(msgspec.Struct):
    path: ActorPath | None = None
    children: ChildrenMax = CHILDREN_MAX
    after: Annotated[ActorPath, Meta(description="Only dynamic children whose names come later.")] | None = (
        None
    )
    tenants: Annotated[int, Meta(ge=0, le=1000, description="So many by activity beside the tree.")] = 0
    order: Order = "depth"


class ActorsReply(msgspec.Struct):
    """``waiting_for``: why the node is not ready; empty when it is. ``lag_s``: how late the event loop's last
    heartbeat was, ``lag_peak_s`` the latest since /metrics was last read, ``last_hog`` who held it then.
    ``audit_bytes_spooled``: audit entries that wait for the database."""

    tree: ActorView
    tenants: list[ActorView]
    dead_letters_total: Count
    waiting_for: dict[str, str]
    lag_s: float
    lag_peak_s: float
    last_hog: str | None
    audit_bytes_spooled: Count


class TenantsQuery(msgspec.Struct):
    order: Annotated[
        Order, Meta(description="Most letters waiting, most handled, or the newest lives first.")
    ] = "depth"
    limit: Limit = 20


class TenantsReply(msgspec.Struct):
    tenants: list[ActorView]
    count: Count


class ActBody(msgspec.Struct):
    """``reason`` goes into the audit log and to whoever watches the actor."""

    path: ActorPath
    reason: ShortText


class DeadLettersQuery(msgspec.Struct):
    after: Annotated[DeadLetterId, Meta(description="``next_after`` of the page before.")] | None = None
    limit: Limit = PAGE_DEFAULT


class DeadLetterPath(msgspec.Struct):
    id: DeadLetterId


class DeadLettersReply(msgspec.Struct):
    """Newest first."""

    dead_letters: list[DeadLetter]
    count: Count
    has_more: bool
    next_after: DeadLetterId | None


# About ourselves.


class ReceiptKeyReply(msgspec.Struct):
    """``sequencer_id``: which node signs with it; receipts name it too."""

    sequencer_id: UuidText
    key_version: U32
    alg: Literal["ed25519"]
    public_key: PrefixedHex32
    active: bool
    created_at: Time
    previous_signature: PrefixedHex64 | None
    """Of version 2 and later: by the version before, over SHA-256("VES_RECEIPT_KEY_V1" || UUID(sequencer_id)
    || U32(key_version) || public_key), so that whoever knows one key can follow to the next."""


class WellKnownReply(msgspec.Struct):
    """This node's id, and the keys of every node, retired ones too, so that any receipt can be checked."""

    sequencer_id: UuidText
    receipt_keys: list[ReceiptKeyReply]


class HealthReply(msgspec.Struct):
    status: Literal["healthy"]
    service: str
    version: str
    timestamp: Time


class DatabaseReply(msgspec.Struct):
    connected: bool
    response_time_ms: float


class ReadyReply(msgspec.Struct):
    status: Literal["ready"]
    database: DatabaseReply


class AtRestReply(msgspec.Struct):
    """How payloads are stored. ``current_key``: the fingerprint of the key that seals, where a tenant has no
    ring of its own; ``unencrypted_reads`` since the node started."""

    mode: Literal["required", "optional", "disabled"]
    current_key: str
    tenants_with_own_ring: Count
    unencrypted_reads: Count


class DetailedHealthReply(msgspec.Struct):
    status: Literal["healthy", "not_ready"]
    service: str
    version: str
    timestamp: Time
    waiting_for: dict[str, str]
    bytes_in_flight: Count
    rate_limits: RateLimitsReply
    encryption_at_rest: AtRestReply
    tree: TreeView
