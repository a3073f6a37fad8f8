"""The append: one group, or several tenants' groups together, one transaction, fenced.

Statements in this order, each with a snapshot of its own: the tenants' key locks (shared); epochs, stream
counters, entity versions and command ids by compare-and-set (``record.ves_advance_groups``); COPY; COMMIT.
Of a few events all of it is one statement (``record.ves_append_groups``), in the same order. What was
believed and is no longer true makes a group ``Moved`` and nothing of it is stored; those it is together with
are stored all the same, or told to go alone. Never retries and never decides what to store.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import chain, islice
from operator import attrgetter
from typing import TYPE_CHECKING, Any

import asyncpg
import msgspec
from msgspec.structs import replace

from journal.aio import on_trio
from journal.arrays import numbers, texts, uuids
from journal.facts import read_facts
from journal.locks import begin_sharing, begin_together, tenant_lock
from journal.port import (
    Away,
    CommandUse,
    Group,
    JournalAway,
    LegacyGroup,
    Moved,
    Passing,
    Stored,
    VersionStep,
)
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
_BELIEFS = (
    "$1, $2, $3, $4, $5, $6, $7, $8, $9, "
    "$10::text::integer[], $11::text::uuid[], $12::text::text[], $13::text::text[], $14::text::bigint[], "
    "$15::text::bigint[], $16::text::integer[], $17::text::uuid[], $18::text::uuid[], $19::text::uuid[]"
)
_ADVANCE = f"SELECT moved, undone FROM record.ves_advance_groups({_BELIEFS})"  # noqa: S608
_APPEND = f"SELECT moved FROM record.ves_append_groups({_BELIEFS}, $20)"  # noqa: S608
AT_ONCE_MAX = 64
"""Events that one statement appends; for more of them COPY's cheaper rows pay for its round trips."""
COPIED_AT_ONCE_MAX = 128
"""Events of one COPY. A group of more takes several, and between two of them everybody else has a turn, here
and in the database (ADR 46)."""
ADVANCED_AT_ONCE_MAX = 250
"""Entities, or command ids, that one statement advances of a group that lets others pass (ADR 48)."""
_BUSY = "busy"
"""What ``record.ves_advance_groups`` says of a tenant whose key lock was not free."""
_TOGETHER_LOCK_TIMEOUT_S = 0.1


async def settle(connection: Connection, tenant_id: Uuid) -> None:
    """Inside a transaction that began alone: every append of the tenant under way elsewhere has ended, also
    one whose stream has no counter to lock yet. The counters are locked too, for writers that come without
    the key lock. Always undone: it changes nothing, so there is no COMMIT whose answer could get lost."""
    for counters in ("ves_sequence_counters", "sequence_counters"):
        await connection.fetch(
            f"SELECT FROM record.{counters} WHERE tenant_id = $1 ORDER BY store_id FOR UPDATE", tenant_id
        )
    raise Undo(None)


class GoAlone(msgspec.Struct, frozen=True):
    """Nothing of this group was stored, for certain, perhaps only because of those it was together with."""


async def append(
    units: Units, group: Group, checkpoint: Checkpoint, passing: Passing | None = None
) -> Stored | Moved | Away:
    """Waits for whoever holds a lock. ``passing``: in short statements, and lets others pass between them.
    Raises JournalOutcomeUnknown once COMMIT was sent and not clearly answered."""
    try:
        if not group.numbered:
            return await _check_fence(units, group)
        return await units.write(
            lambda connection: _store(connection, group, checkpoint, passing),
            begin=begin_sharing(group.fence.tenant_id),
            named="append",
        )
    except (Contended, asyncpg.UniqueViolationError) as error:
        # A double found by COPY costs nobody of the group anything: it is decided anew.
        return Moved(f"{type(error).__name__}: another writer was first")
    except JournalAway as error:
        return Away(str(error))


async def append_together(
    units: Units, groups: Sequence[Group], checkpoint: Checkpoint
) -> list[Stored | Moved | Away | GoAlone]:
    """Groups with rows, each of another tenant. Raises JournalOutcomeUnknown like ``append``, of them all."""
    try:
        if sum(len(group.numbered) for group in groups) <= AT_ONCE_MAX:
            return await units.write_at_once(
                lambda connection: _store_at_once(connection, groups), named="append"
            )
        return await units.write(
            lambda connection: _store_together(connection, groups, checkpoint),
            begin=begin_together(_TOGETHER_LOCK_TIMEOUT_S),
            named="append",
        )
    except (Contended, asyncpg.PostgresError, ValueError, TypeError):
        return [GoAlone()] * len(groups)  # one of them is in the way of the others, or at fault
    except JournalAway as error:
        return [Away(str(error))] * len(groups)


async def _check_fence(units: Units, group: Group) -> Stored | Moved:
    """One statement, one snapshot: everything believed was true at one moment after it was decided."""
    nothing: frozenset[Any] = frozenset()
    fence = group.fence
    asked = Question(fence.tenant_id, frozenset(fence.heads), nothing, nothing, nothing, nothing, nothing)
    [facts] = await units.read(lambda connection: read_facts(connection, [asked]))
    return Stored() if facts.fence == fence else Moved("the fence")


async def _store(
    connection: Connection, group: Group, checkpoint: Checkpoint, passing: Passing | None
) -> Stored:
    for part in [group] if passing is None else _advanced_apart(group):
        await _let_pass(passing)
        [moved], undone = await _advance(connection, [part], [])
        if (what := moved or undone) is not None:
            raise Undo(Moved(what))
    await _copy(connection, [group], checkpoint, passing)
    return Stored()


async def _let_pass(passing: Passing | None) -> None:
    if passing is not None and passing.is_due:
        await on_trio(passing.step)


def _advanced_apart(group: Group) -> Iterator[Group]:
    """What advances it, step by step. The first step moves the streams' counters: a second writer for one of
    them waits there. Then entities that have a version, new ones and command ids, each in the order of their
    names: as in one statement, so no two writers of signed events wait for each other in a circle. Legacy
    ones take known and new entities in one order; PostgreSQL ends such a circle, and one of the two is
    decided anew."""
    versions = sorted(group.versions, key=lambda step: (step.believed == 0, *step.entity))
    in_order = [*versions, *sorted(group.commands, key=lambda use: use.command)]
    first, rest = group, replace(group, fence=replace(group.fence, heads={}), numbered=[])
    for start in range(0, max(1, len(in_order)), ADVANCED_AT_ONCE_MAX):
        part = in_order[start : start + ADVANCED_AT_ONCE_MAX]
        yield replace(
            rest if start else first,
            versions=[one for one in part if isinstance(one, VersionStep)],
            commands=[one for one in part if isinstance(one, CommandUse)],
        )


async def _store_at_once(
    connection: Connection, groups: Sequence[Group]
) -> list[Stored | Moved | Away | GoAlone]:
    in_order = sorted(groups, key=lambda group: group.fence.tenant_id)
    rows = [row for group in in_order for row in _rows(group)]
    moved = await connection.fetchval(_APPEND, *_beliefs(in_order, _locks(in_order)), rows)
    return _outcomes(groups, in_order, moved)


async def _store_together(
    connection: Connection, groups: Sequence[Group], checkpoint: Checkpoint
) -> list[Stored | Moved | Away | GoAlone]:
    in_order = sorted(groups, key=lambda group: group.fence.tenant_id)
    moved, undone = await _advance(connection, in_order, _locks(in_order))
    if undone:
        raise Undo([GoAlone()] * len(groups))
    answers = _outcomes(groups, in_order, moved)
    advanced = [group for group, what in zip(in_order, moved, strict=True) if what is None]
    if not advanced:
        raise Undo(answers)
    await _copy(connection, advanced, checkpoint, None)
    return answers


def _locks(groups: Sequence[Group]) -> list[int]:
    return [tenant_lock(group.fence.tenant_id) for group in groups]


def _outcomes(
    groups: Sequence[Group], in_order: Sequence[Group], moved: Sequence[str | None]
) -> list[Stored | Moved | Away | GoAlone]:
    """In the order of ``groups``, of what moved in the other order."""
    outcomes: dict[Uuid, Stored | Moved | Away | GoAlone] = {
        group.fence.tenant_id: Stored() if what is None else GoAlone() if what == _BUSY else Moved(what)
        for group, what in zip(in_order, moved, strict=True)
    }
    return [outcomes[group.fence.tenant_id] for group in groups]


async def _advance(
    connection: Connection, groups: Sequence[Group], locks: list[int]
) -> tuple[list[str | None], str | None]:
    """What moved, of each group, and why nothing of this transaction may be committed. ``locks``: none if
    they were taken before."""
    row = await connection.fetchrow(_ADVANCE, *_beliefs(groups, locks))
    assert row is not None
    return row["moved"], row["undone"]


def _beliefs(groups: Sequence[Group], locks: list[int]) -> list[Any]:
    """What ``record.ves_advance_groups`` compares and sets."""
    streams: list[tuple[Any, ...]] = []
    versions: list[tuple[int, VersionStep]] = []
    commands: list[tuple[int, CommandUse]] = []
    for g, group in enumerate(groups, 1):
        reached = _reached(group)
        for store, believed in sorted(group.fence.heads.items()):
            head = reached[store]
            streams.append(
                (g, store, believed.current_sequence, head.current_sequence, head.last_sequenced_at_us)
            )
        versions += [(g, step) for step in group.versions]
        commands += [(g, use) for use in group.commands]
    fences = [group.fence for group in groups]
    columns = [[row[n] for row in streams] for n in range(5)]
    return [
        [fence.tenant_id for fence in fences],
        locks,
        [fence.key_epoch for fence in fences],
        [fence.credential_epoch for fence in fences],
        *columns,
        numbers([g for g, _ in versions]),
        uuids([step.entity.store_id for _, step in versions]),
        texts([step.entity.entity_type for _, step in versions]),
        texts([step.entity.entity_id for _, step in versions]),
        numbers([step.believed for _, step in versions]),
        numbers([step.new for _, step in versions]),
        numbers([g for g, _ in commands]),
        uuids([use.command.store_id for _, use in commands]),
        uuids([use.command.command_id for _, use in commands]),
        uuids([use.event_id for _, use in commands]),
    ]


async def _copy(
    connection: Connection, groups: Sequence[Group], checkpoint: Checkpoint, passing: Passing | None
) -> None:
    checkpoint("append.fenced")
    await copy_rows(connection, "ves_events", _COLUMNS, chain.from_iterable(map(_rows, groups)), passing)
    checkpoint("append.copied")


async def copy_rows(
    connection: Connection,
    table: str,
    columns: Sequence[str],
    rows: Iterator[tuple[Any, ...]],
    passing: Passing | None,
) -> None:
    """All of them into a table of ``record``, inside the transaction that there is."""
    while part := list(islice(rows, COPIED_AT_ONCE_MAX)):
        await _let_pass(passing)
        await connection.copy_records_to_table(table, schema_name="record", columns=columns, records=part)


def _reached(group: Group | LegacyGroup) -> dict[Uuid, Head]:
    """The heads of the group's streams once it is stored."""
    reached = dict(group.fence.heads)
    for numbered in group.numbered:
        reached[numbered.store_id] = Head(numbered.sequence_number, numbered.sequenced_at_us)
    return reached


def beliefs(group: LegacyGroup) -> list[Any]:
    """What ``record.legacy_advance`` compares and sets. Streams in key order."""
    fence = group.fence
    reached = _reached(group)
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


def _rows(group: Group) -> Iterator[tuple[Any, ...]]:
    """In the order of ``_COLUMNS``."""
    tenant_id, sequencer_id, key_version = (
        group.fence.tenant_id,
        group.sequencer_id,
        group.sequencer_key_version,
    )
    for numbered, sealed in zip(group.numbered, group.sealed, strict=True):
        event = numbered.event
        yield (
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
