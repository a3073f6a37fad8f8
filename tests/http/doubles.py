"""A house of cardboard for the door's tests: references that answer as told, a journal of dicts.

Real are the applications, the serving loop, the sockets and the client.
"""

from __future__ import annotations

import os
import socket
import time
import uuid
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from hashlib import sha256
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import httpx
import msgspec
import trio

from actors.anchor_vitals import Anchoring
from actors.at_rest_watch import AtRestWatch
from actors.audit_spool import AuditSpool
from actors.certificates import Certificates
from actors.credentials import CredentialBook
from actors.failed_attempts import FailedAttempts, Patience
from actors.key_ages import KeyAges
from actors.messages import (
    Append,
    Appended,
    CheckPayload,
    CheckSchema,
    Commit,
    CommitLegacy,
    Committed,
    FindKeys,
    LegacyCommitted,
    Open,
    OpenAtRest,
    SealAtRest,
    ServedEvents,
    ServePage,
    Verify,
)
from actors.policies import PolicyBook
from actors.right_of_way import RightOfWay
from actors.security_events import SecurityEvents
from actors.sequencer import Tally
from actors.token_keys import KeySet
from actors.token_rules import Rules
from actors.tokens import TokenBook
from actors.vitals import LoopLag
from config.certificates import CertificateFiles, Listener
from config.settings import Settings
from journal.key_rules import Retire, judge
from journal.memory import MemoryDatabase, MemoryJournal
from journal.memory_anchor_tables import AnchorTables
from journal.memory_legacy_commitments import LegacyCommitmentTable
from journal.memory_policies import PolicyTables
from journal.memory_proofs import ProofTable
from journal.packed import packed, unpacked
from journal.port import (
    AgentKey,
    AnchorEvidence,
    AnchorReport,
    AnchorSummary,
    ApiKey,
    AuditEntry,
    CommitmentAnchor,
    CommitmentCounter,
    CommitmentPage,
    CommittedLeaf,
    CredentialEnded,
    EntityPage,
    EventPage,
    EventSchema,
    JournalAway,
    KeyConflict,
    KeyEnded,
    KeyRegistered,
    KeyRevoked,
    KeyRotated,
    KeyRotation,
    KeysRevoked,
    LegacyCommitmentPage,
    Moved,
    PendingCommitment,
    PinnedTenant,
    PolicyChanges,
    PossessionProof,
    ProofConflict,
    ProofSubmitted,
    ReceiptKey,
    ReportConflict,
    ReportStored,
    Revocations,
    SchemaLimit,
    SchemaStatus,
    SignedEvent,
    SignedPage,
    StoredProof,
    StreamHead,
    TenantPolicy,
    TokenRevocation,
    ValidityProof,
    Voided,
)
from journal.signed_by import signed_page
from supervisor.dynamic import DynamicSupervisor
from supervisor.overseer import TreeOverseer
from supervisor.supervisor import Supervisor
from supervisor.tree import rate_limits_of
from transport.front.hall import FrontEnd, Hall
from transport.front.server import Front
from transport.house import FrontEndView, House, Readiness
from transport.http.app import create_apps
from transport.http.key_format import new_key
from transport.http.serve import serve
from ves import legacy_tree
from ves.commitments import next_commitment
from ves.legacy_commitments import LegacyCommitment
from ves.legacy_tree import promoting_parents
from ves.merkle import build_levels, sibling_positions, stored_levels
from ves.policy import Policy, SchemaMode
from ves.records import (
    Commitment,
    EntityName,
    KeyName,
    Receipt,
    Refusal,
    StoredEvent,
    Uuid,
    VerifiedBatch,
    VerifiedEvent,
)
from ves.served import served_event

BOOTSTRAP = "ss_bootstrap_0123456789abcdefghijklmn"
TENANT = uuid.UUID("11111111-1111-4111-8111-111111111111")
OTHER_TENANT = uuid.UUID("22222222-2222-4222-8222-222222222222")
STORE = uuid.UUID("33333333-3333-4333-8333-333333333333")
OTHER_STORE = uuid.UUID("44444444-4444-4444-8444-444444444444")
AGENT = uuid.UUID("55555555-5555-4555-8555-555555555555")
SEQUENCER = uuid.UUID("66666666-6666-4666-8666-666666666666")
STREAM = {"tenant_id": str(TENANT), "store_id": str(STORE)}
INGEST = "/api/v1/ves/events/ingest"
JSON = {"content-type": "application/json"}


class CardboardRef:
    """Answers with what ``reply`` makes of the message."""

    def __init__(self, name: str, reply: Callable[[Any], Awaitable[Any]]) -> None:
        self.name = name
        self.reply = reply
        self.asked: list[Any] = []
        self.cancelled = 0

    async def ask(self, message: Any, *, deadline_s: float) -> Any:
        self.asked.append(message)
        try:
            return await self.reply(message)
        except trio.Cancelled:
            self.cancelled += 1
            raise


def _ref(name: str, reply: Callable[[Any], Awaitable[Any]]) -> Any:
    """Where a Ref stands, for the checker of types; it has of one what the door uses."""
    return CardboardRef(name, reply)


class CardboardJournal:
    def __init__(self) -> None:
        self.away = False
        self.api_keys: dict[bytes, ApiKey] = {}
        self.revoked: list[Uuid | TokenRevocation] = []
        self.agent_keys: dict[KeyName, AgentKey] = {}
        self.audits: list[AuditEntry] = []
        self.trail = MemoryJournal(
            MemoryDatabase(now_us=lambda: 1_700_000_000_000_000), node_id=SEQUENCER.bytes
        )
        for name in (
            "read_audit_chains",
            "read_audit_chain",
            "find_audit_entries",
            "list_audit_commitments",
            "vitals",
            "append_legacy",
            "expecting",
            "read_legacy_events",
            "read_legacy_head",
            "read_legacy_entity",
        ):
            setattr(self, name, getattr(self.trail, name))
        self.events: list[StoredEvent] = []
        self.commitments: list[Commitment] = []
        self.nodes: dict[Uuid, list[bytes]] = {}
        self.anchors = AnchorTables()
        self.anchor_reads = 0
        self.tables = PolicyTables()
        self.proofs = ProofTable()
        self.legacy = LegacyCommitmentTable()
        self.lookups = 0

    async def _unit(self) -> None:
        await trio.lowlevel.checkpoint()
        if self.away:
            raise JournalAway("connection refused by postgres://secret-address")

    async def ping(self) -> None:
        await self._unit()

    async def audit(self, entry: AuditEntry) -> None:
        await self._unit()
        self.audits.append(entry)
        await self.trail.audit(entry)

    async def list_streams(
        self, tenant_id: Uuid, *, store_ids: tuple[Uuid, ...] | None, after: Uuid | None, limit: int
    ) -> list[StreamHead]:
        await self._unit()
        heads = Counter(e.store_id for e in self.events if e.tenant_id == tenant_id)
        return [
            StreamHead(store, count, 0, 0)
            for store, count in sorted(heads.items())
            if (store_ids is None or store in store_ids) and (after is None or store > after)
        ][:limit]

    async def read_voided(self, tenant_id: Uuid, store_id: Uuid) -> list[Voided]:
        return []

    async def read_head(self, tenant_id: Uuid, store_id: Uuid) -> int:
        await self._unit()
        mine = [e for e in self.events if (e.tenant_id, e.store_id) == (tenant_id, store_id)]
        return len(mine)

    async def read_events(
        self, tenant_id: Uuid, store_id: Uuid, *, from_sequence: int, limit: int, bytes_max: int
    ) -> EventPage:
        await self._unit()
        mine = [e for e in self.events if (e.tenant_id, e.store_id) == (tenant_id, store_id)]
        page = [e for e in mine if e.receipt.sequence_number >= from_sequence]
        shown = page[:limit]
        last = shown[-1].receipt.sequence_number + 1 if shown else from_sequence
        return EventPage(len(mine), b"".join(map(packed, shown)), len(shown), len(page) > limit, last)

    async def read_event(
        self, tenant_id: Uuid, event_id: Uuid, *, store_ids: tuple[Uuid, ...] | None
    ) -> StoredEvent | None:
        await self._unit()
        for event in self.events:
            if (event.tenant_id, event.receipt.event_id) == (tenant_id, event_id) and (
                store_ids is None or event.store_id in store_ids
            ):
                return event
        return None

    async def read_entity(
        self, tenant_id: Uuid, entity: EntityName, *, from_sequence: int, limit: int, bytes_max: int
    ) -> EntityPage:
        await self._unit()
        mine = [
            e
            for e in self.events
            if (e.tenant_id, e.store_id, e.entity_type, e.entity_id) == (tenant_id, *entity)
        ]
        page = [e for e in mine if e.receipt.sequence_number >= from_sequence]
        shown = page[:limit]
        rows = b"".join(map(packed, shown))
        return EntityPage(len(mine), rows, len(shown), len(page) > limit, from_sequence + len(page))

    def commit(self, leaves: list[bytes], start: int) -> Commitment:
        levels = build_levels(leaves)
        commitment = next_commitment(
            batch_id=uuid.uuid4().bytes,
            tenant_id=TENANT.bytes,
            store_id=STORE.bytes,
            merkle_root=levels[-1][0],
            prev_state_root=bytes(32),
            sequence_start=start,
            sequence_end=start + len(leaves) - 1,
            committed_at_us=1_700_000_000_123_000,
        )
        self.commitments.append(commitment)
        self.anchors.expect(commitment)
        stored = stored_levels(levels)
        self.nodes[commitment.batch_id] = [stored[at : at + 32] for at in range(0, len(stored), 32)]
        return commitment

    async def read_commitment(
        self, batch_id: Uuid, *, tenant_id: Uuid | None, store_ids: tuple[Uuid, ...] | None
    ) -> Commitment | None:
        await self._unit()
        for c in self.commitments:
            if c.batch_id == batch_id and tenant_id in (None, c.tenant_id):
                return c if store_ids is None or c.store_id in store_ids else None
        return None

    async def find_commitment(
        self, tenant_id: Uuid, store_id: Uuid, *, sequence_number: int
    ) -> Commitment | None:
        await self._unit()
        for c in self.commitments:
            if (c.tenant_id, c.store_id) == (tenant_id, store_id) and (
                c.sequence_start <= sequence_number <= c.sequence_end
            ):
                return c
        return None

    async def find_leaf(
        self, tenant_id: Uuid, store_id: Uuid, *, sequence_number: int
    ) -> CommittedLeaf | None:
        found = await self.find_commitment(tenant_id, store_id, sequence_number=sequence_number)
        if found is None:
            return None
        nodes, leaf_index = self.nodes[found.batch_id], sequence_number - found.sequence_start
        path = [nodes[position] for position in sibling_positions(found.leaf_count, leaf_index)]
        return CommittedLeaf(found, nodes[leaf_index], path)

    async def list_commitments(
        self, tenant_id: Uuid, store_id: Uuid, *, from_sequence: int, limit: int, anchored: bool | None
    ) -> CommitmentPage:
        await self._unit()
        found = [
            c
            for c in self.commitments
            if (c.tenant_id, c.store_id) == (tenant_id, store_id) and c.sequence_start >= from_sequence
        ]
        found = [c for c in found if anchored in (None, self.anchors.is_anchored(c.batch_id))]
        following = found[limit - 1].sequence_end + 1 if len(found) > limit else from_sequence
        return CommitmentPage(found[:limit], len(found) > limit, following)

    async def read_commitment_counter(self, tenant_id: Uuid, store_id: Uuid) -> CommitmentCounter:
        head = await self.read_head(tenant_id, store_id)
        mine = [c for c in self.commitments if (c.tenant_id, c.store_id) == (tenant_id, store_id)]
        return CommitmentCounter(max((c.sequence_end for c in mine), default=0), bytes(32), head)

    async def read_anchors(self, batch_ids: list[Uuid]) -> dict[Uuid, CommitmentAnchor]:
        self.anchor_reads += 1
        await self._unit()
        return self.anchors.told(batch_ids)

    async def list_pending_anchors(self, *, limit: int) -> list[PendingCommitment]:
        await self._unit()
        return self.anchors.pending(limit)

    async def request_anchor(self, batch_id: Uuid, audit: AuditEntry) -> bool:
        await self._unit()
        if self.anchors.known(batch_id) is not None:
            return False
        if batch_id not in self.anchors.requests:
            self.anchors.requests.add(batch_id)
            self.audits.append(audit)
        return True

    async def report_anchor(self, report: AnchorReport, audit: AuditEntry) -> ReportStored | ReportConflict:
        await self._unit()
        known = self.anchors.known(report.batch_id)
        if known is not None:
            return ReportStored(again=True) if known.tx_hash == report.tx_hash else ReportConflict()
        self.anchors.take_report(report, 1_700_000_000_000_007)
        self.audits.append(audit)
        return ReportStored(again=False)

    async def anchor_summary(self) -> AnchorSummary:
        self.anchor_reads += 1
        await self._unit()
        return self.anchors.summary(1_700_000_100_000_000)

    async def read_anchor_evidence(self, batch_id: Uuid) -> AnchorEvidence | None:
        await self._unit()
        return self.anchors.evidence(batch_id)

    async def read_nodes(self, batch_id: Uuid, positions: list[int]) -> list[bytes]:
        await self._unit()
        return [self.nodes[batch_id][position] for position in positions]

    async def read_leaves(self, batch_id: Uuid, *, leaf_count: int) -> bytes:
        await self._unit()
        return b"".join(self.nodes[batch_id][position] for position in range(leaf_count))

    def commit_legacy(
        self, leaves: list[bytes], start: int, tenant: Uuid = TENANT.bytes, store: Uuid = STORE.bytes
    ) -> LegacyCommitment:
        levels = build_levels(leaves, promoting_parents)
        commitment = LegacyCommitment(
            *(uuid.uuid4().bytes, tenant, store, start, start + len(leaves) - 1, len(leaves)),
            committed_at_us=1_700_000_000_123_000,
            events_root=levels[-1][0],
            prev_state_root=bytes(32),
            new_state_root=bytes(range(32)),
        )
        self.legacy.commitments[commitment.batch_id] = (commitment, legacy_tree.stored_levels(levels))
        return commitment

    async def read_legacy_commitment(
        self, batch_id: Uuid, *, tenant_id: Uuid | None, store_ids: tuple[Uuid, ...] | None
    ) -> LegacyCommitment | None:
        await self._unit()
        return self.legacy.find(batch_id, tenant_id, store_ids)

    async def find_legacy_commitment(
        self, tenant_id: Uuid, store_id: Uuid, *, sequence_number: int
    ) -> LegacyCommitment | None:
        await self._unit()
        return self.legacy.over(tenant_id, store_id, sequence_number)

    async def list_legacy_commitments(
        self, tenant_id: Uuid, store_id: Uuid, *, from_sequence: int, limit: int
    ) -> LegacyCommitmentPage:
        await self._unit()
        return self.legacy.page(tenant_id, store_id, from_sequence, limit)

    async def read_legacy_nodes(self, batch_id: Uuid, positions: list[int]) -> list[bytes]:
        await self._unit()
        return self.legacy.nodes(batch_id, positions)

    async def submit_validity_proof(
        self, submitted: StoredProof, audit: AuditEntry
    ) -> ProofSubmitted | ProofConflict | None:
        await self._unit()
        if (present := self.proofs.present(submitted.record)) is not None:
            return present
        answer, keep = self.proofs.submission(submitted, 1_700_000_000_000_006)
        keep()
        self.audits.append(audit)
        return answer

    async def read_validity_proof(
        self, proof_id: Uuid, *, tenant_id: Uuid | None, store_ids: tuple[Uuid, ...] | None
    ) -> StoredProof | None:
        await self._unit()
        return self.proofs.find(proof_id, tenant_id, store_ids)

    async def list_validity_proofs(
        self, batch_id: Uuid, *, after: Uuid | None, limit: int
    ) -> list[ValidityProof]:
        await self._unit()
        return self.proofs.listed(batch_id, after, limit)

    async def register_agent_key(self, key: AgentKey, audit: AuditEntry) -> KeyRegistered | KeyConflict:
        await self._unit()
        known = self.agent_keys.get(key.name)
        if known is not None:
            if known.public_key == key.public_key:
                return KeyRegistered(known, True)
            return KeyConflict(True)
        if any(other.public_key == key.public_key for other in self.agent_keys.values()):
            return KeyConflict(False)
        stored = msgspec.structs.replace(key, registered_at_us=1_700_000_000_000_001)
        self.agent_keys[key.name] = stored
        self.audits.append(audit)
        return KeyRegistered(stored, False)

    async def list_agent_keys(
        self, tenant_id: Uuid, agent_id: Uuid, *, from_key_id: int, limit: int
    ) -> list[AgentKey]:
        await self._unit()
        names = sorted(n for n in self.agent_keys if n[:2] == (tenant_id, agent_id) and n[2] >= from_key_id)
        return [self.agent_keys[name] for name in names[:limit]]

    async def read_possession(self, name: KeyName) -> PossessionProof | None:
        await self._unit()
        return None

    async def revoke_agent_key(self, name: KeyName, reason: str, audit: AuditEntry) -> KeyRevoked | None:
        await self._unit()
        key = self.agent_keys.get(name)
        if key is None:
            return None
        already = key.revoked_at_us is not None
        if not already:
            key = msgspec.structs.replace(key, revoked_at_us=1_700_000_000_000_002, revocation_reason=reason)
            self.agent_keys[name] = key
            self.audits.append(audit)
        return KeyRevoked(key, already)

    async def revoke_agent_keys(
        self, tenant_id: Uuid, agent_id: Uuid, reason: str, audit: AuditEntry
    ) -> KeysRevoked | None:
        names = [name for name in self.agent_keys if name[:2] == (tenant_id, agent_id)]
        done = [await self.revoke_agent_key(name, reason, audit) for name in names]
        new = sum(1 for one in done if one is not None and not one.already)
        return KeysRevoked(new, len(names) - new) if names else None

    async def rotate_agent_key(
        self, rotation: KeyRotation, audit: AuditEntry
    ) -> KeyRotated | KeyConflict | KeyEnded | None:
        await self._unit()
        old_name = rotation.key.name._replace(key_id=rotation.replaces)
        old, new = self.agent_keys.get(old_name), self.agent_keys.get(rotation.key.name)
        now_us = 1_700_000_000_000_000
        done = old is not None and old.replaced_by == rotation.key.name.key_id
        ends_us = now_us + rotation.grace_s * 1_000_000
        verdict = judge(rotation, old, new, done=done, now_us=now_us, ends_us=ends_us)
        if not isinstance(verdict, Retire):
            return verdict
        assert old is not None
        old = msgspec.structs.replace(
            old,
            retires_at_us=verdict.retires_at_us,
            replaced_by=rotation.key.name.key_id,
            rotation_signature=verdict.rotation_signature,
        )
        new = new or msgspec.structs.replace(rotation.key, registered_at_us=now_us, proof=None)
        self.agent_keys |= {old_name: old, new.name: new}
        self.audits.append(audit)
        return KeyRotated(new, old, False)

    async def walk_agent_keys(
        self, tenant_id: Uuid | None, *, after: KeyName | None, limit: int
    ) -> list[AgentKey]:
        await self._unit()
        names = sorted(n for n in self.agent_keys if tenant_id in (None, n.tenant_id))
        return [self.agent_keys[n] for n in names if after is None or n > after][:limit]

    async def find_public_keys(self, keys: list[KeyName]) -> dict[KeyName, bytes]:
        await self._unit()
        return {name: self.agent_keys[name].public_key for name in keys if name in self.agent_keys}

    async def read_signed_by(
        self, key: KeyName, *, after: tuple[Uuid, int] | None, limit: int, looked_at_max: int
    ) -> SignedPage:
        await self._unit()
        found = [
            SignedEvent(e.store_id, e.receipt.sequence_number, e.receipt.event_id, e.receipt.sequenced_at_us)
            for e in self.events
            if (e.tenant_id, e.source_agent_id, e.agent_key_id) == key
            and (after is None or (e.store_id, e.receipt.sequence_number) > after)
        ]
        return signed_page(found, limit, None)

    async def create_api_key(self, key: ApiKey, audit: AuditEntry, *, by: Uuid | None = None) -> ApiKey:
        await self._unit()
        if by in self.revoked:
            raise CredentialEnded("revoked")
        self.audits.append(audit)
        key = msgspec.structs.replace(key, created_at_us=1_700_000_000_000_000)
        self.api_keys[key.key_hash] = key
        return key

    async def create_agent_api_key(
        self, key: ApiKey, audit: AuditEntry, *, by: Uuid | None, in_force_max: int, freed_after_s: int
    ) -> ApiKey | None:
        mine = [k for k in self.api_keys.values() if k.agent_id == key.agent_id and k.revoked_at_us is None]
        return None if len(mine) >= in_force_max else await self.create_api_key(key, audit, by=by)

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
        await self._unit()
        keys = [
            key
            for key in reversed(self.api_keys.values())
            if (key.tenant_id, key.agent_id) == (tenant_id, agent_id)
            and (store_ids is None or set(key.store_ids or [b"all"]) <= set(store_ids))
            and key.key_hash.hex().startswith(hash_prefix)
        ]
        start = 0 if after is None else [key.id for key in keys].index(after) + 1
        return keys[start:][:limit]

    async def newest_agent_api_key(
        self, tenant_id: Uuid, agent_id: Uuid, *, store_ids: tuple[Uuid, ...] | None
    ) -> ApiKey | None:
        keys = await self.list_agent_api_keys(
            tenant_id, agent_id, store_ids=store_ids, after=None, limit=1000
        )
        return next((key for key in keys if key.revoked_at_us is None), keys[0] if keys else None)

    async def find_api_key(self, key_hash: bytes) -> ApiKey | None:
        self.lookups += 1
        await self._unit()
        return self.api_keys.get(key_hash)

    async def list_api_keys(
        self, tenant_id: Uuid | None, *, after: Uuid | None, limit: int, prefix: str = ""
    ) -> list[ApiKey]:
        await self._unit()
        keys = [k for k in self.api_keys.values() if tenant_id in (None, k.tenant_id)]
        keys = [k for k in keys if k.prefix.startswith(prefix)]
        keys.sort(key=lambda k: k.id)
        return [k for k in keys if after is None or k.id > after][:limit]

    async def revoke_api_key(
        self, credential_id: Uuid, *, tenant_id: Uuid | None, audit: AuditEntry
    ) -> ApiKey | None:
        await self._unit()
        for key_hash, key in self.api_keys.items():
            if key.id == credential_id and tenant_id in (None, key.tenant_id):
                self.api_keys[key_hash] = msgspec.structs.replace(key, revoked_at_us=1_700_000_000_000_003)
                self.revoked.append(credential_id)
                self.audits.append(audit)
                return self.api_keys[key_hash]
        return None

    async def revocations_since(self, cursor: int | None) -> Revocations:
        await self._unit()
        told = [] if cursor is None else self.revoked[cursor:]
        tokens = [one for one in told if isinstance(one, TokenRevocation)]
        return Revocations([one for one in told if isinstance(one, bytes)], len(self.revoked), tokens)

    async def revoke_tokens(
        self, tenant_id: Uuid, subject: Uuid, *, ahead_s: int, reason: str | None, audit: AuditEntry
    ) -> TokenRevocation:
        await self._unit()
        until_s, number = int(time.time()) + 1 + ahead_s, len(self.revoked) + 1
        revocation = TokenRevocation(number, tenant_id, subject, until_s, 1_700_000_000_000_004, reason)
        self.revoked.append(revocation)
        self.audits.append(audit)
        return revocation

    async def tokens_revoked_until(self, tenant_id: Uuid, subject: Uuid) -> int:
        self.lookups += 1
        await self._unit()
        found = (one for one in self._token_revocations() if one.tenant_id == tenant_id)
        return max((one.revoked_until_s for one in found if one.subject in (tenant_id, subject)), default=-1)

    async def list_token_revocations(
        self, tenant_id: Uuid | None, *, after: int, limit: int
    ) -> list[TokenRevocation]:
        await self._unit()
        found = [one for one in self._token_revocations() if tenant_id in (None, one.tenant_id)]
        return [one for one in found if one.number > after][:limit]

    def _token_revocations(self) -> list[TokenRevocation]:
        return [one for one in self.revoked if isinstance(one, TokenRevocation)]

    async def read_policy(self, tenant_id: Uuid) -> TenantPolicy:
        await self._unit()
        return self.tables.policy(tenant_id)

    async def policy_changes_since(self, cursor: int | None) -> PolicyChanges:
        await self._unit()
        return self.tables.since(cursor)

    async def find_schema(self, schema_id: Uuid, *, tenant_id: Uuid | None) -> EventSchema | None:
        await self._unit()
        return self.tables.find(schema_id, tenant_id)

    async def find_schema_version(
        self, tenant_id: Uuid, event_type: str, *, version: int | None
    ) -> EventSchema | None:
        await self._unit()
        return self.tables.find_version(tenant_id, event_type, version)

    async def list_schemas(
        self, tenant_id: Uuid, *, event_type: str | None, after: Uuid | None, limit: int
    ) -> list[EventSchema]:
        await self._unit()
        return self.tables.listed(tenant_id, event_type, after, limit)

    async def create_schema(
        self, schema: EventSchema, *, believed_stamp: int, audit: AuditEntry
    ) -> EventSchema | Moved | SchemaLimit:
        await self._unit()
        created = self.tables.creation(schema, believed_stamp, 1_700_000_000_000_004)
        if isinstance(created, EventSchema):
            self.tables.keeping(created)()
            self.audits.append(audit)
        return created

    async def set_schema_status(
        self, schema_id: Uuid, *, tenant_id: Uuid | None, status: SchemaStatus, audit: AuditEntry
    ) -> EventSchema | SchemaLimit | None:
        await self._unit()
        present = self.tables.find(schema_id, tenant_id)
        if present is None:
            return None
        changed = self.tables.with_status(present, status, 1_700_000_000_000_005)
        if isinstance(changed, EventSchema):
            self.tables.keeping(changed)()
            self.audits.append(audit)
        return changed

    async def set_policy(
        self,
        tenant_id: Uuid,
        *,
        entity_types: tuple[str, ...] | None,
        schema_mode: SchemaMode | None,
        audit: AuditEntry,
    ) -> TenantPolicy:
        await self._unit()
        self.tables.policies[tenant_id] = (entity_types, schema_mode)
        self.tables.changes.append(tenant_id)
        self.audits.append(audit)
        return self.tables.policy(tenant_id)

    async def set_regions(
        self, tenant_id: Uuid, *, regions: tuple[str, ...], audit: AuditEntry
    ) -> TenantPolicy:
        await self._unit()
        self.tables.regions[tenant_id] = regions
        self.tables.changes.append(tenant_id)
        self.audits.append(audit)
        return self.tables.policy(tenant_id)

    async def list_pinned(self, *, after: Uuid | None, limit: int) -> list[PinnedTenant]:
        await self._unit()
        return self.tables.pinned(after, limit)

    async def receipt_keys(self) -> list[ReceiptKey]:
        await self._unit()
        return [ReceiptKey(SEQUENCER.bytes, 1, b"\x07" * 32, 0, True)]


async def until(holds: Callable[[], object]) -> None:
    with trio.fail_after(5):
        while not holds():  # noqa: ASYNC110 - what is waited for happens inside the server
            await trio.sleep(0.01)


def receipt(sequence_number: int, event_id: Uuid | None = None) -> Receipt:
    return Receipt(
        event_id or uuid.uuid4().bytes,
        sequence_number,
        1_700_000_000_000_000 + sequence_number,
        sha256(b"%d" % sequence_number).digest(),
        SEQUENCER.bytes,
        1,
        b"\x09" * 64,
    )


def verified(event_id: Uuid | None = None) -> VerifiedEvent:
    return VerifiedEvent(
        event_id or uuid.uuid4().bytes,
        AGENT.bytes,
        1,
        "order",
        "o-1",
        "order.created",
        "2026-01-01T00:00:00Z",
        0,
        b"{}",
        bytes(32),
        bytes(32),
        bytes(64),
        bytes(32),
        None,
        None,
    )


def stored(sequence_number: int, payload: bytes = b'{"a":1}', **changes: Any) -> StoredEvent:
    event = StoredEvent(
        TENANT.bytes,
        STORE.bytes,
        AGENT.bytes,
        1,
        "order",
        "o-1",
        "order.created",
        "2026-01-01T00:00:00.10Z",
        0,
        payload,
        b"\x01" * 32,
        bytes(32),
        b"\x02" * 64,
        b"\x03" * 32,
        None,
        None,
        receipt(sequence_number),
    )
    return msgspec.structs.replace(event, **changes)


def batch(*outcomes: VerifiedEvent | Refusal) -> VerifiedBatch:
    return VerifiedBatch(TENANT.bytes, STORE.bytes, AGENT.bytes, list(outcomes))


async def _verify_one(message: Verify) -> VerifiedBatch:
    return batch(verified())


async def _nothing_wrong(message: CheckSchema | CheckPayload) -> list[tuple[str, str]] | None:
    return None if isinstance(message, CheckSchema) else []


async def _append_all(message: Append) -> Appended:
    events = [e for e in message.batch.outcomes if isinstance(e, VerifiedEvent)]
    receipts = [receipt(n, event.event_id) for n, event in enumerate(events, 1)]
    return Appended([*receipts], len(events), 0, 1, len(events), len(events))


async def _open(message: Open | ServePage | SealAtRest | OpenAtRest) -> list[bytes] | ServedEvents:
    if isinstance(message, ServePage):
        texts = [served_event(event, event.payload_sealed) for event in unpacked(message.packed)]
        return ServedEvents(b",".join(texts), len(texts), len(texts))
    if not isinstance(message, Open):
        return [value.content for value in message.values]
    return [payload.payload_sealed for payload in message.payloads]


def _journal() -> Any:
    """Where a Journal stands, likewise."""
    return CardboardJournal()


@dataclass
class Cardboard:
    """A house, its two applications, and the addresses they are served at."""

    settings: dict[str, Any] = field(default_factory=dict)
    folder: Path = Path("nowhere")
    tls: dict[Listener, CertificateFiles] = field(default_factory=dict)
    """Which listeners speak TLS, and with what."""
    root: Supervisor = field(default_factory=lambda: _tree())
    token_keys: KeySet = field(default_factory=KeySet)
    token_rules: Rules = field(default_factory=Rules)
    patience: Patience = field(default_factory=lambda: Patience(burst=1_000_000))
    anchoring: Anchoring | None = None

    def __post_init__(self) -> None:
        self.journal = _journal()
        self.verifiers = _ref("verifiers", _verify_one)
        self.encryptors = _ref("encryptors", _open)
        self.sequencer = _ref("sequencer", _append_all)
        self.committer = _ref("committer", self._commit)
        self.credentials = CredentialBook(journal=self.journal)
        self.schema_checker = _ref("schema-checker", _nothing_wrong)
        settings = Settings(**{"_env_file": None, "request_timeout_secs": 5.0, **self.settings})
        demands = Policy(entity_types=settings.entity_types, schema_mode=settings.schema_validation_mode)
        self.policies = PolicyBook(journal=self.journal, defaults=demands)
        self.security = SecurityEvents()
        self.tokens = TokenBook(journal=self.journal, keys=self.token_keys, rules=self.token_rules)
        self.failed_attempts = FailedAttempts(patience=self.patience, security=self.security)
        self.readiness = Readiness()
        self.certificates = Certificates(self.tls, security=self.security, now_s=time.time)
        self.shutdown = trio.Event()
        self.look_at_front_ends: Callable[[], list[FrontEndView]] = list
        self.house = House(
            settings=settings,
            journal=self.journal,
            credentials=self.credentials,
            policies=self.policies,
            tokens=self.tokens,
            failed_attempts=self.failed_attempts,
            verifiers=self.verifiers,
            schema_checker=self.schema_checker,
            encryptors=self.encryptors,
            sequencer_of=lambda tenant_id: self.sequencer,
            committer=self.committer,
            sequencer_id=SEQUENCER.bytes,
            bootstrap_key_sha256=sha256(BOOTSTRAP.encode()).digest(),
            readiness=self.readiness,
            overseer=TreeOverseer(self.root),
            audit_spool=AuditSpool(journal=self.journal, path=self.folder / "audit-spool.jsonl"),
            security=self.security,
            rate_limits=rate_limits_of(settings),
            at_rest=AtRestWatch(current_key="00" * 8),
            certificates=self.certificates,
            key_ages=KeyAges(),
            lag=LoopLag(),
            tally=Tally(),
            right_of_way=RightOfWay(),
            strays=lambda: 0,
            front_ends=lambda: self.look_at_front_ends(),
            anchoring=self.anchoring,
        )
        self.public, self.admin = create_apps(self.house)
        self.url = ""
        self.admin_url = ""

    async def _commit(self, message: Commit | CommitLegacy) -> Committed | LegacyCommitted:
        if isinstance(message, CommitLegacy):
            leaves = [sha256(b"%d" % n).digest() for n in range(3)]
            return LegacyCommitted(self.journal.commit_legacy(leaves, 1), 4)
        return Committed(self.journal.commit([sha256(b"%d" % n).digest() for n in range(3)], 1), 4)

    def api_key(
        self,
        *flags: str,
        role: str | None = None,
        tenant: uuid.UUID = TENANT,
        stores: list[uuid.UUID] | None = None,
        agent: uuid.UUID | None = None,
        expires_at_us: int | None = None,
        rate_limit: int | None = None,
    ) -> str:
        """A key's text: an old one with flags, a new one with a role."""
        text = f"ss_{tenant.hex[:8]}{uuid.uuid4().hex}" if role is None else new_key("live")
        key = ApiKey(
            uuid.uuid4().bytes,
            sha256(text.encode()).digest(),
            text[:15],
            tenant.bytes,
            None if stores is None else tuple(s.bytes for s in stores),
            agent.bytes if agent else None,
            flags,
            None,
            role=role,
            expires_at_us=expires_at_us,
            rate_limit_per_minute=rate_limit,
        )
        self.journal.api_keys[key.key_hash] = key
        return text

    def client(self, key: str | None = None, *, admin: bool = False) -> httpx.AsyncClient:
        headers = {} if key is None else {"authorization": f"ApiKey {key}"}
        return httpx.AsyncClient(
            base_url=self.admin_url if admin else self.url, headers=headers, timeout=10, trust_env=False
        )

    @property
    def port(self) -> int:
        return int(self.url.rpartition(":")[2])

    async def connect(self) -> trio.SocketStream:
        return await trio.open_tcp_stream("127.0.0.1", self.port)


def _tree() -> Supervisor:
    """A real tree, never started: two tenants with three letters each waiting for a life."""
    sequencers = DynamicSupervisor("sequencers", _nobody, children_max=2, letters_max=3, idle_s=60)
    for tenant in (TENANT, SEQUENCER):
        for _ in range(3):
            sequencers.ref(tenant).tell(FindKeys([]))
    return Supervisor("root", [sequencers])


def _nobody(_: object) -> Any:
    raise AssertionError("nobody lives here")


@asynccontextmanager
async def serving(
    *,
    patience_s: float = 25,
    root: Supervisor | None = None,
    house: Cardboard | None = None,
    tls: dict[Listener, CertificateFiles] | None = None,
    front: bool = False,
    **settings: Any,
) -> AsyncIterator[Cardboard]:
    """The house served on two sockets of its own, stopped and checked to be empty afterwards. ``front``: the
    public one by a front-end, which here is a task and not a process."""
    with TemporaryDirectory() as folder, trio.fail_after(patience_s):
        house = house or Cardboard(settings, Path(folder), tls or {}, root or _tree())
        async with trio.open_nursery() as nursery:
            doors: tuple[tuple[Any, str, Listener], ...] = (
                (house.public, "url", "public"),
                (house.admin, "admin_url", "admin"),
            )
            for app, where, name in doors:
                listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
                port = listeners[0].socket.getsockname()[1]
                context = house.certificates.context_of(name)
                # The name is the one on the tests' certificates.
                url = f"http://127.0.0.1:{port}" if context is None else f"https://localhost:{port}"
                setattr(house, where, url)
                if front and name == "public":
                    await start_front(nursery, house, listeners)
                else:
                    await nursery.start(serve_app, app, listeners, house, context)
            yield house
            house.shutdown.set()
    assert house.public.door.in_flight.total == 0, "bytes in flight were not given back"


class FrontTask:
    """Stands where a process stands, in this one: so that a test may change its constants."""

    pid = 0

    def __init__(self, nursery: trio.Nursery, listeners: Sequence[int]) -> None:
        self._life = trio.CancelScope()
        here, there = socket.socketpair()
        self._here = trio.SocketStream(trio.socket.from_stdlib_socket(here))
        self.send_all, self.receive_some = self._here.send_all, self._here.receive_some
        self._own = {descriptor: os.dup(descriptor) for descriptor in listeners}
        self._ended = trio.Event()
        nursery.start_soon(self._run, trio.SocketStream(trio.socket.from_stdlib_socket(there)))

    async def _run(self, core: trio.SocketStream) -> None:
        async def receive(bytes_max: int) -> bytes | bytearray:
            try:
                return await core.receive_some(bytes_max)
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                return b""

        front = Front(core.send_all, receive)
        front.descriptor_of = self._own.__getitem__
        try:
            with self._life:
                await front.run()
        finally:
            core.socket.close()
            self._ended.set()

    def kill(self) -> None:
        self._here.socket.close()
        self._life.cancel("killed")

    async def reap(self) -> None:
        with trio.CancelScope(shield=True):
            await self._ended.wait()


class UntilCancelled:
    """As much of an inbox as a front-end's keeper looks at."""

    until_stop = staticmethod(trio.sleep_forever)


async def start_front(
    nursery: trio.Nursery, house: Cardboard, listeners: Sequence[trio.SocketListener]
) -> None:
    hall = Hall(house.house.settings, spawn=partial(FrontTask, nursery))
    certificate = house.certificates.certificate_of("public")
    house.certificates.tell(hall.certificate_changed)
    house.look_at_front_ends = hall.look
    sockets = [listener.socket for listener in listeners]
    serve_hall = partial(hall.serve, shutdown=house.shutdown, certificate=certificate)

    async def keep(task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        async with trio.open_nursery() as keeping:
            inbox: Any = UntilCancelled
            keeping.start_soon(FrontEnd(hall).run, inbox)
            await serve_hall(house.public, sockets, task_status=task_status)
            keeping.cancel_scope.cancel("stopped")

    await nursery.start(keep)


async def serve_app(
    app: Any, listeners: Any, house: Cardboard, tls: Any, task_status: Any = trio.TASK_STATUS_IGNORED
) -> None:
    settings = house.house.settings
    await serve(app, listeners, settings=settings, shutdown=house.shutdown, tls=tls, task_status=task_status)


def parts(raw: bytes) -> tuple[int, dict[str, str], bytes]:
    """Status, headers and body of a raw HTTP answer."""
    head, _, body = raw.partition(b"\r\n\r\n")
    lines = head.decode().split("\r\n")
    headers = {n.lower(): v.strip() for n, _, v in (line.partition(":") for line in lines[1:])}
    return int(lines[0].split()[1]), headers, body


async def read_all(stream: trio.SocketStream) -> bytes:
    data = b""
    try:
        while chunk := await stream.receive_some():
            data += chunk
    except trio.BrokenResourceError:
        pass
    return data
