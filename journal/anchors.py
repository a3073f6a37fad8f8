"""The anchor's port on PostgreSQL, on a login of its own: what ``journal.anchor_port`` promises, as units.

Every write names the lease it is done under, and the first thing it does is to lock that lease's row: whoever
claims the lease waits until the write is over, and a deposed anchor finds no row and writes nothing. Planning
takes the one lock under which a report is taken, too. Knows no chain.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, TypeVar

import asyncpg

from journal import anchor_reads
from journal.aio import cross
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
)
from journal.anchor_rules import (
    PLANNED,
    check_plan,
    check_resumption,
    check_transition,
    plan_moved,
    transaction_moved,
    transition_moved,
)
from journal.audit import write_audit
from journal.connections import Limits
from journal.locks import begin_anchoring
from journal.migrate import check_schema
from journal.pools import open_units
from journal.port import AuditEntry, Away, JournalAway, Moved, Stored
from journal.privileges import refuse_as_anchor
from journal.restorations import UNCONFIRMED, pending
from journal.units import Checkpoint, Contended, Undo, Units
from ves.anchor_records import Inclusion
from ves.records import Uuid

if TYPE_CHECKING:
    from journal.connections import Connection

T = TypeVar("T")

CONNECTIONS_MAX = 2

_CLAIM = """
INSERT INTO record.anchor_leases AS l (holder, lease_epoch, held_until)
VALUES ($1, 1, clock_timestamp() + make_interval(secs => $2))
ON CONFLICT (single_row) DO UPDATE SET holder = EXCLUDED.holder, lease_epoch = l.lease_epoch + 1,
    held_until = EXCLUDED.held_until
WHERE l.held_until <= clock_timestamp() OR l.holder = EXCLUDED.holder
RETURNING lease_epoch
"""
_RENEW = """
UPDATE record.anchor_leases SET held_until = clock_timestamp() + make_interval(secs => $3)
WHERE holder = $1 AND lease_epoch = $2
"""
_FENCE = "SELECT true FROM record.anchor_leases WHERE holder = $1 AND lease_epoch = $2 FOR UPDATE"

_PLAN = """
INSERT INTO record.anchors (anchor_number, chain_id, contract, road, batch_count, root, first_index,
    previous_head, planned_at, lease_epoch, event_count, oldest_committed_at)
SELECT $1, $2, $3, $4, $5::int, $6, $7, $8, clock_timestamp(), $9, sum(leaf_count), min(committed_at)
FROM record.ves_commitments WHERE batch_id = ANY ($10) HAVING count(*) = $5::int
"""
_PLAN_BATCHES = """
INSERT INTO record.anchor_batches (batch_id, anchor_number, position, leaf)
SELECT b.batch_id, $1, b.position - 1, b.leaf
FROM unnest($2::uuid[], $3::bytea[]) WITH ORDINALITY AS b (batch_id, leaf, position)
"""
_TRANSACTION = """
INSERT INTO record.anchor_transactions (chain_id, address, nonce, attempt, anchor_number, purpose, tx_hash,
    raw, gas_limit, max_fee_per_gas, max_priority_fee_per_gas, signed_at, lease_epoch)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, clock_timestamp(), $12)
"""
_TRANSITION = """
INSERT INTO record.anchor_transitions (anchor_number, transition_number, state, cause, tx_hash, block_number,
    block_hash, gas_used, effective_gas_price, at, lease_epoch)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, clock_timestamp(), $10)
"""
_INCLUSION = """
INSERT INTO record.anchor_inclusions (anchor_number, block_hash, tx_hash, block_number, block_header,
    transaction_index, receipt, proof)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8) ON CONFLICT DO NOTHING
"""
_RESUMPTION = """
INSERT INTO record.anchor_resumptions (resumption_number, chain_id, contract, address, next_nonce, next_index,
    head, resumed_at, reason)
SELECT coalesce(max(resumption_number), 0) + 1, $1, $2, $3, $4, $5, $6, clock_timestamp(), $7
FROM record.anchor_resumptions
"""

_TAKEN = """EXISTS (SELECT FROM record.anchor_batches b WHERE b.batch_id = c.batch_id)
    OR EXISTS (SELECT FROM record.anchor_reports r WHERE r.batch_id = c.batch_id)"""
_REFILL = (
    "DELETE FROM work.anchor_backlog w WHERE NOT EXISTS (SELECT FROM record.ves_commitments c "
    "WHERE c.batch_id = w.batch_id)",
    f"DELETE FROM work.anchor_backlog c WHERE {_TAKEN}",  # noqa: S608  texts of this module only
    f"DELETE FROM work.anchor_requests c WHERE {_TAKEN}",  # noqa: S608
    "DELETE FROM work.open_anchors o WHERE EXISTS (SELECT FROM record.anchor_transitions t "
    "WHERE t.anchor_number = o.anchor_number AND t.state = 'finalized')",
    "INSERT INTO work.open_anchors SELECT a.anchor_number FROM record.anchors a WHERE NOT EXISTS (SELECT "
    "FROM record.anchor_transitions t WHERE t.anchor_number = a.anchor_number AND t.state = 'finalized') "
    "ON CONFLICT DO NOTHING",
    "INSERT INTO work.anchor_totals (single_row, batches, events, gas_used, cost_wei) "
    "SELECT true, coalesce(sum(a.batch_count), 0), coalesce(sum(a.event_count), 0), "
    "coalesce(sum(t.gas_used), 0), coalesce(sum(t.gas_used::numeric * t.effective_gas_price), 0) "
    "FROM record.anchor_transitions t JOIN record.anchors a USING (anchor_number) "
    "WHERE t.state = 'finalized' ON CONFLICT (single_row) DO UPDATE SET batches = EXCLUDED.batches, "
    "events = EXCLUDED.events, gas_used = EXCLUDED.gas_used, cost_wei = EXCLUDED.cost_wei",
)
_REFILL_BACKLOG = f"""
INSERT INTO work.anchor_backlog (batch_id, committed_at, tenant_id, store_id, sequence_start)
SELECT c.batch_id, c.committed_at, c.tenant_id, c.store_id, c.sequence_start FROM record.ves_commitments c
WHERE NOT ({_TAKEN}) AND NOT EXISTS (SELECT FROM work.anchor_backlog w WHERE w.batch_id = c.batch_id)
ON CONFLICT DO NOTHING
"""  # noqa: S608  texts of this module only


@asynccontextmanager
async def open_anchor_journal(
    dsn: str,
    *,
    holder: Uuid,
    limits: Limits | None = None,
    checkpoint: Checkpoint = lambda name: None,
) -> AsyncIterator[PostgresAnchorJournal]:
    """Inside ``journal.aio.open_loop`` only. ``dsn``: the anchor's own login, which is looked at on every new
    connection. ``holder`` names the audit chain we write. ``checkpoint`` is called at each unit's ``.begin``,
    ``.commit_sent_before`` and ``.committed``. Raises JournalRefused, JournalAway, SchemaMismatch."""
    async with open_units(
        dsn,
        limits=limits or Limits(connections_max=CONNECTIONS_MAX),
        checkpoint=checkpoint,
        application_name="sequencer anchor",
        check=refuse_as_anchor,
    ) as units:
        journal = PostgresAnchorJournal(units, holder)
        await journal.check_fitness()
        yield journal


class PostgresAnchorJournal:
    """See ``journal.anchor_port.AnchorJournal`` for what each method promises."""

    def __init__(self, units: Units, node_id: Uuid) -> None:
        self._units = units
        self._node_id = node_id

    async def check_fitness(self) -> None:
        """Raises SchemaMismatch when this database may not be used."""
        await self._read(check_schema)

    async def _read(self, act: Callable[[Connection], Awaitable[T]]) -> T:
        return await cross(lambda: self._units.read(act))

    async def _write(self, named: str, act: Callable[[Connection], Awaitable[T]]) -> T:
        return await cross(lambda: self._units.write(act, named=named))

    async def _fenced(
        self,
        named: str,
        lease: Lease,
        act: Callable[[Connection], Awaitable[None]],
        *,
        begin: str = "BEGIN",
    ) -> Stored | Moved | Away:
        async def under_the_lease(connection: Connection) -> Stored | Moved | Away:
            if not await connection.fetchval(_FENCE, lease.holder, lease.epoch):
                raise Undo(Moved("the lease"))
            await act(connection)
            return Stored()

        try:
            return await cross(lambda: self._units.write(under_the_lease, begin=begin, named=named))
        except (Contended, asyncpg.UniqueViolationError) as error:
            return Moved(f"{type(error).__name__}: somebody was there first")
        except asyncpg.ForeignKeyViolationError as error:
            raise LookupError("this names something that is not on record") from error
        except JournalAway as error:
            return Away(str(error))

    # The lease, by the database's clock.

    async def claim_lease(self, holder: Uuid, *, lease_s: float) -> Lease | LeaseHeld:
        await self._rest_until_confirmed()
        return await self._write("anchor_lease", lambda c: _claim(c, holder, lease_s))

    async def _rest_until_confirmed(self) -> None:
        """Looked at with each claim: whoever waits for the confirmation of a restoration goes on after it."""
        waits = await self._read(pending) is not None
        self._units.condition.resting = UNCONFIRMED if waits else None

    async def renew_lease(self, lease: Lease, *, lease_s: float) -> bool:
        return await self._write("anchor_lease", lambda c: _renew(c, lease, lease_s))

    async def release_lease(self, lease: Lease) -> None:
        await self._write("anchor_lease", lambda c: _renew(c, lease, 0.0))

    # Reading.

    async def standing(self, chain_id: int, contract: bytes, address: bytes) -> Standing:
        return await self._read(lambda c: anchor_reads.standing(c, chain_id, contract, address))

    async def read_open(self, chain_id: int, contract: bytes, *, limit: int) -> list[OpenAnchor]:
        return await self._read(lambda c: anchor_reads.read_open(c, chain_id, contract, limit))

    async def read_newest_finalized(self, chain_id: int, contract: bytes) -> AnchorTransition | None:
        return await self._read(lambda c: anchor_reads.read_newest_finalized(c, chain_id, contract))

    async def read_transactions(
        self, chain_id: int, address: bytes, *, from_nonce: int, limit: int
    ) -> list[AnchorTransaction]:
        return await self._read(
            lambda c: anchor_reads.read_transactions(c, chain_id, address, from_nonce, limit)
        )

    async def read_backlog(self, *, limit: int) -> Backlog:
        return await self._read(lambda c: anchor_reads.read_backlog(c, limit))

    async def spent_since(self, chain_id: int, address: bytes, since_us: int) -> int:
        return await self._read(lambda c: anchor_reads.spent_since(c, chain_id, address, since_us))

    # Writing.

    async def refill_backlog(self) -> int:
        return await cross(lambda: self._units.write(_refill, begin=begin_anchoring(), named="anchor_refill"))

    async def plan(self, lease: Lease, anchor: Anchor, batches: list[PlannedBatch]) -> Stored | Moved | Away:
        check_plan(anchor, batches)
        return await self._fenced(
            "anchor_plan", lease, lambda c: _plan(c, lease, anchor, batches), begin=begin_anchoring()
        )

    async def write_transaction(
        self, lease: Lease, transaction: AnchorTransaction, audit: AuditEntry
    ) -> Stored | Moved | Away:
        async def act(connection: Connection) -> None:
            await _sign(connection, lease, transaction)
            await write_audit(connection, self._node_id, audit)

        return await self._fenced("anchor_transaction", lease, act)

    async def move(
        self, lease: Lease, transition: AnchorTransition, inclusion: Inclusion | None = None
    ) -> Stored | Moved | Away:
        check_transition(transition, inclusion)
        return await self._fenced("anchor_move", lease, lambda c: _move(c, lease, transition, inclusion))

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
        async def act(connection: Connection) -> None:
            present = await anchor_reads.standing(connection, chain_id, contract, address)
            check_resumption(present, standing)
            wanted = (standing.next_nonce, standing.next_index, standing.head)
            await connection.execute(_RESUMPTION, chain_id, contract, address, *wanted, reason)
            await write_audit(connection, self._node_id, audit)

        return await self._fenced("anchor_resume", lease, act)

    async def audit(self, entry: AuditEntry) -> None:
        await self._write("anchor_audit", lambda c: write_audit(c, self._node_id, entry))


async def _claim(connection: Connection, holder: Uuid, lease_s: float) -> Lease | LeaseHeld:
    epoch = await connection.fetchval(_CLAIM, holder, lease_s)
    if epoch is not None:
        return Lease(holder, epoch)
    row = await connection.fetchrow(
        "SELECT holder, lease_epoch, held_until, clock_timestamp() FROM record.anchor_leases"
    )
    assert row is not None, "it is another's, and stays for ever"
    raise Undo(LeaseHeld(*row))


async def _renew(connection: Connection, lease: Lease, lease_s: float) -> bool:
    done = await connection.execute(_RENEW, lease.holder, lease.epoch, lease_s)
    if done != "UPDATE 1":
        raise Undo(False)
    return True


async def _plan(connection: Connection, lease: Lease, anchor: Anchor, batches: list[PlannedBatch]) -> None:
    ids = [batch.batch_id for batch in batches]
    standing = await anchor_reads.standing(connection, anchor.chain_id, anchor.contract, bytes(20))
    moved = plan_moved(anchor, standing)
    if moved is not None:
        raise Undo(Moved(moved))
    if await connection.fetchval(
        "SELECT true FROM record.anchor_reports WHERE batch_id = ANY ($1) LIMIT 1", ids
    ):
        raise Undo(Moved("a batch: it is reported"))
    done = await connection.execute(
        _PLAN,
        anchor.anchor_number,
        anchor.chain_id,
        anchor.contract,
        anchor.road,
        anchor.batch_count,
        anchor.root,
        anchor.first_index,
        anchor.previous_head,
        lease.epoch,
        ids,
    )
    if done != "INSERT 0 1":
        raise LookupError("no such commitment")
    await connection.execute(_PLAN_BATCHES, anchor.anchor_number, ids, [batch.leaf for batch in batches])
    await connection.execute("DELETE FROM work.anchor_backlog WHERE batch_id = ANY ($1)", ids)
    await connection.execute("DELETE FROM work.anchor_requests WHERE batch_id = ANY ($1)", ids)
    await _enter(connection, lease, AnchorTransition(anchor.anchor_number, 1, "pending", PLANNED))


async def _sign(connection: Connection, lease: Lease, transaction: AnchorTransaction) -> None:
    account = (transaction.chain_id, transaction.address)
    last = await anchor_reads.last_attempt(connection, *account, transaction.nonce)
    next_nonce = await anchor_reads.next_nonce(connection, *account)
    moved = transaction_moved(transaction, last, next_nonce)
    if moved is not None:
        raise Undo(Moved(moved))
    await connection.execute(
        _TRANSACTION,
        *account,
        transaction.nonce,
        transaction.attempt,
        transaction.anchor_number,
        transaction.purpose,
        transaction.tx_hash,
        transaction.raw,
        transaction.gas_limit,
        transaction.max_fee_per_gas,
        transaction.max_priority_fee_per_gas,
        lease.epoch,
    )


async def _move(
    connection: Connection, lease: Lease, transition: AnchorTransition, inclusion: Inclusion | None
) -> None:
    last = await anchor_reads.last_transition(connection, transition.anchor_number)
    if last is None:
        raise LookupError("no such anchor")
    moved = transition_moved(transition, last)
    if moved is not None:
        raise Undo(Moved(moved))
    await _enter(connection, lease, transition)
    if inclusion is not None:
        await connection.execute(
            _INCLUSION,
            transition.anchor_number,
            inclusion.block_hash,
            transition.tx_hash,
            inclusion.block_number,
            inclusion.block_header,
            inclusion.transaction_index,
            inclusion.receipt,
            inclusion.proof,
        )


async def _enter(connection: Connection, lease: Lease, transition: AnchorTransition) -> None:
    await connection.execute(
        _TRANSITION,
        transition.anchor_number,
        transition.transition_number,
        transition.state,
        transition.cause,
        transition.tx_hash,
        transition.block_number,
        transition.block_hash,
        transition.gas_used,
        transition.effective_gas_price,
        lease.epoch,
    )


async def _refill(connection: Connection) -> int:
    for statement in _REFILL:
        await connection.execute(statement)
    done = await connection.execute(_REFILL_BACKLOG)
    return int(done.rpartition(" ")[2])
