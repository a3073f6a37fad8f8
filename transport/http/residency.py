"""Where tenants may be served: pins are set by operators, and every door of a node in another region is shut.

Alone judges whether this node may serve a tenant. Without REGION nothing is judged: such a node does not
start on a database that has pinned tenants. A pin moves no data; it says where requests are answered.
"""

from __future__ import annotations

from transport.house import House
from transport.http.errors import ApiError, Code
from transport.http.residency_shapes import (
    PinnedReply,
    PinnedTenantsQuery,
    PinnedTenantsReply,
    RegionsBody,
    RegionsReply,
)
from transport.http.routing import Route
from transport.http.schema_shapes import TenantPath
from transport.http.visit import Visit
from ves.encoding import uuid_text
from ves.records import Uuid


async def must_be_served_here(house: House, tenant_id: Uuid) -> None:
    """421 for a tenant that is pinned elsewhere, or nowhere where a pin is required. Raises JournalAway when
    nothing is known about it."""
    here = house.settings.region
    if here is None:
        return
    regions = await house.policies.regions(tenant_id)
    if regions and here not in regions:
        raise _elsewhere(f"this tenant is served in {', '.join(regions)} only; this is {here}")
    if not regions and house.settings.tenant_region_required:
        raise _elsewhere(f"this tenant is pinned to no region; an operator has to pin it to {here} first")


def _elsewhere(text: str) -> ApiError:
    return ApiError(Code.WRONG_REGION, text)


async def read_regions(visit: Visit) -> RegionsReply:
    tenant_id = visit.uuid(visit.path(TenantPath), "tenant_id")
    policy = await visit.house.journal.read_policy(tenant_id)
    return _reply(visit, tenant_id, policy.regions)


async def set_regions(visit: Visit) -> RegionsReply:
    tenant_id = visit.uuid(visit.path(TenantPath), "tenant_id")
    body = await visit.json(RegionsBody)
    if visit.house.settings.region is None:
        text = "this node does not know where it is: set REGION on every node before tenants are pinned"
        raise ApiError(Code.CONFLICT, text)
    regions = tuple(dict.fromkeys(body.regions))
    entry = visit.act(
        "tenant_regions.set", uuid_text(tenant_id), tenant_id, regions=",".join(regions) or None
    )
    try:
        policy = await visit.house.journal.set_regions(tenant_id, regions=regions, audit=entry)
    finally:
        # Also when nobody knows whether it was set: forgetting costs one look into the database.
        visit.house.policies.forget([tenant_id])
    return _reply(visit, tenant_id, policy.regions)


async def list_pinned(visit: Visit) -> PinnedTenantsReply:
    query = visit.query(PinnedTenantsQuery)
    after = visit.optional_uuid(query, "after")
    found = await visit.house.journal.list_pinned(after=after, limit=query.limit + 1)
    page = [PinnedReply(uuid_text(one.tenant_id), list(one.regions)) for one in found[: query.limit]]
    more = len(found) > query.limit
    return PinnedTenantsReply(page, len(page), more, page[-1].tenant_id if more else None)


def _reply(visit: Visit, tenant_id: Uuid, regions: tuple[str, ...]) -> RegionsReply:
    here = visit.house.settings.region
    required = visit.house.settings.tenant_region_required
    served = here is None or here in regions or not (regions or required)
    return RegionsReply(uuid_text(tenant_id), list(regions), here, served)


ROUTES = [
    Route(
        "GET",
        "/api/v1/admin/tenants/{tenant_id}/regions",
        read_regions,
        "Where a tenant may be served",
        RegionsReply,
        path_shape=TenantPath,
    ),
    Route(
        "PUT",
        "/api/v1/admin/tenants/{tenant_id}/regions",
        set_regions,
        "Pin a tenant to regions, or to none",
        RegionsReply,
        path_shape=TenantPath,
        body_shape=RegionsBody,
        refuses=(Code.CONFLICT,),
    ),
    Route(
        "GET",
        "/api/v1/admin/tenant-regions",
        list_pinned,
        "Tenants that are pinned to regions",
        PinnedTenantsReply,
        query_shape=PinnedTenantsQuery,
    ),
]
