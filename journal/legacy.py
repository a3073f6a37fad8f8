"""The legacy stream's rows: appended in one fenced transaction, read back in pages.

The same shape as ``journal.append`` and ``journal.reads``, for the tables ``events``, ``sequence_counters``
and ``event_command_dedupe``. What an append compares and sets is in ``record.legacy_advance``; entities'
versions are shared with the VES stream there. Never retries, never decides, never opens a payload.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import asyncpg

from journal.append import ADVANCE_ARGUMENTS, beliefs, copy_rows
from journal.facts import read_facts
from journal.locks import begin_sharing
from journal.port import (
    Away,
    JournalAway,
    LegacyEntityPage,
    LegacyEventPage,
    LegacyGroup,
    Moved,
    Passing,
    Stored,
    stored_legacy_events,
)
from journal.reads import page_statements
from journal.units import Checkpoint, Contended, Undo, Units
from ves.legacy import StoredLegacyEvent
from ves.records import EntityName, Question, Uuid

if TYPE_CHECKING:
    from journal.connections import Connection

COLUMNS = (
    "sequence_number",
    "sequenced_at",
    "created_at",
    "base_version",
    "tenant_id",
    "store_id",
    "event_id",
    "source_agent",
    "command_id",
    "entity_type",
    "entity_id",
    "event_type",
    "payload_hash",
    "signature",
    "payload_encrypted",
)
"""In the order of StoredLegacyEvent's fields."""
_ADVANCE = f"SELECT record.legacy_advance({ADVANCE_ARGUMENTS})"
_STREAM_PAGE, _ENTITY_PAGE = page_statements(
    table="events", counters="sequence_counters", payload="payload_encrypted", columns=", ".join(COLUMNS)
)


async def append(
    units: Units, group: LegacyGroup, checkpoint: Checkpoint, passing: Passing | None = None
) -> Stored | Moved | Away:
    """Raises JournalOutcomeUnknown once COMMIT was sent and not clearly answered."""
    try:
        if not group.numbered:
            return await _check_fence(units, group)
        return await units.write(
            lambda connection: _store(connection, group, checkpoint, passing),
            begin=begin_sharing(group.fence.tenant_id),
            named="append_legacy",
        )
    except (Contended, asyncpg.UniqueViolationError) as error:
        return Moved(f"{type(error).__name__}: another writer was first")
    except JournalAway as error:
        return Away(str(error))


async def _check_fence(units: Units, group: LegacyGroup) -> Stored | Moved:
    nothing: frozenset[Any] = frozenset()
    fence = group.fence
    asked = Question(
        fence.tenant_id, frozenset(fence.heads), nothing, nothing, nothing, nothing, nothing, legacy=True
    )
    [facts] = await units.read(lambda connection: read_facts(connection, [asked]))
    return Stored() if facts.fence == fence else Moved("the fence")


async def _store(
    connection: Connection, group: LegacyGroup, checkpoint: Checkpoint, passing: Passing | None
) -> Stored:
    moved = await connection.fetchval(_ADVANCE, *beliefs(group))
    if moved is not None:
        raise Undo(Moved(moved))
    checkpoint("append_legacy.fenced")
    rows = (tuple(getattr(event, name) for name in _FIELDS) for event in stored_legacy_events(group))
    await copy_rows(connection, "events", COLUMNS, rows, passing)
    checkpoint("append_legacy.copied")
    return Stored()


_FIELDS = StoredLegacyEvent.__struct_fields__


async def read_events(
    connection: Connection, tenant_id: Uuid, store_id: Uuid, from_sequence: int, limit: int, bytes_max: int
) -> LegacyEventPage:
    rows = await connection.fetch(_STREAM_PAGE, tenant_id, store_id, from_sequence, limit, bytes_max)
    return LegacyEventPage(*_page(rows, from_sequence))


async def read_entity(
    connection: Connection,
    tenant_id: Uuid,
    entity: EntityName,
    from_sequence: int,
    limit: int,
    bytes_max: int,
) -> LegacyEntityPage:
    rows = await connection.fetch(
        _ENTITY_PAGE,
        tenant_id,
        entity.store_id,
        from_sequence,
        limit,
        bytes_max,
        entity.entity_type,
        entity.entity_id,
    )
    return LegacyEntityPage(*_page(rows, from_sequence))


async def read_head(connection: Connection, tenant_id: Uuid, store_id: Uuid) -> int:
    head = await connection.fetchval(
        "SELECT current_sequence FROM record.sequence_counters WHERE tenant_id = $1 AND store_id = $2",
        tenant_id,
        store_id,
    )
    return head or 0


def _page(rows: list[Any], asked: int) -> tuple[int, list[StoredLegacyEvent], bool, int]:
    """The scalar asked beside the events, the events, whether more were found than fit, where they go on."""
    beside, found_count = rows[0][len(COLUMNS) :]
    if found_count is None:
        return beside, [], False, asked
    events = [StoredLegacyEvent(*row[: len(COLUMNS)]) for row in rows]
    return beside, events, found_count > len(events), events[-1].sequence_number + 1
