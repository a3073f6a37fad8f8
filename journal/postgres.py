"""The journal on PostgreSQL: every method of the port as one unit that crosses into the database once.

``open_journal`` owns the connection pool for as long as it is open. The rooms beside it hold the statements;
here is only which unit a method is: a reading statement, a transaction, a transaction under the tenant's
key lock. It connects when first asked and again, by itself, after the database was away.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractContextManager, asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING, TypeVar

import asyncpg

from journal import (
    anchored,
    append,
    audit_trail,
    commitments,
    commitments_together,
    credentials,
    key_rotation,
    keys,
    legacy,
    legacy_commitments,
    own_keys,
    policies,
    rates,
    reads,
    restorations,
    signed_by,
    tokens,
    validity_proofs,
)
from journal.aio import cross
from journal.appends import Appends
from journal.at_rest_rules import Rings
from journal.audit import write_audit
from journal.connections import SERVER_VERSION_MIN, Limits
from journal.locks import begin_alone, begin_anchoring, begin_sharing
from journal.migrate import check_schema
from journal.pools import open_units
from journal.port import (
    VOIDED_MAX,
    AgentKey,
    AnchorEvidence,
    AnchorReport,
    AnchorSummary,
    ApiKey,
    AuditChain,
    AuditEntry,
    AuditWish,
    Away,
    CommitmentAnchor,
    CommitmentCounter,
    CommitmentPage,
    CommittedLeaf,
    CredentialEnded,
    EntityPage,
    EventPage,
    EventSchema,
    Expectation,
    Group,
    JournalVitals,
    KeyConflict,
    KeyEnded,
    KeyRegistered,
    KeyRevoked,
    KeyRotated,
    KeyRotation,
    KeysRevoked,
    LegacyCommitmentPage,
    LegacyEntityPage,
    LegacyEventPage,
    LegacyGroup,
    LegacyLeafSource,
    MadeCommitment,
    Moved,
    Passing,
    PendingCommitment,
    PinnedTenant,
    PolicyChanges,
    PossessionProof,
    ProofConflict,
    ProofSubmitted,
    RateSpending,
    ReceiptKey,
    ReportConflict,
    ReportStored,
    Revocations,
    SchemaLimit,
    SchemaMismatch,
    SchemaStatus,
    SignedPage,
    Stored,
    StoredProof,
    StreamBehind,
    StreamHead,
    StreamRange,
    TenantPolicy,
    TokenRevocation,
    TooManyEntities,
    Uncommitted,
    ValidityProof,
    Voided,
)
from journal.privileges import refuse_excess
from journal.restorations import Cause, Given, KnownHead, Restoration
from journal.stalled import StalledCopies
from journal.units import Checkpoint, NotPrimary, Undo, Units
from ves.audit import AuditCommitment, AuditRecord
from ves.legacy_commitments import LegacyCommitment
from ves.policy import SchemaMode
from ves.records import Commitment, EntityName, Facts, KeyName, Question, StoredEvent, Uuid

if TYPE_CHECKING:
    from journal.connections import Connection

T = TypeVar("T")

_PING_S = 2.0
"""A database that takes longer is away for those who ask whether it is there: they decide about traffic."""
_OWN_KEYS_S = 5.0
_ROOM = "CREATE TEMPORARY TABLE room ON COMMIT DROP AS SELECT n FROM generate_series(1, 30000) AS n"
_EVERYBODY = bytes(16)
"""The nil UUID is nobody's tenant; its lock is for what concerns all nodes."""


class UnfitServer(SchemaMismatch):
    """This server may not hold the journal; the text says why."""


def _no_checkpoint(name: str) -> None:
    pass


@asynccontextmanager
async def open_journal(
    dsn: str,
    *,
    node_id: Uuid,
    limits: Limits | None = None,
    checkpoint: Checkpoint = _no_checkpoint,
    application_name: str = "sequencer",
    as_server: bool = False,
) -> AsyncIterator[PostgresJournal]:
    """The journal, after the server and the schema were found fit. Inside ``journal.aio.open_loop`` only.

    ``node_id`` names the audit chain we write. ``checkpoint`` is called at the named points of a write and
    may crash us there: each unit's ``.begin``, ``.commit_sent_before`` and ``.committed``, and ``.fenced``
    and ``.copied`` of ``append`` and ``append_legacy``. ``as_server``: the login must be bound by grants and
    triggers, which is looked at on every new connection. Raises JournalRefused when it is not, JournalAway
    when the database cannot be asked, SchemaMismatch (UnfitServer) when it is not what we need."""
    limits = limits or Limits()
    opened = partial(
        open_units,
        dsn,
        limits=limits,
        checkpoint=checkpoint,
        application_name=application_name,
        check=refuse_excess if as_server else None,
    )
    async with opened() as units, opened(appending_beside=units) as appending:
        stalled = StalledCopies(limits.idle_in_transaction_timeout_s)
        journal = PostgresJournal(units, appending, node_id, checkpoint, stalled)
        await journal.check_fitness()
        yield journal


class PostgresJournal:
    """See ``journal.port.Journal`` for what each method promises."""

    def __init__(
        self, units: Units, appending: Units, node_id: Uuid, checkpoint: Checkpoint, stalled: StalledCopies
    ) -> None:
        self._units = units
        self._appends = Appends(appending, checkpoint)
        self._node_id = node_id
        self._checkpoint = checkpoint
        self._stalled = stalled

    # The three kinds of unit, and a fourth that chooses its outcome itself (``append``, ``commit``).

    async def _read(self, act: Callable[[Connection], Awaitable[T]]) -> T:
        return await cross(lambda: self._units.read(act))

    async def _write(self, named: str, act: Callable[[Connection], Awaitable[T]]) -> T:
        return await cross(lambda: self._units.write(act, named=named))

    async def _write_alone(self, named: str, tenant_id: Uuid, act: Callable[[Connection], Awaitable[T]]) -> T:
        """No append of the tenant is under way meanwhile, on any node."""
        return await cross(lambda: self._units.write(act, begin=begin_alone(tenant_id), named=named))

    # The database itself.

    async def ping(self) -> None:
        await cross(lambda: self._units.read(self._look, deadline_s=_PING_S))
        if self._units.condition.disk_full is not None:
            # Reading works on a full disk. Whoever is not ready gets no traffic, so we try for ourselves.
            await cross(lambda: self._units.write(_find_room, named="room"))

    async def _look(self, connection: Connection) -> None:
        # A standby answers queries too; only a primary is any use.
        await _require_primary(connection)
        # Everybody who is alive asks once in a while, so this is where a stopped neighbour is noticed.
        await self._stalled.end_them(connection)

    async def check_fitness(self) -> None:
        """Raises SchemaMismatch when this database may not be used."""
        await self._read(_check_fitness)

    # The write path.

    def expecting(self, tenant_id: Uuid | None, size: int) -> AbstractContextManager[Expectation]:
        return self._appends.expected.of(tenant_id, size)

    async def settle(self, tenant_id: Uuid) -> None:
        await self._write_alone("settle", tenant_id, lambda c: append.settle(c, tenant_id))

    async def read_facts(self, question: Question) -> Facts:
        return await self._appends.read_facts(question)

    async def append(self, group: Group, passing: Passing | None = None) -> Stored | Moved | Away:
        return await self._appends.append(group, passing)

    async def append_legacy(
        self, group: LegacyGroup, passing: Passing | None = None
    ) -> Stored | Moved | Away:
        return await self._appends.append_legacy(group, passing)

    # Reading back.

    async def read_events(
        self, tenant_id: Uuid, store_id: Uuid, *, from_sequence: int, limit: int, bytes_max: int
    ) -> EventPage:
        return await self._read(
            lambda c: reads.read_events(c, tenant_id, store_id, from_sequence, limit, bytes_max)
        )

    async def read_event(
        self, tenant_id: Uuid, event_id: Uuid, *, store_ids: tuple[Uuid, ...] | None
    ) -> StoredEvent | None:
        return await self._read(lambda c: reads.read_event(c, tenant_id, event_id, store_ids))

    async def read_head(self, tenant_id: Uuid, store_id: Uuid) -> int:
        return await self._read(lambda c: reads.read_head(c, tenant_id, store_id))

    async def list_streams(
        self, tenant_id: Uuid, *, store_ids: tuple[Uuid, ...] | None, after: Uuid | None, limit: int
    ) -> list[StreamHead]:
        return await self._read(lambda c: reads.list_streams(c, tenant_id, store_ids, after, limit))

    async def read_voided(self, tenant_id: Uuid, store_id: Uuid) -> list[Voided]:
        return await self._read(lambda c: restorations.voided(c, tenant_id, store_id, VOIDED_MAX))

    async def read_entity(
        self, tenant_id: Uuid, entity: EntityName, *, from_sequence: int, limit: int, bytes_max: int
    ) -> EntityPage:
        return await self._read(
            lambda c: reads.read_entity(c, tenant_id, entity, from_sequence, limit, bytes_max)
        )

    async def read_legacy_events(
        self, tenant_id: Uuid, store_id: Uuid, *, from_sequence: int, limit: int, bytes_max: int
    ) -> LegacyEventPage:
        return await self._read(
            lambda c: legacy.read_events(c, tenant_id, store_id, from_sequence, limit, bytes_max)
        )

    async def read_legacy_head(self, tenant_id: Uuid, store_id: Uuid) -> int:
        return await self._read(lambda c: legacy.read_head(c, tenant_id, store_id))

    async def read_legacy_entity(
        self, tenant_id: Uuid, entity: EntityName, *, from_sequence: int, limit: int, bytes_max: int
    ) -> LegacyEntityPage:
        return await self._read(
            lambda c: legacy.read_entity(c, tenant_id, entity, from_sequence, limit, bytes_max)
        )

    # Commitments.

    async def streams_behind(self, *, after: tuple[Uuid, Uuid] | None, limit: int) -> list[StreamBehind]:
        return await self._read(lambda c: commitments.streams_behind(c, after, limit))

    async def read_commitment_counter(self, tenant_id: Uuid, store_id: Uuid) -> CommitmentCounter:
        return await self._read(lambda c: commitments.read_counter(c, tenant_id, store_id))

    async def read_leaf_sources(
        self, tenant_id: Uuid, store_id: Uuid, *, sequence_start: int, sequence_end: int
    ) -> bytes:
        return await self._read(
            lambda c: commitments.read_leaf_sources(c, tenant_id, store_id, sequence_start, sequence_end)
        )

    async def commit(
        self, commitment: Commitment, *, levels: bytes, believed_through: int
    ) -> Stored | Moved | Away:
        return await cross(lambda: commitments.commit(self._units, commitment, levels, believed_through))

    async def read_uncommitted(self, ranges: Sequence[StreamRange]) -> list[Uncommitted]:
        return await cross(lambda: commitments_together.read_uncommitted(self._units, ranges))

    async def commit_together(self, made: Sequence[MadeCommitment]) -> list[Stored | Moved] | Away:
        return await cross(lambda: commitments_together.commit_together(self._units, made))

    async def read_commitment(
        self, batch_id: Uuid, *, tenant_id: Uuid | None, store_ids: tuple[Uuid, ...] | None
    ) -> Commitment | None:
        return await self._read(lambda c: commitments.stored.one(c, batch_id, tenant_id, store_ids))

    async def find_commitment(
        self, tenant_id: Uuid, store_id: Uuid, *, sequence_number: int
    ) -> Commitment | None:
        return await self._read(lambda c: commitments.stored.holding(c, tenant_id, store_id, sequence_number))

    async def find_leaf(
        self, tenant_id: Uuid, store_id: Uuid, *, sequence_number: int
    ) -> CommittedLeaf | None:
        return await self._read(lambda c: commitments.find_leaf(c, tenant_id, store_id, sequence_number))

    async def list_commitments(
        self, tenant_id: Uuid, store_id: Uuid, *, from_sequence: int, limit: int, anchored: bool | None
    ) -> CommitmentPage:
        return await self._read(
            lambda c: commitments.list_page(c, tenant_id, store_id, from_sequence, limit, anchored)
        )

    async def read_nodes(self, batch_id: Uuid, positions: list[int]) -> list[bytes]:
        return await self._read(lambda c: commitments.read_nodes(c, batch_id, positions))

    async def read_leaves(self, batch_id: Uuid, *, leaf_count: int) -> bytes:
        return await self._read(lambda c: commitments.read_leaves(c, batch_id, leaf_count))

    # Anchors, as the doors see them.

    async def read_anchors(self, batch_ids: list[Uuid]) -> dict[Uuid, CommitmentAnchor]:
        return await self._read(lambda c: anchored.read_anchors(c, batch_ids))

    async def list_pending_anchors(self, *, limit: int) -> list[PendingCommitment]:
        return await self._read(lambda c: anchored.list_pending(c, limit))

    async def request_anchor(self, batch_id: Uuid, audit: AuditEntry) -> bool:
        return await self._write_anchoring(
            "request_anchor", lambda c: anchored.request(c, self._node_id, batch_id, audit)
        )

    async def report_anchor(self, report: AnchorReport, audit: AuditEntry) -> ReportStored | ReportConflict:
        return await self._write_anchoring(
            "report_anchor", lambda c: anchored.report(c, self._node_id, report, audit)
        )

    async def _write_anchoring(self, named: str, act: Callable[[Connection], Awaitable[T]]) -> T:
        """No anchor takes a batch meanwhile."""
        return await cross(lambda: self._units.write(act, begin=begin_anchoring(), named=named))

    async def anchor_summary(self) -> AnchorSummary:
        return await self._read(anchored.summary)

    async def read_anchor_evidence(self, batch_id: Uuid) -> AnchorEvidence | None:
        return await self._read(lambda c: anchored.read_evidence(c, batch_id))

    # Commitments of the legacy stream.

    async def read_legacy_commitment_counter(self, tenant_id: Uuid, store_id: Uuid) -> CommitmentCounter:
        return await self._read(lambda c: legacy_commitments.read_counter(c, tenant_id, store_id))

    async def read_legacy_leaf_sources(
        self, tenant_id: Uuid, store_id: Uuid, *, sequence_start: int, sequence_end: int
    ) -> list[LegacyLeafSource]:
        return await self._read(
            lambda c: legacy_commitments.read_leaf_sources(
                c, tenant_id, store_id, sequence_start, sequence_end
            )
        )

    async def commit_legacy(
        self, commitment: LegacyCommitment, *, levels: bytes
    ) -> LegacyCommitment | TooManyEntities | Moved | Away:
        return await cross(lambda: legacy_commitments.commit(self._units, commitment, levels))

    async def read_legacy_commitment(
        self, batch_id: Uuid, *, tenant_id: Uuid | None, store_ids: tuple[Uuid, ...] | None
    ) -> LegacyCommitment | None:
        return await self._read(lambda c: legacy_commitments.stored.one(c, batch_id, tenant_id, store_ids))

    async def find_legacy_commitment(
        self, tenant_id: Uuid, store_id: Uuid, *, sequence_number: int
    ) -> LegacyCommitment | None:
        return await self._read(
            lambda c: legacy_commitments.stored.holding(c, tenant_id, store_id, sequence_number)
        )

    async def list_legacy_commitments(
        self, tenant_id: Uuid, store_id: Uuid, *, from_sequence: int, limit: int
    ) -> LegacyCommitmentPage:
        return await self._read(
            lambda c: legacy_commitments.list_page(c, tenant_id, store_id, from_sequence, limit)
        )

    async def read_legacy_nodes(self, batch_id: Uuid, positions: list[int]) -> list[bytes]:
        return await self._read(lambda c: legacy_commitments.read_nodes(c, batch_id, positions))

    # Validity proofs.

    async def submit_validity_proof(
        self, submitted: StoredProof, audit: AuditEntry
    ) -> ProofSubmitted | ProofConflict | None:
        return await self._write(
            "submit_validity_proof",
            lambda c: validity_proofs.submit(c, self._node_id, submitted, audit),
        )

    async def read_validity_proof(
        self, proof_id: Uuid, *, tenant_id: Uuid | None, store_ids: tuple[Uuid, ...] | None
    ) -> StoredProof | None:
        return await self._read(lambda c: validity_proofs.read_one(c, proof_id, tenant_id, store_ids))

    async def list_validity_proofs(
        self, batch_id: Uuid, *, after: Uuid | None, limit: int
    ) -> list[ValidityProof]:
        return await self._read(lambda c: validity_proofs.list_page(c, batch_id, after, limit))

    # Agent keys.

    async def find_public_keys(self, keys_wanted: list[KeyName]) -> dict[KeyName, bytes]:
        return await self._read(lambda c: keys.find_public_keys(c, keys_wanted))

    async def register_agent_key(self, key: AgentKey, audit: AuditEntry) -> KeyRegistered | KeyConflict:
        return await self._write_alone(
            "register_agent_key", key.name.tenant_id, lambda c: keys.register(c, self._node_id, key, audit)
        )

    async def list_agent_keys(
        self, tenant_id: Uuid, agent_id: Uuid, *, from_key_id: int, limit: int
    ) -> list[AgentKey]:
        return await self._read(lambda c: keys.list_keys(c, tenant_id, agent_id, from_key_id, limit))

    async def read_possession(self, name: KeyName) -> PossessionProof | None:
        return await self._read(lambda c: keys.read_possession(c, name))

    async def revoke_agent_key(self, name: KeyName, reason: str, audit: AuditEntry) -> KeyRevoked | None:
        return await self._write_alone(
            "revoke_agent_key", name.tenant_id, lambda c: keys.revoke(c, self._node_id, name, reason, audit)
        )

    async def revoke_agent_keys(
        self, tenant_id: Uuid, agent_id: Uuid, reason: str, audit: AuditEntry
    ) -> KeysRevoked | None:
        return await self._write_alone(
            "revoke_agent_keys",
            tenant_id,
            lambda c: keys.revoke_all(c, self._node_id, tenant_id, agent_id, reason, audit),
        )

    async def rotate_agent_key(
        self, rotation: KeyRotation, audit: AuditEntry
    ) -> KeyRotated | KeyConflict | KeyEnded | None:
        return await self._write_alone(
            "rotate_agent_key",
            rotation.key.name.tenant_id,
            lambda c: key_rotation.rotate(c, self._node_id, rotation, audit),
        )

    async def walk_agent_keys(
        self, tenant_id: Uuid | None, *, after: KeyName | None, limit: int
    ) -> list[AgentKey]:
        return await self._read(lambda c: keys.walk(c, tenant_id, after, limit))

    async def read_signed_by(
        self, key: KeyName, *, after: tuple[Uuid, int] | None, limit: int, looked_at_max: int
    ) -> SignedPage:
        return await self._read(lambda c: signed_by.read_signed_by(c, key, after, limit, looked_at_max))

    # Credentials.

    async def create_api_key(self, key: ApiKey, audit: AuditEntry, *, by: Uuid | None = None) -> ApiKey:
        created = await self._create_api_key(
            key.tenant_id, lambda c: credentials.create(c, self._node_id, key, audit, by)
        )
        assert created is not None, "there is no limit"
        return created

    async def create_agent_api_key(
        self, key: ApiKey, audit: AuditEntry, *, by: Uuid | None, in_force_max: int, freed_after_s: int
    ) -> ApiKey | None:
        return await self._create_api_key(
            key.tenant_id,
            lambda c: credentials.create_for_agent(
                c, self._node_id, key, audit, by, in_force_max, freed_after_s
            ),
        )

    async def _create_api_key(
        self, tenant_id: Uuid, act: Callable[[Connection], Awaitable[ApiKey | CredentialEnded | None]]
    ) -> ApiKey | None:
        """A revocation in the tenant is over before it begins, or begins after it."""
        begin = begin_sharing(tenant_id)
        outcome = await cross(lambda: self._units.write(act, begin=begin, named="create_api_key"))
        if isinstance(outcome, CredentialEnded):
            raise outcome
        return outcome

    async def find_api_key(self, key_hash: bytes) -> ApiKey | None:
        return await self._read(lambda c: credentials.find_by_hash(c, key_hash))

    async def list_api_keys(
        self, tenant_id: Uuid | None, *, after: Uuid | None, limit: int, prefix: str = ""
    ) -> list[ApiKey]:
        return await self._read(lambda c: credentials.list_all(c, tenant_id, after, limit, prefix))

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
        return await self._read(
            lambda c: credentials.list_of_agent(c, tenant_id, agent_id, store_ids, after, limit, hash_prefix)
        )

    async def newest_agent_api_key(
        self, tenant_id: Uuid, agent_id: Uuid, *, store_ids: tuple[Uuid, ...] | None
    ) -> ApiKey | None:
        return await self._read(lambda c: credentials.newest_of_agent(c, tenant_id, agent_id, store_ids))

    async def revoke_api_key(
        self, credential_id: Uuid, *, tenant_id: Uuid | None, audit: AuditEntry
    ) -> ApiKey | None:
        owner = await self._read(lambda c: credentials.find_tenant(c, credential_id))
        if owner is None or (tenant_id is not None and tenant_id != owner):
            return None
        return await self._write_alone(
            "revoke_api_key", owner, lambda c: credentials.revoke(c, self._node_id, credential_id, audit)
        )

    async def revoke_tokens(
        self, tenant_id: Uuid, subject: Uuid, *, ahead_s: int, reason: str | None, audit: AuditEntry
    ) -> TokenRevocation:
        return await self._write_alone(
            "revoke_tokens",
            tenant_id,
            lambda c: tokens.revoke(c, self._node_id, (tenant_id, subject), ahead_s, reason, audit),
        )

    async def tokens_revoked_until(self, tenant_id: Uuid, subject: Uuid) -> int:
        return await self._read(lambda c: tokens.revoked_until(c, tenant_id, subject))

    async def list_token_revocations(
        self, tenant_id: Uuid | None, *, after: int, limit: int
    ) -> list[TokenRevocation]:
        return await self._read(lambda c: tokens.list_page(c, tenant_id, after, limit))

    async def revocations_since(self, cursor: int | None) -> Revocations:
        return await self._read(lambda c: credentials.revocations_since(c, cursor))

    # What tenants demand of their events.

    async def create_schema(
        self, schema: EventSchema, *, believed_stamp: int, audit: AuditEntry
    ) -> EventSchema | Moved | SchemaLimit:
        return await self._write(
            "create_schema",
            lambda c: policies.create_schema(c, self._node_id, schema, believed_stamp, audit),
        )

    async def set_schema_status(
        self, schema_id: Uuid, *, tenant_id: Uuid | None, status: SchemaStatus, audit: AuditEntry
    ) -> EventSchema | SchemaLimit | None:
        return await self._write(
            "set_schema_status",
            lambda c: policies.set_status(c, self._node_id, schema_id, tenant_id, status, audit),
        )

    async def find_schema(self, schema_id: Uuid, *, tenant_id: Uuid | None) -> EventSchema | None:
        return await self._read(lambda c: policies.find_schema(c, schema_id, tenant_id))

    async def find_schema_version(
        self, tenant_id: Uuid, event_type: str, *, version: int | None
    ) -> EventSchema | None:
        return await self._read(lambda c: policies.find_version(c, tenant_id, event_type, version))

    async def list_schemas(
        self, tenant_id: Uuid, *, event_type: str | None, after: Uuid | None, limit: int
    ) -> list[EventSchema]:
        return await self._read(lambda c: policies.list_schemas(c, tenant_id, event_type, after, limit))

    async def read_schema_texts(self, schema_ids: list[Uuid]) -> dict[Uuid, str]:
        return await self._read(lambda c: policies.read_texts(c, schema_ids))

    async def set_policy(
        self,
        tenant_id: Uuid,
        *,
        entity_types: tuple[str, ...] | None,
        schema_mode: SchemaMode | None,
        audit: AuditEntry,
    ) -> TenantPolicy:
        return await self._write(
            "set_policy",
            lambda c: policies.set_policy(c, self._node_id, tenant_id, entity_types, schema_mode, audit),
        )

    async def read_policy(self, tenant_id: Uuid) -> TenantPolicy:
        return await self._read(lambda c: policies.read_policy(c, tenant_id))

    async def set_regions(
        self, tenant_id: Uuid, *, regions: tuple[str, ...], audit: AuditEntry
    ) -> TenantPolicy:
        return await self._write(
            "set_regions", lambda c: policies.set_regions(c, self._node_id, tenant_id, regions, audit)
        )

    async def list_pinned(self, *, after: Uuid | None, limit: int) -> list[PinnedTenant]:
        return await self._read(lambda c: policies.list_pinned(c, after, limit))

    async def policy_changes_since(self, cursor: int | None) -> PolicyChanges:
        return await self._read(lambda c: policies.changes_since(c, cursor))

    async def audit(self, entry: AuditEntry) -> None:
        await self._write("audit", lambda c: write_audit(c, self._node_id, entry))

    # After the database was brought back from a copy: for commands and a start, beside the port.

    def rest_from_writing(self, why: str) -> None:
        """From now on every unit that would write is JournalAway, and the database is not asked."""
        self._units.condition.resting = why

    async def rest_until_confirmed(self) -> None:
        """As ``rest_from_writing``, if this database was restored and nobody has confirmed it."""
        await restorations.rest_until_confirmed(self._units)

    async def pending_restoration(self) -> Restoration | None:
        return await self._read(restorations.pending)

    async def record_restoration(self, restoration_id: Uuid, cause: Cause, details: str) -> None:
        """Harmless to do twice."""
        await self._write(
            "record_restoration",
            lambda c: restorations.record(c, restoration_id, self._node_id, cause, details),
        )

    async def confirm_restoration(
        self, restoration_id: Uuid, reason: str, compared: str, voids: Sequence[Voided], audit: AuditEntry
    ) -> None:
        """Writing is allowed from the next start on; ``voids`` are never given. Raises RestorationMoved."""
        moved = await self._write(
            "confirm_restoration",
            lambda c: restorations.confirm(c, self._node_id, restoration_id, reason, compared, voids, audit),
        )
        if moved is not None:
            raise moved

    async def standing_at(self, given: Sequence[Given]) -> list[Uuid | None]:
        """Which event stands at each of at most ``GIVEN_MAX`` numbers; None: no event does."""
        return await self._read(lambda c: restorations.standing_at(c, given))

    async def absent_commitments(self, batch_ids: Sequence[Uuid]) -> list[Uuid]:
        return await self._read(lambda c: restorations.absent_commitments(c, batch_ids))

    async def holds_audit_entry(self, node_id: Uuid, entry_number: int, entry_hash: bytes) -> bool:
        return await self._read(
            lambda c: restorations.holds_audit_entry(c, node_id, entry_number, entry_hash)
        )

    async def stream_heads(self, *, after: tuple[Uuid, Uuid] | None, limit: int) -> list[KnownHead]:
        """Ordered by stream, those after ``after``."""
        return await self._read(lambda c: restorations.heads(c, after, limit))

    async def at_rest_key_ids(self) -> list[bytes]:
        return await self._read(own_keys.at_rest_key_ids)

    # The audit trail.

    async def read_audit_chains(
        self, *, only: Uuid | None = None, after: Uuid | None = None, limit: int
    ) -> list[AuditChain]:
        return await self._read(lambda c: audit_trail.read_chains(c, only, after, limit))

    async def read_audit_chain(self, node_id: Uuid, *, from_number: int, limit: int) -> list[AuditRecord]:
        return await self._read(lambda c: audit_trail.read_chain(c, node_id, from_number, limit))

    async def find_audit_entries(self, wish: AuditWish, *, limit: int) -> list[AuditRecord]:
        return await self._read(lambda c: audit_trail.find_entries(c, wish, limit))

    async def commit_audit(self, commitment: AuditCommitment) -> Stored | Moved | Away:
        return await cross(lambda: audit_trail.commit(self._units, commitment))

    async def list_audit_commitments(
        self, node_id: Uuid, *, from_number: int, limit: int
    ) -> list[AuditCommitment]:
        return await self._read(lambda c: audit_trail.list_commitments(c, node_id, from_number, limit))

    def vitals(self) -> JournalVitals:
        return self._units.vitals(self._appends.units)

    # Our own keys.

    async def claim_receipt_key(self, sequencer_id: Uuid, public_key: bytes) -> int:
        return await self._write(
            "claim_receipt_key",
            lambda c: own_keys.claim_receipt_key(c, self._node_id, sequencer_id, public_key),
        )

    async def receipt_keys(self) -> list[ReceiptKey]:
        # A few rows, and the start of an encryptor waits for them: it can go on without.
        return await cross(lambda: self._units.read(own_keys.receipt_keys, deadline_s=_OWN_KEYS_S))

    async def rotate_receipt_key(self, key: ReceiptKey, audit: AuditEntry) -> ReceiptKey:
        return await self._write(
            "rotate_receipt_key", lambda c: own_keys.rotate_receipt_key(c, self._node_id, key, audit)
        )

    async def claim_at_rest_keys(
        self,
        key_ids: list[bytes],
        by_tenant: Mapping[Uuid, list[bytes]] | None = None,
        *,
        current: list[bytes] | None = None,
        required: bool = False,
    ) -> None:
        # One node at a time: two that start for the first time at once must not both record a ring.
        held = Rings(key_ids, by_tenant or {})
        act: Callable[[Connection], Awaitable[None]] = lambda c: own_keys.claim_at_rest_keys(  # noqa: E731
            c, self._node_id, held, current=current or [], required=required
        )
        await cross(lambda: self._units.write(act, begin=begin_alone(_EVERYBODY), named="claim_at_rest_keys"))

    async def retire_at_rest_key(self, key_id: bytes, audit: AuditEntry) -> bool:
        # Alone: a start that claims meanwhile sees all of it or nothing.
        act: Callable[[Connection], Awaitable[bool]] = lambda c: own_keys.retire_at_rest_key(  # noqa: E731
            c, self._node_id, key_id, audit
        )
        return await cross(
            lambda: self._units.write(act, begin=begin_alone(_EVERYBODY), named="retire_at_rest_key")
        )

    # Rate limits: single statements, like reading, since nothing depends on whether they were heard.

    async def spend_rates(self, spendings: list[RateSpending]) -> dict[bytes, int]:
        act: Callable[[Connection], Awaitable[dict[bytes, int]]] = lambda c: rates.spend(c, spendings)  # noqa: E731
        return await cross(lambda: self._units.read(act, deadline_s=rates.DEADLINE_S))

    async def forget_idle_rates(self) -> None:
        await self._read(rates.forget_idle)


async def _require_primary(connection: Connection) -> None:
    if await connection.fetchval("SELECT pg_is_in_recovery()"):
        raise NotPrimary("this server is a standby, not the primary")
    if await connection.fetchval("SELECT current_setting('transaction_read_only')") == "on":
        raise NotPrimary("this server is read-only")


async def _find_room(connection: Connection) -> None:
    """Raises DiskFullError unless there is room for a table of a megabyte, which is gone afterwards."""
    try:
        await connection.execute(_ROOM)
    except asyncpg.InsufficientPrivilegeError:
        raise Undo(None) from None  # temporary tables are not for us here: the next append will tell


async def _check_fitness(connection: Connection) -> None:
    version = connection.get_server_version()
    if version.major < SERVER_VERSION_MIN:
        raise UnfitServer(f"PostgreSQL {version.major} is too old; {SERVER_VERSION_MIN} or newer is needed")
    if await connection.fetchval("SELECT current_setting('synchronous_commit')") == "off":
        raise UnfitServer(
            "synchronous_commit is off: an acknowledged event could be lost. Set it to on in postgresql.conf "
            "or for this role (ALTER ROLE … SET synchronous_commit = on)"
        )
    if await connection.fetchval("SELECT current_setting('fsync')") == "off":
        raise UnfitServer(
            "fsync is off: an acknowledged event could be lost. Set it to on in postgresql.conf"
        )
    if await connection.fetchval("SELECT current_setting('server_encoding')") != "UTF8":
        raise UnfitServer("the database's encoding is not UTF8: names could not be kept as they were signed")
    await check_schema(connection)
