"""``sequencer api-key``: create, list and revoke API keys through the admin listener.

The credential is the bootstrap key of a server on this machine (BOOTSTRAP_ADMIN_API_KEY or its file under
DATA_DIR), or what ``--api-key-file`` or SEQUENCER_API_KEY give. A new key is shown once, nowhere kept here.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
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
Role = Literal["agent", "reader", "admin", "anchor", "monitor"]
Flags = Annotated[list[Literal["read", "write", "admin"]] | None, Parameter(name="--permission", negative=())]

_DURATION = re.compile(r"([1-9][0-9]{0,8})([smhdw])")
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}


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
    role: str | None = None
    expires_at: str | None = None
    expired: bool = False
    rate_limit: int | None = None

    @property
    def may(self) -> str:
        return f"role {self.role}" if self.role else ",".join(self.permissions)


class _Page(msgspec.Struct):
    api_keys: list[_ApiKey] = msgspec.field(name="apiKeys")
    has_more: bool
    next_after: str | None


@app.command
def create(
    *,
    tenant: Tenant,
    role: Role | None = None,
    permission: Flags = None,
    store: Annotated[list[UUID] | None, Parameter(negative=())] = None,
    agent: UUID | None = None,
    expires: str | None = None,
    rate_limit: int | None = None,
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
    role
        What it may do: agent and reader events, anchor commitments, admin all within the tenant, monitor
        the node's metrics.
    permission
        The older way, instead of a role: read, write, admin; give it once per permission.
    store
        Only these stores; default: all of the tenant.
    agent
        Only events of this agent; default: any.
    expires
        When it ends: a time from now (90d, 12h, 30m) or RFC 3339. Default: never.
    rate_limit
        Requests per minute, in place of the server's limits.
    name
        A name for people.
    out
        Write the key to this new file, readable by you alone, instead of printing it.
    """

    async def work() -> int:
        if (role is None) == (permission is None):
            raise ClientError("give --role (or, the older way, --permission), one of the two")
        wanted = {
            "tenantId": str(tenant),
            "role": role,
            "permissions": permission,
            "storeIds": [str(one) for one in store] if store else None,
            "agentId": None if agent is None else str(agent),
            "expiresAt": None if expires is None else _end(expires),
            "rateLimit": rate_limit,
            "name": name,
        }
        body = {field: value for field, value in wanted.items() if value is not None}
        with _reserved(out) as keep:
            async with admin.client() as client:
                # Not repeatable: each time makes another key, and a lost answer is a key nobody has.
                made = decode(await client.ask("POST", PATH, body=body, repeatable=False), _ApiKey, PATH)
            keep(made.api_key or "")
        about = f"id {made.id}, {made.may}, tenant {tenant}"
        if made.expires_at:
            about += f", until {made.expires_at}"
        if out is None:
            show(f"{made.api_key}\n{about} (shown once, keep it)", made, as_json)
        else:
            made.api_key = None
            show(f"{about} (in {out})", made, as_json)
        return Exit.OK

    return run(work, as_json=as_json)


def _end(text: str) -> str:
    """A time from now as RFC 3339; what looks like a date and time as it is, for the server to read."""
    match = _DURATION.fullmatch(text)
    if match is None:
        if "T" not in text.upper():
            raise ClientError(f"--expires {text}: write 90d, 12h, 30m, or RFC 3339: 2027-01-31T12:00:00Z")
        return text
    try:
        end = datetime.now(UTC) + timedelta(seconds=int(match[1]) * _SECONDS[match[2]])
    except OverflowError:
        raise ClientError(f"--expires {text}: beyond the calendar") from None
    return end.isoformat(timespec="seconds")


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
def list_keys(
    *,
    tenant: UUID | None = None,
    prefix: str | None = None,
    as_json: Json = False,
    admin: AdminListener = HERE,
) -> int:
    """List API keys: never the keys themselves, only their beginnings.

    Parameters
    ----------
    tenant
        Only this tenant's.
    prefix
        Only those that begin so, as this command shows it (never more than that of a key).
    """

    async def work() -> int:
        async with admin.client() as client:
            keys = await _all(client, tenant, prefix)
        lines = [_line(key) for key in keys] or ["there is no API key"]
        show("\n".join(lines), {"ok": True, "apiKeys": keys}, as_json)
        return Exit.OK

    return run(work, as_json=as_json)


def _line(key: _ApiKey) -> str:
    """One key on one line, however long: ids are there to be copied."""
    parts = [key.id, f"{key.prefix}…", key.may, f"tenant {key.tenant_id}"]
    if key.store_ids:
        parts.append(f"stores {','.join(key.store_ids)}")
    if key.agent_id:
        parts.append(f"agent {key.agent_id}")
    if key.name:
        parts.append(repr(key.name))
    if key.rate_limit:
        parts.append(f"{key.rate_limit} requests per minute")
    parts.append(f"created {key.created_at}")
    if key.expires_at:
        parts.append(f"{'EXPIRED' if key.expired else 'expires'} {key.expires_at}")
    if key.revoked_at:
        parts.append(f"REVOKED {key.revoked_at}")
    return "  ".join(parts)


async def _all(client: SequencerClient, tenant: UUID | None, prefix: str | None) -> list[_ApiKey]:
    query: dict[str, Any] = {"limit": PAGE}
    query |= {"tenant_id": str(tenant)} if tenant else {}
    query |= {"prefix": prefix} if prefix else {}
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
