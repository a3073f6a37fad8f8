"""For anchorers outside, which pull commitments and tell what they did: the root-level routes, without /api.

Operators only, for they see all tenants. What is told is kept as a report: it is never called verified, and
it never takes the place of an anchor of our own.
"""

from __future__ import annotations

import trio

from actors.chain import ChainAway, ChainLies, ChainNotOurs
from journal.port import AnchorReport, CommitmentAnchor, PendingCommitment, ReportConflict
from transport.http.anchor_shapes import (
    PENDING_MAX,
    PendingCommitmentReply,
    PendingCommitmentsReply,
    PendingQuery,
    ReportBody,
    ReportedReply,
)
from transport.http.errors import ApiError, Code
from transport.http.residency import must_be_served_here
from transport.http.routing import Route
from transport.http.shapes import BatchPath
from transport.http.visit import Visit
from ves.constants import U32_MAX
from ves.encoding import prefixed_hex, uuid_text
from ves.records import Uuid
from ves.timestamps import zulu_text

HASH_BYTES = 32
CHECK_S = 5.0
"""A report waits no longer for what our own endpoint says of it."""


async def pending(visit: Visit) -> PendingCommitmentsReply:
    limit = min(visit.query(PendingQuery).limit, PENDING_MAX)
    found = await visit.house.journal.list_pending_anchors(limit=limit) if limit else []
    shown = [_pending_reply(one) for one in await _served_here(visit, found)]
    return PendingCommitmentsReply(shown, len(shown))


async def _served_here(visit: Visit, found: list[PendingCommitment]) -> list[PendingCommitment]:
    """Without those of tenants that are pinned elsewhere."""
    here: dict[Uuid, bool] = {}
    for tenant_id in {one.commitment.tenant_id for one in found}:
        try:
            await must_be_served_here(visit.house, tenant_id)
            here[tenant_id] = True
        except ApiError:
            here[tenant_id] = False
    return [one for one in found if here[one.commitment.tenant_id]]


def _pending_reply(one: PendingCommitment) -> PendingCommitmentReply:
    commitment = one.commitment
    tx_hash = None if one.anchor is None else one.anchor.tx_hash
    return PendingCommitmentReply(
        batch_id=uuid_text(commitment.batch_id),
        tenant_id=uuid_text(commitment.tenant_id),
        store_id=uuid_text(commitment.store_id),
        prev_state_root=prefixed_hex(commitment.prev_state_root),
        new_state_root=prefixed_hex(commitment.new_state_root),
        events_root=prefixed_hex(commitment.merkle_root),
        sequence_start=commitment.sequence_start,
        sequence_end=commitment.sequence_end,
        event_count=commitment.leaf_count,
        committed_at=zulu_text(commitment.committed_at_us),
        chain_tx_hash=None if tx_hash is None else prefixed_hex(tx_hash),
    )


async def anchored(visit: Visit) -> ReportedReply:
    batch_id = visit.uuid(visit.path(BatchPath), "batch_id")
    body = await visit.json(ReportBody)
    journal = visit.house.journal
    commitment = await journal.read_commitment(batch_id, tenant_id=None, store_ids=None)
    if commitment is None:
        raise ApiError(Code.BATCH_NOT_FOUND, "Commitment not found")
    await must_be_served_here(visit.house, commitment.tenant_id)
    if body.chain_id > U32_MAX:
        raise _wrong("chain_id must fit in u32")
    report = AnchorReport(batch_id, body.chain_id, _tx_hash(body.chain_tx_hash), body.block_number)
    entry = visit.act(
        "anchor.report",
        uuid_text(batch_id),
        commitment.tenant_id,
        chain_id=report.chain_id,
        tx_hash=prefixed_hex(report.tx_hash),
        block_number=report.block_number,
    )
    done = await journal.report_anchor(report, entry)
    if isinstance(done, ReportConflict):
        raise _conflict((await journal.read_anchors([batch_id])).get(batch_id))
    if done.again:
        return ReportedReply(batch_id=uuid_text(batch_id), status="already_anchored")
    return ReportedReply(
        batch_id=uuid_text(batch_id),
        status="anchored",
        chain_tx_hash=prefixed_hex(report.tx_hash),
        chain_id=report.chain_id,
        block_number=report.block_number,
        checked=await _checked(visit, report),
    )


def _tx_hash(text: str) -> bytes:
    bare = text.strip().removeprefix("0x")
    if not bare:
        raise _wrong("chain_tx_hash must not be empty")
    try:
        if not bare.isascii() or any(one.isspace() for one in bare):
            raise ValueError("not hexadecimal digits alone")
        raw = bytes.fromhex(bare)
    except ValueError:
        raise _wrong("Invalid chain_tx_hash: send pairs of hexadecimal digits, 0x optional") from None
    if len(raw) != HASH_BYTES:
        raise _wrong("chain_tx_hash must be 32 bytes")
    return raw


def _conflict(known: CommitmentAnchor | None) -> ApiError:
    if known is not None and known.state != "reported":
        text = "our own anchor has this commitment; stop one of the two anchorers"
        return ApiError(Code.CONFLICT, text)
    return ApiError(Code.CONFLICT, "commitment already anchored with different tx hash")


async def _checked(visit: Visit, report: AnchorReport) -> bool | None:
    """What our own endpoint says of the reported transaction, if it is asked and answers in time."""
    anchoring = visit.house.anchoring
    if anchoring is None or anchoring.chain.chain_id != report.chain_id:
        return None
    try:
        with trio.move_on_after(min(CHECK_S, visit.remaining_s / 2)):
            async with visit.door.chain_looks:
                receipt = await anchoring.chain.receipt(report.tx_hash)
            if receipt is None or not receipt.succeeded:
                return False
            return report.block_number in (None, receipt.block_number)
    except (ChainAway, ChainNotOurs, ChainLies):
        pass
    return None


def _wrong(text: str) -> ApiError:
    return ApiError(Code.INVALID_FIELD_VALUE, text)


ROUTES = [
    Route(
        "GET",
        "/v1/commitments/pending",
        pending,
        "Commitments of all tenants that are neither final on a chain nor reported",
        PendingCommitmentsReply,
        query_shape=PendingQuery,
    ),
    Route(
        "POST",
        "/v1/commitments/{batch_id}/anchored",
        anchored,
        "What an anchorer outside did, kept as its report",
        ReportedReply,
        path_shape=BatchPath,
        body_shape=ReportBody,
        refuses=(Code.BATCH_NOT_FOUND, Code.CONFLICT),
    ),
]
