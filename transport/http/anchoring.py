"""Anchoring on request: how it stands, putting a commitment at the head of the queue, asking the contract.

Nobody here sends anything to a chain: the anchor does, and what it did is read from the journal. The chain is
asked only by ``verify``, after the caller's right to the commitment is known.
"""

from __future__ import annotations

import math
from typing import Literal, NamedTuple

import msgspec
import structlog

from actors.anchor_vitals import Anchoring
from actors.chain import ChainAway, ChainLies, ChainNotOurs, Reverted
from actors.commitment_ranges import LEAVES_MAX
from actors.messages import Commit
from journal.port import CommitmentAnchor
from transport.http import found_by_id
from transport.http.anchor_replies import LOCAL_CHAIN, anchored_reply
from transport.http.anchor_shapes import (
    MAX_EVENTS_DEFAULT,
    AnchorBody,
    AnchoredReply,
    AnchorNodeReply,
    AnchorStatusReply,
    AnchorVerifiedReply,
    CommitAndAnchorBody,
    OpenAnchors,
)
from transport.http.anchor_waits import IN_A_BLOCK, SETTLED
from transport.http.committing import committed
from transport.http.errors import ApiError, Code, ErrorBody
from transport.http.permissions import OPERATOR, holds
from transport.http.residency import must_be_served_here
from transport.http.routing import JSON, Reply, Route
from transport.http.shapes import BatchPath, OptionalStreamQuery
from transport.http.visit import Visit
from ves import anchor_calls
from ves.anchoring import aggregate_levels, aggregate_path, anchor_leaf
from ves.encoding import prefixed_hex, uuid_text
from ves.records import Commitment, Uuid
from ves.timestamps import utc_text

NOT_CONFIGURED_RETRY_S = 60.0
CHAIN_RETRY_S = 5.0
ANSWER_RESERVE_S = 1.0
"""Of a request's time, kept from waiting for a block."""
TURN_PATIENCE_S = 5.0
RANGE_TRIES_MAX = 3
"""How often a range is chosen anew because the committer was first."""
READY = "Anchor service is configured and ready"
IN_TROUBLE = "Anchor service is configured; commitments wait until it can go on"
NOT_CONFIGURED = "Anchor service not configured"
TO_CONFIGURE = f"{NOT_CONFIGURED}. Set L2_RPC_URL, SET_REGISTRY_ADDRESS, SEQUENCER_PRIVATE_KEY"
NEEDS_OPERATOR = "Anchor service is configured; it waits for an operator and anchors nothing now"
LEGACY = (
    "unsigned (legacy) commitments are not anchored: their state roots are not those that the contract "
    "chains; only signed (VES) commitments are, by /api/v1/ves/anchor"
)

log = structlog.get_logger("http.anchoring")


def _anchoring(visit: Visit) -> Anchoring:
    """503 when ANCHOR is off."""
    anchoring = visit.house.anchoring
    if anchoring is None:
        raise ApiError(Code.ANCHOR_NOT_CONFIGURED, NOT_CONFIGURED, retry_after_s=NOT_CONFIGURED_RETRY_S)
    return anchoring


# How it stands.


def _how_it_goes(anchoring: Anchoring) -> str:
    if anchoring.vitals.role == "stopped":
        return NEEDS_OPERATOR
    return IN_TROUBLE if anchoring.vitals.trouble else READY


async def status(visit: Visit) -> AnchorStatusReply:
    anchoring, settings = visit.house.anchoring, visit.house.settings
    if anchoring is None:
        return AnchorStatusReply(
            anchor_enabled=False,
            message=TO_CONFIGURE,
            chain_id=None,
            contract=None,
            road=None,
            finality=None,
            local_chain=None,
            local_chain_note=None,
            node=None,
        )
    depth = f"{settings.anchor_finality_confirmations} confirmations"
    operator = holds(visit.who.permissions, (OPERATOR,))
    return AnchorStatusReply(
        anchor_enabled=True,
        message=_how_it_goes(anchoring),
        chain_id=anchoring.chain.chain_id,
        contract=prefixed_hex(anchoring.contract),
        road=settings.anchor_road,
        finality="the chain's finalized tag" if settings.anchor_finality == "tags" else depth,
        local_chain=anchoring.development,
        local_chain_note=LOCAL_CHAIN if anchoring.development else None,
        node=await _node(visit, anchoring) if operator else None,
    )


async def _node(visit: Visit, anchoring: Anchoring) -> AnchorNodeReply:
    summary = await visit.house.journal.anchor_summary()
    vitals = anchoring.vitals
    oldest_us = summary.oldest_unfinalized_us
    return AnchorNodeReply(
        role=vitals.role,
        trouble=vitals.trouble,
        address=None if vitals.address is None else prefixed_hex(vitals.address),
        balance_wei=None if vitals.balance_wei is None else str(vitals.balance_wei),
        spent_today_wei=str(vitals.spent_today_wei),
        breaker_open=vitals.breaker_open,
        latest_block=vitals.latest_block,
        safe_block=vitals.safe_block,
        finalized_block=vitals.finalized_block,
        looked_at=utc_text(int(vitals.looked_at_s * 1_000_000)) if vitals.looked_at_s else None,
        waiting=summary.waiting,
        open_anchors=msgspec.convert(summary.open_anchors, OpenAnchors),
        oldest_unfinalized_s=max(0, summary.now_us - oldest_us) / 1_000_000 if oldest_us else 0.0,
        anchored_batches=summary.anchored_batches,
        anchored_events=summary.anchored_events,
        gas_used=summary.gas_used,
        cost_wei=str(summary.cost_wei),
        lease_holder=None if summary.lease_holder is None else uuid_text(summary.lease_holder),
        lease_held=summary.lease_held_until_us > summary.now_us,
    )


# Asking for an anchor.


async def anchor(visit: Visit) -> Reply:
    body = await visit.json(AnchorBody)
    return await _anchored(visit, await _commitment(visit, visit.uuid(body, "batch_id")))


async def _commitment(visit: Visit, batch_id: Uuid) -> Commitment:
    """Within the caller's reach, else 404. An operator need not name the tenant: batch ids are unique."""
    tenant_id, store_ids = _reach(visit)
    found = await visit.house.journal.read_commitment(batch_id, tenant_id=tenant_id, store_ids=store_ids)
    if found is None:
        raise ApiError(Code.BATCH_NOT_FOUND, "Commitment not found")
    await must_be_served_here(visit.house, found.tenant_id)
    return found


def _reach(visit: Visit) -> tuple[Uuid | None, tuple[Uuid, ...] | None]:
    query = visit.query(OptionalStreamQuery)
    if visit.who.is_bootstrap and query.tenant_id is None and query.store_id is None:
        return None, None
    return found_by_id.reach(visit)


async def commit_and_anchor(visit: Visit) -> Reply:
    wanted = await visit.json(CommitAndAnchorBody)
    tenant_id, store_id = visit.stream(wanted)
    await must_be_served_here(visit.house, tenant_id)
    _anchoring(visit)  # before anything is committed
    start, end = wanted.sequence_start, wanted.sequence_end
    if (start is None) != (end is None):
        raise _wrong("sequence_start and sequence_end must be provided together")
    if start is None:
        events_max = MAX_EVENTS_DEFAULT if wanted.max_events is None else wanted.max_events
        return await _anchored(visit, await _commit_next(visit, tenant_id, store_id, events_max))
    done = await committed(visit, Commit(tenant_id, store_id, start, end))
    return await _anchored(visit, done.commitment)


async def _commit_next(visit: Visit, tenant_id: Uuid, store_id: Uuid, events_max: int) -> Commitment:
    """The next range, which the committer may take meanwhile."""
    tries = RANGE_TRIES_MAX
    while True:
        counter = await visit.house.journal.read_commitment_counter(tenant_id, store_id)
        start, head = counter.committed_through + 1, counter.head_sequence
        if not head:
            raise _wrong("no events to commit")
        if start > head:
            raise _wrong(f"no new events to commit (head_sequence={head})")
        end = min(head, start + min(max(1, events_max), LEAVES_MAX) - 1)
        tries -= 1
        try:
            return (await committed(visit, Commit(tenant_id, store_id, start, end))).commitment
        except ApiError as refused:
            if refused.code is not Code.CONFLICT or not tries:
                raise


async def _anchored(visit: Visit, commitment: Commitment) -> Reply:
    """Puts it at the head of the queue, unless an anchor has it, and waits for a block as long as it may."""
    anchoring = _anchoring(visit)
    journal = visit.house.journal
    known = (await journal.read_anchors([commitment.batch_id])).get(commitment.batch_id)
    if known is not None and known.state in SETTLED:
        return _reply(commitment, known, anchoring, already=True)
    if known is None:
        entry = visit.act(
            "anchor.request",
            uuid_text(commitment.batch_id),
            commitment.tenant_id,
            store_id=uuid_text(commitment.store_id),
            sequence_start=commitment.sequence_start,
            sequence_end=commitment.sequence_end,
        )
        await journal.request_anchor(commitment.batch_id, entry)
    known = await visit.door.anchor_waits.wait_for(
        commitment.tenant_id,
        commitment.batch_id,
        known=known,
        wait_s=min(visit.house.settings.anchor_wait_secs, visit.remaining_s - ANSWER_RESERVE_S),
    )
    return _reply(commitment, known, anchoring, already=False)


def _reply(
    commitment: Commitment, known: CommitmentAnchor | None, anchoring: Anchoring, *, already: bool
) -> Reply:
    told = anchored_reply(commitment, known, anchoring, already=already)
    body = msgspec.json.encode(told)
    if told.status != "pending":
        return Reply(body)
    return Reply(body, 202, JSON, (("retry-after", str(math.ceil(CHAIN_RETRY_S))),))


def _wrong(text: str) -> ApiError:
    return ApiError(Code.INVALID_FIELD_VALUE, text)


# Asking the contract.


class _Question(NamedTuple):
    contract: bytes
    calldata: bytes
    compared: Literal["verifyIncluded", "verifyEventsRoot"]


async def verify(visit: Visit) -> AnchorVerifiedReply:
    commitment = await _commitment(visit, visit.uuid(visit.path(BatchPath), "batch_id"))
    anchoring = _anchoring(visit)
    known = (await visit.house.journal.read_anchors([commitment.batch_id])).get(commitment.batch_id)
    question = await _question(visit, anchoring, commitment, known)
    said = await _asked(visit, anchoring, commitment.tenant_id, question)
    return AnchorVerifiedReply(
        batch_id=uuid_text(commitment.batch_id),
        anchored_on_chain=said,
        state="waiting" if known is None else known.state,
        road=None if known is None else known.road,
        compared=question.compared,
        compared_with="the node's RPC endpoint",
        local_chain=anchoring.development,
        chain_id=anchoring.chain.chain_id,
        contract=prefixed_hex(question.contract),
        block_number=None if known is None or known.state not in IN_A_BLOCK else known.block_number,
    )


async def _question(
    visit: Visit, anchoring: Anchoring, commitment: Commitment, known: CommitmentAnchor | None
) -> _Question:
    """What the contract is to be asked, whatever the state: it may know more than the journal."""
    single = anchor_calls.verify_events_root(commitment.batch_id, commitment.merkle_root)
    if known is None:
        return _Question(anchoring.contract, single, "verifyEventsRoot")
    chain_id = anchoring.chain.chain_id
    if known.chain_id != chain_id:
        text = f"it is anchored on chain {known.chain_id}, and this node looks at chain {chain_id} only"
        raise ApiError(Code.CONFLICT, text)
    contract = known.contract or anchoring.contract
    if known.road != "aggregate":
        return _Question(contract, single, "verifyEventsRoot")
    evidence = await visit.house.journal.read_anchor_evidence(commitment.batch_id)
    assert evidence is not None, "anchors are never removed"
    assert known.position is not None
    # The leaf is computed anew: what is stored might be another commitment's.
    leaf = anchor_leaf(chain_id, contract, commitment)
    path = aggregate_path(aggregate_levels(evidence.leaves), known.position)
    included = anchor_calls.verify_included(evidence.root, leaf, path, known.position)
    return _Question(contract, included, "verifyIncluded")


async def _asked(visit: Visit, anchoring: Anchoring, tenant_id: Uuid, question: _Question) -> bool:
    """503 when no endpoint answers, or none that is believed."""
    patience_s = min(TURN_PATIENCE_S, visit.remaining_s / 2)
    async with visit.door.at_chain.turn(tenant_id, patience_s=patience_s), visit.door.chain_looks:
        try:
            answer = await anchoring.chain.call(question.contract, question.calldata)
            if isinstance(answer, Reverted):
                raise _not_believed(visit, f"the contract refused {question.compared}: {answer.reason}")
            return anchor_calls.read_bool(answer)
        except ChainAway:
            text = "the chain's endpoints do not answer; nothing was compared"
            raise ApiError(Code.SERVICE_UNAVAILABLE, text, retry_after_s=CHAIN_RETRY_S) from None
        except (ChainNotOurs, ChainLies, ValueError) as why:
            raise _not_believed(visit, f"{type(why).__name__}: {why}") from None


def _not_believed(visit: Visit, why: str) -> ApiError:
    """The operator's to mend; what an endpoint said is for the log alone."""
    log.error("chain not believed", request_id=visit.request_id, why=why)
    text = "what the chain's endpoint answered is not believed; nothing was compared"
    return ApiError(Code.SERVICE_UNAVAILABLE, text, retry_after_s=CHAIN_RETRY_S)


# What there is no anchor for.


async def anchor_legacy(visit: Visit) -> Reply:
    body = await visit.json(AnchorBody)
    raise await _not_for(visit, visit.uuid(body, "batch_id"))


async def verify_legacy(visit: Visit) -> Reply:
    raise await _not_for(visit, visit.uuid(visit.path(BatchPath), "batch_id"))


async def _not_for(visit: Visit, batch_id: Uuid) -> ApiError:
    """What is said of a legacy commitment within the caller's reach, and of others."""
    tenant_id, store_ids = _reach(visit)
    journal = visit.house.journal
    found = await journal.read_legacy_commitment(batch_id, tenant_id=tenant_id, store_ids=store_ids)
    if found is None:
        return ApiError(Code.BATCH_NOT_FOUND, "Commitment not found")
    return ApiError(Code.NOT_IMPLEMENTED, LEGACY)


ROUTES = [
    Route(
        "GET",
        "/api/v1/anchor/status",
        status,
        "Whether commitments are anchored, where, and when that is called final",
        AnchorStatusReply,
    ),
    Route(
        "POST",
        "/api/v1/ves/anchor",
        anchor,
        "Anchor a commitment next, and wait a while for a block",
        AnchoredReply,
        pending="No block includes it yet: ask again, which is harmless",
        query_shape=OptionalStreamQuery,
        body_shape=AnchorBody,
        refuses=(Code.BATCH_NOT_FOUND, Code.ANCHOR_NOT_CONFIGURED),
    ),
    Route(
        "POST",
        "/api/v1/ves/commitments/anchor",
        commit_and_anchor,
        "Commit events of a stream, then as /api/v1/ves/anchor",
        AnchoredReply,
        pending="The commitment is stored; no block includes it yet",
        body_shape=CommitAndAnchorBody,
        refuses=(Code.CONFLICT, Code.ANCHOR_NOT_CONFIGURED),
    ),
    Route(
        "GET",
        "/api/v1/ves/anchor/{batch_id}/verify",
        verify,
        "Whether the contract has a commitment's roots, by this server's own endpoint",
        AnchorVerifiedReply,
        path_shape=BatchPath,
        query_shape=OptionalStreamQuery,
        refuses=(Code.BATCH_NOT_FOUND, Code.CONFLICT, Code.ANCHOR_NOT_CONFIGURED),
    ),
    Route(
        "POST",
        "/api/v1/anchor",
        anchor_legacy,
        "Legacy commitments are not anchored",
        ErrorBody,
        status=Code.NOT_IMPLEMENTED.status,
        body_shape=AnchorBody,
        query_shape=OptionalStreamQuery,
        refuses=(Code.BATCH_NOT_FOUND,),
    ),
    Route(
        "GET",
        "/api/v1/anchor/{batch_id}/verify",
        verify_legacy,
        "Legacy commitments are not anchored",
        ErrorBody,
        status=Code.NOT_IMPLEMENTED.status,
        path_shape=BatchPath,
        query_shape=OptionalStreamQuery,
        refuses=(Code.BATCH_NOT_FOUND,),
    ),
]
