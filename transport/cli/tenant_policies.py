"""``sequencer tenant-policy``: what a tenant demands of its events, through the admin listener."""

from __future__ import annotations

from typing import Annotated, Any, Literal
from uuid import UUID

import msgspec
from cyclopts import App, Parameter

from transport.cli.console import AdminListener, Exit, Json, run, show
from transport.client.errors import ClientError
from transport.client.wire import decode

app = App(name="tenant-policy", help="Show and set which entity types and schemas a tenant demands.")

HERE = AdminListener()

Tenant = Annotated[UUID, Parameter(env_var="SEQUENCER_TENANT")]


class _Effective(msgspec.Struct, rename="camel"):
    entity_types: list[str] | None
    schema_mode: str


class _Policy(msgspec.Struct, rename="camel"):
    tenant_id: str
    entity_types: list[str] | None
    schema_mode: str | None
    effective: _Effective
    active_schemas: int


@app.command(name="show")
def show_policy(*, tenant: Tenant, as_json: Json = False, admin: AdminListener = HERE) -> int:
    """Show what a tenant demands of its events.

    Parameters
    ----------
    tenant
        Whose policy.
    """

    async def work() -> int:
        where = _path(tenant)
        async with admin.client() as client:
            policy = decode(await client.ask("GET", where), _Policy, where)
        show(_text(policy), policy, as_json)
        return Exit.OK

    return run(work, as_json=as_json)


@app.command(name="set")
def set_policy(
    *,
    tenant: Tenant,
    entity_type: Annotated[list[str] | None, Parameter(negative=())] = None,
    all_entity_types: Annotated[bool, Parameter(negative=())] = False,
    schema_mode: Literal["disabled", "warn", "enforce", "required", "default"] | None = None,
    as_json: Json = False,
    admin: AdminListener = HERE,
) -> int:
    """Set what a tenant demands of its events; what is not named stays. Within 2 seconds on every node.

    Parameters
    ----------
    tenant
        Whose policy.
    entity_type
        An allowed entity type; give it once per type. The node's own list cannot be widened.
    all_entity_types
        Allow what the node allows.
    schema_mode
        disabled, warn, enforce, required; default: as the node has it.
    """

    async def work() -> int:
        if entity_type and all_entity_types:
            raise ClientError("give either --entity-type or --all-entity-types")
        where = _path(tenant)
        async with admin.client() as client:
            now = decode(await client.ask("GET", where), _Policy, where)
            body: dict[str, Any] = {"entityTypes": now.entity_types, "schemaMode": now.schema_mode}
            if entity_type or all_entity_types:
                body["entityTypes"] = entity_type
            if schema_mode is not None:
                body["schemaMode"] = None if schema_mode == "default" else schema_mode
            policy = decode(await client.ask("PUT", where, body=body), _Policy, where)
        show(_text(policy), policy, as_json)
        return Exit.OK

    return run(work, as_json=as_json)


def _path(tenant: UUID) -> str:
    return f"/api/v1/admin/tenants/{tenant}/policy"


def _text(policy: _Policy) -> str:
    types, mode = policy.effective.entity_types, policy.effective.schema_mode
    whose = "its own" if policy.schema_mode else "the node's"
    return (
        f"entity types: {'all' if types is None else ', '.join(types) or 'none'}\n"
        f"schemas: {mode} ({whose} mode), {policy.active_schemas} active"
    )
