"""Agents' signing keys: registering, listing, revoking. What a key may sign is judged inside the append."""

from __future__ import annotations

from journal.port import KeyConflict
from transport.http.errors import ApiError, Code
from transport.http.new_keys import key_of
from transport.http.replies import agent_key_reply
from transport.http.residency import must_be_served_here
from transport.http.routing import Route
from transport.http.shapes import (
    AgentKeysQuery,
    AgentKeysReply,
    AgentPath,
    KeyRegisteredReply,
    KeyRevokedReply,
    RegisterKeyBody,
    RevokeKeyBody,
)
from transport.http.visit import Visit
from ves.constants import U32_MAX
from ves.encoding import prefixed_hex, uuid_text
from ves.records import KeyName
from ves.timestamps import utc_text


async def register_key(visit: Visit) -> KeyRegisteredReply:
    body = await visit.json(RegisterKeyBody)
    name = key_name(visit, body, body.key_id)
    await must_be_served_here(visit.house, name.tenant_id)
    key = key_of(body, name, visit.house.settings.require_pop)
    entry = visit.act(
        "agent_key.register",
        subject(name),
        name.tenant_id,
        public_key=key.public_key.hex(),
        proof_of_possession=key.proof_of_possession,
    )
    outcome = await visit.house.journal.register_agent_key(key, entry)
    if isinstance(outcome, KeyConflict):
        raise conflict(outcome, name)
    tenant, agent = uuid_text(name.tenant_id), uuid_text(name.agent_id)
    if not outcome.already:
        visit.alert("agent_key_registered", tenant=tenant, agent=agent, key_id=name.key_id)
    return KeyRegisteredReply(
        True,
        "Agent key registered successfully",
        tenant,
        agent,
        name.key_id,
        body.key_algorithm or 0,
        prefixed_hex(key.public_key),
        utc_text(outcome.key.registered_at_us),
        outcome.already,
        outcome.key.proof_of_possession,
    )


async def revoke_key(visit: Visit) -> KeyRevokedReply:
    body = await visit.json(RevokeKeyBody)
    if body.all_keys and body.key_id is not None:
        raise ApiError(Code.INVALID_FIELD_VALUE, "keyId: given together with allKeys; send one of them")
    if body.all_keys:
        return await _revoke_all(visit, body)
    if body.key_id is None:
        text = "keyId: missing; name a key, or send allKeys: true for all of the agent's"
        raise ApiError(Code.MISSING_REQUIRED_FIELD, text, status=422)
    name = key_name(visit, body, body.key_id)
    reason = body.reason or "revoked by request"
    entry = visit.act("agent_key.revoke", subject(name), name.tenant_id, reason=reason)
    revoked = await visit.house.journal.revoke_agent_key(name, reason, entry)
    if revoked is None:
        raise ApiError(Code.AGENT_KEY_NOT_FOUND, "no such agent key")
    if not revoked.already:
        _alert(visit, name, reason, keys=1, key_id=name.key_id)
    at_us = revoked.key.revoked_at_us
    return KeyRevokedReply(
        True,
        "Agent key revoked",
        uuid_text(name.tenant_id),
        uuid_text(name.agent_id),
        name.key_id,
        None if at_us is None else utc_text(at_us),
        revoked.key.revocation_reason,
        revoked.already,
        0 if revoked.already else 1,
    )


async def _revoke_all(visit: Visit, body: RevokeKeyBody) -> KeyRevokedReply:
    """In an emergency nobody counts keys first."""
    name = key_name(visit, body, 0)
    reason = body.reason or "revoked by request"
    entry = visit.act("agent_key.revoke_all", uuid_text(name.agent_id), name.tenant_id, reason=reason)
    done = await visit.house.journal.revoke_agent_keys(name.tenant_id, name.agent_id, reason, entry)
    if done is None:
        raise ApiError(Code.AGENT_KEY_NOT_FOUND, "this agent has no key")
    if done.revoked:
        _alert(visit, name, reason, keys=done.revoked, key_id=None)
    return KeyRevokedReply(
        True,
        "All keys of the agent are revoked",
        uuid_text(name.tenant_id),
        uuid_text(name.agent_id),
        None,
        None,
        reason,
        not done.revoked,
        done.revoked,
    )


def _alert(visit: Visit, name: KeyName, reason: str, *, keys: int, key_id: int | None) -> None:
    """``key_id`` None: all of the agent's."""
    visit.alert(
        "agent_key_revoked",
        tenant=uuid_text(name.tenant_id),
        agent=uuid_text(name.agent_id),
        key_id=key_id,
        keys=keys,
        reason=reason,
    )


async def list_keys(visit: Visit) -> AgentKeysReply:
    agent_id = visit.uuid(visit.path(AgentPath), "agent_id")
    query = visit.query(AgentKeysQuery)
    tenant_id = visit.who.tenant_named(visit.optional_uuid(query, "tenant_id"))
    found = await visit.house.journal.list_agent_keys(
        tenant_id, agent_id, from_key_id=query.from_, limit=query.limit + 1
    )
    keys = found[: query.limit]
    next_from = min(keys[-1].name.key_id + 1, U32_MAX) if keys else query.from_
    replies = [agent_key_reply(key) for key in keys]
    return AgentKeysReply(replies, len(replies), len(found) > query.limit, next_from)


def key_name(visit: Visit, body: RegisterKeyBody | RevokeKeyBody, key_id: int) -> KeyName:
    """The key's name, within the caller's scope: a key belongs to an agent in all stores of its tenant."""
    name = KeyName(visit.uuid(body, "tenant_id"), visit.uuid(body, "agent_id"), key_id)
    visit.who.must_reach_whole_tenant(name.tenant_id)
    visit.who.must_be(name.agent_id)
    return name


def subject(name: KeyName) -> str:
    return f"{uuid_text(name.agent_id)}/{name.key_id}"


def conflict(found: KeyConflict, name: KeyName) -> ApiError:
    return ApiError(
        Code.ALREADY_EXISTS,
        f"keyId {name.key_id} of this agent is registered already, with another key or validity"
        if found.same_name
        else "this public key is in use already; generate a new one",
    )


ROUTES = [
    Route(
        "POST",
        "/api/v1/agents/keys",
        register_key,
        "Register an agent's signing key; the same registration again changes nothing",
        KeyRegisteredReply,
        body_shape=RegisterKeyBody,
        refuses=(Code.ALREADY_EXISTS, Code.INVALID_PUBLIC_KEY, Code.SIGNATURE_VERIFICATION_FAILED),
    ),
    Route(
        "POST",
        "/api/v1/agents/keys/revoke",
        revoke_key,
        "Revoke an agent's signing key, or all of them: no event of it is sequenced afterwards",
        KeyRevokedReply,
        body_shape=RevokeKeyBody,
        refuses=(Code.AGENT_KEY_NOT_FOUND,),
    ),
    Route(
        "GET",
        "/api/v1/agents/{agent_id}/keys",
        list_keys,
        "An agent's signing keys by keyId, revoked ones too",
        AgentKeysReply,
        path_shape=AgentPath,
        query_shape=AgentKeysQuery,
    ),
]
