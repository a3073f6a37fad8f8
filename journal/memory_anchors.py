"""The anchor's port in memory, beside the journal in memory whose commitments it anchors: for simulation."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec

from journal.anchor_port import (
    Anchor,
    AnchorTransaction,
    AnchorTransition,
    Backlog,
    Lease,
    LeaseHeld,
    OpenAnchor,
    PlannedBatch,
    Standing,
    WaitingBatch,
)
from journal.anchor_rules import (
    PLANNED,
    check_plan,
    check_resumption,
    check_transition,
    plan_moved,
    standing_after,
    transaction_moved,
    transition_moved,
)
from journal.memory import Change, MemoryDatabase, MemoryNode, Refused
from journal.memory_anchor_tables import AnchorTables, HeldLease, KeptResumption
from journal.port import AuditEntry, Away, JournalAway, Moved, Stored
from ves.anchor_records import Inclusion
from ves.records import Commitment, Uuid

_Checked = Callable[[], None] | Moved
"""What would be done, or why not."""


class MemoryAnchorJournal(MemoryNode):
    """See ``journal.anchor_port.AnchorJournal`` for what each method promises."""

    async def _fenced(
        self, unit: str, lease: Lease, act: Callable[[MemoryDatabase], _Checked]
    ) -> Stored | Moved | Away:
        def under_the_lease(database: MemoryDatabase) -> Change[Any] | Refused[Any]:
            held = database.anchors.lease
            if held is None or (held.holder, held.epoch) != (lease.holder, lease.epoch):
                return Refused(Moved("the lease"))
            checked = act(database)
            return Refused(checked) if isinstance(checked, Moved) else Change(Stored(), checked)

        try:
            self._checkpoint(f"{unit}.begin")
            return await self._write(unit, under_the_lease)
        except JournalAway as error:
            return Away(str(error))

    # The lease.

    async def claim_lease(self, holder: Uuid, *, lease_s: float) -> Lease | LeaseHeld:
        def act(database: MemoryDatabase) -> Change[Any] | Refused[Any]:
            held, now_us = database.anchors.lease, database.now_us()
            if held is not None and held.holder != holder and held.held_until_us > now_us:
                return Refused(LeaseHeld(held.holder, held.epoch, held.held_until_us, now_us))
            epoch = 1 if held is None else held.epoch + 1
            until_us = now_us + round(lease_s * 1_000_000)

            def apply() -> None:
                database.anchors.lease = HeldLease(holder, epoch, until_us)

            return Change(Lease(holder, epoch), apply)

        return await self._write("anchor_lease", act)

    async def renew_lease(self, lease: Lease, *, lease_s: float) -> bool:
        def act(database: MemoryDatabase) -> Change[Any] | Refused[Any]:
            held = database.anchors.lease
            if held is None or (held.holder, held.epoch) != (lease.holder, lease.epoch):
                return Refused(False)
            until_us = database.now_us() + round(lease_s * 1_000_000)
            return Change(True, lambda: setattr(held, "held_until_us", until_us))

        return await self._write("anchor_lease", act)

    async def release_lease(self, lease: Lease) -> None:
        await self.renew_lease(lease, lease_s=0)

    # Reading.

    async def standing(self, chain_id: int, contract: bytes, address: bytes) -> Standing:
        return await self._read(
            "standing", lambda database: _standing(database.anchors, chain_id, contract, address)
        )

    async def read_open(self, chain_id: int, contract: bytes, *, limit: int) -> list[OpenAnchor]:
        def found(database: MemoryDatabase) -> list[OpenAnchor]:
            tables = database.anchors
            anchors = [a for a in tables.open_anchors() if (a.chain_id, a.contract) == (chain_id, contract)]
            return [_open(tables, anchor) for anchor in anchors[:limit]]

        return await self._read("read_open", found)

    async def read_newest_finalized(self, chain_id: int, contract: bytes) -> AnchorTransition | None:
        def newest(database: MemoryDatabase) -> AnchorTransition | None:
            tables = database.anchors
            here = [n for n, a in tables.anchors.items() if (a.chain_id, a.contract) == (chain_id, contract)]
            ended = [number for number in here if tables.last(number).state == "finalized"]
            return tables.last(max(ended)) if ended else None

        return await self._read("read_newest_finalized", newest)

    async def read_transactions(
        self, chain_id: int, address: bytes, *, from_nonce: int, limit: int
    ) -> list[AnchorTransaction]:
        def found(database: MemoryDatabase) -> list[AnchorTransaction]:
            return [t for t in _of(database.anchors, chain_id, address) if t.nonce >= from_nonce][:limit]

        return await self._read("read_transactions", found)

    async def read_backlog(self, *, limit: int) -> Backlog:
        def backlog(database: MemoryDatabase) -> Backlog:
            tables = database.anchors
            waiting = tables.waiting()
            first = sorted(waiting, key=lambda commitment: commitment.batch_id not in tables.requests)
            oldest_us = waiting[0].committed_at_us if waiting else 0
            batches = [_waiting(tables, commitment) for commitment in first[:limit]]
            return Backlog(batches, len(waiting), oldest_us, database.now_us())

        return await self._read("read_backlog", backlog)

    async def spent_since(self, chain_id: int, address: bytes, since_us: int) -> int:
        return await self._read(
            "spent_since", lambda database: _spent(database.anchors, chain_id, address, since_us)
        )

    # Writing.

    async def refill_backlog(self) -> int:
        """Nothing: here it is always looked for among all."""
        return await self._write("anchor_refill", lambda database: Change(0, lambda: None))

    async def plan(self, lease: Lease, anchor: Anchor, batches: list[PlannedBatch]) -> Stored | Moved | Away:
        check_plan(anchor, batches)

        def act(database: MemoryDatabase) -> _Checked:
            tables = database.anchors
            moved = plan_moved(anchor, _standing(tables, anchor.chain_id, anchor.contract, bytes(20)))
            if moved is not None:
                return Moved(moved)
            if any(tables.known(batch.batch_id) is not None for batch in batches):
                return Moved("a batch")

            def apply() -> None:
                number = anchor.anchor_number
                tables.anchors[number] = anchor
                tables.batches[number] = batches
                for position, batch in enumerate(batches):
                    tables.places[batch.batch_id] = (number, position)
                    tables.requests.discard(batch.batch_id)
                first = AnchorTransition(number, 1, "pending", PLANNED, at_us=database.now_us())
                tables.transitions[number].append(first)

            return apply

        return await self._fenced("anchor_plan", lease, act)

    async def write_transaction(
        self, lease: Lease, transaction: AnchorTransaction, audit: AuditEntry
    ) -> Stored | Moved | Away:
        def act(database: MemoryDatabase) -> _Checked:
            tables = database.anchors
            account = _of(tables, transaction.chain_id, transaction.address)
            last = next((t for t in reversed(account) if t.nonce == transaction.nonce), None)
            nonces = _next_nonces(tables, transaction.chain_id, transaction.address)
            moved = transaction_moved(transaction, last, max(nonces, default=None))
            if moved is None and any(t.tx_hash == transaction.tx_hash for t in tables.transactions):
                moved = "the transaction"
            if moved is not None:
                return Moved(moved)
            if transaction.anchor_number not in (None, *tables.anchors):
                raise LookupError("no such anchor")

            def apply() -> None:
                signed = msgspec.structs.replace(transaction, signed_at_us=database.now_us())
                tables.transactions.append(signed)
                self._audit(database, audit)

            return apply

        return await self._fenced("anchor_transaction", lease, act)

    async def move(
        self, lease: Lease, transition: AnchorTransition, inclusion: Inclusion | None = None
    ) -> Stored | Moved | Away:
        check_transition(transition, inclusion)

        def act(database: MemoryDatabase) -> _Checked:
            tables, number = database.anchors, transition.anchor_number
            if number not in tables.anchors:
                raise LookupError("no such anchor")
            moved = transition_moved(transition, tables.last(number))
            if moved is not None:
                return Moved(moved)
            if transition.tx_hash not in (None, *(t.tx_hash for t in tables.transactions)):
                raise LookupError("no such transaction")

            def apply() -> None:
                entered = msgspec.structs.replace(transition, at_us=database.now_us())
                tables.transitions[number].append(entered)
                if inclusion is not None:
                    tables.inclusions.setdefault((number, inclusion.block_hash), inclusion)

            return apply

        return await self._fenced("anchor_move", lease, act)

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
        def act(database: MemoryDatabase) -> _Checked:
            check_resumption(_standing(database.anchors, chain_id, contract, address), standing)
            kept = KeptResumption(chain_id, contract, address, standing)

            def apply() -> None:
                database.anchors.resumptions.append(kept)
                self._audit(database, audit)

            return apply

        return await self._fenced("anchor_resume", lease, act)

    async def audit(self, entry: AuditEntry) -> None:
        await self._write("anchor_audit", lambda database: Change(None, lambda: self._audit(database, entry)))


def _of(tables: AnchorTables, chain_id: int, address: bytes) -> list[AnchorTransaction]:
    found = [t for t in tables.transactions if (t.chain_id, t.address) == (chain_id, address)]
    return sorted(found, key=lambda transaction: (transaction.nonce, transaction.attempt))


def _next_nonces(tables: AnchorTables, chain_id: int, address: bytes) -> list[int]:
    used = [t.nonce + 1 for t in _of(tables, chain_id, address)]
    return used + _resumed_nonces(tables, chain_id, address)


def _resumed_nonces(tables: AnchorTables, chain_id: int, address: bytes) -> list[int]:
    return [
        kept.standing.next_nonce
        for kept in tables.resumptions
        if (kept.chain_id, kept.address) == (chain_id, address) and kept.standing.next_nonce is not None
    ]


def _standing(tables: AnchorTables, chain_id: int, contract: bytes, address: bytes) -> Standing:
    here = (chain_id, contract)
    aggregates = [
        a for a in tables.anchors.values() if (a.chain_id, a.contract, a.road) == (*here, "aggregate")
    ]
    resumed = [kept.standing for kept in tables.resumptions if (kept.chain_id, kept.contract) == here]
    # Of several with the same index the last one counts.
    farthest = max(reversed(resumed), key=lambda standing: standing.next_index, default=None)
    return standing_after(
        next_nonces=_next_nonces(tables, chain_id, address),
        last_aggregate=max(aggregates, key=lambda a: a.first_index or 0, default=None),
        resumed_index=None if farthest is None else farthest.next_index,
        resumed_head=b"" if farthest is None else farthest.head,
        anchors=len(tables.anchors),
        resumed_nonce=max(_resumed_nonces(tables, chain_id, address), default=None),
    )


def _open(tables: AnchorTables, anchor: Anchor) -> OpenAnchor:
    number = anchor.anchor_number
    theirs = _of_anchor(tables, number)
    commitment = None
    if anchor.road == "single":
        commitment = tables.commitments[tables.batches[number][0].batch_id]
    return OpenAnchor(anchor, tables.last(number), theirs, commitment)


def _of_anchor(tables: AnchorTables, number: int) -> list[AnchorTransaction]:
    found = [t for t in tables.transactions if t.anchor_number == number]
    return sorted(found, key=lambda transaction: (transaction.nonce, transaction.attempt))


def _waiting(tables: AnchorTables, commitment: Commitment) -> WaitingBatch:
    before = [
        one
        for one in tables.commitments.values()
        if (one.tenant_id, one.store_id) == (commitment.tenant_id, commitment.store_id)
        and one.sequence_start < commitment.sequence_start
    ]
    previous = max(before, key=lambda one: one.sequence_start, default=None)
    place = None if previous is None else tables.places.get(previous.batch_id)
    anchor = None if place is None else tables.anchors[place[0]]
    return WaitingBatch(
        commitment,
        None if anchor is None else anchor.road,
        commitment.batch_id in tables.requests,
        None if previous is None else previous.batch_id,
        0 if previous is None else previous.sequence_end,
        None if anchor is None else (anchor.chain_id, anchor.contract),
    )


def _spent(tables: AnchorTables, chain_id: int, address: bytes, since_us: int) -> int:
    account = _of(tables, chain_id, address)
    spent = 0
    for nonce in {t.nonce for t in account if t.signed_at_us >= since_us}:
        attempts = [t for t in account if t.nonce == nonce]
        hashes = {t.tx_hash for t in attempts}
        rows = tables.transitions.get(attempts[0].anchor_number or 0, ())
        last = next((row for row in reversed(rows) if row.tx_hash in hashes), None)
        if last is None or last.gas_used is None or last.effective_gas_price is None:
            spent += max(t.gas_limit * t.max_fee_per_gas for t in attempts)
        else:
            spent += last.gas_used * last.effective_gas_price
    return spent
