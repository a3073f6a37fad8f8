"""The anchor's journal while it holds the lease: every write names it, and says so when it is lost.

It alone turns "moved" into the end of a tenure. Renewing is not what keeps two anchors apart, the journal's
fence is; it only keeps others waiting for as long as this one works.
"""

from __future__ import annotations

import trio

from journal.anchor_port import (
    Anchor,
    AnchorJournal,
    AnchorTransaction,
    AnchorTransition,
    Lease,
    PlannedBatch,
)
from journal.port import AuditEntry, Away, JournalAway, Moved, Stored
from ves.anchor_records import Inclusion

RELEASE_S = 2.0


class Deposed(Exception):
    """The lease is another's, or somebody wrote first: nothing of this tenure counts any more. Claim, and
    read everything again."""


class LeasedJournal:
    def __init__(self, journal: AnchorJournal, lease: Lease, *, lease_s: float) -> None:
        self._journal = journal
        self._lease = lease
        self._lease_s = lease_s
        self._renew_at = trio.current_time() + lease_s / 3

    async def keep(self) -> None:
        """Asked before everything that may take a while. Raises Deposed."""
        now = trio.current_time()
        if now < self._renew_at:
            return
        if not await self._journal.renew_lease(self._lease, lease_s=self._lease_s):
            raise Deposed("another anchor holds the lease")
        self._renew_at = now + self._lease_s / 3

    async def release(self) -> None:
        """Tried; it runs out by itself."""
        with trio.move_on_after(RELEASE_S):
            try:
                await self._journal.release_lease(self._lease)
            except JournalAway:
                return

    async def plan(self, anchor: Anchor, batches: list[PlannedBatch]) -> None:
        _stored(await self._journal.plan(self._lease, anchor, batches))

    async def write_transaction(self, transaction: AnchorTransaction, audit: AuditEntry) -> None:
        _stored(await self._journal.write_transaction(self._lease, transaction, audit))

    async def move(self, transition: AnchorTransition, inclusion: Inclusion | None = None) -> None:
        _stored(await self._journal.move(self._lease, transition, inclusion))

    async def spent_since(self, chain_id: int, address: bytes, since_us: int) -> int:
        return await self._journal.spent_since(chain_id, address, since_us)


def _stored(outcome: Stored | Moved | Away) -> None:
    """It is stored, or an exception says what is so instead."""
    if isinstance(outcome, Away):
        raise JournalAway(outcome.why)
    if isinstance(outcome, Moved):
        raise Deposed(outcome.what)
