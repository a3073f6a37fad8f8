"""The append: one group, one transaction, fenced.

Statements in this order, each with a snapshot of its own: the tenant's key lock (shared); epochs, stream
counters, entity versions and command ids by compare-and-set (``record.ves_advance``); COPY of the rows;
COMMIT. What was believed and is no longer true makes it ``Moved`` and nothing is stored. Never retries and
never decides what to store.
"""

from __future__ import annotations

from operator import attrgetter
from typing import TYPE_CHECKING, Any

import asyncpg

from journal.arrays import numbers, texts, uuids
from journal.facts import read_facts
from journal.locks import begin_sharing
from journal.port import Away, Group, JournalAway, LegacyGroup, Moved, Stored
from journal.units import Checkpoint, Contended, Undo, Units
from ves.records import Head, Question, Uuid

if TYPE_CHECKING:
    from journal.connections import Connection

_COLUMNS = (
    "sequence_number",
    "sequenced_at",
    "agent_key_id",
    "base_version",
    "sequencer_key_version",
    "payload_kind",
    "tenant_id",
    "store_id",
    "event_id",
    "source_agent_id",
    "command_id",
    "sequencer_id",
    "entity_type",
    "entity_id",
    "event_type",
    "created_at",
    "payload_plain_hash",
    "payload_cipher_hash",
    "agent_signature",
    "event_signing_hash",
    "receipt_hash",
    "sequencer_signature",
    "payload_sealed",
)
ADVANCE_ARGUMENTS = (
    "$1, $2, $3, $4, $5, $6, $7, $8::text::uuid[], $9::text::text[], "
    "$10::text::text[], $11::text::bigint[], $12::text::bigint[], "
    "$13::text::uuid[], $14::text::uuid[], $15::text::uuid[]"
)
"""Where ``beliefs`` go."""
_ADVANCE = f"SELECT record.ves_advance({ADVANCE_ARGUMENTS})"


async def settle(connection: Connection, tenant_id: Uuid) -> None:
    """Inside a transaction that began alone: every append of the tenant under way elsewhere has ended, also
    one whose stream has no counter to lock yet. The counters are locked too, for writers that come without
    the key lock. Always undone: it changes nothing, so there is no COMMIT whose answer could get lost."""
    for counters in ("ves_sequence_counters", "sequence_counters"):
        await connection.fetch(
            f"SELECT FROM record.{counters} WHERE tenant_id = $1 ORDER BY store_id FOR UPDATE", tenant_id
        )
    raise Undo(None)


async def append(units: Units, group: Group, checkpoint: Checkpoint) -> Stored | Moved | Away:
    """Raises JournalOutcomeUnknown once COMMIT was sent and not clearly answered."""
    try:
        if not group.numbered:
            return await _check_fence(units, group)
        return await units.write(
            lambda connection: _store(connection, group, checkpoint),
            begin=begin_sharing(group.fence.tenant_id),
            named="append",
        )
    except (Contended, asyncpg.UniqueViolationError) as error:
        # A double found by COPY costs nobody of the group anything: it is decided anew.
        return Moved(f"{type(error).__name__}: another writer was first")
    except JournalAway as error:
        return Away(str(error))


async def _check_fence(units: Units, group: Group) -> Stored | Moved:
    """One statement, one snapshot: everything believed was true at one moment after it was decided."""
    nothing: frozenset[Any] = frozenset()
    fence = group.fence
    asked = Question(fence.tenant_id, frozenset(fence.heads), nothing, nothing, nothing, nothing, nothing)
    facts = await units.read(lambda connection: read_facts(connection, asked))
    return Stored() if facts.fence == fence else Moved("the fence")


async def _store(connection: Connection, group: Group, checkpoint: Checkpoint) -> Stored:
    moved = await connection.fetchval(_ADVANCE, *beliefs(group))
    if moved is not None:
        raise Undo(Moved(moved))
    checkpoint("append.fenced")
    await connection.copy_records_to_table(
        "ves_events", schema_name="record", columns=_COLUMNS, records=_rows(group)
    )
    checkpoint("append.copied")
    return Stored()


def beliefs(group: Group | LegacyGroup) -> list[Any]:
    """What ``record.ves_advance`` and ``record.legacy_advance`` compare and set. Streams in key order."""
    fence = group.fence
    reached = dict(fence.heads)
    for numbered in group.numbered:
        reached[numbered.store_id] = Head(numbered.sequence_number, numbered.sequenced_at_us)
    stores = sorted(reached)
    names = [step.entity for step in group.versions]
    return [
        fence.tenant_id,
        fence.key_epoch,
        fence.credential_epoch,
        stores,
        [fence.heads[store].current_sequence for store in stores],
        [reached[store].current_sequence for store in stores],
        [reached[store].last_sequenced_at_us for store in stores],
        uuids([name.store_id for name in names]),
        texts([name.entity_type for name in names]),
        texts([name.entity_id for name in names]),
        numbers([step.believed for step in group.versions]),
        numbers([step.new for step in group.versions]),
        uuids([use.command.store_id for use in group.commands]),
        uuids([use.command.command_id for use in group.commands]),
        uuids([use.event_id for use in group.commands]),
    ]


_event_part = attrgetter(
    "entity_type",
    "entity_id",
    "event_type",
    "created_at",
    "payload_plain_hash",
    "payload_cipher_hash",
    "agent_signature",
    "event_signing_hash",
)


def _rows(group: Group) -> list[tuple[Any, ...]]:
    """In the order of ``_COLUMNS``."""
    tenant_id, sequencer_id, key_version = (
        group.fence.tenant_id,
        group.sequencer_id,
        group.sequencer_key_version,
    )
    rows = []
    for numbered, sealed in zip(group.numbered, group.sealed, strict=True):
        event = numbered.event
        rows.append(
            (
                numbered.sequence_number,
                numbered.sequenced_at_us,
                event.agent_key_id,
                event.base_version,
                key_version,
                event.payload_kind,
                tenant_id,
                numbered.store_id,
                event.event_id,
                event.source_agent_id,
                event.command_id,
                sequencer_id,
                *_event_part(event),
                sealed.receipt_hash,
                sealed.sequencer_signature,
                sealed.payload_sealed,
            )
        )
    return rows
