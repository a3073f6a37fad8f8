"""The values that walk through the house: what an event is called after each step.

    bytes -> VerifiedEvent | Refusal -> NumberedEvent -> SealedEvent -> StoredEvent

Pure data, no behaviour beyond what a field means. UUIDs are their 16 raw bytes, hashes and signatures raw
bytes, times are whole microseconds since the Unix epoch (``…_us``). Structs marked ``array_like`` cross the
pipe between a pool actor and its worker process as MessagePack arrays, and are type-checked on arrival.
"""

from __future__ import annotations

from typing import NamedTuple

import msgspec

Uuid = bytes
"""16 raw bytes, network order (VES 1.1)."""


class Refusal(msgspec.Struct, frozen=True, array_like=True, tag="refusal"):
    """One event is not accepted; the others of its request are unaffected (wire 23.3)."""

    event_id: Uuid
    reason: str
    """``invalid_signature``, ``schema_validation: <field>``, ``version_conflict: expected X, actual Y`` …"""
    message: str


class Finding(msgspec.Struct, frozen=True, array_like=True):
    """A policy objection found while verifying. It counts only if the event turns out to be no replay."""

    reason: str
    message: str


class VerifiedEvent(msgspec.Struct, frozen=True, array_like=True, tag="verified", gc=False):
    """An event whose hashes and agent signature were found true. Only ``ves.verification`` makes one."""

    event_id: Uuid
    source_agent_id: Uuid
    agent_key_id: int
    entity_type: str
    entity_id: str
    event_type: str
    created_at: str
    """Exactly the text the agent sent and signed."""
    payload_kind: int
    """0 plaintext, 1 encrypted (VES-ENC-1)."""
    payload: bytes
    """Kind 0: the JCS bytes. Kind 1: the JSON text of ``payload_encrypted``, its known members only."""
    payload_plain_hash: bytes
    payload_cipher_hash: bytes
    agent_signature: bytes
    event_signing_hash: bytes
    command_id: Uuid | None
    base_version: int | None
    findings: tuple[Finding, ...] = ()


class Scope(msgspec.Struct, frozen=True, array_like=True):
    """What the caller's credential may write to. None means no restriction of that kind."""

    tenant_id: Uuid | None
    store_ids: tuple[Uuid, ...] | None
    agent_id: Uuid | None


class KeyName(NamedTuple):
    """An agent signing key's name; its public key never changes once registered."""

    tenant_id: Uuid
    agent_id: Uuid
    key_id: int


class Warned(msgspec.Struct, frozen=True, array_like=True):
    """An event accepted although its payload does not match its schema. Holds nothing of the payload."""

    event_id: Uuid
    schema_id: Uuid
    keyword: str
    where: str
    """JSON pointer into the schema."""


class SchemaChecks(msgspec.Struct, frozen=True, array_like=True):
    """How many of a request's payloads were compared with schemas, and what came of it."""

    mode: str
    validated: int
    failed: int
    unread: int
    """Encrypted."""
    warned: list[Warned]
    """The first few, in mode warn."""


class VerifiedBatch(msgspec.Struct, frozen=True, array_like=True, tag="batch"):
    """A whole request after verification; outcomes in request order, one per event sent."""

    tenant_id: Uuid
    store_id: Uuid
    agent_id: Uuid
    outcomes: list[VerifiedEvent | Refusal]
    checks: SchemaChecks | None = None


class BodyRefused(msgspec.Struct, frozen=True, array_like=True, tag="body_refused"):
    """The whole request is refused, nothing of it is stored. ``code`` is one of wire 4.2."""

    status: int
    code: str
    message: str
    """Names the field (``events[3].created_at``) and the remedy."""


class NeedsKeys(msgspec.Struct, frozen=True, array_like=True, tag="needs"):
    """The verifier has read the body and lacks these public keys; give them."""

    keys: list[KeyName]


class NeedsPolicy(msgspec.Struct, frozen=True, array_like=True, tag="needs_policy"):
    """The verifier lacks this tenant's policy; give it and send the body once more."""

    tenant_id: Uuid


class NeedsSchemas(msgspec.Struct, frozen=True, array_like=True, tag="needs_schemas"):
    """The verifier lacks the texts of these schemas; give them and send the body once more."""

    schema_ids: list[Uuid]


class NumberedEvent(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """A verified event with its place in its stream. Nothing is promised yet."""

    event: VerifiedEvent
    store_id: Uuid
    sequence_number: int
    sequenced_at_us: int


class SealedEvent(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """What the encryptor adds: at-rest frame and signed receipt. Leaves the house only after COMMIT."""

    payload_sealed: bytes
    receipt_hash: bytes
    sequencer_signature: bytes


class Receipt(msgspec.Struct, frozen=True, gc=False):
    """A stored receipt (VES 3.6). ``sequenced_at`` and the key version are not covered by its signature."""

    event_id: Uuid
    sequence_number: int
    sequenced_at_us: int
    receipt_hash: bytes
    sequencer_id: Uuid
    sequencer_key_version: int
    sequencer_signature: bytes


class KnownEvent(msgspec.Struct, frozen=True, gc=False):
    """What the journal already holds under an event_id of this tenant: enough to tell an exact replay."""

    store_id: Uuid
    event_signing_hash: bytes
    agent_signature: bytes
    command_id: Uuid | None
    base_version: int | None
    receipt: Receipt


class StoredEvent(msgspec.Struct, frozen=True, gc=False):
    """One row of ``ves_events``, payload still sealed."""

    tenant_id: Uuid
    store_id: Uuid
    source_agent_id: Uuid
    agent_key_id: int
    entity_type: str
    entity_id: str
    event_type: str
    created_at: str
    payload_kind: int
    payload_sealed: bytes
    payload_plain_hash: bytes
    payload_cipher_hash: bytes
    agent_signature: bytes
    event_signing_hash: bytes
    command_id: Uuid | None
    base_version: int | None
    receipt: Receipt
    """Also holds event_id, sequence_number and sequenced_at_us of the event."""


class Head(msgspec.Struct, frozen=True):
    """A stream's counter as last seen. A stream that has none yet is believed new: (0, 0)."""

    current_sequence: int
    last_sequenced_at_us: int


NEW_STREAM = Head(0, 0)


class KeyStatus(msgspec.Struct, frozen=True):
    """A registered agent key's validity, judged against ``sequenced_at`` (both ends inclusive, VES 6.4)."""

    valid_from_us: int | None
    valid_to_us: int | None
    revoked: bool
    retires_at_us: int | None = None
    """Its last moment, when another key has taken its place; also inclusive."""
    registered_at_us: int = 0


class EntityName(NamedTuple):
    store_id: Uuid
    entity_type: str
    entity_id: str


class CommandName(NamedTuple):
    store_id: Uuid
    command_id: Uuid


class IssuedToken(NamedTuple):
    """A signed token as a credential: whom it speaks for, and when it was issued (seconds since 1970). It is
    dead once its subject, or the whole tenant, was revoked at or after that second."""

    subject: Uuid
    issued_at_s: int


CredentialId = Uuid | IssuedToken
"""An API key's id, or what a token is revoked by."""


class Question(msgspec.Struct, frozen=True):
    """What a group needs to know, all of one tenant, answered by one statement in one snapshot; a large one
    perhaps in parts (``ves.questions``)."""

    tenant_id: Uuid
    store_ids: frozenset[Uuid]
    event_ids: frozenset[Uuid]
    commands: frozenset[CommandName]
    entities: frozenset[EntityName]
    keys: frozenset[KeyName]
    credential_ids: frozenset[CredentialId]
    """What the group's requests came with: revoked and expired ones are refused at sequencing."""
    legacy: bool = False
    """Heads, event ids and command ids are meant of the legacy streams of these stores."""


class Fence(msgspec.Struct, frozen=True):
    """What must still be true in the database when the group is appended; otherwise nothing is stored."""

    tenant_id: Uuid
    key_epoch: int
    credential_epoch: int
    heads: dict[Uuid, Head]
    """By store_id; NEW_STREAM for a stream believed new."""


class Facts(msgspec.Struct, frozen=True):
    """The journal's answer to a Question, as of one snapshot, or joined of several under one fence."""

    now_us: int
    """The database's clock."""
    fence: Fence
    known: dict[Uuid, KnownEvent]
    used_commands: frozenset[CommandName]
    entity_versions: dict[EntityName, int]
    """Absent means 0."""
    keys: dict[KeyName, KeyStatus]
    revoked_credentials: frozenset[CredentialId]
    credential_ends_us: dict[CredentialId, int] = {}
    """When those that expire do."""
    taken: frozenset[Uuid] = frozenset()
    """Which event ids the tenant's legacy streams hold, when asked about those (then ``known`` is empty)."""


class Commitment(msgspec.Struct, frozen=True):
    """A VES commitment over a contiguous range of one stream (VES 3.9)."""

    batch_id: Uuid
    tenant_id: Uuid
    store_id: Uuid
    ves_version: int
    tree_depth: int
    leaf_count: int
    padded_leaf_count: int
    merkle_root: bytes
    prev_state_root: bytes
    new_state_root: bytes
    sequence_start: int
    sequence_end: int
    committed_at_us: int
