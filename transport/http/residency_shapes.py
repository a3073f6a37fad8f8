"""The wire's JSON about regions (admin listener). No behaviour."""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta

from config.settings import REGION
from transport.http.shapes import PAGE_DEFAULT, Count, Limit, UuidText

REGIONS_MAX = 16

RegionName = Annotated[str, Meta(pattern=REGION, max_length=63)]


class RegionsBody(msgspec.Struct, rename="camel"):
    """Replaces what was set before; an empty list sets the tenant free."""

    regions: Annotated[list[RegionName], Meta(max_length=REGIONS_MAX)]


class RegionsReply(msgspec.Struct, rename="camel"):
    """``here``: this node's region, null if it was not told; ``servedHere``: whether it serves the tenant."""

    tenant_id: UuidText
    regions: list[str]
    here: str | None
    served_here: bool


class PinnedTenantsQuery(msgspec.Struct):
    after: Annotated[UuidText, Meta(description="``next_after`` of the page before.")] | None = None
    limit: Limit = PAGE_DEFAULT


class PinnedReply(msgspec.Struct, rename="camel"):
    tenant_id: UuidText
    regions: list[str]


class PinnedTenantsReply(msgspec.Struct):
    """By tenant id."""

    tenants: list[PinnedReply]
    count: Count
    has_more: bool
    next_after: UuidText | None
