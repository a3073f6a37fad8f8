"""What a tenant demands of its events beside schemas, on the admin listener: entity types and the mode."""

from __future__ import annotations

from journal.port import TenantPolicy
from transport.http.errors import ApiError, Code
from transport.http.routing import Route
from transport.http.schema_shapes import EffectivePolicy, PolicyBody, PolicyReply, TenantPath
from transport.http.visit import Visit
from ves.constants import ENTITY_TYPE_BYTES_MAX
from ves.encoding import uuid_text
from ves.records import Uuid


async def read_policy(visit: Visit) -> PolicyReply:
    tenant_id = _tenant(visit)
    return _reply(visit, tenant_id, await visit.house.journal.read_policy(tenant_id))


async def set_policy(visit: Visit) -> PolicyReply:
    tenant_id = _tenant(visit)
    body = await visit.json(PolicyBody)
    entity_types = None if body.entity_types is None else tuple(dict.fromkeys(body.entity_types))
    for name in entity_types or ():
        if len(name.encode()) > ENTITY_TYPE_BYTES_MAX:
            text = f"entityTypes: names have at most {ENTITY_TYPE_BYTES_MAX} bytes of UTF-8"
            raise ApiError(Code.INVALID_FIELD_VALUE, text)
    entry = visit.act(
        "tenant_policy.set",
        uuid_text(tenant_id),
        tenant_id,
        schema_mode=body.schema_mode,
        entity_types=None if entity_types is None else ",".join(entity_types)[:1000],
    )
    try:
        policy = await visit.house.journal.set_policy(
            tenant_id, entity_types=entity_types, schema_mode=body.schema_mode, audit=entry
        )
    finally:
        # Also when nobody knows whether it was set: forgetting costs one look into the database.
        visit.house.policies.forget([tenant_id])
    return _reply(visit, tenant_id, policy)


def _tenant(visit: Visit) -> Uuid:
    tenant_id = visit.uuid(visit.path(TenantPath), "tenant_id")
    visit.who.must_administer(tenant_id, "manage policies")
    return tenant_id


def _reply(visit: Visit, tenant_id: Uuid, policy: TenantPolicy) -> PolicyReply:
    effective = visit.house.policies.effective(tenant_id, policy)
    return PolicyReply(
        uuid_text(tenant_id),
        None if policy.entity_types is None else list(policy.entity_types),
        policy.schema_mode,
        EffectivePolicy(
            None if effective.entity_types is None else list(effective.entity_types), effective.schema_mode
        ),
        len(policy.schemas),
    )


ROUTES = [
    Route(
        "GET",
        "/api/v1/admin/tenants/{tenant_id}/policy",
        read_policy,
        "What a tenant demands of its events",
        PolicyReply,
        path_shape=TenantPath,
    ),
    Route(
        "PUT",
        "/api/v1/admin/tenants/{tenant_id}/policy",
        set_policy,
        "Set a tenant's entity types and mode of comparing with schemas",
        PolicyReply,
        path_shape=TenantPath,
        body_shape=PolicyBody,
    ),
]
