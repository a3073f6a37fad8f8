"""``sequencer schema``: register, list, show, retire JSON Schemas, and try payloads against them.

Speaks to the public listener with the caller's API key, like any client; registering and retiring want an
admin's. Reads schemas and payloads from files or stdin and checks nothing itself.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import quote
from uuid import UUID

import msgspec
from cyclopts import App, Parameter

from transport.cli.console import Exit, Json, Server, read_file, run, show
from transport.client.errors import ClientError
from transport.client.wire import UNREADABLE, decode

app = App(name="schema", help="Register, list, retire JSON Schemas of payloads, and try payloads.")

PATH = "/api/v1/schemas"
PAGE = 100
HERE = Server()

Tenant = Annotated[UUID, Parameter(env_var="SEQUENCER_TENANT")]


class _Created(msgspec.Struct, rename="camel"):
    id: str
    event_type: str
    version: int


class _Schema(msgspec.Struct, rename="camel"):
    id: str
    event_type: str
    version: int
    status: str
    compatibility: str
    created_at: str
    schema_json: msgspec.Raw


class _Page(msgspec.Struct, rename="camel"):
    schemas: list[_Schema]
    has_more: bool
    next_after: str | None


class _Verdict(msgspec.Struct, rename="camel"):
    valid: bool
    schema_id: str | None
    schema_version: int | None
    errors: list[dict[str, str]]


@app.command
def add(
    event_type: str,
    file: Path | None = None,
    *,
    tenant: Tenant,
    compatibility: Literal["backward", "forward", "full", "none"] = "backward",
    description: str | None = None,
    as_json: Json = False,
    server: Server = HERE,
) -> int:
    """Register the next version of an event type's schema; it is active at once.

    Parameters
    ----------
    event_type
        Whose payloads it describes.
    file
        The schema; default: stdin.
    tenant
        The tenant it belongs to.
    compatibility
        With the newest active version: backward takes all that one took, forward only what that one took,
        full both.
    description
        For people.
    """

    async def work() -> int:
        body: dict[str, Any] = {
            "tenantId": str(tenant),
            "eventType": event_type,
            "schemaJson": _json(file),
            "compatibility": compatibility,
        }
        if description is not None:
            body["description"] = description
        async with server.client() as client:
            # Not repeatable: each time makes another version.
            answer = await client.ask("POST", PATH, body=body, repeatable=False)
        made = decode(answer, _Created, PATH)
        show(f"{made.event_type} version {made.version} is active, id {made.id}", made, as_json)
        return Exit.OK

    return run(work, as_json=as_json)


@app.command(name="list")
def list_schemas(
    *, tenant: Tenant, event_type: str | None = None, as_json: Json = False, server: Server = HERE
) -> int:
    """List a tenant's schemas, newest version first.

    Parameters
    ----------
    tenant
        Whose schemas.
    event_type
        Only this event type's.
    """

    async def work() -> int:
        where = PATH if event_type is None else f"{PATH}/event-type/{quote(event_type, safe='')}"
        query: dict[str, Any] = {"tenant_id": str(tenant), "limit": PAGE}
        found: list[_Schema] = []
        async with server.client() as client:
            while True:
                page = decode(await client.ask("GET", where, query=query), _Page, where)
                found += page.schemas
                if not page.has_more or page.next_after in (None, query.get("after")):
                    break
                query["after"] = page.next_after
        lines = [
            f"{s.id}  {s.event_type} version {s.version}  {s.status}  {s.compatibility}  since {s.created_at}"
            for s in found
        ]
        show("\n".join(lines or ["there is no schema"]), {"ok": True, "schemas": found}, as_json)
        return Exit.OK

    return run(work, as_json=as_json)


@app.command(name="show")
def show_schema(id: UUID, *, as_json: Json = False, server: Server = HERE) -> int:
    """Show one schema, as it was registered.

    Parameters
    ----------
    id
        As `schema list` shows it.
    """

    async def work() -> int:
        where = f"{PATH}/{id}"
        async with server.client() as client:
            schema = decode(await client.ask("GET", where), _Schema, where)
        text = msgspec.json.format(bytes(schema.schema_json), indent=2).decode()
        show(text, schema, as_json)
        return Exit.OK

    return run(work, as_json=as_json)


@app.command
def status(
    id: UUID,
    status: Literal["active", "deprecated", "archived"],
    *,
    as_json: Json = False,
    server: Server = HERE,
) -> int:
    """Set a schema's status; only active ones are compared with. Within 2 seconds on every node.

    Parameters
    ----------
    id
        As `schema list` shows it.
    status
        active, deprecated or archived.
    """

    async def work() -> int:
        async with server.client() as client:
            await client.ask("PUT", f"{PATH}/{id}/status", body={"status": status})
        show(f"schema {id} is {status}", {"ok": True, "id": str(id), "status": status}, as_json)
        return Exit.OK

    return run(work, as_json=as_json)


@app.command
def validate(
    event_type: str,
    file: Path | None = None,
    *,
    tenant: Tenant,
    schema_version: int | None = None,
    as_json: Json = False,
    server: Server = HERE,
) -> int:
    """Try a payload against a schema; nothing is stored. Exit code 1 when it does not match.

    Parameters
    ----------
    event_type
        The payload's event type.
    file
        The payload; default: stdin.
    tenant
        Whose schema.
    schema_version
        Which version; default: the newest active one.
    """

    async def work() -> int:
        body: dict[str, Any] = {"tenantId": str(tenant), "eventType": event_type, "payload": _json(file)}
        if schema_version is not None:
            body["schemaVersion"] = schema_version
        async with server.client() as client:
            verdict = decode(await client.ask("POST", f"{PATH}/validate", body=body), _Verdict, PATH)
        show("\n".join(_lines(verdict)), verdict, as_json)
        return Exit.OK if verdict.valid else Exit.FAILED

    return run(work, as_json=as_json)


def _lines(verdict: _Verdict) -> list[str]:
    if verdict.schema_id is None:
        return ["there is no schema for this event type"]
    if verdict.valid:
        return [f"it matches version {verdict.schema_version}"]
    wrong = [f"  {error.get('path') or '(the payload)'}: {error.get('message')}" for error in verdict.errors]
    return [f"it does not match version {verdict.schema_version}:", *wrong]


def _json(file: Path | None) -> msgspec.Raw:
    raw = read_file(file)
    try:
        msgspec.json.decode(raw)
    except UNREADABLE as wrong:
        raise ClientError(f"{file or 'stdin'} is no JSON: {wrong}") from None
    return msgspec.Raw(raw)
