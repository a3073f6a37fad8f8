"""The journal in memory: the same promises without PostgreSQL, for deterministic simulation and tests.

One ``MemoryDatabase`` is the shared truth; each node has its ``MemoryJournal`` on it. Failures are switches
(``fail_next``), so that a seed can choose them. The contract suite runs against this and PostgreSQL alike,
and what is not in that suite may not be in here. Nothing survives the process: never used in production.
"""

from __future__ import annotations

import math
from collections import defaultdict, deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any, Generic, Literal, TypeVar

import msgspec
import trio

from journal import memory_audit
from journal.anchor_rows import BATCHES_MAX
from journal.at_rest_rules import Rings, new_keys
from journal.audit import entry_text
from journal.commitments_together import check_ranges, check_together
from journal.key_rules import Retire, adds_proof, binding, judge
from journal.memory_anchor_tables import AnchorTables
from journal.memory_legacy import LegacyTables, page_of
from journal.memory_legacy_commitments import LegacyCommitmentTable
from journal.memory_policies import PolicyTables
from journal.memory_proofs import ProofTable
from journal.own_keys import (
    at_rest_keys_claimed,
    check_current,
    check_plaintext,
    receipt_key_claimed,
    refuse_a_retired_key,
)
from journal.packed import packed
from journal.port import (
    LEGACY_ENTITIES_MAX,
    RATE_REFILL_S_MAX,
    RATE_TOKEN,
    AgentKey,
    AnchorEvidence,
    AnchorReport,
    AnchorSummary,
    ApiKey,
    AtRestKeyMissing,
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
    JournalAway,
    JournalOutcomeUnknown,
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
    NotTogether,
    Passing,
    PendingCommitment,
    PinnedTenant,
    PolicyChanges,
    PossessionProof,
    ProofConflict,
    ProofSubmitted,
    RateSpending,
    ReceiptKey,
    ReceiptKeyDiffers,
    ReportConflict,
    ReportStored,
    Revocations,
    SchemaLimit,
    SchemaStatus,
    SignedEvent,
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
from journal.signed_by import FIRST, signed_page
from ves.at_rest import is_frame
from ves.audit import AuditCommitment, AuditRecord, entry_hash
from ves.constants import ZERO_HASH
from ves.encoding import u64
from ves.legacy_commitments import EntityVersions, LegacyCommitment
from ves.merkle import sibling_positions
from ves.policy import SchemaMode
from ves.records import (
    NEW_STREAM,
    CommandName,
    Commitment,
    CredentialId,
    EntityName,
    Facts,
    Fence,
    Head,
    IssuedToken,
    KeyName,
    KnownEvent,
    NumberedEvent,
    Question,
    Receipt,
    SealedEvent,
    StoredEvent,
    Uuid,
)

T = TypeVar("T")
G = TypeVar("G", Group, LegacyGroup)
Stream = tuple[Uuid, Uuid]
"""(tenant_id, store_id)"""

Fault = Literal["away", "lost", "unheard", "held"]
"""``away``: fails before COMMIT. ``lost``: COMMIT never arrives; outcome unknown, nothing stored.
``unheard``: stored, the answer is lost. ``held`` (appends only): COMMIT is on its way and its sender is gone;
it holds its locks until ``MemoryDatabase.release``."""

_LOCK_TIMEOUT_S = 5.0


@dataclass
class Change(Generic[T]):
    """What a transaction would do and answer; checked, not yet applied."""

    answer: T
    apply: Callable[[], None]


@dataclass
class Refused(Generic[T]):
    """A transaction that was rolled back on purpose; there is no COMMIT to get lost."""

    answer: T


@dataclass
class _Held:
    """A transaction whose sender is gone."""

    tenant_id: Uuid
    locks: frozenset[Any]
    """Its counters, the event ids of its rows, and the entities whose versions it moves."""
    apply: Callable[[], None]
    over: trio.Event


@dataclass
class MemoryDatabase:
    """Every table, and the clock. ``now_us``: microseconds since the Unix epoch."""

    now_us: Callable[[], int]
    reachable: bool = True
    heads: dict[Stream, Head] = field(default_factory=dict)
    events: defaultdict[Stream, list[StoredEvent]] = field(default_factory=lambda: defaultdict(list))
    by_id: dict[tuple[Uuid, Uuid], StoredEvent] = field(default_factory=dict)
    commands: dict[tuple[Uuid, CommandName], Uuid] = field(default_factory=dict)
    versions: dict[tuple[Uuid, EntityName], int] = field(default_factory=dict)
    epochs: defaultdict[Uuid, tuple[int, int]] = field(default_factory=lambda: defaultdict(lambda: (0, 0)))
    agent_keys: dict[KeyName, AgentKey] = field(default_factory=dict)
    possessions: dict[KeyName, PossessionProof] = field(default_factory=dict)
    replacements: set[tuple[KeyName, int]] = field(default_factory=set)
    """Which key was replaced by which key_id, ever."""
    api_keys: dict[Uuid, ApiKey] = field(default_factory=dict)
    revocations: list[Uuid | TokenRevocation] = field(default_factory=list)
    """Of API keys, by id, and of tokens, in the order of their numbers (1, 2, …)."""
    committed: dict[Stream, tuple[int, bytes]] = field(default_factory=dict)
    commitments: dict[Uuid, tuple[Commitment, bytes]] = field(default_factory=dict)
    receipt_keys: defaultdict[Uuid, list[ReceiptKey]] = field(default_factory=lambda: defaultdict(list))
    at_rest_keys: list[bytes] = field(default_factory=list)
    tenant_at_rest_keys: defaultdict[Uuid, list[bytes]] = field(default_factory=lambda: defaultdict(list))
    retired_at_rest_keys: set[bytes] = field(default_factory=set)
    audit_log: defaultdict[Uuid, list[tuple[str, bytes]]] = field(default_factory=lambda: defaultdict(list))
    """Per node: entry text and entry hash."""
    rates: dict[bytes, tuple[int, int]] = field(default_factory=dict)
    """Units, and when that was true."""
    audit_commitments: defaultdict[Uuid, list[AuditCommitment]] = field(
        default_factory=lambda: defaultdict(list)
    )
    policies: PolicyTables = field(default_factory=PolicyTables)
    proofs: ProofTable = field(default_factory=ProofTable)
    legacy: LegacyTables = field(default_factory=LegacyTables)
    legacy_commitments: LegacyCommitmentTable = field(default_factory=LegacyCommitmentTable)
    anchors: AnchorTables = field(default_factory=AnchorTables)
    held: list[_Held] = field(default_factory=list)

    def release(self, *, commit: bool) -> None:
        """Ends every held transaction: its COMMIT arrives, or the server gives it up."""
        held, self.held = self.held, []
        for transaction in held:
            if commit:
                transaction.apply()
            transaction.over.set()


class MemoryNode:
    """A node's way to the shared memory: units, what goes wrong on them, and its audit chain."""

    def __init__(
        self,
        database: MemoryDatabase,
        *,
        node_id: Uuid,
        checkpoint: Callable[[str], None] = lambda name: None,
        latency_s: Callable[[], float] = lambda: 0.0,
    ) -> None:
        self._database = database
        self._node_id = node_id
        self._checkpoint = checkpoint
        self._latency_s = latency_s
        self._faults: defaultdict[str, deque[Fault]] = defaultdict(deque)

    def fail_next(self, method: str, fault: Fault) -> None:
        """The next call of this method (or the one after those already told to fail) goes wrong this way."""
        if fault == "held" and method not in ("append", "append_legacy"):
            raise ValueError("only an append can be held")
        self._faults[method].append(fault)

    def heal(self) -> list[tuple[str, Fault]]:
        """Nothing goes wrong any more; answers the failures that were told and not met."""
        unmet = [(method, fault) for method, faults in self._faults.items() for fault in faults]
        self._faults.clear()
        return unmet

    # Units.

    async def _read(self, method: str, answer: Callable[[MemoryDatabase], T]) -> T:
        await self._on_the_way()
        if self._fault(method) is not None or not self._database.reachable:
            raise JournalAway("the memory is away")
        return answer(self._database)

    async def _write(
        self,
        method: str,
        act: Callable[[MemoryDatabase], Change[T] | Refused[T]],
        *,
        behind: Callable[[_Held], bool] = lambda held: False,
        hold: tuple[Uuid, frozenset[Any]] | None = None,
    ) -> T:
        """``behind``: which held transactions have a lock that this one needs."""
        await self._on_the_way()
        fault = self._fault(method)
        if fault == "away" or not self._database.reachable:
            raise JournalAway("the memory is away")
        await self._wait_for_locks(behind)
        # From here on without a pause: a transaction is atomic.
        change = act(self._database)
        if isinstance(change, Refused):
            return change.answer
        self._checkpoint(f"{method}.commit_sent_before")
        if fault == "held":
            assert hold is not None
            self._database.held.append(_Held(*hold, change.apply, trio.Event()))
        elif fault != "lost":
            change.apply()
        if fault is not None:
            raise JournalOutcomeUnknown("COMMIT was sent and not answered")
        self._checkpoint(f"{method}.committed")
        return change.answer

    async def _on_the_way(self) -> None:
        """A unit is not cancelled once it has begun."""
        await trio.lowlevel.checkpoint_if_cancelled()
        with trio.CancelScope(shield=True):
            await trio.sleep(self._latency_s())

    async def _wait_for_locks(self, behind: Callable[[_Held], bool]) -> None:
        with trio.move_on_after(_LOCK_TIMEOUT_S, shield=True):
            while (held := next(filter(behind, self._database.held), None)) is not None:
                await held.over.wait()
            return
        raise _LockTimeout("a lock was not to be had in time")

    def _fault(self, method: str) -> Fault | None:
        waiting = self._faults[method]
        return waiting.popleft() if waiting else None

    def _audit(self, database: MemoryDatabase, entry: AuditEntry) -> None:
        chain = database.audit_log[self._node_id]
        text = entry_text(self._node_id, len(chain) + 1, database.now_us(), entry)
        chain.append((text, entry_hash(chain[-1][1] if chain else ZERO_HASH, text)))


class _Unheeded:
    """Here no group waits for another one."""

    def has(self, events: int) -> None:
        pass


_UNHEEDED = _Unheeded()


class MemoryJournal(MemoryNode):
    """See ``journal.port.Journal`` for what each method promises."""

    # The database itself.

    async def ping(self) -> None:
        await self._read("ping", lambda database: None)

    # The write path.

    def expecting(self, tenant_id: Uuid | None, size: int) -> AbstractContextManager[Expectation]:
        return nullcontext(_UNHEEDED)

    async def settle(self, tenant_id: Uuid) -> None:
        await self._write("settle", lambda database: Refused(None), behind=_of_tenant(tenant_id))

    async def read_facts(self, question: Question) -> Facts:
        return await self._read("read_facts", lambda database: _facts(database, question))

    async def append(self, group: Group, passing: Passing | None = None) -> Stored | Moved | Away:
        locks = {n.store_id for n in group.numbered} | {n.event.event_id for n in group.numbered}
        return await self._append_group("append", group, locks, self._append)

    async def append_legacy(
        self, group: LegacyGroup, passing: Passing | None = None
    ) -> Stored | Moved | Away:
        locks = {("legacy", name) for n in group.numbered for name in (n.store_id, n.event.event_id)}
        return await self._append_group("append_legacy", group, locks, self._append_legacy)

    async def _append_group(
        self,
        method: str,
        group: G,
        locks: set[Any],
        act: Callable[[MemoryDatabase, G], Change[Any] | Refused[Any]],
    ) -> Stored | Moved | Away:
        tenant_id = group.fence.tenant_id
        held_until_commit = frozenset(locks | {step.entity for step in group.versions})
        try:
            if not group.numbered:
                return await self._check_fence(method, group)
            self._checkpoint(f"{method}.begin")
            return await self._write(
                method,
                lambda database: act(database, group),
                behind=lambda held: held.tenant_id == tenant_id and bool(held.locks & held_until_commit),
                hold=(tenant_id, held_until_commit),
            )
        except _LockTimeout as error:
            return Moved(str(error))
        except JournalAway as error:
            return Away(str(error))

    async def _check_fence(self, method: str, group: Group | LegacyGroup) -> Stored | Moved:
        def holds(database: MemoryDatabase) -> Stored | Moved:
            now = _fence(_heads(database, group), database, group.fence)
            return Stored() if now == group.fence else Moved("the fence")

        return await self._read(method, holds)

    def _append(self, database: MemoryDatabase, group: Group) -> Change[Any] | Refused[Any]:
        moved = _moved(database, group)
        if moved is not None:
            return Refused(Moved(moved))
        self._checkpoint("append.fenced")
        if any((group.fence.tenant_id, n.event.event_id) in database.by_id for n in group.numbered):
            return Refused(Moved("an event id"))
        self._checkpoint("append.copied")
        return Change(Stored(), lambda: _apply(database, group))

    def _append_legacy(self, database: MemoryDatabase, group: LegacyGroup) -> Change[Any] | Refused[Any]:
        moved = _moved(database, group)
        if moved is not None:
            return Refused(Moved(moved))
        self._checkpoint("append_legacy.fenced")
        if database.legacy.holds_one_of(group):
            return Refused(Moved("an event id"))
        self._checkpoint("append_legacy.copied")
        return Change(Stored(), lambda: _apply_legacy(database, group))

    # Reading back.

    async def read_events(
        self, tenant_id: Uuid, store_id: Uuid, *, from_sequence: int, limit: int, bytes_max: int
    ) -> EventPage:
        def page(database: MemoryDatabase) -> EventPage:
            found = database.events[tenant_id, store_id]
            events, has_more, next_from = _page(found, from_sequence, limit, bytes_max)
            head = database.heads.get((tenant_id, store_id), NEW_STREAM)
            rows = b"".join(map(packed, events))
            return EventPage(head.current_sequence, rows, len(events), has_more, next_from)

        return await self._read("read_events", page)

    async def read_event(
        self, tenant_id: Uuid, event_id: Uuid, *, store_ids: tuple[Uuid, ...] | None
    ) -> StoredEvent | None:
        def one(database: MemoryDatabase) -> StoredEvent | None:
            event = database.by_id.get((tenant_id, event_id))
            return event if event and (store_ids is None or event.store_id in store_ids) else None

        return await self._read("read_event", one)

    async def read_head(self, tenant_id: Uuid, store_id: Uuid) -> int:
        return await self._read(
            "read_head",
            lambda database: database.heads.get((tenant_id, store_id), NEW_STREAM).current_sequence,
        )

    async def list_streams(
        self, tenant_id: Uuid, *, store_ids: tuple[Uuid, ...] | None, after: Uuid | None, limit: int
    ) -> list[StreamHead]:
        def streams(database: MemoryDatabase) -> list[StreamHead]:
            found = [
                StreamHead(
                    store_id,
                    database.heads.get((tenant_id, store_id), NEW_STREAM).current_sequence,
                    database.committed.get((tenant_id, store_id), (0, ZERO_HASH))[0],
                    database.legacy.head(tenant_id, store_id).current_sequence,
                )
                for tenant, store_id in sorted({*database.heads, *database.legacy.heads})
                if tenant == tenant_id
                and (store_ids is None or store_id in store_ids)
                and (after is None or store_id > after)
            ]
            return found[:limit]

        return await self._read("list_streams", streams)

    async def read_voided(self, tenant_id: Uuid, store_id: Uuid) -> list[Voided]:
        """None: this database is never restored."""
        return await self._read("read_voided", lambda database: [])

    async def read_entity(
        self, tenant_id: Uuid, entity: EntityName, *, from_sequence: int, limit: int, bytes_max: int
    ) -> EntityPage:
        def page(database: MemoryDatabase) -> EntityPage:
            stream = database.events[tenant_id, entity.store_id]
            found = [e for e in stream if EntityName(e.store_id, e.entity_type, e.entity_id) == entity]
            version = database.versions.get((tenant_id, entity), 0)
            events, has_more, next_from = _page(found, from_sequence, limit, bytes_max)
            return EntityPage(version, b"".join(map(packed, events)), len(events), has_more, next_from)

        return await self._read("read_entity", page)

    async def read_legacy_events(
        self, tenant_id: Uuid, store_id: Uuid, *, from_sequence: int, limit: int, bytes_max: int
    ) -> LegacyEventPage:
        def page(database: MemoryDatabase) -> LegacyEventPage:
            found = database.legacy.events[tenant_id, store_id]
            head = database.legacy.head(tenant_id, store_id).current_sequence
            return LegacyEventPage(head, *page_of(found, from_sequence, limit, bytes_max))

        return await self._read("read_legacy_events", page)

    async def read_legacy_head(self, tenant_id: Uuid, store_id: Uuid) -> int:
        return await self._read(
            "read_legacy_head", lambda database: database.legacy.head(tenant_id, store_id).current_sequence
        )

    async def read_legacy_entity(
        self, tenant_id: Uuid, entity: EntityName, *, from_sequence: int, limit: int, bytes_max: int
    ) -> LegacyEntityPage:
        def page(database: MemoryDatabase) -> LegacyEntityPage:
            found = database.legacy.history(tenant_id, entity)
            version = database.versions.get((tenant_id, entity), 0)
            return LegacyEntityPage(version, *page_of(found, from_sequence, limit, bytes_max))

        return await self._read("read_legacy_entity", page)

    # Commitments.

    async def streams_behind(self, *, after: Stream | None, limit: int) -> list[StreamBehind]:
        def behind(database: MemoryDatabase) -> list[StreamBehind]:
            found = []
            for stream, head in sorted(database.heads.items()):
                through, _ = database.committed.get(stream, (0, ZERO_HASH))
                if through < head.current_sequence and (after is None or stream > after):
                    oldest = database.events[stream][through].receipt.sequenced_at_us
                    found.append(StreamBehind(*stream, through, head.current_sequence, oldest))
            return found[:limit]

        return await self._read("streams_behind", behind)

    async def read_commitment_counter(self, tenant_id: Uuid, store_id: Uuid) -> CommitmentCounter:
        return await self._read(
            "read_commitment_counter", lambda d: _commitment_counter(d, (tenant_id, store_id))
        )

    async def read_leaf_sources(
        self, tenant_id: Uuid, store_id: Uuid, *, sequence_start: int, sequence_end: int
    ) -> bytes:
        if sequence_end - sequence_start >= 4096:
            raise ValueError("at most 4096 leaf sources a call")
        wanted = StreamRange(tenant_id, store_id, sequence_start, sequence_end)
        return await self._read("read_leaf_sources", lambda database: _leaf_sources(database, wanted))

    async def commit(
        self, commitment: Commitment, *, levels: bytes, believed_through: int
    ) -> Stored | Moved | Away:
        if commitment.sequence_start != believed_through + 1:
            raise ValueError("a commitment starts right after the last one")

        def act(database: MemoryDatabase) -> Change[Any] | Refused[Any]:
            moved = _moved_commitment(database, commitment)
            if moved is not None:
                return Refused(moved)
            return Change(Stored(), lambda: _store_commitment(database, commitment, levels))

        try:
            return await self._write("commit", act)
        except JournalAway as error:
            return Away(str(error))

    async def read_uncommitted(self, ranges: Sequence[StreamRange]) -> list[Uncommitted]:
        check_ranges(ranges)
        return await self._read(
            "read_uncommitted",
            lambda d: [
                Uncommitted(_commitment_counter(d, (r.tenant_id, r.store_id)), _leaf_sources(d, r))
                for r in ranges
            ],
        )

    async def commit_together(self, made: Sequence[MadeCommitment]) -> list[Stored | Moved] | Away:
        check_together(made)

        def act(database: MemoryDatabase) -> Change[Any] | Refused[Any]:
            moved = [_moved_commitment(database, m.commitment) for m in made]
            free = [m for m, why in zip(made, moved, strict=True) if why in (None, _TAKEN)]
            if _TAKEN in moved or len({m.commitment.batch_id for m in free}) < len(free):
                return Refused(None)
            if not free:
                return Refused(moved)

            def apply() -> None:
                for m in free:
                    _store_commitment(database, m.commitment, m.levels)

            return Change([why or Stored() for why in moved], apply)

        try:
            outcomes: list[Stored | Moved] | None = await self._write("commit", act)
        except JournalAway as error:
            return Away(str(error))
        if outcomes is None:
            raise NotTogether(_TAKEN.what)
        return outcomes

    async def read_commitment(
        self, batch_id: Uuid, *, tenant_id: Uuid | None, store_ids: tuple[Uuid, ...] | None
    ) -> Commitment | None:
        def one(database: MemoryDatabase) -> Commitment | None:
            found, _ = database.commitments.get(batch_id, (None, b""))
            if found is None or (tenant_id is not None and found.tenant_id != tenant_id):
                return None
            return found if store_ids is None or found.store_id in store_ids else None

        return await self._read("read_commitment", one)

    async def find_commitment(
        self, tenant_id: Uuid, store_id: Uuid, *, sequence_number: int
    ) -> Commitment | None:
        stream = (tenant_id, store_id)
        return await self._read("find_commitment", lambda d: _commitment_over(d, stream, sequence_number))

    async def find_leaf(
        self, tenant_id: Uuid, store_id: Uuid, *, sequence_number: int
    ) -> CommittedLeaf | None:
        def find(database: MemoryDatabase) -> CommittedLeaf | None:
            found = _commitment_over(database, (tenant_id, store_id), sequence_number)
            if found is None:
                return None
            leaf_index = sequence_number - found.sequence_start
            positions = [leaf_index, *sibling_positions(found.leaf_count, leaf_index)]
            leaf, *path = _nodes_of(database, found.batch_id, positions)
            return CommittedLeaf(found, leaf, path)

        return await self._read("find_leaf", find)

    async def list_commitments(
        self, tenant_id: Uuid, store_id: Uuid, *, from_sequence: int, limit: int, anchored: bool | None
    ) -> CommitmentPage:
        def page(database: MemoryDatabase) -> CommitmentPage:
            found = [
                c
                for c in _commitments_of(database, (tenant_id, store_id))
                if c.sequence_start >= from_sequence
                and anchored in (None, database.anchors.is_anchored(c.batch_id))
            ]
            told = found[:limit]
            next_from = told[-1].sequence_end + 1 if told else from_sequence
            return CommitmentPage(told, len(found) > limit, next_from)

        return await self._read("list_commitments", page)

    async def read_nodes(self, batch_id: Uuid, positions: list[int]) -> list[bytes]:
        return await self._read("read_nodes", lambda database: _nodes_of(database, batch_id, positions))

    async def read_leaves(self, batch_id: Uuid, *, leaf_count: int) -> bytes:
        def leaves(database: MemoryDatabase) -> bytes:
            _, levels = database.commitments.get(batch_id, (None, b""))
            if not 0 < 32 * leaf_count <= len(levels):
                raise LookupError("no such commitment, or not so many leaves in it")
            return levels[: 32 * leaf_count]

        return await self._read("read_leaves", leaves)

    # Anchors, as the doors see them.

    async def read_anchors(self, batch_ids: list[Uuid]) -> dict[Uuid, CommitmentAnchor]:
        if len(batch_ids) > BATCHES_MAX:
            raise ValueError(f"at most {BATCHES_MAX} batches a call")
        return await self._read("read_anchors", lambda database: database.anchors.told(batch_ids))

    async def list_pending_anchors(self, *, limit: int) -> list[PendingCommitment]:
        return await self._read("list_pending_anchors", lambda database: database.anchors.pending(limit))

    async def request_anchor(self, batch_id: Uuid, audit: AuditEntry) -> bool:
        def act(database: MemoryDatabase) -> Change[Any] | Refused[Any]:
            tables = database.anchors
            if tables.known(batch_id) is not None:
                return Refused(False)
            if batch_id in tables.requests:
                return Refused(True)

            def apply() -> None:
                tables.requests.add(batch_id)
                self._audit(database, audit)

            return Change(True, apply)

        return await self._write("request_anchor", act)

    async def report_anchor(self, report: AnchorReport, audit: AuditEntry) -> ReportStored | ReportConflict:
        def act(database: MemoryDatabase) -> Change[Any] | Refused[Any]:
            known = database.anchors.known(report.batch_id)
            if known is not None:
                same = known.tx_hash == report.tx_hash
                return Refused(ReportStored(again=True) if same else ReportConflict())

            def apply() -> None:
                database.anchors.take_report(report, database.now_us())
                self._audit(database, audit)

            return Change(ReportStored(again=False), apply)

        return await self._write("report_anchor", act)

    async def anchor_summary(self) -> AnchorSummary:
        return await self._read(
            "anchor_summary", lambda database: database.anchors.summary(database.now_us())
        )

    async def read_anchor_evidence(self, batch_id: Uuid) -> AnchorEvidence | None:
        return await self._read("read_anchor_evidence", lambda database: database.anchors.evidence(batch_id))

    # Commitments of the legacy stream.

    async def read_legacy_commitment_counter(self, tenant_id: Uuid, store_id: Uuid) -> CommitmentCounter:
        return await self._read(
            "read_legacy_commitment_counter",
            lambda database: _legacy_counter(database, tenant_id, store_id),
        )

    async def read_legacy_leaf_sources(
        self, tenant_id: Uuid, store_id: Uuid, *, sequence_start: int, sequence_end: int
    ) -> list[LegacyLeafSource]:
        if sequence_end - sequence_start >= 4096:
            raise ValueError("at most 4096 leaf sources a call")
        return await self._read(
            "read_legacy_leaf_sources",
            lambda database: [
                LegacyLeafSource(e.sequence_number, e.payload_hash, e.entity_type, e.entity_id)
                for e in database.legacy.events[tenant_id, store_id][
                    max(0, sequence_start - 1) : sequence_end
                ]
            ],
        )

    async def commit_legacy(
        self, commitment: LegacyCommitment, *, levels: bytes
    ) -> LegacyCommitment | TooManyEntities | Moved | Away:
        def act(database: MemoryDatabase) -> Change[Any] | Refused[Any]:
            counter = _legacy_counter(database, commitment.tenant_id, commitment.store_id)
            if (counter.committed_through + 1, counter.state_root) != (
                commitment.sequence_start,
                commitment.prev_state_root,
            ):
                return Refused(Moved("the last commitment"))
            if commitment.sequence_end > counter.head_sequence:
                return Refused(Moved("the head"))
            state_root = _legacy_state_root(database, commitment.tenant_id, commitment.store_id)
            if state_root is None:
                return Refused(TooManyEntities())
            stored = msgspec.structs.replace(commitment, new_state_root=state_root)

            def apply() -> None:
                database.legacy_commitments.commitments[stored.batch_id] = (stored, levels)

            return Change(stored, apply)

        try:
            return await self._write("commit_legacy", act)
        except JournalAway as error:
            return Away(str(error))

    async def read_legacy_commitment(
        self, batch_id: Uuid, *, tenant_id: Uuid | None, store_ids: tuple[Uuid, ...] | None
    ) -> LegacyCommitment | None:
        return await self._read(
            "read_legacy_commitment",
            lambda database: database.legacy_commitments.find(batch_id, tenant_id, store_ids),
        )

    async def find_legacy_commitment(
        self, tenant_id: Uuid, store_id: Uuid, *, sequence_number: int
    ) -> LegacyCommitment | None:
        return await self._read(
            "find_legacy_commitment",
            lambda database: database.legacy_commitments.over(tenant_id, store_id, sequence_number),
        )

    async def list_legacy_commitments(
        self, tenant_id: Uuid, store_id: Uuid, *, from_sequence: int, limit: int
    ) -> LegacyCommitmentPage:
        return await self._read(
            "list_legacy_commitments",
            lambda database: database.legacy_commitments.page(tenant_id, store_id, from_sequence, limit),
        )

    async def read_legacy_nodes(self, batch_id: Uuid, positions: list[int]) -> list[bytes]:
        return await self._read(
            "read_legacy_nodes", lambda database: database.legacy_commitments.nodes(batch_id, positions)
        )

    # Validity proofs.

    async def submit_validity_proof(
        self, submitted: StoredProof, audit: AuditEntry
    ) -> ProofSubmitted | ProofConflict | None:
        record = submitted.record

        def act(database: MemoryDatabase) -> Change[Any] | Refused[Any]:
            commitment, _ = database.commitments.get(record.batch_id, (None, b""))
            if commitment is None or (commitment.tenant_id, commitment.store_id) != (
                record.tenant_id,
                record.store_id,
            ):
                return Refused(None)
            if (present := database.proofs.present(record)) is not None:
                return Refused(present)
            answer, keep = database.proofs.submission(submitted, database.now_us())

            def apply() -> None:
                keep()
                self._audit(database, audit)

            return Change(answer, apply)

        return await self._write("submit_validity_proof", act)

    async def read_validity_proof(
        self, proof_id: Uuid, *, tenant_id: Uuid | None, store_ids: tuple[Uuid, ...] | None
    ) -> StoredProof | None:
        return await self._read(
            "read_validity_proof", lambda database: database.proofs.find(proof_id, tenant_id, store_ids)
        )

    async def list_validity_proofs(
        self, batch_id: Uuid, *, after: Uuid | None, limit: int
    ) -> list[ValidityProof]:
        return await self._read(
            "list_validity_proofs", lambda database: database.proofs.listed(batch_id, after, limit)
        )

    # Agent keys.

    async def find_public_keys(self, keys: list[KeyName]) -> dict[KeyName, bytes]:
        return await self._read(
            "find_public_keys",
            lambda database: {
                name: database.agent_keys[name].public_key for name in keys if name in database.agent_keys
            },
        )

    async def register_agent_key(self, key: AgentKey, audit: AuditEntry) -> KeyRegistered | KeyConflict:
        def act(database: MemoryDatabase) -> Change[Any] | Refused[Any]:
            present = database.agent_keys.get(key.name)
            if present is not None and binding(present) != binding(key):
                return Refused(KeyConflict(same_name=True))
            if present is not None and not adds_proof(present, key):
                return Refused(KeyRegistered(present, already=True))
            if present is None and _is_taken(database, key):
                return Refused(KeyConflict(same_name=False))
            registered = _proven(present, key) if present else _registered(database, key)

            def apply() -> None:
                database.agent_keys[key.name] = registered
                _keep_proof(database, present, key)
                if present is None:
                    self._raise_epoch(database, key.name.tenant_id, keys=1)
                self._audit(database, audit)

            return Change(KeyRegistered(registered, already=present is not None), apply)

        return await self._write("register_agent_key", act, behind=_of_tenant(key.name.tenant_id))

    async def list_agent_keys(
        self, tenant_id: Uuid, agent_id: Uuid, *, from_key_id: int, limit: int
    ) -> list[AgentKey]:
        def listed(database: MemoryDatabase) -> list[AgentKey]:
            names = sorted(n for n in database.agent_keys if n[:2] == (tenant_id, agent_id))
            return [database.agent_keys[n] for n in names if n.key_id >= from_key_id][:limit]

        return await self._read("list_agent_keys", listed)

    async def read_possession(self, name: KeyName) -> PossessionProof | None:
        return await self._read("read_possession", lambda database: database.possessions.get(name))

    async def revoke_agent_key(self, name: KeyName, reason: str, audit: AuditEntry) -> KeyRevoked | None:
        def act(database: MemoryDatabase) -> Change[Any] | Refused[Any]:
            present = database.agent_keys.get(name)
            if present is None or present.revoked_at_us is not None:
                return Refused(None if present is None else KeyRevoked(present, already=True))
            revoked = msgspec.structs.replace(
                present, revoked_at_us=database.now_us(), revocation_reason=reason
            )

            def apply() -> None:
                database.agent_keys[name] = revoked
                self._raise_epoch(database, name.tenant_id, keys=1)
                self._audit(database, audit)

            return Change(KeyRevoked(revoked, already=False), apply)

        return await self._write("revoke_agent_key", act, behind=_of_tenant(name.tenant_id))

    async def revoke_agent_keys(
        self, tenant_id: Uuid, agent_id: Uuid, reason: str, audit: AuditEntry
    ) -> KeysRevoked | None:
        def act(database: MemoryDatabase) -> Change[Any] | Refused[Any]:
            there = [key for name, key in database.agent_keys.items() if name[:2] == (tenant_id, agent_id)]
            left = [key for key in there if key.revoked_at_us is None]
            if not left:
                return Refused(KeysRevoked(0, len(there)) if there else None)
            at_us = database.now_us()

            def apply() -> None:
                for key in left:
                    database.agent_keys[key.name] = msgspec.structs.replace(
                        key, revoked_at_us=at_us, revocation_reason=reason
                    )
                self._raise_epoch(database, tenant_id, keys=1)
                self._audit(database, audit)

            return Change(KeysRevoked(len(left), len(there) - len(left)), apply)

        return await self._write("revoke_agent_keys", act, behind=_of_tenant(tenant_id))

    async def rotate_agent_key(
        self, rotation: KeyRotation, audit: AuditEntry
    ) -> KeyRotated | KeyConflict | KeyEnded | None:
        key = rotation.key
        old_name = key.name._replace(key_id=rotation.replaces)

        def act(database: MemoryDatabase) -> Change[Any] | Refused[Any]:
            old, new = database.agent_keys.get(old_name), database.agent_keys.get(key.name)
            now_us = database.now_us()
            verdict = judge(
                rotation,
                old,
                new,
                done=(old_name, key.name.key_id) in database.replacements,
                now_us=now_us,
                ends_us=max(now_us + rotation.grace_s * 1_000_000, _last_sequenced(database, key)),
            )
            if not isinstance(verdict, Retire):
                return Refused(verdict)
            if new is None and _is_taken(database, key):
                return Refused(KeyConflict(same_name=False))
            assert old is not None, "judged so"
            registered = _proven(new, key) if new else _registered(database, key)
            replaced = msgspec.structs.replace(
                old,
                retires_at_us=verdict.retires_at_us,
                replaced_by=key.name.key_id,
                rotation_signature=verdict.rotation_signature,
            )

            def apply() -> None:
                database.agent_keys |= {key.name: registered, old_name: replaced}
                _keep_proof(database, new, key)
                database.replacements.add((old_name, key.name.key_id))
                self._raise_epoch(database, key.name.tenant_id, keys=1)
                self._audit(database, audit)

            return Change(KeyRotated(registered, replaced, already=False), apply)

        return await self._write("rotate_agent_key", act, behind=_of_tenant(key.name.tenant_id))

    async def walk_agent_keys(
        self, tenant_id: Uuid | None, *, after: KeyName | None, limit: int
    ) -> list[AgentKey]:
        def walked(database: MemoryDatabase) -> list[AgentKey]:
            names = sorted(
                name
                for name in database.agent_keys
                if tenant_id in (None, name.tenant_id) and (after is None or name > after)
            )
            return [database.agent_keys[name] for name in names[:limit]]

        return await self._read("walk_agent_keys", walked)

    async def read_signed_by(
        self, key: KeyName, *, after: tuple[Uuid, int] | None, limit: int, looked_at_max: int
    ) -> SignedPage:
        def signed(database: MemoryDatabase) -> SignedPage:
            streams = sorted(s for s in database.events if s[0] == key.tenant_id)
            places = [
                (store, event.receipt.sequence_number, event)
                for tenant, store in streams
                for event in database.events[tenant, store]
                if (store, event.receipt.sequence_number) > (after or FIRST)
            ]
            looked_at = places[:looked_at_max]
            found = [
                SignedEvent(store, number, event.receipt.event_id, event.receipt.sequenced_at_us)
                for store, number, event in looked_at
                if (event.source_agent_id, event.agent_key_id) == key[1:]
            ]
            full = looked_at and len(looked_at) == looked_at_max
            return signed_page(found, limit, looked_at[-1][:2] if full else None)

        return await self._read("read_signed_by", signed)

    # Credentials.

    async def create_api_key(self, key: ApiKey, audit: AuditEntry, *, by: Uuid | None = None) -> ApiKey:
        def act(database: MemoryDatabase) -> Change[ApiKey]:
            _must_be_in_force(database, by)
            created = msgspec.structs.replace(key, created_at_us=database.now_us())

            def apply() -> None:
                database.api_keys[key.id] = created
                self._audit(database, audit)

            return Change(created, apply)

        return await self._write("create_api_key", act)

    async def create_agent_api_key(
        self, key: ApiKey, audit: AuditEntry, *, by: Uuid | None, in_force_max: int, freed_after_s: int
    ) -> ApiKey | None:
        def act(database: MemoryDatabase) -> Change[Any] | Refused[Any]:
            of_agent = [k for k in database.api_keys.values() if _is_of(k, key.tenant_id, key.agent_id)]
            since_us = database.now_us() - freed_after_s * 1_000_000
            if sum(_end_us(k) > since_us for k in of_agent) >= in_force_max:
                return Refused(None)
            _must_be_in_force(database, by)
            created = msgspec.structs.replace(key, created_at_us=database.now_us())

            def apply() -> None:
                database.api_keys[key.id] = created
                self._audit(database, audit)

            return Change(created, apply)

        return await self._write("create_api_key", act)

    async def find_api_key(self, key_hash: bytes) -> ApiKey | None:
        return await self._read(
            "find_api_key",
            lambda database: next((k for k in database.api_keys.values() if k.key_hash == key_hash), None),
        )

    async def list_api_keys(
        self, tenant_id: Uuid | None, *, after: Uuid | None, limit: int, prefix: str = ""
    ) -> list[ApiKey]:
        def listed(database: MemoryDatabase) -> list[ApiKey]:
            keys = [key for _, key in sorted(database.api_keys.items(), key=lambda item: item[0])]
            return [
                key
                for key in keys
                if (tenant_id is None or key.tenant_id == tenant_id)
                and (after is None or key.id > after)
                and key.prefix.startswith(prefix)
            ][:limit]

        return await self._read("list_api_keys", listed)

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
        def listed(database: MemoryDatabase) -> list[ApiKey]:
            keys = _newest_first(database, tenant_id, agent_id, store_ids)
            shown = [key for key in keys if key.key_hash.hex().startswith(hash_prefix)]
            if after is not None:
                last = database.api_keys.get(after)
                if last is None or not _is_of(last, tenant_id, agent_id):
                    return []
                shown = [key for key in shown if _age(key) < _age(last)]
            return shown[:limit]

        return await self._read("list_agent_api_keys", listed)

    async def newest_agent_api_key(
        self, tenant_id: Uuid, agent_id: Uuid, *, store_ids: tuple[Uuid, ...] | None
    ) -> ApiKey | None:
        def newest(database: MemoryDatabase) -> ApiKey | None:
            keys = _newest_first(database, tenant_id, agent_id, store_ids)
            in_force = (key for key in keys if _in_force(key, database.now_us()))
            return next(in_force, keys[0] if keys else None)

        return await self._read("newest_agent_api_key", newest)

    async def revoke_api_key(
        self, credential_id: Uuid, *, tenant_id: Uuid | None, audit: AuditEntry
    ) -> ApiKey | None:
        found = await self._read("find_api_key", lambda database: database.api_keys.get(credential_id))
        if found is None or (tenant_id is not None and tenant_id != found.tenant_id):
            return None

        def act(database: MemoryDatabase) -> Change[ApiKey] | Refused[ApiKey]:
            present = database.api_keys[credential_id]
            if present.revoked_at_us is not None:
                return Refused(present)
            revoked = msgspec.structs.replace(present, revoked_at_us=database.now_us())

            def apply() -> None:
                database.api_keys[credential_id] = revoked
                database.revocations.append(credential_id)
                self._raise_epoch(database, present.tenant_id, credentials=1)
                self._audit(database, msgspec.structs.replace(audit, tenant_id=present.tenant_id))

            return Change(revoked, apply)

        return await self._write("revoke_api_key", act, behind=_of_tenant(found.tenant_id))

    async def revoke_tokens(
        self, tenant_id: Uuid, subject: Uuid, *, ahead_s: int, reason: str | None, audit: AuditEntry
    ) -> TokenRevocation:
        def act(database: MemoryDatabase) -> Change[TokenRevocation]:
            now_us = database.now_us()
            until_s = -(-now_us // 1_000_000) + ahead_s
            number = len(database.revocations) + 1
            revocation = TokenRevocation(number, tenant_id, subject, until_s, now_us, reason)

            def apply() -> None:
                database.revocations.append(revocation)
                self._raise_epoch(database, tenant_id, credentials=1)
                self._audit(database, audit)

            return Change(revocation, apply)

        return await self._write("revoke_tokens", act, behind=_of_tenant(tenant_id))

    async def tokens_revoked_until(self, tenant_id: Uuid, subject: Uuid) -> int:
        return await self._read(
            "tokens_revoked_until", lambda database: _revoked_until(database, tenant_id, subject)
        )

    async def list_token_revocations(
        self, tenant_id: Uuid | None, *, after: int, limit: int
    ) -> list[TokenRevocation]:
        def listed(database: MemoryDatabase) -> list[TokenRevocation]:
            found = [one for one in database.revocations if isinstance(one, TokenRevocation)]
            return [one for one in found if tenant_id in (None, one.tenant_id) and one.number > after][:limit]

        return await self._read("list_token_revocations", listed)

    async def revocations_since(self, cursor: int | None) -> Revocations:
        def since(database: MemoryDatabase) -> Revocations:
            told = database.revocations[cursor:] if cursor is not None else []
            keys = [one for one in told if isinstance(one, bytes)]
            tokens = [one for one in told if isinstance(one, TokenRevocation)]
            return Revocations(keys, len(database.revocations), tokens)

        return await self._read("revocations_since", since)

    # What tenants demand of their events.

    async def create_schema(
        self, schema: EventSchema, *, believed_stamp: int, audit: AuditEntry
    ) -> EventSchema | Moved | SchemaLimit:
        def act(database: MemoryDatabase) -> Change[Any] | Refused[Any]:
            created = database.policies.creation(schema, believed_stamp, database.now_us())
            if not isinstance(created, EventSchema):
                return Refused(created)
            return self._schema_change(database, created, audit)

        return await self._write("create_schema", act)

    async def set_schema_status(
        self, schema_id: Uuid, *, tenant_id: Uuid | None, status: SchemaStatus, audit: AuditEntry
    ) -> EventSchema | SchemaLimit | None:
        def act(database: MemoryDatabase) -> Change[Any] | Refused[Any]:
            present = database.policies.find(schema_id, tenant_id)
            if present is None or present.status == status:
                return Refused(present)
            changed = database.policies.with_status(present, status, database.now_us())
            if isinstance(changed, SchemaLimit):
                return Refused(changed)
            return self._schema_change(database, changed, audit)

        return await self._write("set_schema_status", act)

    def _schema_change(
        self, database: MemoryDatabase, schema: EventSchema, audit: AuditEntry
    ) -> Change[EventSchema]:
        keep = database.policies.keeping(schema)

        def apply() -> None:
            keep()
            self._audit(database, audit)

        return Change(schema, apply)

    async def find_schema(self, schema_id: Uuid, *, tenant_id: Uuid | None) -> EventSchema | None:
        return await self._read("find_schema", lambda database: database.policies.find(schema_id, tenant_id))

    async def find_schema_version(
        self, tenant_id: Uuid, event_type: str, *, version: int | None
    ) -> EventSchema | None:
        return await self._read(
            "find_schema_version",
            lambda database: database.policies.find_version(tenant_id, event_type, version),
        )

    async def list_schemas(
        self, tenant_id: Uuid, *, event_type: str | None, after: Uuid | None, limit: int
    ) -> list[EventSchema]:
        return await self._read(
            "list_schemas", lambda database: database.policies.listed(tenant_id, event_type, after, limit)
        )

    async def read_schema_texts(self, schema_ids: list[Uuid]) -> dict[Uuid, str]:
        return await self._read(
            "read_schema_texts",
            lambda database: {
                schema_id: database.policies.schemas[schema_id].schema_json
                for schema_id in schema_ids
                if schema_id in database.policies.schemas
            },
        )

    async def set_policy(
        self,
        tenant_id: Uuid,
        *,
        entity_types: tuple[str, ...] | None,
        schema_mode: SchemaMode | None,
        audit: AuditEntry,
    ) -> TenantPolicy:
        def act(database: MemoryDatabase) -> Change[TenantPolicy]:
            tables = database.policies
            changed = msgspec.structs.replace(
                tables.policy(tenant_id),
                stamp=len(tables.changes) + 1,
                entity_types=entity_types,
                schema_mode=schema_mode,
            )

            def apply() -> None:
                tables.policies[tenant_id] = (entity_types, schema_mode)
                tables.changes.append(tenant_id)
                self._audit(database, audit)

            return Change(changed, apply)

        return await self._write("set_policy", act)

    async def read_policy(self, tenant_id: Uuid) -> TenantPolicy:
        return await self._read("read_policy", lambda database: database.policies.policy(tenant_id))

    async def set_regions(
        self, tenant_id: Uuid, *, regions: tuple[str, ...], audit: AuditEntry
    ) -> TenantPolicy:
        def act(database: MemoryDatabase) -> Change[TenantPolicy]:
            tables = database.policies
            changed = msgspec.structs.replace(
                tables.policy(tenant_id), stamp=len(tables.changes) + 1, regions=regions
            )

            def apply() -> None:
                tables.regions[tenant_id] = regions
                tables.changes.append(tenant_id)
                self._audit(database, audit)

            return Change(changed, apply)

        return await self._write("set_regions", act)

    async def list_pinned(self, *, after: Uuid | None, limit: int) -> list[PinnedTenant]:
        return await self._read("list_pinned", lambda database: database.policies.pinned(after, limit))

    async def policy_changes_since(self, cursor: int | None) -> PolicyChanges:
        return await self._read("policy_changes_since", lambda database: database.policies.since(cursor))

    async def audit(self, entry: AuditEntry) -> None:
        await self._write("audit", lambda database: Change(None, lambda: self._audit(database, entry)))

    # The audit trail.

    async def read_audit_chains(
        self, *, only: Uuid | None = None, after: Uuid | None = None, limit: int
    ) -> list[AuditChain]:
        def chains(database: MemoryDatabase) -> list[AuditChain]:
            nodes = sorted(node for node in database.audit_log if only is None or node == only)
            return [
                memory_audit.chain(database.audit_log, database.audit_commitments, node)
                for node in nodes
                if after is None or node > after
            ][:limit]

        return await self._read("read_audit_chains", chains)

    async def read_audit_chain(self, node_id: Uuid, *, from_number: int, limit: int) -> list[AuditRecord]:
        def entries(database: MemoryDatabase) -> list[AuditRecord]:
            found = memory_audit.records(database.audit_log, node_id)
            return [one for one in found if one.entry_number >= from_number][:limit]

        return await self._read("read_audit_chain", entries)

    async def find_audit_entries(self, wish: AuditWish, *, limit: int) -> list[AuditRecord]:
        return await self._read(
            "find_audit_entries",
            lambda database: memory_audit.newest_first(database.audit_log, wish)[:limit],
        )

    async def commit_audit(self, commitment: AuditCommitment) -> Stored | Moved | Away:
        def act(database: MemoryDatabase) -> Change[Any] | Refused[Any]:
            stored = database.audit_commitments[commitment.node_id]
            last = (stored[-1].entry_end, stored[-1].new_state_root) if stored else (0, ZERO_HASH)
            if last != (commitment.entry_start - 1, commitment.prev_state_root):
                return Refused(Moved("the chain's last commitment"))
            if commitment.entry_end > len(database.audit_log.get(commitment.node_id, ())):
                return Refused(Moved("the chain's head"))
            return Change(Stored(), lambda: stored.append(commitment))

        try:
            return await self._write("commit_audit", act)
        except JournalAway as error:
            return Away(str(error))

    async def list_audit_commitments(
        self, node_id: Uuid, *, from_number: int, limit: int
    ) -> list[AuditCommitment]:
        return await self._read(
            "list_audit_commitments",
            lambda database: [
                one for one in database.audit_commitments.get(node_id, ()) if one.entry_end >= from_number
            ][:limit],
        )

    def vitals(self) -> JournalVitals:
        return JournalVitals()

    # Our own keys.

    async def claim_receipt_key(self, sequencer_id: Uuid, public_key: bytes) -> int:
        def act(database: MemoryDatabase) -> Change[int] | Refused[int]:
            chain = database.receipt_keys[sequencer_id]
            if chain and chain[-1].public_key != public_key:
                raise ReceiptKeyDiffers("the recorded key is another one")
            if chain:
                return Refused(chain[-1].key_version)
            first = ReceiptKey(sequencer_id, 1, public_key, database.now_us(), active=True)

            def apply() -> None:
                chain.append(first)
                self._audit(database, receipt_key_claimed(sequencer_id, public_key))

            return Change(1, apply)

        return await self._write("claim_receipt_key", act)

    async def receipt_keys(self) -> list[ReceiptKey]:
        return await self._read(
            "receipt_keys",
            lambda database: [key for _, chain in sorted(database.receipt_keys.items()) for key in chain],
        )

    async def rotate_receipt_key(self, key: ReceiptKey, audit: AuditEntry) -> ReceiptKey:
        def act(database: MemoryDatabase) -> Change[ReceiptKey] | Refused[ReceiptKey]:
            chain = database.receipt_keys[key.sequencer_id]
            refuse_a_retired_key(chain, key)
            if chain[-1].key_version != key.key_version - 1:
                return Refused(chain[-1])
            new = msgspec.structs.replace(key, created_at_us=database.now_us(), active=True)

            def apply() -> None:
                chain[-1] = msgspec.structs.replace(chain[-1], active=False)
                chain.append(new)
                self._audit(database, audit)

            return Change(new, apply)

        return await self._write("rotate_receipt_key", act)

    async def claim_at_rest_keys(
        self,
        key_ids: list[bytes],
        by_tenant: Mapping[Uuid, list[bytes]] | None = None,
        *,
        current: list[bytes] | None = None,
        required: bool = False,
    ) -> None:
        held = Rings(key_ids, by_tenant or {})

        def act(database: MemoryDatabase) -> Change[None]:
            check_current(current or [], database.retired_at_rest_keys)
            recorded = Rings(database.at_rest_keys, database.tenant_at_rest_keys)
            streams = [*database.heads, *database.legacy.heads]
            with_data = {tenant_id for tenant_id, _ in streams}
            new = new_keys(recorded, held, with_data, database.retired_at_rest_keys)
            if required:
                stored = (event for stream in database.events.values() for event in stream)
                plain = any(not is_frame(event.payload_sealed) for event in stored)
                check_plaintext(["ves_events"] if plain else [])

            def apply() -> None:
                database.at_rest_keys.extend(new.default)
                for tenant_id, key_ids in new.by_tenant.items():
                    database.tenant_at_rest_keys[tenant_id].extend(key_ids)
                for entry in at_rest_keys_claimed(new):
                    self._audit(database, entry)

            return Change(None, apply)

        await self._write("claim_at_rest_keys", act)

    async def retire_at_rest_key(self, key_id: bytes, audit: AuditEntry) -> bool:
        def act(database: MemoryDatabase) -> Change[bool] | Refused[bool]:
            own = (key_id for key_ids in database.tenant_at_rest_keys.values() for key_id in key_ids)
            if key_id not in {*database.at_rest_keys, *own}:
                raise AtRestKeyMissing(f"no node ever had an at-rest key {key_id.hex()}")
            if key_id in database.retired_at_rest_keys:
                return Refused(False)

            def apply() -> None:
                database.retired_at_rest_keys.add(key_id)
                self._audit(database, audit)

            return Change(True, apply)

        return await self._write("retire_at_rest_key", act)

    # Rate limits.

    async def spend_rates(self, spendings: list[RateSpending]) -> dict[bytes, int]:
        def spend(database: MemoryDatabase) -> dict[bytes, int]:
            now_us = database.now_us()
            for one in spendings:
                units, at_us = database.rates.get(one.bucket, (one.burst * RATE_TOKEN, now_us))
                refilled = units + one.per_minute * max(0, now_us - at_us)
                left = min(one.burst * RATE_TOKEN, refilled) - one.tokens * RATE_TOKEN
                database.rates[one.bucket] = (left, max(at_us, now_us))
            return {one.bucket: database.rates[one.bucket][0] for one in spendings}

        return await self._read("spend_rates", spend)

    async def forget_idle_rates(self) -> None:
        def forget(database: MemoryDatabase) -> None:
            since_us = database.now_us() - RATE_REFILL_S_MAX * 1_000_000
            database.rates = {name: one for name, one in database.rates.items() if one[1] >= since_us}

        await self._read("forget_idle_rates", forget)

    # Parts of transactions.

    def _raise_epoch(
        self, database: MemoryDatabase, tenant_id: Uuid, *, keys: int = 0, credentials: int = 0
    ) -> None:
        key_epoch, credential_epoch = database.epochs[tenant_id]
        database.epochs[tenant_id] = (key_epoch + keys, credential_epoch + credentials)


class _LockTimeout(JournalAway):
    pass


def _of_tenant(tenant_id: Uuid) -> Callable[[_Held], bool]:
    return lambda held: held.tenant_id == tenant_id


def _registered(database: MemoryDatabase, key: AgentKey) -> AgentKey:
    return msgspec.structs.replace(key, registered_at_us=database.now_us(), proof=None)


def _keep_proof(database: MemoryDatabase, present: AgentKey | None, key: AgentKey) -> None:
    if key.proof is None or key.proof_of_possession is None:
        return
    if present is None or adds_proof(present, key):
        database.possessions[key.name] = PossessionProof(key.proof_of_possession, key.proof)


def _proven(present: AgentKey, key: AgentKey) -> AgentKey:
    better = key.proof_of_possession if adds_proof(present, key) else present.proof_of_possession
    return msgspec.structs.replace(present, proof_of_possession=better)


def _is_taken(database: MemoryDatabase, key: AgentKey) -> bool:
    return any(
        other.public_key == key.public_key
        and (other.name[:2] != key.name[:2] or other.revoked_at_us is not None)
        for other in database.agent_keys.values()
    )


def _last_sequenced(database: MemoryDatabase, key: AgentKey) -> int:
    tenant_id = key.name.tenant_id
    return max((h.last_sequenced_at_us for s, h in database.heads.items() if s[0] == tenant_id), default=0)


def _is_of(key: ApiKey, tenant_id: Uuid, agent_id: Uuid | None) -> bool:
    return key.tenant_id == tenant_id and key.agent_id == agent_id


def _in_force(key: ApiKey, now_us: int) -> bool:
    return key.revoked_at_us is None and (key.expires_at_us is None or key.expires_at_us > now_us)


def _end_us(key: ApiKey) -> float:
    return min((end for end in (key.revoked_at_us, key.expires_at_us) if end is not None), default=math.inf)


def _must_be_in_force(database: MemoryDatabase, by: Uuid | None) -> None:
    key = None if by is None else database.api_keys.get(by)
    if key is not None and not _in_force(key, database.now_us()):
        raise CredentialEnded("the API key that asked is in force no more")


def _age(key: ApiKey) -> tuple[int, Uuid]:
    return key.created_at_us, key.id


def _newest_first(
    database: MemoryDatabase, tenant_id: Uuid, agent_id: Uuid, store_ids: tuple[Uuid, ...] | None
) -> list[ApiKey]:
    """Those of the agent; with ``store_ids`` only those bound to some of these."""
    keys = [
        key
        for key in database.api_keys.values()
        if _is_of(key, tenant_id, agent_id)
        and (store_ids is None or (key.store_ids is not None and set(key.store_ids) <= set(store_ids)))
    ]
    return sorted(keys, key=_age, reverse=True)


def _heads(database: MemoryDatabase, asked: Group | LegacyGroup | Question) -> dict[Stream, Head]:
    """The counters of the kind of stream that is meant."""
    legacy = asked.legacy if isinstance(asked, Question) else isinstance(asked, LegacyGroup)
    return database.legacy.heads if legacy else database.heads


def _fence(present: dict[Stream, Head], database: MemoryDatabase, like: Fence) -> Fence:
    """What is true now of all that this fence speaks of."""
    heads = {store: present.get((like.tenant_id, store), NEW_STREAM) for store in like.heads}
    return Fence(like.tenant_id, *database.epochs[like.tenant_id], heads)


def _facts(database: MemoryDatabase, question: Question) -> Facts:
    tenant_id = question.tenant_id
    nothing = Fence(tenant_id, 0, 0, dict.fromkeys(question.store_ids, NEW_STREAM))
    ids = frozenset() if question.legacy else question.event_ids
    known = {e: database.by_id[tenant_id, e] for e in ids if (tenant_id, e) in database.by_id}
    commands = database.legacy.commands if question.legacy else database.commands
    keys = {name: database.agent_keys[name] for name in question.keys if name in database.agent_keys}
    return Facts(
        now_us=database.now_us(),
        fence=_fence(_heads(database, question), database, nothing),
        known={event_id: _known(event) for event_id, event in known.items()},
        used_commands=frozenset(c for c in question.commands if (tenant_id, c) in commands),
        entity_versions={
            e: database.versions[tenant_id, e]
            for e in question.entities
            if (tenant_id, e) in database.versions
        },
        keys={name: key.status for name, key in keys.items()},
        revoked_credentials=frozenset(
            one for one in question.credential_ids if _is_revoked(database, tenant_id, one)
        ),
        credential_ends_us={
            c: key.expires_at_us
            for c in question.credential_ids
            if not isinstance(c, IssuedToken)
            and (key := database.api_keys.get(c)) is not None
            and key.expires_at_us is not None
        },
        taken=frozenset(e for e in question.event_ids - ids if (tenant_id, e) in database.legacy.event_ids),
    )


def _is_revoked(database: MemoryDatabase, tenant_id: Uuid, credential_id: CredentialId) -> bool:
    if isinstance(credential_id, IssuedToken):
        return credential_id.issued_at_s <= _revoked_until(database, tenant_id, credential_id.subject)
    return credential_id in database.revocations


def _revoked_until(database: MemoryDatabase, tenant_id: Uuid, subject: Uuid) -> int:
    return max(
        (
            one.revoked_until_s
            for one in database.revocations
            if isinstance(one, TokenRevocation)
            and one.tenant_id == tenant_id
            and one.subject in (subject, tenant_id)
        ),
        default=-1,
    )


def _known(event: StoredEvent) -> KnownEvent:
    return KnownEvent(
        event.store_id,
        event.event_signing_hash,
        event.agent_signature,
        event.command_id,
        event.base_version,
        event.receipt,
    )


def _moved(database: MemoryDatabase, group: Group | LegacyGroup) -> str | None:
    """What of the group's beliefs is no longer true, in the order PostgreSQL finds out."""
    tenant_id = group.fence.tenant_id
    now = _fence(_heads(database, group), database, group.fence)
    commands = database.legacy.commands if isinstance(group, LegacyGroup) else database.commands
    if (now.key_epoch, now.credential_epoch) != (group.fence.key_epoch, group.fence.credential_epoch):
        return "a key or a credential"
    if any(now.heads[s].current_sequence != h.current_sequence for s, h in group.fence.heads.items()):
        return "a stream"
    if any(database.versions.get((tenant_id, step.entity), 0) != step.believed for step in group.versions):
        return "an entity"
    if any((tenant_id, use.command) in commands for use in group.commands):
        return "a command id"
    return None


def _apply(database: MemoryDatabase, group: Group) -> None:
    tenant_id = group.fence.tenant_id
    for step in group.versions:
        database.versions[tenant_id, step.entity] = step.new
    for use in group.commands:
        database.commands[tenant_id, use.command] = use.event_id
    for numbered, sealed in zip(group.numbered, group.sealed, strict=True):
        event = _stored(group, numbered, sealed)
        stream = (tenant_id, numbered.store_id)
        database.events[stream].append(event)
        database.by_id[tenant_id, numbered.event.event_id] = event
        database.heads[stream] = Head(numbered.sequence_number, numbered.sequenced_at_us)


def _apply_legacy(database: MemoryDatabase, group: LegacyGroup) -> None:
    for step in group.versions:
        database.versions[group.fence.tenant_id, step.entity] = step.new
    database.legacy.apply(group)


_FROM_EVENT = sorted(
    set(StoredEvent.__struct_fields__) - {"tenant_id", "store_id", "payload_sealed", "receipt"}
)


def _stored(group: Group, numbered: NumberedEvent, sealed: SealedEvent) -> StoredEvent:
    receipt = Receipt(
        event_id=numbered.event.event_id,
        sequence_number=numbered.sequence_number,
        sequenced_at_us=numbered.sequenced_at_us,
        receipt_hash=sealed.receipt_hash,
        sequencer_id=group.sequencer_id,
        sequencer_key_version=group.sequencer_key_version,
        sequencer_signature=sealed.sequencer_signature,
    )
    return StoredEvent(
        tenant_id=group.fence.tenant_id,
        store_id=numbered.store_id,
        payload_sealed=sealed.payload_sealed,
        receipt=receipt,
        **{name: getattr(numbered.event, name) for name in _FROM_EVENT},
    )


def _page(
    found: list[StoredEvent], from_sequence: int, limit: int, bytes_max: int
) -> tuple[list[StoredEvent], bool, int]:
    """The page, whether there is more, and where it starts."""
    waiting = [event for event in found if event.receipt.sequence_number >= from_sequence]
    page: list[StoredEvent] = []
    size = 0
    for event in waiting[:limit]:
        size += len(event.payload_sealed)
        if page and size > bytes_max:
            break
        page.append(event)
    next_from = page[-1].receipt.sequence_number + 1 if page else from_sequence
    return page, len(page) < len(waiting), next_from


def _legacy_counter(database: MemoryDatabase, tenant_id: Uuid, store_id: Uuid) -> CommitmentCounter:
    head = database.legacy.head(tenant_id, store_id).current_sequence
    return database.legacy_commitments.counter(tenant_id, store_id, head)


def _legacy_state_root(database: MemoryDatabase, tenant_id: Uuid, store_id: Uuid) -> bytes | None:
    """None: too many entities."""
    versions = EntityVersions(tenant_id, store_id)
    found = sorted(
        (name.entity_type, name.entity_id, version)
        for (tenant, name), version in database.versions.items()
        if (tenant, name.store_id) == (tenant_id, store_id)
    )
    for one in found:
        versions.add(*one)
    return versions.state_root() if len(found) <= LEGACY_ENTITIES_MAX else None


def _commitment_counter(database: MemoryDatabase, stream: Stream) -> CommitmentCounter:
    through, root = database.committed.get(stream, (0, ZERO_HASH))
    return CommitmentCounter(through, root, database.heads.get(stream, NEW_STREAM).current_sequence)


def _leaf_sources(database: MemoryDatabase, wanted: StreamRange) -> bytes:
    events = database.events[wanted.tenant_id, wanted.store_id]
    return b"".join(
        u64(e.receipt.sequence_number) + e.event_signing_hash + e.agent_signature
        for e in events[max(0, wanted.sequence_start - 1) : wanted.sequence_end]
    )


_TAKEN = Moved("the batch id is another commitment's")


def _moved_commitment(database: MemoryDatabase, commitment: Commitment) -> Moved | None:
    """Why it cannot be stored."""
    counter = _commitment_counter(database, (commitment.tenant_id, commitment.store_id))
    believed = (commitment.sequence_start - 1, commitment.prev_state_root)
    if (counter.committed_through, counter.state_root) != believed:
        return Moved("the commitment counter")
    if commitment.sequence_end > counter.head_sequence:
        return Moved("the head")
    return _TAKEN if commitment.batch_id in database.commitments else None


def _store_commitment(database: MemoryDatabase, commitment: Commitment, levels: bytes) -> None:
    stream = (commitment.tenant_id, commitment.store_id)
    database.committed[stream] = (commitment.sequence_end, commitment.new_state_root)
    database.commitments[commitment.batch_id] = (commitment, levels)
    database.anchors.expect(commitment)


def _commitment_over(
    database: MemoryDatabase, stream: tuple[Uuid, Uuid], sequence_number: int
) -> Commitment | None:
    held = (c for c in _commitments_of(database, stream) if c.sequence_start <= sequence_number)
    return next((c for c in held if sequence_number <= c.sequence_end), None)


def _nodes_of(database: MemoryDatabase, batch_id: Uuid, positions: list[int]) -> list[bytes]:
    _, levels = database.commitments.get(batch_id, (None, b""))
    if not all(0 <= position < len(levels) // 32 for position in positions):
        raise LookupError("no such commitment, or no such node in it")
    return [levels[32 * position : 32 * position + 32] for position in positions]


def _commitments_of(database: MemoryDatabase, stream: Stream) -> list[Commitment]:
    found = [c for c, _ in database.commitments.values() if (c.tenant_id, c.store_id) == stream]
    return sorted(found, key=lambda c: c.sequence_start)
