"""``sequencer api-key``: create, list and revoke API keys through the admin listener.

The credential is the bootstrap key of a server on this machine (BOOTSTRAP_ADMIN_API_KEY or its file under
DATA_DIR), or what ``--api-key-file`` or SEQUENCER_API_KEY give. A new key is shown once, nowhere kept here.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, Literal
from uuid import UUID

import msgspec
from cyclopts import App, Parameter

from transport.cli.console import AdminListener, Exit, Json, run, show
from transport.client.errors import ClientError
from transport.client.sequencer import SequencerClient
from transport.client.wire import decode

app = App(name="api-key", help="Create, list and revoke API keys (admin listener).")

PATH = "/api/v1/admin/api-keys"
PAGE = 1000
HERE = AdminListener()

Tenant = Annotated[UUID, Parameter(env_var="SEQUENCER_TENANT")]
Flags = Annotated[list[Literal["read", "write", "admin"]], Parameter(name="--permission", negative=())]


class _ApiKey(msgspec.Struct, rename="camel", omit_defaults=True):
    id: str
    prefix: str
    tenant_id: str
    permissions: list[str]
    store_ids: list[str] | None = None
    agent_id: str | None = None
    name: str | None = None
    created_at: str = ""
    revoked_at: str | None = None
    api_key: str | None = None


class _Page(msgspec.Struct):
    api_keys: list[_ApiKey] = msgspec.field(name="apiKeys")
    has_more: bool
    next_after: str | None


@app.command
def create(
    *,
    tenant: Tenant,
    permission: Flags,
    store: Annotated[list[UUID] | None, Parameter(negative=())] = None,
    agent: UUID | None = None,
    name: str | None = None,
    out: Path | None = None,
    as_json: Json = False,
    admin: AdminListener = HERE,
) -> int:
    """Create an API key for a tenant. It is shown this once.

    Parameters
    ----------
    tenant
        The tenant it belongs to.
    permission
        read, write, admin; give it once per permission.
    store
        Only these stores; default: all of the tenant.
    agent
        Only events of this agent; default: any.
    name
        A name for people.
    out
        Write the key to this new file, readable by you alone, instead of printing it.
    """

    async def work() -> int:
        body: dict[str, Any] = {"tenantId": str(tenant), "permissions": permission}
        if store:
            body["storeIds"] = [str(one) for one in store]
        if agent is not None:
            body["agentId"] = str(agent)
        if name is not None:
            body["name"] = name
        with _reserved(out) as keep:
            async with admin.client() as client:
                # Not repeatable: each time makes another key, and a lost answer is a key nobody has.
                made = decode(await client.ask("POST", PATH, body=body, repeatable=False), _ApiKey, PATH)
            keep(made.api_key or "")
        about = f"id {made.id}, {', '.join(made.permissions)}, tenant {tenant}"
        if out is None:
            show(f"{made.api_key}\n{about} (shown once, keep it)", made, as_json)
        else:
            made.api_key = None
            show(f"{about} (in {out})", made, as_json)
        return Exit.OK

    return run(work, as_json=as_json)


@contextmanager
def _reserved(path: Path | None) -> Iterator[Callable[[str], None]]:
    """The file exists, empty and ours alone, before a key is made for it; gone again if none was made."""
    if path is None:
        yield lambda text: None
        return
    try:
        file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except OSError as error:
        raise ClientError(f"{path}: {error.strerror}") from error
    with os.fdopen(file, "w", encoding="ascii") as out:
        try:
            yield lambda text: print(text, file=out)
        except BaseException:
            path.unlink(missing_ok=True)
            raise


@app.command(name="list")
def list_keys(*, tenant: UUID | None = None, as_json: Json = False, admin: AdminListener = HERE) -> int:
    """List API keys: never the keys themselves, only their beginnings.

    Parameters
    ----------
    tenant
        Only this tenant's.
    """

    async def work() -> int:
        async with admin.client() as client:
            keys = await _all(client, tenant)
        lines = [_line(key) for key in keys] or ["there is no API key"]
        show("\n".join(lines), {"ok": True, "apiKeys": keys}, as_json)
        return Exit.OK

    return run(work, as_json=as_json)


def _line(key: _ApiKey) -> str:
    """One key on one line, however long: ids are there to be copied."""
    parts = [key.id, f"{key.prefix}…", ",".join(key.permissions), f"tenant {key.tenant_id}"]
    if key.store_ids:
        parts.append(f"stores {','.join(key.store_ids)}")
    if key.agent_id:
        parts.append(f"agent {key.agent_id}")
    if key.name:
        parts.append(repr(key.name))
    parts.append(f"created {key.created_at}")
    if key.revoked_at:
        parts.append(f"REVOKED {key.revoked_at}")
    return "  ".join(parts)


async def _all(client: SequencerClient, tenant: UUID | None) -> list[_ApiKey]:
    query: dict[str, Any] = {"limit": PAGE} | ({"tenant_id": str(tenant)} if tenant else {})
    keys: list[_ApiKey] = []
    while True:
        page = decode(await client.ask("GET", PATH, query=query), _Page, PATH)
        keys += page.api_keys
        if not page.has_more or page.next_after in (None, query.get("after")):
            return keys
        query["after"] = page.next_after


@app.command
def revoke(id: UUID, *, as_json: Json = False, admin: AdminListener = HERE) -> int:
    """Revoke an API key by its id. At once on this server, within seconds on others.

    Parameters
    ----------
    id
        As `api-key list` shows it.
    """

    async def work() -> int:
        async with admin.client() as client:
            await client.ask("DELETE", f"{PATH}/{id}")
        show(f"API key {id} is revoked", {"ok": True, "id": str(id)}, as_json)
        return Exit.OK

    return run(work, as_json=as_json)
