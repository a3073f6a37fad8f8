"""The wire's JSON of schemas and policies: camelCase bodies, snake_case query strings. No behaviour."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
from msgspec import UNSET, Meta, Raw, UnsetType

from transport.http.shapes import Count, Time, UuidText

SCHEMAS_PAGE_DEFAULT = 20
SCHEMAS_PAGE_MAX = 100
"""Each may have 100 KiB."""
ENTITY_TYPES_MAX = 1000
_PLAIN = r"^[^\u0000-\u001f\u007f]*$"

EventType = Annotated[
    str,
    Meta(
        min_length=1,
        max_length=256,
        pattern=_PLAIN,
        description="1 to 256 bytes of UTF-8.",
        examples=["order.created"],
    ),
]
EntityType = Annotated[str, Meta(min_length=1, max_length=128, pattern=_PLAIN)]
Version = Annotated[int, Meta(ge=1, le=2**31 - 1)]
Status = Literal["active", "deprecated", "archived"]
CompatibilityName = Literal["backward", "forward", "full", "none"]
ModeName = Literal["disabled", "warn", "enforce", "required"]
Limit = Annotated[int, Meta(ge=1, le=SCHEMAS_PAGE_MAX)]
After = Annotated[UuidText, Meta(description="``nextAfter`` of the page before.")]


class SchemaPath(msgspec.Struct):
    schema_id: UuidText


class EventTypePath(msgspec.Struct):
    event_type: EventType


class SchemasQuery(msgspec.Struct):
    tenant_id: UuidText | None = None
    after: After | None = None
    limit: Limit = SCHEMAS_PAGE_DEFAULT


class VersionsQuery(msgspec.Struct):
    """With ``version`` only that one, as ``schema``; ``event_type`` may be repeated, it is not read."""

    tenant_id: UuidText | None = None
    version: Version | None = None
    after: After | None = None
    limit: Limit = SCHEMAS_PAGE_DEFAULT


class LatestQuery(msgspec.Struct):
    tenant_id: UuidText | None = None


class CreateSchemaBody(msgspec.Struct, rename="camel"):
    """``schemaJson``: draft 2020-12 unless ``$schema`` says 2019-09 or draft-07; at most 102,400 bytes."""

    tenant_id: UuidText
    event_type: EventType
    schema_json: Annotated[Any, Meta(description="A JSON Schema: an object, true or false.")]
    description: Annotated[str, Meta(max_length=2048, pattern=r"^[^\u0000]*$")] | None = None
    compatibility: Annotated[
        CompatibilityName, Meta(description="With the newest active version of the same event type.")
    ] = "backward"


class SchemaCreatedReply(msgspec.Struct, rename="camel"):
    id: UuidText
    event_type: str
    version: Version
    created_at: Time


class SchemaReply(msgspec.Struct, rename="camel"):
    id: UuidText
    tenant_id: UuidText
    event_type: str
    version: Version
    schema_json: Raw
    status: Status
    compatibility: CompatibilityName
    description: str | None
    created_at: Time
    updated_at: Time
    created_by: str


class SchemasReply(msgspec.Struct, rename="camel"):
    schemas: list[SchemaReply]
    count: Count
    has_more: bool
    next_after: UuidText | None


class VersionsReply(msgspec.Struct, rename="camel", omit_defaults=True):
    """A page as in ``SchemasReply``; or, when one version was asked for, only ``schema``."""

    schemas: list[SchemaReply] | UnsetType = UNSET
    count: Count | UnsetType = UNSET
    has_more: bool | UnsetType = UNSET
    next_after: UuidText | UnsetType | None = UNSET
    schema: SchemaReply | UnsetType = UNSET


class SchemaStatusBody(msgspec.Struct):
    status: Status


class SchemaStatusReply(msgspec.Struct):
    new_status: Status
    schema_id: UuidText
    success: bool


class SchemaDeletedReply(msgspec.Struct):
    deleted_schema_id: UuidText
    success: bool


class ValidateBody(msgspec.Struct, rename="camel"):
    """Without ``schemaVersion``: the newest active one."""

    tenant_id: UuidText
    event_type: EventType
    payload: Any
    schema_version: Version | None = None


class PayloadError(msgspec.Struct):
    """``path``: JSON pointer into the payload, empty for the payload itself."""

    path: str
    message: str


class ValidateReply(msgspec.Struct, rename="camel"):
    valid: bool
    schema_id: UuidText | None
    schema_version: Version | None
    errors: list[PayloadError]


# Policies.


class TenantPath(msgspec.Struct):
    tenant_id: UuidText


class PolicyBody(msgspec.Struct, rename="camel"):
    """Replaces what was set before; what is left out or null is the node's own."""

    entity_types: Annotated[list[EntityType], Meta(max_length=ENTITY_TYPES_MAX)] | None = None
    schema_mode: ModeName | None = None


class EffectivePolicy(msgspec.Struct, rename="camel"):
    """With the node's defaults. ``entityTypes`` null: all."""

    entity_types: list[str] | None
    schema_mode: ModeName


class PolicyReply(msgspec.Struct, rename="camel"):
    tenant_id: UuidText
    entity_types: list[str] | None
    schema_mode: ModeName | None
    effective: EffectivePolicy
    active_schemas: Count
