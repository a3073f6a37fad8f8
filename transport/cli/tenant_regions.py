"""``sequencer tenant-region``: where tenants may be served, through the admin listener."""

from __future__ import annotations

from typing import Annotated
from uuid import UUID

import msgspec
from cyclopts import App, Parameter

from transport.cli.console import AdminListener, Exit, Json, run, show
from transport.client.errors import ClientError
from transport.client.wire import decode

app = App(name="tenant-region", help="Pin tenants to regions: nodes elsewhere do not serve them.")

HERE = AdminListener()

Tenant = Annotated[UUID, Parameter(env_var="SEQUENCER_TENANT")]


class _Regions(msgspec.Struct, rename="camel"):
    tenant_id: str
    regions: list[str]
    here: str | None
    served_here: bool


class _Pinned(msgspec.Struct, rename="camel"):
    tenant_id: str
    regions: list[str]


class _Page(msgspec.Struct):
    tenants: list[_Pinned]
    next_after: str | None


@app.command(name="show")
def show_regions(*, tenant: Tenant, as_json: Json = False, admin: AdminListener = HERE) -> int:
    """Show where a tenant may be served.

    Parameters
    ----------
    tenant
        Which tenant.
    """

    async def work() -> int:
        where = _path(tenant)
        async with admin.client() as client:
            found = decode(await client.ask("GET", where), _Regions, where)
        show(_text(found), found, as_json)
        return Exit.OK

    return run(work, as_json=as_json)


@app.command(name="set")
def set_regions(
    *,
    tenant: Tenant,
    region: Annotated[list[str] | None, Parameter(negative=())] = None,
    anywhere: Annotated[bool, Parameter(negative=())] = False,
    as_json: Json = False,
    admin: AdminListener = HERE,
) -> int:
    """Pin a tenant to regions, replacing its pins so far. Within 2 seconds on every node.

    Parameters
    ----------
    tenant
        Which tenant.
    region
        Where it may be served; give it once per region.
    anywhere
        Lift its pins.
    """

    async def work() -> int:
        if bool(region) == anywhere:
            raise ClientError("give either --region, once or more, or --anywhere")
        where = _path(tenant)
        async with admin.client() as client:
            found = decode(await client.ask("PUT", where, body={"regions": region or []}), _Regions, where)
        show(_text(found), found, as_json)
        return Exit.OK

    return run(work, as_json=as_json)


@app.command(name="list")
def list_pinned(*, as_json: Json = False, admin: AdminListener = HERE) -> int:
    """List the tenants that are pinned."""

    async def work() -> int:
        where = "/api/v1/admin/tenant-regions"
        found: list[_Pinned] = []
        after: str | None = None
        async with admin.client() as client:
            while True:
                page_of = where if after is None else f"{where}?after={after}"
                page = decode(await client.ask("GET", page_of), _Page, where)
                found += page.tenants
                after = page.next_after
                if after is None:
                    break
        text = "\n".join(f"{one.tenant_id}  {', '.join(one.regions)}" for one in found)
        show(text or "no tenant is pinned", found, as_json)
        return Exit.OK

    return run(work, as_json=as_json)


def _path(tenant: UUID) -> str:
    return f"/api/v1/admin/tenants/{tenant}/regions"


def _text(found: _Regions) -> str:
    where = ", ".join(found.regions) or "anywhere"
    here = f"this node is in {found.here}" if found.here else "this node was not told where it is"
    return f"served in: {where}\n{here}: {'serves it' if found.served_here else 'does not serve it'}"
