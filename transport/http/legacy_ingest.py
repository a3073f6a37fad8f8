"""POST /api/v1/events/ingest: unsigned events, on the same way as signed ones.

Reads nothing of the body itself and writes nothing. Nobody signs here: whoever holds the credential is
believed, and there is no receipt; a resend is told ``DuplicateEventId``.
"""

from __future__ import annotations

from msgspec.structs import replace

from actors.messages import AppendedLegacy, AppendLegacy, VerifyLegacy
from transport.http.errors import Code
from transport.http.ingest import callers_policy, count_verified, named_policy, refused_body
from transport.http.legacy_shapes import LegacyIngestBody, LegacyIngestReply
from transport.http.replies import fresh_uuid
from transport.http.routing import Route
from transport.http.shapes import RejectionReply
from transport.http.visit import Visit
from ves.encoding import uuid_text
from ves.legacy import EmptyBatch, LegacyBatch, LegacyEvent
from ves.records import BodyRefused, NeedsPolicy, Refusal

_NOTHING = AppendedLegacy([], 0, None, None, 0)


async def ingest(visit: Visit) -> LegacyIngestReply:
    house = visit.house
    body = await visit.body(bytes_max=house.settings.max_body_size_bytes)
    size, tenant_id = len(body), visit.who.scope.tenant_id
    with house.right_of_way.request(tenant_id, size):
        async with visit.door.large_bodies.turn(tenant_id, size, patience_s=visit.remaining_s / 2):
            batch = await _verify(visit, body)
        del body  # the wait for the sequencer needs it no more
        if isinstance(batch, BodyRefused):
            raise refused_body(batch)
        if isinstance(batch, EmptyBatch):
            return _reply(_NOTHING)
        count_verified(visit, batch)
        appended = await _append(visit, batch)
    visit.door.metrics.ingested(appended.events_accepted, 0, appended.rejections)
    return _reply(appended)


async def _verify(visit: Visit, body: bytes) -> LegacyBatch | EmptyBatch | BodyRefused:
    message = VerifyLegacy(body, visit.who.scope, await callers_policy(visit))
    batch = await visit.ask(visit.house.verifiers, message, visit.door.room_at_verifiers)
    if isinstance(batch, NeedsPolicy):
        message = replace(message, policy=await named_policy(visit, batch.tenant_id))
        batch = await visit.ask(visit.house.verifiers, message, visit.door.room_at_verifiers)
        assert not isinstance(batch, NeedsPolicy), "it was given"
    return batch


async def _append(visit: Visit, batch: LegacyBatch) -> AppendedLegacy:
    house = visit.house
    if not any(isinstance(outcome, LegacyEvent) for outcome in batch.outcomes):
        refusals = [outcome for outcome in batch.outcomes if isinstance(outcome, Refusal)]
        head = await house.journal.read_legacy_head(batch.tenant_id, batch.store_id)
        return AppendedLegacy(refusals, 0, None, None, head)
    message = AppendLegacy(batch=batch, credential_id=visit.who.credential_id)
    sequencer = house.sequencer_of(batch.tenant_id)
    return await visit.ask(sequencer, message, visit.door.room_at_sequencers)


def _reply(appended: AppendedLegacy) -> LegacyIngestReply:
    reply = LegacyIngestReply(
        fresh_uuid(),
        appended.events_accepted,
        len(appended.rejections),
        appended.sequence_start,
        appended.sequence_end,
        appended.head_sequence,
    )
    if appended.rejections:
        reply.rejections = [
            RejectionReply(uuid_text(r.event_id), r.reason, r.message) for r in appended.rejections
        ]
    return reply


ROUTES = [
    Route(
        "POST",
        "/api/v1/events/ingest",
        ingest,
        "Sequence unsigned events; resending the same request is harmless",
        LegacyIngestReply,
        body_shape=LegacyIngestBody,
        refuses=(Code.BATCH_TOO_LARGE,),
    )
]
