"""What the anchor asks of the journal: its own port, on a login of its own that may add anchor rows, read
commitments and little else.

Write-ahead is the rule: a signed transaction is a row before any endpoint sees it, and every write names the
lease it is done under; a deposed anchor writes nothing, and can at worst send bytes again that the journal
knows. States of an anchor, each a new row: pending -> submitted -> included -> safe -> finalized, and back to
pending when a reorganisation took its block or the contract refused it; finalized is the end. PostgreSQL
(``journal.anchors``) and the in-memory fake (``journal.memory_anchors``) pass one contract suite. Amounts are
wei.
"""

from __future__ import annotations

from typing import Literal, Protocol

import msgspec

from journal.port import AuditEntry, Away, Moved, Stored
from ves.anchor_records import Inclusion
from ves.records import Commitment, Uuid

Road = Literal["aggregate", "single"]
"""aggregate: one leaf among many, ``anchorMany``; single: ``anchor``, its roots in the open. A batch goes one
of them, decided before anything is sent."""
AnchorState = Literal["pending", "submitted", "included", "safe", "finalized"]
Purpose = Literal["anchor", "deploy"]

BACKLOG_COUNTED_MAX = 100_000


class Lease(msgspec.Struct, frozen=True):
    """Ours until somebody else claims it, which ``epoch`` tells."""

    holder: Uuid
    epoch: int


class LeaseHeld(msgspec.Struct, frozen=True):
    """Another holder's, which renewed it in time."""

    holder: Uuid
    epoch: int
    held_until_us: int
    """By the database's clock."""
    now_us: int


class Anchor(msgspec.Struct, frozen=True):
    """What one transaction is to put on the chain: decided once, never changed."""

    anchor_number: int
    """1, 2, 3 …, over all contracts."""
    chain_id: int
    contract: bytes
    road: Road
    batch_count: int
    root: bytes
    """Of the aggregate; of the single road the commitment's merkle_root."""
    first_index: int | None
    """Of the aggregate; None on the single road."""
    previous_head: bytes | None
    """Of the aggregate: the contract's head before it (``ves.anchoring.aggregate_head``)."""


class PlannedBatch(msgspec.Struct, frozen=True):
    batch_id: Uuid
    leaf: bytes
    """32 zero bytes on the single road."""


class AnchorTransaction(msgspec.Struct, frozen=True):
    """One signed transaction. Attempts of a nonce replace each other: a block includes at most one."""

    chain_id: int
    address: bytes
    """Whose nonce it is."""
    nonce: int
    attempt: int
    """1, 2, 3 … of this nonce."""
    anchor_number: int | None
    """None: it deploys the contract."""
    purpose: Purpose
    tx_hash: bytes
    raw: bytes
    gas_limit: int
    max_fee_per_gas: int
    max_priority_fee_per_gas: int
    signed_at_us: int = 0
    """By the database's clock; as read, not as written."""


class AnchorTransition(msgspec.Struct, frozen=True):
    """An anchor entered ``state``. ``tx_hash`` has to be there from ``submitted`` on, and names a transaction
    that is on record; all others after it from ``included`` on. Of a ``pending`` row they say what it comes
    from, and, with ``gas_used``, what a refused transaction has cost."""

    anchor_number: int
    transition_number: int
    """1, 2, 3 … of this anchor; whoever comes second with a number stores nothing."""
    state: AnchorState
    cause: str | None = None
    """``planned``; of a way back: ``reorganised``, ``reverted: <reason>``; for people."""
    tx_hash: bytes | None = None
    block_number: int | None = None
    block_hash: bytes | None = None
    gas_used: int | None = None
    effective_gas_price: int | None = None
    at_us: int = 0
    """By the database's clock; as read, not as written."""


class OpenAnchor(msgspec.Struct, frozen=True):
    """An anchor that is not finalized, with all that is known of it."""

    anchor: Anchor
    last: AnchorTransition
    transactions: list[AnchorTransaction]
    """Ordered by (nonce, attempt)."""
    commitment: Commitment | None
    """Of the single road."""


class WaitingBatch(msgspec.Struct, frozen=True):
    """A commitment that no anchor holds."""

    commitment: Commitment
    previous_road: Road | None
    """Of the stream's commitment right before it; None: there is none, or no anchor holds it yet."""
    requested: bool
    """Somebody asked for it to go now."""
    previous_batch_id: Uuid | None = None
    """The stream's commitment right before it; None: it is the first."""
    previous_end: int = 0
    """The last number of that one; 0: it is the first."""
    previous_contract: tuple[int, bytes] | None = None
    """Chain id and contract of the anchor that holds that one."""


class Backlog(msgspec.Struct, frozen=True):
    batches: list[WaitingBatch]
    """Oldest first; requested ones before all others."""
    waiting: int
    """How many there are, up to BACKLOG_COUNTED_MAX."""
    oldest_committed_at_us: int
    """0: none."""
    now_us: int
    """By the database's clock."""


class Standing(msgspec.Struct, frozen=True):
    """Where an account and a contract stand, as the journal knows it."""

    next_nonce: int | None
    """None: no transaction of this account is on record, and it was never resumed."""
    next_index: int
    """Leaves of all aggregates planned for this contract, or what it was resumed at, if that is no less."""
    head: bytes
    """There; 32 zero bytes before the first."""
    next_anchor_number: int
    resumed_nonce: int = 0
    """Where an operator said that the account goes on: what became of nonces below it is not asked again."""


class AnchorJournal(Protocol):
    """Raises JournalAway where nothing happened, JournalOutcomeUnknown where that cannot be told; a restored
    database that nobody has confirmed takes nothing (JournalRefused, or Away). ``Moved``: nothing stored, the
    lease is another's or somebody was there first. ValueError and LookupError speak of a mistake of ours."""

    async def claim_lease(self, holder: Uuid, *, lease_s: float) -> Lease | LeaseHeld:
        """Free, run out or ours already: claimed under the next epoch. So two lives never share a lease, if
        each has a ``holder`` of its own."""
        ...

    async def renew_lease(self, lease: Lease, *, lease_s: float) -> bool:
        """False: it is another's now."""
        ...

    async def release_lease(self, lease: Lease) -> None:
        """The next one need not wait for it to run out. Nothing happens when it is another's."""
        ...

    async def standing(self, chain_id: int, contract: bytes, address: bytes) -> Standing: ...

    async def read_open(self, chain_id: int, contract: bytes, *, limit: int) -> list[OpenAnchor]:
        """Not finalized, by number."""
        ...

    async def read_newest_finalized(self, chain_id: int, contract: bytes) -> AnchorTransition | None:
        """How the anchor with the greatest number among the finalized ones became so."""
        ...

    async def read_transactions(
        self, chain_id: int, address: bytes, *, from_nonce: int, limit: int
    ) -> list[AnchorTransaction]:
        """All of this account from a nonce on, also those that deploy, by (nonce, attempt)."""
        ...

    async def refill_backlog(self) -> int:
        """Puts into the backlog what no anchor and no report holds and is not in it; answers how many. Makes
        the list of open anchors and the sums anew, too. Reads all commitments: once a life, and whoever does
        without (it may take longer than its deadline) misses nothing that was stored since the migration."""
        ...

    async def read_backlog(self, *, limit: int) -> Backlog: ...

    async def plan(self, lease: Lease, anchor: Anchor, batches: list[PlannedBatch]) -> Stored | Moved | Away:
        """The anchor, its batches in order, and its first transition (pending, ``planned``); they leave the
        backlog and the requests. Moved when one of them is taken meanwhile, or when the number, or the index
        and the head of an aggregate, are not those of ``standing``. LookupError for an unknown batch."""
        ...

    async def write_transaction(
        self, lease: Lease, transaction: AnchorTransaction, audit: AuditEntry
    ) -> Stored | Moved | Away:
        """Write-ahead: before it is sent. ``audit`` tells of the use of the key, in the same transaction.
        Moved when this attempt, or this nonce without one, is on record. ValueError for a nonce or an attempt
        that leaves a gap, and for an attempt that carries another anchor than the one it replaces."""
        ...

    async def move(
        self, lease: Lease, transition: AnchorTransition, inclusion: Inclusion | None = None
    ) -> Stored | Moved | Away:
        """``inclusion``: the proof that goes with a block, from ``included`` on; kept once per block. Moved
        when the number is not the next one of this anchor, or the anchor is finalized."""
        ...

    async def spent_since(self, chain_id: int, address: bytes, since_us: int) -> int:
        """Wei, over the nonces signed for since then: what a mined transaction has cost, and the most that
        any attempt may of the others, those among them whose block is gone again. Of what deploys always the
        most: nobody records what it cost."""
        ...

    async def resume(
        self,
        lease: Lease,
        *,
        chain_id: int,
        contract: bytes,
        address: bytes,
        standing: Standing,
        reason: str,
        audit: AuditEntry,
    ) -> Stored | Moved | Away:
        """An operator's word: go on from this nonce, index and head, which are the chain's, although the
        journal does not know how they came about (a restored database, an account used by others). Only
        forward: ValueError for less than what stands, and without a nonce. ``standing.next_anchor_number`` is
        not looked at."""
        ...

    async def audit(self, entry: AuditEntry) -> None: ...
