"""``sequencer agent-key``: rotate a signing key, revoke one or all of an agent's, see which are due and what
a key has signed.

``rotate`` is for the agent, with its key file and its own credential; the others are for operators.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any
from uuid import UUID

import msgspec
from cyclopts import App, Parameter
from cyclopts.validators import Number

from transport.cli.console import (
    AdminListener,
    Exit,
    Json,
    Server,
    announcement,
    bootstrap_key,
    run,
    show,
)
from transport.client.errors import ClientError
from transport.client.rotation import KeyChange
from transport.client.sequencer import SequencerClient
from transport.client.wire import decode
from ves.constants import U32_MAX
from ves.encoding import uuid_text
from ves.key_life import Life

app = App(name="agent-key", help="Rotate, revoke and watch agents' signing keys.")

KEYS = "/api/v1/admin/agent-keys"
REVOKE = "/api/v1/agents/keys/revoke"
PAGE = 1000
HERE = Server()
ADMIN = AdminListener()

KeyFile = Annotated[Path, Parameter(name="--key", env_var="SEQUENCER_AGENT_KEY")]
Tenant = Annotated[UUID, Parameter(env_var="SEQUENCER_TENANT")]
KeyId = Annotated[int, Parameter(validator=Number(gte=0, lte=U32_MAX))]
Grace = Annotated[int, Parameter(validator=Number(gte=0, lte=90 * 86_400))]


class _Key(msgspec.Struct, rename="camel"):
    tenant_id: str
    agent_id: str
    key_id: int
    status: str
    age_days: int
    valid_to: str | None = None
    retires_at: str | None = None
    replaced_by: int | None = None
    revoked_at: str | None = None
    revocation_reason: str | None = None
    proof_of_possession: int | None = None


class _KeysPage(msgspec.Struct):
    keys: list[_Key]
    has_more: bool
    next_after: str | None


class _Signed(msgspec.Struct):
    store_id: str
    sequence_number: int
    event_id: str
    sequenced_at: str


class _SignedPage(msgspec.Struct):
    events: list[_Signed]
    has_more: bool
    next_after: str | None


class _Revoked(msgspec.Struct, rename="camel"):
    keys_revoked: int
    already_revoked: bool


@app.command
def rotate(
    *, key: KeyFile, grace_secs: Grace = 7 * 86_400, as_json: Json = False, server: Server = HERE
) -> int:
    """Replace the key in a key file by a new one; the old one may sign for a while yet.

    The new key is on disk before the server hears of it, and the key file changes only after the server has
    answered. If the command is interrupted, the same command goes on. The agent's own API key is enough.

    Parameters
    ----------
    key
        The agent's key file. The old key stays beside it as KEYFILE.old-KEYID.
    grace_secs
        So long the old key may still sign.
    """

    async def work() -> int:
        change = KeyChange(key)
        async with server.client() as client:
            new = change.waiting() or change.prepare(await _free_key_id(client, change))
            told = await client.rotate_key(change.agent, new, grace_s=grace_secs)
        change.switch()
        old_id, new_id = change.agent.name.key_id, new.name.key_id
        text = (
            f"agent {uuid_text(new.name.agent_id)} signs with key {new_id} from now on ({key})\n"
            f"key {old_id} may sign until {told.retires_at} ({change.old_path})"
        )
        data = {"ok": True, "key_id": new_id, "replaces": old_id, "retires_at": told.retires_at}
        show(text, data, as_json)
        return Exit.OK

    return run(work, as_json=as_json)


async def _free_key_id(client: SequencerClient, change: KeyChange) -> int:
    known = await client.agent_keys(*change.agent.name[:2])
    free = max([change.agent.name.key_id, *(name.key_id for name in known)]) + 1
    if free > U32_MAX:
        raise ClientError(f"no key id above {free - 1} is left for this agent")
    return free


@app.command(name="list")
def list_keys(
    *,
    tenant: UUID | None = None,
    status: Life | None = None,
    as_json: Json = False,
    admin: AdminListener = ADMIN,
) -> int:
    """List agent keys with their age and stage.

    Parameters
    ----------
    tenant
        Only this tenant's.
    status
        Only keys in this stage.
    """

    async def work() -> int:
        query: dict[str, Any] = {"limit": PAGE}
        query |= {"tenant_id": str(tenant)} if tenant else {}
        query |= {"status": status} if status else {}
        keys: list[_Key] = []
        async with admin.client() as client:
            while True:
                page = decode(await client.ask("GET", KEYS, query=query), _KeysPage, KEYS)
                keys += page.keys
                if not page.has_more or page.next_after in (None, query.get("after")):
                    break
                query["after"] = page.next_after
        lines = [_line(key) for key in keys] or ["there is no such key"]
        show("\n".join(lines), {"ok": True, "keys": keys}, as_json)
        return Exit.OK

    return run(work, as_json=as_json)


def _line(key: _Key) -> str:
    parts = [f"tenant {key.tenant_id}", f"agent {key.agent_id}", f"key {key.key_id}", key.status]
    parts.append(f"{key.age_days} days")
    if key.revoked_at:
        parts.append(f"revoked {key.revoked_at} ({key.revocation_reason})")
    elif key.retires_at:
        parts.append(f"until {key.retires_at}, replaced by {key.replaced_by}")
    elif key.valid_to:
        parts.append(f"until {key.valid_to}")
    return "  ".join(parts)


@app.command
def revoke(
    *,
    tenant: Tenant,
    agent: UUID,
    key_id: KeyId | None = None,
    all_keys: Annotated[bool, Parameter(negative=())] = False,
    reason: str,
    as_json: Json = False,
    server: Server = HERE,
) -> int:
    """Revoke a key, or all keys of an agent. No event they signed is sequenced afterwards, on any node.

    Parameters
    ----------
    tenant, agent
        Whose.
    key_id
        Which key.
    all_keys
        All of the agent's, those too that it has rotated in.
    reason
        For the record; suspected_compromise is told apart in alerts.
    """

    async def work() -> int:
        if (key_id is None) != all_keys:
            raise ClientError("which key? give either --key-id or --all-keys")
        body: dict[str, Any] = {"tenantId": str(tenant), "agentId": str(agent), "reason": reason}
        body |= {"allKeys": True} if all_keys else {"keyId": key_id}
        async with _operator(server) as client:
            done = decode(await client.ask("POST", REVOKE, body=body), _Revoked, REVOKE)
        what = f"all keys of agent {agent}" if all_keys else f"key {key_id} of agent {agent}"
        text = f"{what}: revoked before" if done.already_revoked else f"{what}: revoked ({done.keys_revoked})"
        show(text, {"ok": True, "keys_revoked": done.keys_revoked}, as_json)
        return Exit.OK

    return run(work, as_json=as_json)


def _operator(server: Server) -> SequencerClient:
    """With the API key given, else this machine's bootstrap key for the server that runs here."""
    api_key: str | None = server.api_key()
    if api_key is not None:
        return server.client()
    if server.url is not None:
        return server.connect(server.url, bootstrap_key())
    here = announcement()
    if here is None:
        raise ClientError("no server runs on DATA_DIR: name one with --url and an API key")
    return server.connect(here.url, bootstrap_key(), shown=here.certificate_file)


@app.command
def events(
    *, tenant: Tenant, agent: UUID, key_id: KeyId, as_json: Json = False, admin: AdminListener = ADMIN
) -> int:
    """Print where the events stand that a key signed, one JSON object per line: for after an incident.

    Parameters
    ----------
    tenant, agent
        Whose.
    key_id
        Which key.
    """

    async def work() -> int:
        path = f"{KEYS}/{agent}/{key_id}/events"
        query: dict[str, Any] = {"limit": PAGE, "tenant_id": str(tenant)}
        async with admin.client() as client:
            while True:
                page = decode(await client.ask("GET", path, query=query), _SignedPage, path)
                for event in page.events:
                    show(msgspec.json.encode(event).decode(), event, as_json)
                if not page.has_more or page.next_after in (None, query.get("after")):
                    return Exit.OK
                query["after"] = page.next_after

    return run(work, as_json=as_json)
