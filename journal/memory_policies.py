"""The tables of tenants' policies in memory: what ``journal.policies`` does with rows, done with lists.

Part of the journal in memory, which owns when and whether a change is applied. Every method either reads, or
answers what a change would make of the tables without touching them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import msgspec

from journal.port import (
    SCHEMA_BYTES_ACTIVE_MAX,
    SCHEMAS_ACTIVE_MAX,
    EventSchema,
    Moved,
    PinnedTenant,
    PolicyChanges,
    SchemaLimit,
    SchemaStatus,
    TenantPolicy,
)
from ves.policy import SchemaMode, SchemaName
from ves.records import Uuid


@dataclass
class PolicyTables:
    changes: list[Uuid] = field(default_factory=list)
    """Whose policy changed; the number of a change is its place, counted from 1."""
    schemas: dict[Uuid, EventSchema] = field(default_factory=dict)
    policies: dict[Uuid, tuple[tuple[str, ...] | None, SchemaMode | None]] = field(default_factory=dict)
    regions: dict[Uuid, tuple[str, ...]] = field(default_factory=dict)

    # Reading.

    def find(self, schema_id: Uuid, tenant_id: Uuid | None) -> EventSchema | None:
        found = self.schemas.get(schema_id)
        return found if found is not None and tenant_id in (None, found.tenant_id) else None

    def find_version(self, tenant_id: Uuid, event_type: str, version: int | None) -> EventSchema | None:
        for schema in self.listed(tenant_id, event_type, None, len(self.schemas)):
            if schema.status == "active" if version is None else schema.version == version:
                return schema
        return None

    def listed(
        self, tenant_id: Uuid, event_type: str | None, after: Uuid | None, limit: int
    ) -> list[EventSchema]:
        found = [
            s
            for s in self.schemas.values()
            if s.tenant_id == tenant_id and event_type in (None, s.event_type)
        ]
        found.sort(key=_order)
        if after is not None:
            last = self.find(after, tenant_id)
            found = [] if last is None else [s for s in found if _order(s) > _order(last)]
        return found[:limit]

    def policy(self, tenant_id: Uuid) -> TenantPolicy:
        numbers = [number for number, changed in enumerate(self.changes, 1) if changed == tenant_id]
        newest: dict[str, SchemaName] = {}
        for schema in self.listed(tenant_id, None, None, len(self.schemas)):
            if schema.status == "active":
                newest.setdefault(schema.event_type, SchemaName(schema.event_type, schema.id, schema.version))
        mine = self.policies.get(tenant_id, (None, None))
        return TenantPolicy(
            max(numbers, default=0), *mine, tuple(newest.values()), self.regions.get(tenant_id, ())
        )

    def pinned(self, after: Uuid | None, limit: int) -> list[PinnedTenant]:
        found = [
            PinnedTenant(tenant_id, regions)
            for tenant_id, regions in sorted(self.regions.items())
            if regions and (after is None or tenant_id > after)
        ]
        return found[:limit]

    def since(self, cursor: int | None) -> PolicyChanges:
        told = self.changes[cursor:] if cursor is not None else []
        return PolicyChanges(told, len(self.changes))

    # What a change would answer, and how it is applied.

    def creation(
        self, schema: EventSchema, believed_stamp: int, now_us: int
    ) -> EventSchema | Moved | SchemaLimit:
        if self.policy(schema.tenant_id).stamp != believed_stamp:
            return Moved("the tenant's policy")
        newest = self.listed(schema.tenant_id, schema.event_type, None, 1)
        version = newest[0].version + 1 if newest else 1
        created = msgspec.structs.replace(
            schema, version=version, created_at_us=now_us, updated_at_us=now_us, status="active"
        )
        return self._within_limit(created)

    def with_status(
        self, schema: EventSchema, status: SchemaStatus, now_us: int
    ) -> EventSchema | SchemaLimit:
        changed = msgspec.structs.replace(schema, status=status, updated_at_us=now_us)
        return self._within_limit(changed) if status == "active" else changed

    def keeping(self, schema: EventSchema) -> Callable[[], None]:
        def apply() -> None:
            self.schemas[schema.id] = schema
            self.changes.append(schema.tenant_id)

        return apply

    def _within_limit(self, schema: EventSchema) -> EventSchema | SchemaLimit:
        others = self.listed(schema.tenant_id, None, None, len(self.schemas))
        active = [s for s in others if s.status == "active" and s.id != schema.id]
        size = sum(len(s.schema_json.encode()) for s in [*active, schema])
        over = size > SCHEMA_BYTES_ACTIVE_MAX or len(active) + 1 > SCHEMAS_ACTIVE_MAX
        return SchemaLimit() if over else schema


def _order(schema: EventSchema) -> tuple[bytes, int]:
    return schema.event_type.encode(), -schema.version
