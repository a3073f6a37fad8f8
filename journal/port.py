"""What the house asks of its memory: the Journal port, its values and its named failures.

PostgreSQL (``journal.postgres``) answers it in production; an in-memory fake (``journal.memory``) answers it
in deterministic simulation. One contract suite runs against both; a behaviour that is not in it may not be
in the fake. Every method is one unit: it crosses into the database once, is shielded from cancellation, is
atomic, and ends within its deadline.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Literal, Protocol

import msgspec

from journal.packed import unpacked
from ves.anchor_records import Inclusion
from ves.audit import AuditCommitment, AuditRecord
from ves.legacy import NumberedLegacyEvent, StoredLegacyEvent
from ves.legacy_commitments import LegacyCommitment
from ves.policy import SchemaMode, SchemaName
from ves.records import (
    CommandName,
    Commitment,
    EntityName,
    Facts,
    Fence,
    KeyName,
    KeyStatus,
    NumberedEvent,
    Question,
    SealedEvent,
    StoredEvent,
    Uuid,
)

VOIDED_MAX = 100


class JournalError(Exception):
    """Something about the journal; see the subclasses."""


class JournalAway(JournalError):
    """No database, or it failed before COMMIT was sent: nothing was stored, for certain."""


class JournalRefused(JournalAway):
    """We will not use this database as it is now: its certificate, or what our login may do. Nothing was
    stored, for certain; it takes an operator, and the text says what."""


class JournalOutcomeUnknown(JournalError):
    """COMMIT was sent and no answer came: it is stored or not. Read again before saying anything."""


class CredentialEnded(JournalError):
    """The credential that asked was revoked or has expired meanwhile: nothing was stored, for certain."""


class NotTogether(JournalError):
    """Nothing was done, for certain: one of those who came together cannot be served. Ask for each alone."""


class SchemaMismatch(JournalError):
    """The schema is older or newer than this code; the text names the command that helps."""


class ReceiptKeyDiffers(JournalError):
    """The recorded receipt key of this sequencer_id is another one than ours: refuse to start."""


class AtRestKeyMissing(JournalError):
    """Data exists under an at-rest key that the ring lacks; the text names its fingerprint."""


class AtRestKeyRetired(JournalError):
    """A ring's current key is one that was retired: refuse to start. The text names its fingerprint."""


class PlaintextRemains(JournalError):
    """Mode ``required``, and plaintext was written that nobody has sealed: refuse to start. The text names
    the commands that help."""


class Expectation(Protocol):
    """Of one request with events, for the time that it is under way."""

    def has(self, events: int) -> None:
        """It was read, once: so many are in it."""
        ...


class Passing(Protocol):
    """How a large group lets others pass in the middle of its transaction. Asked where nothing but the
    transaction is under way: between two statements."""

    @property
    def is_due(self) -> bool:
        """Somebody is there to be let pass."""
        ...

    async def step(self) -> None:
        """Returns when they have passed, or there is no more patience: soon. Never raises, and whoever
        cancels it waits until then."""
        ...


# What append says.


class Stored(msgspec.Struct, frozen=True):
    """Durable: COMMIT was acknowledged."""


class Moved(msgspec.Struct, frozen=True):
    """Nothing stored, certain: the fence, a counter or an id moved. Read, decide and seal again."""

    what: str


class Away(msgspec.Struct, frozen=True):
    """Nothing stored, certain: no connection, or failure before COMMIT was sent."""

    why: str


class VersionStep(msgspec.Struct, frozen=True):
    """An entity's version, moved by compare-and-set; ``believed`` 0 means believed absent."""

    entity: EntityName
    believed: int
    new: int


class CommandUse(msgspec.Struct, frozen=True):
    command: CommandName
    event_id: Uuid


class Group(msgspec.Struct, frozen=True):
    """One transaction's worth for one tenant. Without rows only the fence is checked (a refusal that
    depended on state is answered only after that)."""

    fence: Fence
    numbered: list[NumberedEvent]
    sealed: list[SealedEvent]
    sequencer_id: Uuid
    sequencer_key_version: int
    versions: list[VersionStep]
    commands: list[CommandUse]


class LegacyGroup(msgspec.Struct, frozen=True):
    """The same for the legacy streams of one tenant: the fence's heads are theirs."""

    fence: Fence
    numbered: list[NumberedLegacyEvent]
    payloads: list[bytes]
    """As they are stored, one per event."""
    versions: list[VersionStep]
    commands: list[CommandUse]


def stored_legacy_events(group: LegacyGroup) -> Iterator[StoredLegacyEvent]:
    """The rows that a group becomes."""
    for numbered, payload in zip(group.numbered, group.payloads, strict=True):
        event = numbered.event
        yield StoredLegacyEvent(
            sequence_number=numbered.sequence_number,
            sequenced_at_us=numbered.sequenced_at_us,
            created_at_us=event.created_at_us,
            base_version=event.base_version,
            tenant_id=group.fence.tenant_id,
            store_id=numbered.store_id,
            event_id=event.event_id,
            source_agent=event.source_agent,
            command_id=event.command_id,
            entity_type=event.entity_type,
            entity_id=event.entity_id,
            event_type=event.event_type,
            payload_hash=event.payload_hash,
            signature=event.signature,
            payload_encrypted=payload,
        )


# Reading.


class EventPage(msgspec.Struct, frozen=True):
    """Events from a sequence number on, and the stream's head as of the same snapshot."""

    head_sequence: int
    packed: bytes
    """The events, as ``journal.packed`` has them."""
    count: int
    has_more: bool
    next_from: int
    """Where the next page starts: last + 1, or the asked ``from`` when the page is empty."""

    @property
    def events(self) -> list[StoredEvent]:
        """Made anew at each call."""
        return list(unpacked(self.packed))


class EntityPage(msgspec.Struct, frozen=True):
    """An entity's events by sequence_number, with its version (accepted events, 0 = unknown)."""

    version: int
    packed: bytes
    """As in EventPage."""
    count: int
    has_more: bool
    next_from: int

    @property
    def events(self) -> list[StoredEvent]:
        """Made anew at each call."""
        return list(unpacked(self.packed))


class LegacyEventPage(msgspec.Struct, frozen=True):
    """Like EventPage, of the legacy stream."""

    head_sequence: int
    events: list[StoredLegacyEvent]
    has_more: bool
    next_from: int


class LegacyEntityPage(msgspec.Struct, frozen=True):
    """Like EntityPage: an entity's legacy events. ``version`` counts its VES events too."""

    version: int
    events: list[StoredLegacyEvent]
    has_more: bool
    next_from: int


# Commitments.


class StreamHead(msgspec.Struct, frozen=True):
    """A stream of a tenant, and how far it goes."""

    store_id: Uuid
    head_sequence: int
    """0: it has unsigned events only."""
    committed_through: int
    legacy_head_sequence: int
    """Of the store's unsigned events; 0 for none."""


class CommittedLeaf(msgspec.Struct, frozen=True):
    """A committed number's leaf, and what leads from it to the root: unchecked."""

    commitment: Commitment
    leaf: bytes
    path: list[bytes]
    """Its siblings, bottom-up."""


class StreamBehind(msgspec.Struct, frozen=True):
    """A stream with uncommitted events."""

    tenant_id: Uuid
    store_id: Uuid
    committed_through: int
    head_sequence: int
    oldest_uncommitted_us: int
    """``sequenced_at`` of its first uncommitted event."""


class CommitmentCounter(msgspec.Struct, frozen=True):
    """Where a stream's commitments stand: (0, 32 zero bytes) before the first."""

    committed_through: int
    state_root: bytes
    head_sequence: int


TOGETHER_STREAMS_MAX = 64
"""That are committed together."""
TOGETHER_LEAVES_MAX = 64
"""Of one stream among them; a longer range is committed by itself."""


class StreamRange(msgspec.Struct, frozen=True):
    """Numbers of a stream, both ends included."""

    tenant_id: Uuid
    store_id: Uuid
    sequence_start: int
    sequence_end: int

    @property
    def leaf_count(self) -> int:
        return self.sequence_end - self.sequence_start + 1


class Uncommitted(msgspec.Struct, frozen=True):
    """Where a stream's commitments stand, and at the same moment the leaf sources of a range of it."""

    counter: CommitmentCounter
    sources: bytes


class MadeCommitment(msgspec.Struct, frozen=True):
    """Not stored yet. What is believed committed: all before its start."""

    commitment: Commitment
    levels: bytes
    """All Merkle levels from the padded leaves (level 0) to the root, concatenated."""


class Voided(msgspec.Struct, frozen=True):
    """Numbers of a stream that were given to events which a restored database has lost: given to nobody else,
    ever. Both ends included."""

    tenant_id: Uuid
    store_id: Uuid
    first_number: int
    last_number: int
    voided_at_us: int = 0


class CommitmentPage(msgspec.Struct, frozen=True):
    commitments: list[Commitment]
    has_more: bool
    next_from: int
    """``sequence_start`` to ask from for the next page."""


# Anchors, as the doors see them; the anchor's own port is ``journal.anchor_port``.


class CommitmentAnchor(msgspec.Struct, frozen=True):
    """Where a commitment stands on its way to a chain. The members after ``road`` are None as long as they
    are unknown: there is a transaction from ``submitted`` on, a block from ``included`` on."""

    batch_id: Uuid
    state: Literal["pending", "submitted", "included", "safe", "finalized", "reported"]
    """reported: an anchorer of somebody else's says so, we have not looked."""
    since_us: int
    """When it entered the state."""
    chain_id: int
    contract: bytes | None
    road: Literal["aggregate", "single"] | None
    """None: reported."""
    anchor_number: int | None
    position: int | None
    """In the aggregate; 0 on the single road."""
    batch_count: int
    """How many commitments share the transaction."""
    tx_hash: bytes | None
    block_number: int | None
    block_hash: bytes | None
    gas_used: int | None
    """Of the whole transaction."""
    effective_gas_price: int | None
    """Wei."""
    cause: str | None
    """Of the last transition, for people: why it went back to pending."""


class PendingCommitment(msgspec.Struct, frozen=True):
    commitment: Commitment
    anchor: CommitmentAnchor | None
    """None: no anchor holds it yet."""


class AnchorReport(msgspec.Struct, frozen=True):
    """What an anchorer outside says of a commitment."""

    batch_id: Uuid
    chain_id: int
    tx_hash: bytes
    block_number: int | None


class ReportStored(msgspec.Struct, frozen=True):
    """``again``: the same transaction was known already."""

    again: bool


class ReportConflict(msgspec.Struct, frozen=True):
    """Nothing stored: another transaction is on record, or our own anchor has the commitment and puts it into
    another one."""


class AnchorSummary(msgspec.Struct, frozen=True):
    """All commitments of the database on their way. Times are 0 without one."""

    waiting: int
    """In no anchor yet, up to 100,000."""
    oldest_waiting_us: int
    open_anchors: dict[str, int]
    """State -> anchors in it, without finalized ones."""
    oldest_unfinalized_us: int
    """``committed_at`` of the oldest commitment that is not finalized (nor reported)."""
    anchored_batches: int
    """In finalized anchors."""
    anchored_events: int
    gas_used: int
    """Of finalized anchors."""
    cost_wei: int
    lease_holder: Uuid | None
    lease_epoch: int
    lease_held_until_us: int
    now_us: int
    """By the database's clock."""


class AnchorEvidence(msgspec.Struct, frozen=True):
    """All that is stored of one commitment's anchor and goes into evidence."""

    anchor: CommitmentAnchor
    root: bytes
    first_index: int | None
    previous_head: bytes | None
    leaves: list[bytes]
    """Of the whole aggregate, in order; empty on the single road."""
    raw_transaction: bytes | None
    """The one that a block includes."""
    inclusion: Inclusion | None


class LegacyLeafSource(msgspec.Struct, frozen=True, gc=False):
    """What one leaf of the legacy stream is made of (VES 3.10)."""

    sequence_number: int
    payload_hash: bytes
    entity_type: str
    entity_id: str


class LegacyCommitmentPage(msgspec.Struct, frozen=True):
    commitments: list[LegacyCommitment]
    has_more: bool
    next_from: int


class TooManyEntities(msgspec.Struct, frozen=True):
    """Nothing stored: the store has more than LEGACY_ENTITIES_MAX entities."""


LEGACY_ENTITIES_MAX = 1_000_000
"""Whose versions are hashed in one transaction: seconds."""


# Validity proofs.


class ValidityProof(msgspec.Struct, frozen=True):
    """What is known of a proof about a commitment, without its bytes."""

    proof_id: Uuid
    batch_id: Uuid
    tenant_id: Uuid
    store_id: Uuid
    proof_type: str
    proof_version: int
    proof_hash: bytes
    public_inputs: str | None
    """Canonical JSON, as it was agreed to; None: none were sent."""
    submitted_at_us: int = 0
    """Set by the journal."""


class StoredProof(msgspec.Struct, frozen=True):
    """A proof's record with its bytes as they are stored: sealed."""

    record: ValidityProof
    proof: bytes


class ProofSubmitted(msgspec.Struct, frozen=True):
    record: ValidityProof
    already: bool
    """True: exactly these bytes were there before, with this record; nothing changed."""


class ProofConflict(msgspec.Struct, frozen=True):
    """Nothing stored: the batch has other bytes of this type and version, under this proof_id."""

    proof_id: Uuid


# Agent keys.


class AgentKey(msgspec.Struct, frozen=True):
    """A registered agent signing key with its revocation, if any."""

    name: KeyName
    public_key: bytes
    key_algorithm: int
    valid_from_us: int | None
    valid_to_us: int | None
    registered_at_us: int = 0
    """Set by the journal."""
    proof_of_possession: int | None = None
    """Which challenge was proven: 1, 2, or None."""
    proof: bytes | None = None
    """The signature that proved it, on its way into the journal; never comes back."""
    revoked_at_us: int | None = None
    revocation_reason: str | None = None
    retires_at_us: int | None = None
    """The last moment it may sign at, once another key has taken its place."""
    replaced_by: int | None = None
    """That key's key_id."""
    rotation_signature: bytes | None = None
    """This key's own signature over its successor's name (``ves.signatures.rotation_hash``)."""

    @property
    def status(self) -> KeyStatus:
        return KeyStatus(
            self.valid_from_us,
            self.valid_to_us,
            self.revoked_at_us is not None,
            self.retires_at_us,
            self.registered_at_us,
        )


class PossessionProof(msgspec.Struct, frozen=True):
    """The signature by which whoever holds a key showed it."""

    version: int
    """Which challenge it answers: 1 or 2 (``ves.signatures.proven_possession``)."""
    signature: bytes


class KeyRegistered(msgspec.Struct, frozen=True):
    key: AgentKey
    already: bool
    """True: exactly this binding was there before; nothing changed, or a better proof of its possession
    was added."""


class KeyConflict(msgspec.Struct, frozen=True):
    """Nothing registered. ``same_name``: (tenant, agent, key_id) is bound to another key; otherwise this
    public key belongs to another agent, whose name is not told, or to a revoked key of this one."""

    same_name: bool


class KeyRevoked(msgspec.Struct, frozen=True):
    key: AgentKey
    already: bool


class KeysRevoked(msgspec.Struct, frozen=True):
    """All keys of an agent are revoked; so many of them just now."""

    revoked: int
    already: int


class KeyRotation(msgspec.Struct, frozen=True):
    """``key`` takes the place of ``replaces`` (key_id of the same agent), which ends in ``grace_s``."""

    key: AgentKey
    replaces: int
    grace_s: int
    rotation_signature: bytes | None = None
    by_holder: bool = False
    """Asked by whoever holds the old key and nobody else: refused when it has a successor already."""


class KeyRotated(msgspec.Struct, frozen=True):
    key: AgentKey
    replaced: AgentKey
    already: bool
    """True: this was done before and the old key ends no later than asked; nothing changed."""


class KeyEnded(msgspec.Struct, frozen=True):
    """Nothing done: this key of the two is revoked, retired or expired, is about to be replaced itself, or is
    not valid yet and its holder alone asks."""

    name: KeyName


class SignedEvent(msgspec.Struct, frozen=True):
    """Where an event stands that was signed by the key asked for; without its content."""

    store_id: Uuid
    sequence_number: int
    event_id: Uuid
    sequenced_at_us: int


class SignedPage(msgspec.Struct, frozen=True):
    """What was found among the events looked at, which may be nothing although more follows."""

    events: list[SignedEvent]
    next_after: tuple[Uuid, int] | None
    """(store_id, sequence_number) of the last event looked at; None: there are no more."""


# Credentials.


class ApiKey(msgspec.Struct, frozen=True):
    """An API key's record; the key itself is never stored, only its SHA-256."""

    id: Uuid
    key_hash: bytes
    prefix: str
    """First characters, enough to recognise, useless to guess."""
    tenant_id: Uuid
    store_ids: tuple[Uuid, ...] | None
    agent_id: Uuid | None
    permissions: tuple[str, ...]
    """Of a key without a role: read, write, admin, or permissions by name."""
    name: str | None
    created_at_us: int = 0
    revoked_at_us: int | None = None
    role: str | None = None
    expires_at_us: int | None = None
    """From this moment of the database's clock on nothing is appended with it."""
    rate_limit_per_minute: int | None = None


class TokenRevocation(msgspec.Struct, frozen=True):
    """All tokens of a subject issued at or before a second are dead. The tenant's own id as the subject means
    every token of the tenant."""

    number: int
    """Grows with each revocation, of API keys too."""
    tenant_id: Uuid
    subject: Uuid
    revoked_until_s: int
    """Seconds since the Unix epoch, inclusive."""
    revoked_at_us: int
    reason: str | None


NEWS_MAX = 10_000
"""Of one answer of ``revocations_since`` and ``policy_changes_since``: after a full one ask again at once."""


class Revocations(msgspec.Struct, frozen=True):
    """API keys and tokens revoked after ``cursor`` was handed out, and the new cursor."""

    credential_ids: list[Uuid]
    cursor: int
    tokens: list[TokenRevocation] = []


# What tenants demand of their events.

SchemaStatus = Literal["active", "deprecated", "archived"]
Compatibility = Literal["backward", "forward", "full", "none"]
SCHEMA_BYTES_ACTIVE_MAX = 4 * 1024 * 1024
"""Of all active schemas of a tenant together: what a request may need at most."""
SCHEMAS_ACTIVE_MAX = 1000
"""Active schemas of a tenant, what every node remembers of it."""


class EventSchema(msgspec.Struct, frozen=True):
    """A registered schema; its text never changes, ``status`` is its newest one."""

    id: Uuid
    tenant_id: Uuid
    event_type: str
    version: int
    """Given by the journal, from 1 per (tenant, event type), never again to another."""
    schema_json: str
    compatibility: Compatibility
    description: str | None
    created_by: str
    created_at_us: int = 0
    status: SchemaStatus = "active"
    updated_at_us: int = 0


class SchemaLimit(msgspec.Struct, frozen=True):
    """Nothing changed: the tenant's active schemas would be too many, or have too many bytes together."""


class TenantPolicy(msgspec.Struct, frozen=True):
    """What a tenant set for itself; None: the node's default. ``stamp`` rises with each change from 0."""

    stamp: int
    entity_types: tuple[str, ...] | None
    schema_mode: SchemaMode | None
    schemas: tuple[SchemaName, ...]
    """The newest active version of each event type."""
    regions: tuple[str, ...] = ()
    """Where it may be served: set by operators. None named: anywhere."""


class PinnedTenant(msgspec.Struct, frozen=True):
    tenant_id: Uuid
    regions: tuple[str, ...]


class PolicyChanges(msgspec.Struct, frozen=True):
    """Tenants whose policy or schemas changed after ``cursor`` was handed out, and the new cursor."""

    tenant_ids: list[Uuid]
    cursor: int


# Keys of our own.


class ReceiptKey(msgspec.Struct, frozen=True):
    sequencer_id: Uuid
    key_version: int
    public_key: bytes
    created_at_us: int
    active: bool
    """The newest of its sequencer."""
    previous_signature: bytes | None = None
    """By the version before, over ``ves.receipt_keys.rotation_statement``; None for version 1."""


class AuditEntry(msgspec.Struct, frozen=True):
    """Who did what to what. Written in the transaction of the act itself, chained per node by hash."""

    actor: str
    """``bootstrap``, ``api_key:<id>``, ``token:<subject>``, ``cli``, ``system``."""
    action: str
    """``agent_key.register``, ``api_key.revoke`` …"""
    subject: str
    tenant_id: Uuid | None
    details: dict[str, str | int | None] = {}


# Rate limits that nodes share.

RATE_TOKEN = 60_000_000
"""Units of one token: a bucket gains ``per_minute`` units each microsecond."""
RATE_REFILL_S_MAX = 3600
"""No bucket takes longer to fill up, so one that nobody touched for so long is full and may be forgotten."""


class RateSpending(msgspec.Struct, frozen=True):
    """``tokens`` that a node took from its idea of the shared ``bucket``, which holds at most ``burst``."""

    bucket: bytes
    per_minute: int
    burst: int
    tokens: int


class AuditChain(msgspec.Struct, frozen=True):
    """Where a node's audit chain and its commitments stand; 0 and 32 zero bytes before the first."""

    node_id: Uuid
    last_number: int
    last_hash: bytes
    committed_through: int
    state_root: bytes
    oldest_uncommitted_us: int
    """``recorded_at`` of its first uncommitted entry; 0 without one."""


class AuditPlace(msgspec.Struct, frozen=True):
    """Where an entry stands among all nodes' entries by time."""

    recorded_at_us: int
    node_id: Uuid
    entry_number: int


class AuditWish(msgspec.Struct, frozen=True):
    """Which entries are wanted; None means any. ``from_us`` is included, ``to_us`` is not."""

    tenant_id: Uuid | None = None
    node_id: Uuid | None = None
    actor: str | None = None
    action: str | None = None
    from_us: int | None = None
    to_us: int | None = None
    after: AuditPlace | None = None
    """Only entries older than the one at this place."""


class JournalVitals(msgspec.Struct, frozen=True):
    """How the database did by us, since the start; counted here, nobody is asked."""

    done: int = 0
    away: int = 0
    """Units that ended without an answer, nothing stored."""
    contended: int = 0
    unknown: int = 0
    """COMMIT sent and not clearly answered."""
    slow: int = 0
    """Units that took longer than SLOW_S."""
    connections: int = 0
    connections_in_use: int = 0
    connections_max: int = 0


class AnchorRecord(Protocol):
    """Anchors as the doors see them: the server reads them all and adds requests and reports."""

    async def read_anchors(self, batch_ids: list[Uuid]) -> dict[Uuid, CommitmentAnchor]:
        """Those that have one; at most 1,000 a call."""
        ...

    async def list_pending_anchors(self, *, limit: int) -> list[PendingCommitment]:
        """Commitments of all tenants that are neither finalized nor reported, oldest first."""
        ...

    async def request_anchor(self, batch_id: Uuid, audit: AuditEntry) -> bool:
        """The anchor takes it next, before its turn; asking again changes nothing. False, and nothing stored:
        an anchor holds it, or it is reported. Raises LookupError for a batch that does not exist."""
        ...

    async def report_anchor(self, report: AnchorReport, audit: AuditEntry) -> ReportStored | ReportConflict:
        """Raises LookupError for a batch that does not exist."""
        ...

    async def anchor_summary(self) -> AnchorSummary:
        """Costs the same however many commitments are anchored."""
        ...

    async def read_anchor_evidence(self, batch_id: Uuid) -> AnchorEvidence | None:
        """None: no anchor holds it."""
        ...


class Journal(AnchorRecord, Protocol):
    """Raises JournalAway where nothing happened, JournalOutcomeUnknown where that cannot be told."""

    # The database itself.

    async def ping(self) -> None:
        """Returns when the primary answered a trivial query."""
        ...

    # The write path.

    async def settle(self, tenant_id: Uuid) -> None:
        """First act of a sequencer's life, unless nothing of its predecessor can be under way: locks and
        releases the tenant's counters, so that a predecessor's transaction still running is waited out before
        anything is read."""
        ...

    def expecting(self, tenant_id: Uuid | None, size: int) -> AbstractContextManager[Expectation]:
        """While events of this tenant are on their way to ``append``, in a body of ``size`` bytes; None: of
        one that is not known yet. A hint: what is expected decides how long small groups wait for each
        other."""
        ...

    async def read_facts(self, question: Question) -> Facts:
        """One statement, one snapshot."""
        ...

    async def append(self, group: Group, passing: Passing | None = None) -> Stored | Moved | Away:
        """One transaction. ``passing``: of short statements, between which others are let pass. Raises
        JournalOutcomeUnknown (never JournalAway)."""
        ...

    async def append_legacy(
        self, group: LegacyGroup, passing: Passing | None = None
    ) -> Stored | Moved | Away:
        """The same for legacy events. An entity's version that a VES append moved is ``Moved``, and the
        other way round."""
        ...

    # Reading back. ``bytes_max`` bounds the sum of the sealed payloads of a page (at least one event).

    async def read_events(
        self, tenant_id: Uuid, store_id: Uuid, *, from_sequence: int, limit: int, bytes_max: int
    ) -> EventPage: ...

    async def read_event(
        self, tenant_id: Uuid, event_id: Uuid, *, store_ids: tuple[Uuid, ...] | None
    ) -> StoredEvent | None: ...

    async def read_head(self, tenant_id: Uuid, store_id: Uuid) -> int: ...

    async def list_streams(
        self, tenant_id: Uuid, *, store_ids: tuple[Uuid, ...] | None, after: Uuid | None, limit: int
    ) -> list[StreamHead]:
        """The tenant's stores that have an event, signed or unsigned, by store_id, from behind ``after`` on;
        ``store_ids``: only these."""
        ...

    async def read_voided(self, tenant_id: Uuid, store_id: Uuid) -> list[Voided]:
        """In order; the first VOIDED_MAX: there is one for each restoration that lost something here."""
        ...

    async def read_entity(
        self, tenant_id: Uuid, entity: EntityName, *, from_sequence: int, limit: int, bytes_max: int
    ) -> EntityPage: ...

    async def read_legacy_events(
        self, tenant_id: Uuid, store_id: Uuid, *, from_sequence: int, limit: int, bytes_max: int
    ) -> LegacyEventPage: ...

    async def read_legacy_head(self, tenant_id: Uuid, store_id: Uuid) -> int: ...

    async def read_legacy_entity(
        self, tenant_id: Uuid, entity: EntityName, *, from_sequence: int, limit: int, bytes_max: int
    ) -> LegacyEntityPage: ...

    # Commitments.

    async def streams_behind(self, *, after: tuple[Uuid, Uuid] | None, limit: int) -> list[StreamBehind]:
        """Ordered by (tenant_id, store_id), all tenants; page with ``after``."""
        ...

    async def read_commitment_counter(self, tenant_id: Uuid, store_id: Uuid) -> CommitmentCounter: ...

    async def read_leaf_sources(
        self, tenant_id: Uuid, store_id: Uuid, *, sequence_start: int, sequence_end: int
    ) -> bytes:
        """What leaves are made of, as ``ves.merkle.leaf_hashes`` takes it: ordered; at most 4,096 a call."""
        ...

    async def commit(
        self, commitment: Commitment, *, levels: bytes, believed_through: int
    ) -> Stored | Moved | Away:
        """Compare-and-set of the commitment counter (committed_through and prev_state_root) and INSERT in
        one transaction; the range must end at or before the head read there. ``levels``: all Merkle levels
        from the padded leaves (level 0) to the root, concatenated."""
        ...

    async def read_uncommitted(self, ranges: Sequence[StreamRange]) -> list[Uncommitted]:
        """In their order; at most TOGETHER_STREAMS_MAX of TOGETHER_LEAVES_MAX. What is missing of a range is
        missing in its sources. Raises NotTogether."""
        ...

    async def commit_together(self, made: Sequence[MadeCommitment]) -> list[Stored | Moved] | Away:
        """Of each what ``commit`` does, all in one transaction, answered in their order; at most
        TOGETHER_STREAMS_MAX, each of another stream. Raises NotTogether when one of them is refused by what
        is stored already; an unknown outcome is that of all of them."""
        ...

    async def read_commitment(
        self, batch_id: Uuid, *, tenant_id: Uuid | None, store_ids: tuple[Uuid, ...] | None
    ) -> Commitment | None: ...

    async def find_commitment(
        self, tenant_id: Uuid, store_id: Uuid, *, sequence_number: int
    ) -> Commitment | None:
        """The commitment whose range holds this sequence number."""
        ...

    async def find_leaf(
        self, tenant_id: Uuid, store_id: Uuid, *, sequence_number: int
    ) -> CommittedLeaf | None:
        """``find_commitment`` and the number's leaf and path in it, in one look."""
        ...

    async def list_commitments(
        self, tenant_id: Uuid, store_id: Uuid, *, from_sequence: int, limit: int, anchored: bool | None
    ) -> CommitmentPage:
        """``anchored`` True: those whose anchor a block includes (it may be safe or finalized), and reported
        ones; False: the others."""
        ...

    async def read_nodes(self, batch_id: Uuid, positions: list[int]) -> list[bytes]:
        """Merkle nodes by their index in ``levels`` (counted in 32-byte nodes), in the order asked."""
        ...

    async def read_leaves(self, batch_id: Uuid, *, leaf_count: int) -> bytes:
        """The first so many leaves, 32 bytes each. LookupError when there are not so many nodes."""
        ...

    # Commitments of the legacy stream. Each starts right after the last one, whose row is what is compared.

    async def read_legacy_commitment_counter(self, tenant_id: Uuid, store_id: Uuid) -> CommitmentCounter: ...

    async def read_legacy_leaf_sources(
        self, tenant_id: Uuid, store_id: Uuid, *, sequence_start: int, sequence_end: int
    ) -> list[LegacyLeafSource]:
        """Ordered; at most 4,096 a call."""
        ...

    async def commit_legacy(
        self, commitment: LegacyCommitment, *, levels: bytes
    ) -> LegacyCommitment | TooManyEntities | Moved | Away:
        """Answered with the stored commitment: its ``new_state_root`` is computed here, of the entities'
        versions in the one snapshot in which the last commitment and the head are compared.
        ``levels``: all Merkle nodes from the leaves to the root, concatenated."""
        ...

    async def read_legacy_commitment(
        self, batch_id: Uuid, *, tenant_id: Uuid | None, store_ids: tuple[Uuid, ...] | None
    ) -> LegacyCommitment | None: ...

    async def find_legacy_commitment(
        self, tenant_id: Uuid, store_id: Uuid, *, sequence_number: int
    ) -> LegacyCommitment | None:
        """The commitment whose range holds this sequence number."""
        ...

    async def list_legacy_commitments(
        self, tenant_id: Uuid, store_id: Uuid, *, from_sequence: int, limit: int
    ) -> LegacyCommitmentPage: ...

    async def read_legacy_nodes(self, batch_id: Uuid, positions: list[int]) -> list[bytes]:
        """Merkle nodes by their index in ``levels`` (counted in 32-byte nodes), in the order asked."""
        ...

    # Validity proofs, which are unique per batch, type and version.

    async def submit_validity_proof(
        self, submitted: StoredProof, audit: AuditEntry
    ) -> ProofSubmitted | ProofConflict | None:
        """One transaction. None: the stream has no such commitment. Doing it twice, also with another
        proof_id, is the same as once."""
        ...

    async def read_validity_proof(
        self, proof_id: Uuid, *, tenant_id: Uuid | None, store_ids: tuple[Uuid, ...] | None
    ) -> StoredProof | None: ...

    async def list_validity_proofs(
        self, batch_id: Uuid, *, after: Uuid | None, limit: int
    ) -> list[ValidityProof]:
        """By time of submission; page with ``after``, the last one's proof_id."""
        ...

    # Agent keys. Registering and revoking take the tenant's exclusive key lock and raise its key_epoch.

    async def find_public_keys(self, keys: list[KeyName]) -> dict[KeyName, bytes]: ...

    async def register_agent_key(self, key: AgentKey, audit: AuditEntry) -> KeyRegistered | KeyConflict: ...

    async def list_agent_keys(
        self, tenant_id: Uuid, agent_id: Uuid, *, from_key_id: int, limit: int
    ) -> list[AgentKey]: ...

    async def read_possession(self, name: KeyName) -> PossessionProof | None:
        """The best proof on record. None: no such key, or its signature was not kept."""
        ...

    async def revoke_agent_key(self, name: KeyName, reason: str, audit: AuditEntry) -> KeyRevoked | None:
        """None: no such key."""
        ...

    async def revoke_agent_keys(
        self, tenant_id: Uuid, agent_id: Uuid, reason: str, audit: AuditEntry
    ) -> KeysRevoked | None:
        """All keys of an agent in one transaction. None: it has none."""
        ...

    async def rotate_agent_key(
        self, rotation: KeyRotation, audit: AuditEntry
    ) -> KeyRotated | KeyConflict | KeyEnded | None:
        """Registers the new key, unless it is there, and records when the old one ends: never later than
        recorded before, never before what was sequenced already. None: no such old key."""
        ...

    async def walk_agent_keys(
        self, tenant_id: Uuid | None, *, after: KeyName | None, limit: int
    ) -> list[AgentKey]:
        """Ordered by (tenant_id, agent_id, key_id); of all tenants or of one."""
        ...

    async def read_signed_by(
        self, key: KeyName, *, after: tuple[Uuid, int] | None, limit: int, looked_at_max: int
    ) -> SignedPage:
        """Which of the tenant's events this key signed, at most ``limit``. Looks at so many events at most,
        in the order of (store_id, sequence_number), so that no call reads all a tenant has."""
        ...

    # Credentials. Revoking takes the tenant's exclusive key lock and raises its credential_epoch.

    async def create_api_key(self, key: ApiKey, audit: AuditEntry, *, by: Uuid | None = None) -> ApiKey:
        """Raises CredentialEnded when the API key ``by`` is revoked or has expired by the database's
        clock: a stolen one leaves no child behind after its revocation, on any node."""
        ...

    async def create_agent_api_key(
        self, key: ApiKey, audit: AuditEntry, *, by: Uuid | None, in_force_max: int, freed_after_s: int
    ) -> ApiKey | None:
        """The same. None, and nothing created, when the key's agent has ``in_force_max`` keys that are in
        force or were within the last ``freed_after_s``; also when many are created at once."""
        ...

    async def find_api_key(self, key_hash: bytes) -> ApiKey | None: ...

    async def list_api_keys(
        self, tenant_id: Uuid | None, *, after: Uuid | None, limit: int, prefix: str = ""
    ) -> list[ApiKey]:
        """Those whose ``prefix`` begins so, by id."""
        ...

    async def list_agent_api_keys(
        self,
        tenant_id: Uuid,
        agent_id: Uuid,
        *,
        store_ids: tuple[Uuid, ...] | None,
        after: Uuid | None,
        limit: int,
        hash_prefix: str = "",
    ) -> list[ApiKey]:
        """An agent's, revoked ones too, newest first; with ``store_ids`` only those bound to some of these.
        ``hash_prefix``: the beginning of the key's hash in hex."""
        ...

    async def newest_agent_api_key(
        self, tenant_id: Uuid, agent_id: Uuid, *, store_ids: tuple[Uuid, ...] | None
    ) -> ApiKey | None:
        """The newest of them that is neither revoked nor expired; without one the newest of all."""
        ...

    async def revoke_api_key(
        self, credential_id: Uuid, *, tenant_id: Uuid | None, audit: AuditEntry
    ) -> ApiKey | None:
        """None: no such key (in that tenant, if one is named). Revoking twice changes nothing."""
        ...

    async def revoke_tokens(
        self, tenant_id: Uuid, subject: Uuid, *, ahead_s: int, reason: str | None, audit: AuditEntry
    ) -> TokenRevocation:
        """Every token of the subject issued until ``ahead_s`` after now, by the database's clock, is dead."""
        ...

    async def tokens_revoked_until(self, tenant_id: Uuid, subject: Uuid) -> int:
        """The last second of issue that is dead for this subject, itself or with its tenant; -1: none."""
        ...

    async def list_token_revocations(
        self, tenant_id: Uuid | None, *, after: int, limit: int
    ) -> list[TokenRevocation]:
        """Those with a greater number than ``after``, in that order."""
        ...

    async def revocations_since(self, cursor: int | None) -> Revocations:
        """``None`` asks for the present cursor only. No committed revocation is ever skipped."""
        ...

    # What tenants demand of their events. Changes happen one at a time, over all nodes.

    async def create_schema(
        self, schema: EventSchema, *, believed_stamp: int, audit: AuditEntry
    ) -> EventSchema | Moved | SchemaLimit:
        """Active from now on, as the next version of its event type. ``Moved``: the tenant's stamp is another
        one than ``believed_stamp``, so what was compared with may be no longer the newest."""
        ...

    async def set_schema_status(
        self, schema_id: Uuid, *, tenant_id: Uuid | None, status: SchemaStatus, audit: AuditEntry
    ) -> EventSchema | SchemaLimit | None:
        """None: no such schema (in that tenant, if one is named). The same status again changes nothing."""
        ...

    async def find_schema(self, schema_id: Uuid, *, tenant_id: Uuid | None) -> EventSchema | None: ...

    async def find_schema_version(
        self, tenant_id: Uuid, event_type: str, *, version: int | None
    ) -> EventSchema | None:
        """``version`` None: the newest active one."""
        ...

    async def list_schemas(
        self, tenant_id: Uuid, *, event_type: str | None, after: Uuid | None, limit: int
    ) -> list[EventSchema]:
        """By event type, newest version first; page with ``after``, the last one's id."""
        ...

    async def read_schema_texts(self, schema_ids: list[Uuid]) -> dict[Uuid, str]: ...

    async def set_policy(
        self,
        tenant_id: Uuid,
        *,
        entity_types: tuple[str, ...] | None,
        schema_mode: SchemaMode | None,
        audit: AuditEntry,
    ) -> TenantPolicy: ...

    async def read_policy(self, tenant_id: Uuid) -> TenantPolicy: ...

    async def set_regions(
        self, tenant_id: Uuid, *, regions: tuple[str, ...], audit: AuditEntry
    ) -> TenantPolicy:
        """Pins the tenant to these regions; to none: it is free."""
        ...

    async def list_pinned(self, *, after: Uuid | None, limit: int) -> list[PinnedTenant]:
        """Tenants that are pinned somewhere, by id."""
        ...

    async def policy_changes_since(self, cursor: int | None) -> PolicyChanges:
        """``None`` asks for the present cursor only. No committed change is ever skipped."""
        ...

    async def audit(self, entry: AuditEntry) -> None:
        """For acts that change nothing else in the journal."""
        ...

    # The audit trail. Everybody may commit everybody's chain: a node that is gone leaves no open tail.

    async def read_audit_chains(
        self, *, only: Uuid | None = None, after: Uuid | None = None, limit: int
    ) -> list[AuditChain]:
        """By node_id: all nodes', or only one's."""
        ...

    async def read_audit_chain(self, node_id: Uuid, *, from_number: int, limit: int) -> list[AuditRecord]:
        """A chain's entries by number."""
        ...

    async def find_audit_entries(self, wish: AuditWish, *, limit: int) -> list[AuditRecord]:
        """Newest first."""
        ...

    async def commit_audit(self, commitment: AuditCommitment) -> Stored | Moved | Away:
        """Stored only right after the node's last commitment, on its state root, and at or before the head.
        Raises JournalOutcomeUnknown."""
        ...

    async def list_audit_commitments(
        self, node_id: Uuid, *, from_number: int, limit: int
    ) -> list[AuditCommitment]:
        """By entry_start; the first is the one that holds ``from_number``, or the next after it."""
        ...

    def vitals(self) -> JournalVitals:
        """Never asks the database."""
        ...

    # Our own keys. What is recorded for the first time leaves an audit entry.

    async def claim_receipt_key(self, sequencer_id: Uuid, public_key: bytes) -> int:
        """The key_version under which receipts are to be signed: recorded as version 1 at first sight.
        Raises ReceiptKeyDiffers."""
        ...

    async def receipt_keys(self) -> list[ReceiptKey]:
        """All of them, of every node, retired ones too, by sequencer_id and version."""
        ...

    async def rotate_receipt_key(self, key: ReceiptKey, audit: AuditEntry) -> ReceiptKey:
        """The newest key of ``key``'s sequencer afterwards: ``key`` itself, recorded with the audit entry in
        one transaction, if the version before it was the newest; otherwise what is there, nothing stored.
        So it may be done twice. Raises ReceiptKeyDiffers for a public key that the sequencer had before."""
        ...

    async def claim_at_rest_keys(
        self,
        key_ids: list[bytes],
        by_tenant: Mapping[Uuid, list[bytes]] | None = None,
        *,
        current: list[bytes] | None = None,
        required: bool = False,
    ) -> None:
        """Records the key ids of the default ring, and of the rings of tenants that have, or once had, their
        own. Raises AtRestKeyMissing, and records nothing, when a ring lacks a key, not retired, that data of
        those whom it serves may exist under; AtRestKeyRetired when one of ``current``, those that seal, is
        retired; and, with ``required``, PlaintextRemains while events or proofs are stored that are no
        frames."""
        ...

    async def retire_at_rest_key(self, key_id: bytes, audit: AuditEntry) -> bool:
        """From now on no start demands the key, and none seals under it. Whether it was this call that
        retired it. That nothing is sealed under it any more is for the caller to know. Raises
        AtRestKeyMissing for a key that was never claimed."""
        ...

    # Rate limits. What is kept of them may be lost at any time: a bucket nobody knows is full.

    async def spend_rates(self, spendings: list[RateSpending]) -> dict[bytes, int]:
        """What each bucket, refilled to this moment, holds after its spending, in units of RATE_TOKEN; less
        than nothing is a debt. Each bucket at most once. After JournalAway it may have been counted all the
        same. Waits a second at most."""
        ...

    async def forget_idle_rates(self) -> None:
        """Buckets that nobody touched for RATE_REFILL_S_MAX are gone."""
        ...
