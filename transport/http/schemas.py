"""JSON Schemas of tenants' payloads: registering, reading, retiring, trying payloads (wire 15).

A schema is tried by the schema checker before it is written down. Nothing is ever removed: deleting archives,
and a version number is never given again. Whoever is bound to some stores or one agent may read schemas and
not change them, since they concern the whole tenant.
"""

from __future__ import annotations

from hashlib import sha256
from typing import Any, TypeVar
from uuid import uuid4

import msgspec
from msgspec import Raw

from actors.messages import CheckPayload, CheckSchema, Message
from journal.port import EventSchema, Moved, SchemaLimit, SchemaStatus
from transport.http.bodies import read_json
from transport.http.callers import denied
from transport.http.errors import ApiError, Code
from transport.http.residency import must_be_served_here
from transport.http.routing import Route
from transport.http.schema_shapes import (
    CreateSchemaBody,
    EventTypePath,
    LatestQuery,
    PayloadError,
    SchemaCreatedReply,
    SchemaDeletedReply,
    SchemaPath,
    SchemaReply,
    SchemasQuery,
    SchemasReply,
    SchemaStatusBody,
    SchemaStatusReply,
    ValidateBody,
    ValidateReply,
    VersionsQuery,
    VersionsReply,
)
from transport.http.visit import Visit
from ves.constants import EVENT_TYPE_BYTES_MAX, PAYLOAD_DEPTH_MAX
from ves.encoding import uuid_text
from ves.records import Uuid
from ves.timestamps import utc_text

BODY_BYTES_MAX = 256 * 1024
"""A schema of the largest size, however it is spelled; a payload to be tried."""
SCHEMA_BYTES_MAX = 102_400
DESCRIPTION_BYTES_MAX = 2048
A = TypeVar("A")

TRIES = 3
"""Others may register for the same tenant while a schema is being tried."""


async def create_schema(visit: Visit) -> SchemaCreatedReply:
    body = read_json(
        await visit.body(bytes_max=BODY_BYTES_MAX), CreateSchemaBody, depth_max=PAYLOAD_DEPTH_MAX
    )
    tenant_id = visit.uuid(body, "tenant_id")
    _must_govern(visit, tenant_id)
    await must_be_served_here(visit.house, tenant_id)
    _must_fit(body.event_type, "eventType", EVENT_TYPE_BYTES_MAX)
    text = msgspec.json.encode(body.schema_json)
    if len(text) > SCHEMA_BYTES_MAX:
        raise ApiError(Code.PAYLOAD_TOO_LARGE, f"schemaJson exceeds the maximum of {SCHEMA_BYTES_MAX} bytes")
    if body.description is not None:
        _must_fit(body.description, "description", DESCRIPTION_BYTES_MAX)
    schema = EventSchema(
        id=uuid4().bytes,
        tenant_id=tenant_id,
        event_type=body.event_type,
        version=0,
        schema_json=text.decode(),
        compatibility=body.compatibility,
        description=body.description,
        created_by=visit.who.name,
    )
    created = await _create(visit, schema)
    return SchemaCreatedReply(
        uuid_text(created.id), created.event_type, created.version, utc_text(created.created_at_us)
    )


async def _create(visit: Visit, schema: EventSchema) -> EventSchema:
    journal = visit.house.journal
    entry = visit.act(
        "schema.create",
        uuid_text(schema.id),
        schema.tenant_id,
        event_type=schema.event_type,
        compatibility=schema.compatibility,
        sha256=sha256(schema.schema_json.encode()).hexdigest(),
    )
    for _ in range(TRIES):
        # The stamp first: when it is still the same at the end, so is what the schema was compared with.
        stamp = (await journal.read_policy(schema.tenant_id)).stamp
        await _must_be_fit(visit, schema)
        try:
            created = await journal.create_schema(schema, believed_stamp=stamp, audit=entry)
        finally:
            # Also when nobody knows whether it was stored: forgetting costs one look into the database.
            visit.house.policies.forget([schema.tenant_id])
        if isinstance(created, SchemaLimit):
            raise _over_limit()
        if not isinstance(created, Moved):
            return created
    raise ApiError(Code.CONFLICT, "others change this tenant's schemas at the same time; try again")


async def _must_be_fit(visit: Visit, schema: EventSchema) -> None:
    previous = None
    if schema.compatibility != "none":
        previous = await visit.house.journal.find_schema_version(
            schema.tenant_id, schema.event_type, version=None
        )
    question = CheckSchema(
        schema.schema_json,
        schema.compatibility,
        None if previous is None else previous.schema_json,
        0 if previous is None else previous.version,
    )
    why_not = await _checked(visit, schema.tenant_id, question)
    if why_not is not None:
        raise ApiError(Code.SCHEMA_VALIDATION_FAILED, f"schemaJson: {why_not}")


async def list_schemas(visit: Visit) -> SchemasReply:
    query = visit.query(SchemasQuery)
    tenant_id = visit.who.tenant_named(visit.optional_uuid(query, "tenant_id"))
    return await _page(visit, tenant_id, None, query)


async def list_versions(visit: Visit) -> VersionsReply:
    event_type = visit.path(EventTypePath).event_type
    query = visit.query(VersionsQuery)
    tenant_id = visit.who.tenant_named(visit.optional_uuid(query, "tenant_id"))
    if query.version is None:
        page = await _page(visit, tenant_id, event_type, query)
        return VersionsReply(page.schemas, page.count, page.has_more, page.next_after)
    found = await visit.house.journal.find_schema_version(tenant_id, event_type, version=query.version)
    if found is None:
        raise ApiError(Code.SCHEMA_NOT_FOUND, f"Schema version {query.version} not found")
    return VersionsReply(schema=_reply(found))


async def latest_schema(visit: Visit) -> SchemaReply:
    event_type = visit.path(EventTypePath).event_type
    tenant_id = visit.who.tenant_named(visit.optional_uuid(visit.query(LatestQuery), "tenant_id"))
    found = await visit.house.journal.find_schema_version(tenant_id, event_type, version=None)
    if found is None:
        raise ApiError(Code.SCHEMA_NOT_FOUND, f"No schema found for event type: {event_type}")
    return _reply(found)


async def _page(
    visit: Visit, tenant_id: Uuid, event_type: str | None, query: SchemasQuery | VersionsQuery
) -> SchemasReply:
    found = await visit.house.journal.list_schemas(
        tenant_id, event_type=event_type, after=visit.optional_uuid(query, "after"), limit=query.limit + 1
    )
    page = found[: query.limit]
    more = len(found) > query.limit
    return SchemasReply(
        [_reply(s) for s in page], len(page), more, uuid_text(page[-1].id) if more and page else None
    )


async def read_schema(visit: Visit) -> SchemaReply:
    schema_id = visit.uuid(visit.path(SchemaPath), "schema_id")
    found = await visit.house.journal.find_schema(schema_id, tenant_id=visit.who.tenant_id)
    if found is None:
        raise _no_such_schema()
    return _reply(found)


async def set_status(visit: Visit) -> SchemaStatusReply:
    schema_id = visit.uuid(visit.path(SchemaPath), "schema_id")
    body = await visit.json(SchemaStatusBody)
    changed = await _change(visit, schema_id, body.status, "schema.status")
    return SchemaStatusReply(changed.status, uuid_text(changed.id), True)


async def delete_schema(visit: Visit) -> SchemaDeletedReply:
    schema_id = visit.uuid(visit.path(SchemaPath), "schema_id")
    changed = await _change(visit, schema_id, "archived", "schema.archive")
    return SchemaDeletedReply(uuid_text(changed.id), True)


async def _change(visit: Visit, schema_id: Uuid, status: SchemaStatus, action: str) -> EventSchema:
    _must_govern(visit, visit.who.tenant_id)
    journal = visit.house.journal
    present = await journal.find_schema(schema_id, tenant_id=visit.who.tenant_id)
    if present is None:
        raise _no_such_schema()
    entry = visit.act(action, uuid_text(schema_id), present.tenant_id, status=status)
    try:
        changed = await journal.set_schema_status(
            schema_id, tenant_id=present.tenant_id, status=status, audit=entry
        )
    finally:
        visit.house.policies.forget([present.tenant_id])
    if isinstance(changed, SchemaLimit):
        raise _over_limit()
    assert changed is not None, "schemas are never removed"
    return changed


async def validate(visit: Visit) -> ValidateReply:
    body = read_json(await visit.body(bytes_max=BODY_BYTES_MAX), ValidateBody, depth_max=PAYLOAD_DEPTH_MAX)
    tenant_id = visit.uuid(body, "tenant_id")
    visit.who.must_reach_tenant(tenant_id)
    found = await visit.house.journal.find_schema_version(
        tenant_id, body.event_type, version=body.schema_version
    )
    if found is None and body.schema_version is not None:
        raise ApiError(Code.SCHEMA_NOT_FOUND, f"Schema version {body.schema_version} not found")
    if found is None:
        return ValidateReply(True, None, None, [])
    question = CheckPayload(found.schema_json, msgspec.json.encode(body.payload))
    errors = await _checked(visit, tenant_id, question)
    if errors is None:
        raise ApiError(Code.SCHEMA_VALIDATION_FAILED, "payload: comparing it with its schema takes too long")
    return ValidateReply(
        not errors, uuid_text(found.id), found.version, [PayloadError(*error) for error in errors]
    )


async def _checked(visit: Visit, tenant_id: Uuid, question: Message[A]) -> A:
    """There is one checker for all tenants, and a schema may take it seconds."""
    async with visit.door.at_schema_checker.turn(tenant_id, patience_s=visit.remaining_s / 2):
        return await visit.house.schema_checker.ask(question, deadline_s=visit.remaining_s)


def _must_govern(visit: Visit, tenant_id: Uuid | None) -> None:
    if visit.who.store_ids is not None:
        raise denied("Store access denied: schemas concern the whole tenant")
    if visit.who.agent_id is not None:
        raise denied("Agent-scoped credentials do not change schemas")
    if tenant_id is not None:
        visit.who.must_reach_tenant(tenant_id)


def _must_fit(text: str, field: str, bytes_max: int) -> None:
    if len(text.encode()) > bytes_max:
        raise ApiError(Code.INVALID_FIELD_VALUE, f"{field}: at most {bytes_max} bytes of UTF-8")


def _no_such_schema() -> ApiError:
    return ApiError(Code.SCHEMA_NOT_FOUND, "Schema not found")


def _over_limit() -> ApiError:
    text = "the tenant's active schemas would be more than 1,000, or more than 4 MiB; archive some first"
    return ApiError(Code.CONFLICT, text)


def _reply(schema: EventSchema) -> SchemaReply:
    return SchemaReply(
        uuid_text(schema.id),
        uuid_text(schema.tenant_id),
        schema.event_type,
        schema.version,
        Raw(schema.schema_json.encode()),
        schema.status,
        schema.compatibility,
        schema.description,
        utc_text(schema.created_at_us),
        utc_text(schema.updated_at_us),
        schema.created_by,
    )


def _route(method: str, path: str, handle: Any, summary: str, answers: Any, **more: Any) -> Route:
    return Route(method, f"/api/v1/schemas{path}", handle, summary, answers, **more)


_CHANGES = (Code.SCHEMA_NOT_FOUND, Code.CONFLICT)

ROUTES = [
    _route(
        "POST",
        "",
        create_schema,
        "Register the next version of an event type's schema",
        SchemaCreatedReply,
        body_shape=CreateSchemaBody,
        refuses=(Code.SCHEMA_VALIDATION_FAILED, Code.CONFLICT),
    ),
    _route("GET", "", list_schemas, "A tenant's schemas", SchemasReply, query_shape=SchemasQuery),
    _route(
        "POST",
        "/validate",
        validate,
        "Compare a payload with a schema; nothing is stored",
        ValidateReply,
        body_shape=ValidateBody,
        refuses=(Code.SCHEMA_NOT_FOUND, Code.SCHEMA_VALIDATION_FAILED),
    ),
    _route(
        "GET",
        "/event-type/{event_type}",
        list_versions,
        "All versions of an event type's schema, newest first, or one of them",
        VersionsReply,
        path_shape=EventTypePath,
        query_shape=VersionsQuery,
        refuses=(Code.SCHEMA_NOT_FOUND,),
    ),
    _route(
        "GET",
        "/event-type/{event_type}/latest",
        latest_schema,
        "The newest active version",
        SchemaReply,
        path_shape=EventTypePath,
        query_shape=LatestQuery,
        refuses=(Code.SCHEMA_NOT_FOUND,),
    ),
    _route(
        "GET",
        "/{schema_id}",
        read_schema,
        "One schema",
        SchemaReply,
        path_shape=SchemaPath,
        refuses=(Code.SCHEMA_NOT_FOUND,),
    ),
    _route(
        "PUT",
        "/{schema_id}/status",
        set_status,
        "Activate, deprecate or archive a schema",
        SchemaStatusReply,
        path_shape=SchemaPath,
        body_shape=SchemaStatusBody,
        refuses=_CHANGES,
    ),
    _route(
        "DELETE",
        "/{schema_id}",
        delete_schema,
        "Archive a schema; it stays in the record",
        SchemaDeletedReply,
        path_shape=SchemaPath,
        refuses=_CHANGES,
    ),
]
