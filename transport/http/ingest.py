"""POST /api/v1/ves/events/ingest: the raw body to the verifiers, what they let through to the sequencer.

It reads nothing of the body itself and writes nothing: a caller who goes away cancels only the waiting.
"""

from __future__ import annotations

import structlog
from msgspec.structs import replace

from actors.messages import Append, Appended, Verify
from transport.http.errors import ApiError, Code
from transport.http.replies import fresh_uuid, receipt_reply
from transport.http.residency import must_be_served_here
from transport.http.routing import Route
from transport.http.shapes import IngestBody, IngestReply, RejectionReply
from transport.http.visit import Visit
from ves.encoding import uuid_text
from ves.legacy import LegacyBatch
from ves.policy import Policy
from ves.records import BodyRefused, NeedsPolicy, Receipt, Refusal, Uuid, VerifiedBatch, VerifiedEvent

log = structlog.get_logger("http")


async def ingest(visit: Visit) -> IngestReply:
    house = visit.house
    body = await visit.body(bytes_max=house.settings.max_body_size_bytes)
    size, tenant_id = len(body), visit.who.tenant_id
    with (
        house.journal.expecting(tenant_id, size) as expected,
        house.right_of_way.request(tenant_id, size),
    ):
        async with visit.door.large_bodies.turn(tenant_id, size, patience_s=visit.remaining_s / 2):
            batch = await _verify(visit, body)
        del body  # the wait for the sequencer needs it no more
        if isinstance(batch, BodyRefused):
            raise refused_body(batch)
        expected.has(len(batch.outcomes))
        count_verified(visit, batch)
        appended = await _append(visit, batch)
    refusals = [verdict for verdict in appended.verdicts if isinstance(verdict, Refusal)]
    visit.door.metrics.ingested(appended.events_accepted, appended.events_replayed, refusals)
    _tell_bad_signatures(visit, batch, refusals)
    if appended.events_accepted:
        visit.door.heads.announce(batch.tenant_id, batch.store_id)
    return _reply(appended, refusals)


async def _verify(visit: Visit, body: bytes) -> VerifiedBatch | BodyRefused:
    message = Verify(body, visit.who.scope, await callers_policy(visit))
    small = visit.house.small_bodies
    if small is not None and (checked := await small.verify(message, deadline_s=visit.remaining_s)):
        return checked
    batch = await visit.ask(visit.house.verifiers, message, visit.door.room_at_verifiers)
    if isinstance(batch, NeedsPolicy):
        message = replace(message, policy=await named_policy(visit, batch.tenant_id))
        batch = await visit.ask(visit.house.verifiers, message, visit.door.room_at_verifiers)
        assert not isinstance(batch, NeedsPolicy), "it was given"
    return batch


async def callers_policy(visit: Visit) -> Policy | None:
    """As it is now; None: the credential belongs to no tenant."""
    tenant_id = visit.who.tenant_id
    return None if tenant_id is None else await visit.house.policies.find(tenant_id)


async def named_policy(visit: Visit, tenant_id: Uuid) -> Policy:
    """Of a tenant whom only the body names; 421 if it is not served here."""
    await must_be_served_here(visit.house, tenant_id)
    return await visit.house.policies.find(tenant_id)


def refused_body(refused: BodyRefused) -> ApiError:
    """What the caller of a wholly refused body is told."""
    known = refused.code in Code.__members__
    code = Code[refused.code] if known else Code.INVALID_FIELD_VALUE
    return ApiError(code, refused.message, status=refused.status)


def count_verified(visit: Visit, batch: VerifiedBatch | LegacyBatch) -> None:
    """Against its tenant's limit, and what was compared with schemas. In the log: what was accepted although
    it does not match its schema."""
    visit.door.rates.counted(visit, batch.tenant_id, len(batch.outcomes))
    if batch.checks is None:
        return
    visit.door.metrics.checked(batch.checks)
    for warned in batch.checks.warned:
        log.warning(
            "schema_mismatch",
            tenant=uuid_text(batch.tenant_id),
            event_id=uuid_text(warned.event_id),
            schema_id=uuid_text(warned.schema_id),
            keyword=warned.keyword,
            where=warned.where,
            request_id=visit.request_id,
        )


async def _append(visit: Visit, batch: VerifiedBatch) -> Appended:
    house = visit.house
    if not any(isinstance(outcome, VerifiedEvent) for outcome in batch.outcomes):
        refusals: list[Receipt | Refusal] = [o for o in batch.outcomes if isinstance(o, Refusal)]
        head = await house.journal.read_head(batch.tenant_id, batch.store_id)
        return Appended(refusals, 0, 0, None, None, head)
    message = Append(batch=batch, credential_id=visit.who.credential_id)
    sequencer = house.sequencer_of(batch.tenant_id)
    return await visit.ask(sequencer, message, visit.door.room_at_sequencers)


def _tell_bad_signatures(visit: Visit, batch: VerifiedBatch, refusals: list[Refusal]) -> None:
    bad = sum(refusal.reason.startswith("invalid_signature") for refusal in refusals)
    if bad:
        visit.house.security.happened(
            "signature_failed",
            times=bad,
            who=visit.who.name,
            tenant=uuid_text(batch.tenant_id),
            agent=uuid_text(batch.agent_id),
            address=visit.address,
            request_id=visit.request_id,
        )


def _reply(appended: Appended, refusals: list[Refusal]) -> IngestReply:
    reply = IngestReply(
        fresh_uuid(),
        appended.events_accepted,
        appended.events_replayed,
        len(refusals),
        appended.sequence_start,
        appended.sequence_end,
        appended.head_sequence,
    )
    receipts = [receipt_reply(verdict) for verdict in appended.verdicts if isinstance(verdict, Receipt)]
    if refusals:
        reply.rejections = [RejectionReply(uuid_text(r.event_id), r.reason, r.message) for r in refusals]
    if receipts:
        reply.receipts = receipts
    return reply


ROUTES = [
    Route(
        "POST",
        "/api/v1/ves/events/ingest",
        ingest,
        "Sequence signed events; resending the same request is harmless",
        IngestReply,
        body_shape=IngestBody,
        refuses=(Code.BATCH_TOO_LARGE,),
    )
]
