"""An agent and its API keys, on the public listener: for the agent itself and its tenant's administrators.

A key made here is bound to its agent and gives no more than the credential that makes it. A store-bound
agent sees the keys within its stores only. A key may revoke what it could have made, so itself too.
"""

from __future__ import annotations

from journal.port import ApiKey
from transport.http import minting
from transport.http.api_key_shapes import (
    HASH_PREFIX_DIGITS,
    AgentApiKeyCreatedReply,
    AgentApiKeyPath,
    AgentApiKeyReply,
    AgentApiKeyRevokedReply,
    AgentApiKeysQuery,
    AgentApiKeysReply,
    AgentQuery,
    AgentReply,
    CreateAgentApiKeyBody,
)
from transport.http.callers import denied
from transport.http.errors import ApiError, Code
from transport.http.issuing import announce_creation, creation_entry, new_api_key, revoke
from transport.http.permissions import Permissions, of_key
from transport.http.routing import Route
from transport.http.shapes import AgentPath
from transport.http.visit import Visit
from ves.encoding import uuid_text
from ves.records import Uuid
from ves.timestamps import utc_text

IN_FORCE_MAX = 20
"""Of one agent, made here: each is a rate limit of its own."""
FREED_AFTER_S = 60
"""An ended key leaves its place when its bucket would be full again: changing keys gains no requests."""


async def one_agent(visit: Visit) -> AgentReply:
    tenant_id, agent_id = _agent(visit, visit.query(AgentQuery))
    key = await _newest(visit, tenant_id, agent_id)
    return AgentReply(
        uuid_text(agent_id),
        uuid_text(tenant_id),
        _is_active(visit, key),
        minting.in_a_word(_permissions(key)),
        key.role,
        _store_ids(key),
        key.rate_limit_per_minute,
        _time(key.expires_at_us),
    )


async def create_agent_api_key(visit: Visit) -> AgentApiKeyCreatedReply:
    tenant_id, agent_id = _agent(visit, visit.query(AgentQuery))
    body = await visit.json(CreateAgentApiKeyBody)
    granted = minting.grant(
        visit.who,
        permissions=minting.of_wishes(visit.who, role=body.role, read_only=body.read_only, admin=body.admin),
        store_ids=body.store_ids,
        expires_at=body.expires_at,
        rate_limit=body.rate_limit,
        now_us=visit.house.credentials.now_us(),
    )
    if visit.who.agent_id is None:
        await _newest(visit, tenant_id, agent_id)
    key, text = new_api_key(visit, tenant_id, agent_id, granted, name=body.name)
    created = await visit.house.journal.create_agent_api_key(
        key,
        creation_entry(visit, key),
        by=visit.who.api_key_id,
        in_force_max=IN_FORCE_MAX,
        freed_after_s=FREED_AFTER_S,
    )
    if created is None:
        text = (
            f"this agent has {IN_FORCE_MAX} API keys in force: revoke one first; "
            f"{FREED_AFTER_S} s later there is room"
        )
        raise ApiError(Code.CONFLICT, text)
    announce_creation(visit, created)
    return AgentApiKeyCreatedReply(
        True,
        uuid_text(created.id),
        text,
        _hash_prefix(created),
        minting.in_a_word(granted.permissions),
        created.role,
        _store_ids(created),
        created.rate_limit_per_minute,
        _time(created.expires_at_us),
        "API key created. Store it securely - it cannot be retrieved later.",
    )


async def list_agent_api_keys(visit: Visit) -> AgentApiKeysReply:
    query = visit.query(AgentApiKeysQuery)
    tenant_id, agent_id = _agent(visit, query)
    found = await visit.house.journal.list_agent_api_keys(
        tenant_id,
        agent_id,
        store_ids=visit.who.store_ids,
        after=visit.optional_uuid(query, "after"),
        limit=query.limit + 1,
    )
    keys = [_reply(visit, key) for key in found[: query.limit]]
    more = len(found) > query.limit
    return AgentApiKeysReply(keys, len(keys), more, keys[-1].id if more else None)


async def revoke_agent_api_key(visit: Visit) -> AgentApiKeyRevokedReply:
    tenant_id, agent_id = _agent(visit, visit.query(AgentQuery))
    key_prefix = visit.path(AgentApiKeyPath).key_prefix.lower()
    key = await _the_one(visit, tenant_id, agent_id, key_prefix)
    if not minting.may_end(visit.who, _permissions(key), key.store_ids):
        raise denied("Cannot revoke a key with broader permissions than the authenticating key")
    await revoke(visit, key.id, tenant_id)
    return AgentApiKeyRevokedReply(True, "API key revoked successfully")


def _agent(visit: Visit, query: AgentQuery) -> tuple[Uuid, Uuid]:
    """The tenant and the agent a request is about. 403 before anything is looked up."""
    assert visit.route is not None
    agent_id = visit.uuid(visit.path(AgentPath), "agent_id")
    tenant_id = visit.who.tenant_named(visit.optional_uuid(query, "tenant_id"))
    visit.who.must_be_or_administer(agent_id, visit.route.needed)
    return tenant_id, agent_id


async def _newest(visit: Visit, tenant_id: Uuid, agent_id: Uuid) -> ApiKey:
    """404 when no API key names this agent."""
    key = await visit.house.journal.newest_agent_api_key(tenant_id, agent_id, store_ids=visit.who.store_ids)
    if key is None:
        raise ApiError(Code.RESOURCE_NOT_FOUND, "Agent not found")
    return key


async def _the_one(visit: Visit, tenant_id: Uuid, agent_id: Uuid, key_prefix: str) -> ApiKey:
    """The only key whose hash begins so. 404 without one, 409 when there are several."""
    found = await visit.house.journal.list_agent_api_keys(
        tenant_id,
        agent_id,
        store_ids=visit.who.store_ids,
        after=None,
        limit=2,
        hash_prefix=key_prefix,
    )
    if not found:
        raise ApiError(Code.RESOURCE_NOT_FOUND, "API key not found")
    if len(found) > 1:
        raise ApiError(Code.CONFLICT, "key_prefix: several keys begin so; give more digits")
    return found[0]


def _reply(visit: Visit, key: ApiKey) -> AgentApiKeyReply:
    return AgentApiKeyReply(
        uuid_text(key.id),
        _hash_prefix(key),
        _is_active(visit, key),
        minting.in_a_word(_permissions(key)),
        key.role,
        key.rate_limit_per_minute,
        _time(key.expires_at_us),
        utc_text(key.created_at_us),
    )


def _permissions(key: ApiKey) -> Permissions:
    return of_key(key.role, key.permissions)


def _is_active(visit: Visit, key: ApiKey) -> bool:
    now_us = visit.house.credentials.now_us()
    return key.revoked_at_us is None and (key.expires_at_us is None or now_us < key.expires_at_us)


def _hash_prefix(key: ApiKey) -> str:
    return key.key_hash.hex()[:HASH_PREFIX_DIGITS]


def _store_ids(key: ApiKey) -> list[str]:
    return [uuid_text(one) for one in key.store_ids or ()]


def _time(us: int | None) -> str | None:
    return None if us is None else utc_text(us)


ROUTES = [
    Route(
        "GET",
        "/api/v1/agents/{agent_id}",
        one_agent,
        "An agent, as its newest API key in force describes it",
        AgentReply,
        path_shape=AgentPath,
        query_shape=AgentQuery,
        refuses=(Code.RESOURCE_NOT_FOUND,),
    ),
    Route(
        "POST",
        "/api/v1/agents/{agent_id}/api-keys",
        create_agent_api_key,
        "Make an API key for an agent, no wider than the one that asks; its text is shown only now",
        AgentApiKeyCreatedReply,
        path_shape=AgentPath,
        query_shape=AgentQuery,
        body_shape=CreateAgentApiKeyBody,
        refuses=(Code.RESOURCE_NOT_FOUND, Code.CONFLICT),
    ),
    Route(
        "GET",
        "/api/v1/agents/{agent_id}/api-keys",
        list_agent_api_keys,
        "An agent's API keys, newest first, revoked ones too, without their texts",
        AgentApiKeysReply,
        path_shape=AgentPath,
        query_shape=AgentApiKeysQuery,
    ),
    Route(
        "DELETE",
        "/api/v1/agents/{agent_id}/api-keys/{key_prefix}",
        revoke_agent_api_key,
        "Revoke the agent's API key whose SHA-256 begins so: nothing is appended with it afterwards",
        AgentApiKeyRevokedReply,
        path_shape=AgentApiKeyPath,
        query_shape=AgentQuery,
        refuses=(Code.RESOURCE_NOT_FOUND, Code.CONFLICT),
    ),
]
