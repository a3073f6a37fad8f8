"""Looking through agent keys as an operator: which are due for rotation, and what a key has signed.

On the admin listener, read only. A page never reads more than a bounded number of rows, whatever it finds.
"""

from __future__ import annotations

import time

import msgspec

from actors.key_ages import DAY_US, SOON_US, key_text
from journal.port import AgentKey
from transport.http.callers import denied
from transport.http.errors import ApiError, Code
from transport.http.key_shapes import (
    KeyPath,
    KeysQuery,
    KeysReply,
    KeyStateReply,
    SignedEventReply,
    SignedQuery,
    SignedReply,
)
from transport.http.replies import agent_key_reply
from transport.http.routing import Route
from transport.http.visit import Visit
from ves.constants import INTEGER_MAX, U32_MAX
from ves.encoding import uuid_bytes, uuid_text
from ves.key_life import life_of, usable_since_us
from ves.records import KeyName, Uuid
from ves.timestamps import utc_text

LOOKED_AT_MAX = 10_000
"""Events of a tenant that one page looks at: some ten megabytes, read in some tens of milliseconds."""


async def list_keys(visit: Visit) -> KeysReply:
    query = visit.query(KeysQuery)
    tenant_id = _tenant_in_reach(visit, visit.optional_uuid(query, "tenant_id"))
    if visit.who.agent_id is not None:
        raise denied("Agent mismatch")
    after = None if query.after is None else _key_after(query.after)
    found = await visit.house.journal.walk_agent_keys(tenant_id, after=after, limit=query.limit + 1)
    looked_at, has_more = found[: query.limit], len(found) > query.limit
    states = [
        state_of(key, time.time_ns() // 1000, visit.house.settings.agent_key_age_max_us) for key in looked_at
    ]
    shown = [state for state in states if query.status in (None, state.status)]
    return KeysReply(shown, len(shown), has_more, key_text(looked_at[-1].name) if has_more else None)


def state_of(key: AgentKey, now_us: int, age_max_us: int) -> KeyStateReply:
    age_us = max(0, now_us - usable_since_us(key.status))
    return KeyStateReply(
        *msgspec.structs.astuple(agent_key_reply(key)),
        status=life_of(key.status, now_us, age_max_us=age_max_us, soon_us=SOON_US),
        age_days=age_us // DAY_US,
    )


async def list_signed(visit: Visit) -> SignedReply:
    path, query = visit.path(KeyPath), visit.query(SignedQuery)
    tenant_id = visit.who.tenant_named(visit.optional_uuid(query, "tenant_id"))
    name = KeyName(tenant_id, visit.uuid(path, "agent_id"), path.key_id)
    visit.who.must_reach_whole_tenant(tenant_id)
    visit.who.must_be(name.agent_id)
    if not await visit.house.journal.find_public_keys([name]):
        raise ApiError(Code.AGENT_KEY_NOT_FOUND, "no such agent key")
    after = None if query.after is None else _event_after(query.after)
    page = await visit.house.journal.read_signed_by(
        name, after=after, limit=query.limit, looked_at_max=LOOKED_AT_MAX
    )
    events = [
        SignedEventReply(
            uuid_text(event.store_id),
            event.sequence_number,
            uuid_text(event.event_id),
            utc_text(event.sequenced_at_us),
        )
        for event in page.events
    ]
    more = page.next_after
    next_after = None if more is None else f"{uuid_text(more[0])}/{more[1]}"
    return SignedReply(events, len(events), more is not None, next_after)


def _tenant_in_reach(visit: Visit, named: Uuid | None) -> Uuid | None:
    """None: every tenant, for the bootstrap key alone."""
    tenant_id = named if named is not None else visit.who.tenant_id
    if tenant_id is not None:
        visit.who.must_reach_whole_tenant(tenant_id)
    return tenant_id


def _key_after(text: str) -> KeyName:
    tenant_id, agent_id, key_id = text.split("/")
    return KeyName(uuid_bytes(tenant_id), uuid_bytes(agent_id), _bounded(key_id, U32_MAX))


def _event_after(text: str) -> tuple[Uuid, int]:
    store_id, number = text.split("/")
    return uuid_bytes(store_id), _bounded(number, INTEGER_MAX)


def _bounded(digits: str, largest: int) -> int:
    if int(digits) > largest:
        raise ApiError(Code.INVALID_FIELD_VALUE, "after: not one of ours; give the next_after of a page")
    return int(digits)


ROUTES = [
    Route(
        "GET",
        "/api/v1/admin/agent-keys",
        list_keys,
        "Agent keys with their age and stage, by tenant, agent and keyId",
        KeysReply,
        query_shape=KeysQuery,
    ),
    Route(
        "GET",
        "/api/v1/admin/agent-keys/{agent_id}/{key_id}/events",
        list_signed,
        "Where the events stand that this key signed",
        SignedReply,
        path_shape=KeyPath,
        query_shape=SignedQuery,
        refuses=(Code.AGENT_KEY_NOT_FOUND,),
    ),
]
