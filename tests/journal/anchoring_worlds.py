"""Two anchors on one journal, beside its two nodes, and what they write."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import msgspec
from journal_builders import AUDIT, uuid
from journal_worlds import LIMITS, MemoryWorld, PostgresWorld, World

from journal.anchor_port import (
    Anchor,
    AnchorJournal,
    AnchorState,
    AnchorTransaction,
    AnchorTransition,
    Lease,
    PlannedBatch,
    Standing,
)
from journal.anchors import open_anchor_journal
from journal.embedded_cluster import ANCHOR_LOGIN, APP_LOGIN
from journal.memory import Fault
from journal.memory_anchors import MemoryAnchorJournal
from journal.port import Stored
from ves.anchor_records import Inclusion
from ves.records import Commitment, Uuid

CHAIN = 84532001
CONTRACT, ACCOUNT = b"C" * 20, b"A" * 20
GAS_LIMIT, GAS_USED, PRICE, FEE_MAX = 200_000, 96_000, 7_000_000_000, 30_000_000_000


def anchor_dsn(dsn: str) -> str:
    """The anchor's login on the same database."""
    return dsn.replace(f"{APP_LOGIN}@", f"{ANCHOR_LOGIN}@")


@dataclass
class AnchoringWorld:
    world: World
    anchor: AnchorJournal
    """The one whose connection fails when told to."""
    other: AnchorJournal
    node_id: Uuid
    """Of the first one's audit chain."""
    holder: Uuid = field(default_factory=uuid)

    def fail_next(self, unit: str, fault: Fault) -> None:
        if isinstance(self.anchor, MemoryAnchorJournal):
            self.anchor.fail_next(unit, fault)
        else:
            self.world.fail_next(unit, fault)

    async def claim(self) -> Lease:
        lease = await self.anchor.claim_lease(self.holder, lease_s=60)
        assert isinstance(lease, Lease)
        return lease

    async def standing(self) -> Standing:
        return await self.other.standing(CHAIN, CONTRACT, ACCOUNT)

    async def an_anchor(
        self, commitments: list[Commitment], **other: Any
    ) -> tuple[Anchor, list[PlannedBatch]]:
        """Decided, on what stands, and not stored."""
        standing = await self.standing()
        plain = Anchor(
            anchor_number=standing.next_anchor_number,
            chain_id=CHAIN,
            contract=CONTRACT,
            road="aggregate",
            batch_count=len(commitments),
            root=os.urandom(32),
            first_index=standing.next_index,
            previous_head=standing.head,
        )
        batches = [PlannedBatch(commitment.batch_id, os.urandom(32)) for commitment in commitments]
        return msgspec.structs.replace(plain, **other), batches

    async def planned(self, lease: Lease, commitments: list[Commitment], **other: Any) -> Anchor:
        anchor, batches = await self.an_anchor(commitments, **other)
        assert await self.anchor.plan(lease, anchor, batches) == Stored()
        return anchor

    async def signed(self, lease: Lease, anchor: Anchor | None, **other: Any) -> AnchorTransaction:
        transaction = a_transaction(anchor, nonce=(await self.standing()).next_nonce or 0, **other)
        assert await self.anchor.write_transaction(lease, transaction, AUDIT) == Stored()
        return transaction

    async def moved(
        self,
        lease: Lease,
        transition: AnchorTransition,
        inclusion: Inclusion | None = None,
    ) -> None:
        assert await self.anchor.move(lease, transition, inclusion) == Stored()

    async def finalized(self, lease: Lease, anchor: Anchor) -> AnchorTransaction:
        transaction = await self.signed(lease, anchor)
        for number, state in enumerate(("submitted", "included", "safe", "finalized"), 2):
            await self.moved(lease, a_transition(anchor, number, state, transaction))
        return transaction


def a_transaction(
    anchor: Anchor | None, *, nonce: int = 0, attempt: int = 1, **other: Any
) -> AnchorTransaction:
    plain = AnchorTransaction(
        chain_id=CHAIN,
        address=ACCOUNT,
        nonce=nonce,
        attempt=attempt,
        anchor_number=None if anchor is None else anchor.anchor_number,
        purpose="deploy" if anchor is None else "anchor",
        tx_hash=os.urandom(32),
        raw=os.urandom(120),
        gas_limit=GAS_LIMIT,
        max_fee_per_gas=FEE_MAX,
        max_priority_fee_per_gas=1_000_000_000,
    )
    return msgspec.structs.replace(plain, **other)


def a_transition(
    anchor: Anchor,
    number: int,
    state: AnchorState | str,
    transaction: AnchorTransaction | None = None,
    *,
    block: int = 7,
    cause: str | None = None,
) -> AnchorTransition:
    plain = AnchorTransition(
        anchor.anchor_number,
        number,
        state,  # type: ignore[arg-type]
        cause,
        None if transaction is None else transaction.tx_hash,
    )
    if state in ("pending", "submitted"):
        return plain
    return msgspec.structs.replace(
        plain,
        block_number=block,
        block_hash=bytes([block]) * 32,
        gas_used=GAS_USED,
        effective_gas_price=PRICE,
    )


def an_inclusion(block: int = 7) -> Inclusion:
    return Inclusion(block, bytes([block]) * 32, os.urandom(500), 3, os.urandom(300), [b"one", b"two"])


@asynccontextmanager
async def anchoring_world(world: World) -> AsyncIterator[AnchoringWorld]:
    node_id = uuid()
    if isinstance(world, MemoryWorld):
        first = MemoryAnchorJournal(world.database, node_id=node_id)
        yield AnchoringWorld(world, first, MemoryAnchorJournal(world.database, node_id=uuid()), node_id)
        return
    assert isinstance(world, PostgresWorld)
    async with (
        open_anchor_journal(anchor_dsn(world.proxy.dsn), holder=node_id, limits=LIMITS) as anchor,
        open_anchor_journal(anchor_dsn(world.dsn), holder=uuid(), limits=LIMITS) as other,
    ):
        yield AnchoringWorld(world, anchor, other, node_id)
