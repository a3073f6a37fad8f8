"""API keys, on the admin listener: making, listing, revoking. A key's text leaves once and is not kept."""

from __future__ import annotations

import secrets
from hashlib import sha256
from uuid import uuid4

from journal.port import ApiKey
from transport.http.callers import KEY_PREFIX
from transport.http.errors import ApiError, Code
from transport.http.replies import api_key_members, api_key_reply
from transport.http.routing import Route
from transport.http.shapes import (
    ApiKeyCreatedReply,
    ApiKeyPath,
    ApiKeyReply,
    ApiKeysQuery,
    ApiKeysReply,
    CreateApiKeyBody,
)
from transport.http.visit import Visit
from ves.encoding import uuid_bytes, uuid_text
from ves.records import Uuid

SECRET_BYTES = 24
PREFIX_CHARACTERS = len(KEY_PREFIX) + 8 + 4
"""The tenant's first digits and four characters of the secret: 168 bits of it stay unknown."""


async def create_api_key(visit: Visit) -> ApiKeyCreatedReply:
    body = await visit.json(CreateApiKeyBody)
    tenant_id = visit.uuid(body, "tenant_id")
    _must_administer(visit, tenant_id)
    text = f"{KEY_PREFIX}{tenant_id.hex()[:8]}{secrets.token_urlsafe(SECRET_BYTES)}"
    key = ApiKey(
        id=uuid4().bytes,
        key_hash=sha256(text.encode()).digest(),
        prefix=text[:PREFIX_CHARACTERS],
        tenant_id=tenant_id,
        store_ids=_store_ids(body),
        agent_id=visit.optional_uuid(body, "agent_id"),
        permissions=tuple(dict.fromkeys(body.permissions)),
        name=body.name,
    )
    entry = visit.act("api_key.create", uuid_text(key.id), tenant_id, permissions=" ".join(key.permissions))
    created = await visit.house.journal.create_api_key(key, entry)
    return ApiKeyCreatedReply(**api_key_members(created), api_key=text)


async def list_api_keys(visit: Visit) -> ApiKeysReply:
    query = visit.query(ApiKeysQuery)
    named = visit.optional_uuid(query, "tenant_id")
    tenant_id = visit.who.tenant_id if named is None else named
    if tenant_id is not None:
        _must_administer(visit, tenant_id)
    found = await visit.house.journal.list_api_keys(
        tenant_id, after=visit.optional_uuid(query, "after"), limit=query.limit + 1
    )
    keys = [api_key_reply(key) for key in found[: query.limit]]
    more = len(found) > query.limit
    return ApiKeysReply(keys, len(keys), more, keys[-1].id if more else None)


async def revoke_api_key(visit: Visit) -> ApiKeyReply:
    credential_id = visit.uuid(visit.path(ApiKeyPath), "id")
    tenant_id = visit.who.tenant_id
    if tenant_id is not None:
        _must_administer(visit, tenant_id)
    entry = visit.act("api_key.revoke", uuid_text(credential_id), tenant_id)
    try:
        revoked = await visit.house.journal.revoke_api_key(credential_id, tenant_id=tenant_id, audit=entry)
    finally:
        # Also when nobody knows whether it was revoked: forgetting costs one look into the database.
        visit.house.credentials.forget([credential_id])
    if revoked is None:
        raise ApiError(Code.RESOURCE_NOT_FOUND, "no such API key")
    return api_key_reply(revoked)


def _must_administer(visit: Visit, tenant_id: Uuid) -> None:
    """A credential bound to some stores or one agent must not make, see or end others' credentials."""
    visit.who.must_reach_whole_tenant(tenant_id)
    if visit.who.agent_id is not None:
        raise ApiError(Code.INSUFFICIENT_PERMISSIONS, "Agent-scoped credentials do not manage API keys")


def _store_ids(body: CreateApiKeyBody) -> tuple[Uuid, ...] | None:
    if body.store_ids is None:
        return None
    try:
        return tuple(dict.fromkeys(uuid_bytes(one) for one in body.store_ids))
    except ValueError:
        raise ApiError(Code.INVALID_FIELD_VALUE, "storeIds: not a UUID", status=422) from None


ROUTES = [
    Route(
        "POST",
        "/api/v1/admin/api-keys",
        create_api_key,
        "Make an API key; its text is shown only now",
        ApiKeyCreatedReply,
        status=201,
        body_shape=CreateApiKeyBody,
    ),
    Route(
        "GET",
        "/api/v1/admin/api-keys",
        list_api_keys,
        "API keys, revoked ones too, without their texts",
        ApiKeysReply,
        query_shape=ApiKeysQuery,
    ),
    Route(
        "DELETE",
        "/api/v1/admin/api-keys/{id}",
        revoke_api_key,
        "Revoke an API key: nothing is appended with it afterwards",
        ApiKeyReply,
        path_shape=ApiKeyPath,
        refuses=(Code.RESOURCE_NOT_FOUND,),
    ),
]
