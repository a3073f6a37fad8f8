"""The legacy stream's tables in memory: what ``journal.legacy`` does with rows, done with lists.

Part of the journal in memory, which owns entities' versions and epochs, and when a change is applied.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field

from journal.port import LegacyGroup, stored_legacy_events
from ves.legacy import StoredLegacyEvent
from ves.records import NEW_STREAM, CommandName, EntityName, Head, Uuid

Stream = tuple[Uuid, Uuid]


@dataclass
class LegacyTables:
    heads: dict[Stream, Head] = field(default_factory=dict)
    events: defaultdict[Stream, list[StoredLegacyEvent]] = field(default_factory=lambda: defaultdict(list))
    event_ids: set[tuple[Uuid, Uuid]] = field(default_factory=set)
    """(tenant_id, event_id)"""
    commands: dict[tuple[Uuid, CommandName], Uuid] = field(default_factory=dict)

    def head(self, tenant_id: Uuid, store_id: Uuid) -> Head:
        return self.heads.get((tenant_id, store_id), NEW_STREAM)

    def history(self, tenant_id: Uuid, entity: EntityName) -> list[StoredLegacyEvent]:
        stream = self.events[tenant_id, entity.store_id]
        return [e for e in stream if EntityName(e.store_id, e.entity_type, e.entity_id) == entity]

    def holds_one_of(self, group: LegacyGroup) -> bool:
        tenant_id = group.fence.tenant_id
        return any((tenant_id, n.event.event_id) in self.event_ids for n in group.numbered)

    def apply(self, group: LegacyGroup) -> None:
        tenant_id = group.fence.tenant_id
        for use in group.commands:
            self.commands[tenant_id, use.command] = use.event_id
        for event in stored_legacy_events(group):
            stream = (tenant_id, event.store_id)
            self.events[stream].append(event)
            self.event_ids.add((tenant_id, event.event_id))
            self.heads[stream] = Head(event.sequence_number, event.sequenced_at_us)


def page_of(
    found: list[StoredLegacyEvent], from_sequence: int, limit: int, bytes_max: int
) -> tuple[list[StoredLegacyEvent], bool, int]:
    """The page, whether there is more, and where it starts."""
    waiting = [event for event in found if event.sequence_number >= from_sequence]
    page: list[StoredLegacyEvent] = []
    size = 0
    for event in waiting[:limit]:
        size += len(event.payload_encrypted)
        if page and size > bytes_max:
            break
        page.append(event)
    next_from = page[-1].sequence_number + 1 if page else from_sequence
    return page, len(page) < len(waiting), next_from
