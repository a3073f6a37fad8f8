"""API keys, on the admin listener: making, listing, revoking. A key's text leaves once and is not kept."""

from __future__ import annotations

from typing import Any

from journal.port import ApiKey
from transport.http import minting
from transport.http.api_key_shapes import (
    ApiKeyCreatedReply,
    ApiKeyPath,
    ApiKeyReply,
    ApiKeysQuery,
    ApiKeysReply,
    CreateApiKeyBody,
)
from transport.http.errors import ApiError, Code
from transport.http.issuing import announce_creation, creation_entry, new_api_key, revoke
from transport.http.permissions import of_key
from transport.http.routing import Route
from transport.http.visit import Visit
from ves.encoding import uuid_text
from ves.timestamps import utc_text


async def create_api_key(visit: Visit) -> ApiKeyCreatedReply:
    body = await visit.json(CreateApiKeyBody)
    tenant_id = visit.uuid(body, "tenant_id")
    visit.who.must_administer(tenant_id, "manage API keys")
    granted = minting.grant(
        visit.who,
        permissions=minting.of_role_or_flags(body.role, body.permissions),
        store_ids=body.store_ids,
        expires_at=body.expires_at,
        rate_limit=body.rate_limit,
        now_us=visit.house.credentials.now_us(),
    )
    agent_id = visit.optional_uuid(body, "agent_id")
    flags = None if body.permissions is None else tuple(dict.fromkeys(body.permissions))
    key, text = new_api_key(visit, tenant_id, agent_id, granted, flags=flags, name=body.name)
    created = await visit.house.journal.create_api_key(
        key, creation_entry(visit, key), by=visit.who.api_key_id
    )
    announce_creation(visit, created)
    return ApiKeyCreatedReply(**_members(visit, created), api_key=text)


async def list_api_keys(visit: Visit) -> ApiKeysReply:
    query = visit.query(ApiKeysQuery)
    named = visit.optional_uuid(query, "tenant_id")
    tenant_id = visit.who.tenant_id if named is None else named
    if tenant_id is not None:
        visit.who.must_administer(tenant_id, "manage API keys")
    found = await visit.house.journal.list_api_keys(
        tenant_id,
        after=visit.optional_uuid(query, "after"),
        limit=query.limit + 1,
        prefix=query.prefix or "",
    )
    keys = [ApiKeyReply(**_members(visit, key)) for key in found[: query.limit]]
    more = len(found) > query.limit
    return ApiKeysReply(keys, len(keys), more, keys[-1].id if more else None)


async def revoke_api_key(visit: Visit) -> ApiKeyReply:
    credential_id = visit.uuid(visit.path(ApiKeyPath), "id")
    tenant_id = visit.who.tenant_id
    if tenant_id is not None:
        visit.who.must_administer(tenant_id, "manage API keys")
    revoked = await revoke(visit, credential_id, tenant_id)
    if revoked is None:
        raise ApiError(Code.RESOURCE_NOT_FOUND, "no such API key")
    return ApiKeyReply(**_members(visit, revoked))


def _members(visit: Visit, key: ApiKey) -> dict[str, Any]:
    end_us = key.expires_at_us
    return {
        "id": uuid_text(key.id),
        "prefix": key.prefix,
        "tenant_id": uuid_text(key.tenant_id),
        "role": key.role,
        "permissions": list(key.permissions) if key.role is None else sorted(of_key(key.role, ())),
        "store_ids": None if key.store_ids is None else [uuid_text(one) for one in key.store_ids],
        "agent_id": None if key.agent_id is None else uuid_text(key.agent_id),
        "name": key.name,
        "created_at": utc_text(key.created_at_us),
        "expires_at": None if end_us is None else utc_text(end_us),
        "expired": end_us is not None and visit.house.credentials.now_us() >= end_us,
        "rate_limit": key.rate_limit_per_minute,
        "revoked_at": None if key.revoked_at_us is None else utc_text(key.revoked_at_us),
    }


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
