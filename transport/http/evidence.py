"""The evidence of an event: everything that proves it, from the agent's signature to a block, in one file.

What is not there yet is left out, and ``said`` tells how far it is: whoever asks too early gets what can be
proven now. The payload is in it only for those who may read events, and only when they ask for it. Looks up
and hands over; ``transport.http.evidence_making`` puts it together.
"""

from __future__ import annotations

from collections.abc import AsyncIterator

from journal.port import AgentKey, AuditPlace, AuditWish
from transport.http import found_by_id
from transport.http.committing import must_lead_to_root
from transport.http.errors import ApiError, Code
from transport.http.evidence_making import (
    AgentFacts,
    CommittedFacts,
    RegistrationFacts,
    evidence_of,
)
from transport.http.reading import opened_payloads
from transport.http.routing import Route
from transport.http.shapes import EventPath, EvidenceQuery
from transport.http.visit import Visit
from ves.audit import AuditRecord
from ves.encoding import uuid_text
from ves.evidence_file import Evidence
from ves.records import KeyName, StoredEvent

REGISTERED_WITHIN_US = 60_000_000
"""The audit entry is written in the transaction that registers the key; that one ends long before."""
_PAGE = 500
_PAGES_MAX = 20
"""Of keys that one tenant registers within that time."""


async def evidence(visit: Visit) -> Evidence:
    event_id = visit.uuid(visit.path(EventPath), "event_id")
    with_payload = visit.query(EvidenceQuery).payload
    if with_payload:
        visit.who.must_hold(("events:read",))
    tenant_id, store_ids = found_by_id.reach(visit)
    journal = visit.house.journal
    async with visit.door.pages:
        event = await journal.read_event(tenant_id, event_id, store_ids=store_ids)
        if event is None:
            raise ApiError(Code.EVENT_NOT_FOUND, "no such event")
        payload = (await opened_payloads(visit, tenant_id, [event]))[0] if with_payload else None
        agent = await _agent(visit, event)
        committed = await _committed(visit, event)
        return evidence_of(event, payload, agent, await journal.receipt_keys(), committed)


async def _committed(visit: Visit, event: StoredEvent) -> CommittedFacts | None:
    journal, sequence_number = visit.house.journal, event.receipt.sequence_number
    found = await journal.find_leaf(event.tenant_id, event.store_id, sequence_number=sequence_number)
    if found is None:
        return None
    leaf_index = must_lead_to_root(found, sequence_number)
    anchored = await journal.read_anchor_evidence(found.commitment.batch_id)
    return CommittedFacts(found.commitment, leaf_index, found.path, anchored)


async def _agent(visit: Visit, event: StoredEvent) -> AgentFacts | None:
    name = KeyName(event.tenant_id, event.source_agent_id, event.agent_key_id)
    journal = visit.house.journal
    keys = await journal.list_agent_keys(name.tenant_id, name.agent_id, from_key_id=name.key_id, limit=1)
    if not keys or keys[0].name != name:
        return None
    return AgentFacts(keys[0], await journal.read_possession(name), await _registration(visit, keys[0]))


async def _registration(visit: Visit, key: AgentKey) -> RegistrationFacts | None:
    entry = await _entry(visit, key)
    if entry is None:
        return None
    journal, number = visit.house.journal, entry.entry_number
    held = next(iter(await journal.list_audit_commitments(entry.node_id, from_number=number, limit=1)), None)
    if held is None or held.entry_start > number:
        return RegistrationFacts(entry, None, [])
    entries = await journal.read_audit_chain(
        held.node_id, from_number=held.entry_start, limit=held.leaf_count
    )
    return RegistrationFacts(entry, held, entries)


async def _entry(visit: Visit, key: AgentKey) -> AuditRecord | None:
    """The oldest one that names this key; None for a key from before entries did."""
    subject = f"{uuid_text(key.name.agent_id)}/{key.name.key_id}"
    named = f'"public_key":"{key.public_key.hex()}"'
    found = None
    for action in ("agent_key.register", "agent_key.rotate"):
        async for one in _around(visit, key, action):
            if one.subject == subject and named in one.text:
                found = one if found is None or one.recorded_at_us < found.recorded_at_us else found
    return found


async def _around(visit: Visit, key: AgentKey, action: str) -> AsyncIterator[AuditRecord]:
    """The tenant's entries of this kind from about when the key was registered, newest first."""
    start_us, after = key.registered_at_us, None
    for _ in range(_PAGES_MAX):
        wish = AuditWish(
            tenant_id=key.name.tenant_id,
            action=action,
            from_us=start_us,
            to_us=start_us + REGISTERED_WITHIN_US,
            after=after,
        )
        page = await visit.house.journal.find_audit_entries(wish, limit=_PAGE)
        for one in page:
            yield one
        if len(page) < _PAGE:
            return
        after = AuditPlace(page[-1].recorded_at_us, page[-1].node_id, page[-1].entry_number)


ROUTES = [
    Route(
        "GET",
        "/api/v1/ves/events/{event_id}/evidence",
        evidence,
        "Everything that proves one event, down to a block of the chain, in one file",
        Evidence,
        path_shape=EventPath,
        query_shape=EvidenceQuery,
        refuses=(Code.EVENT_NOT_FOUND,),
    ),
]
