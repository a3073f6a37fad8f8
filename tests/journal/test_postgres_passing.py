"""A large group that lets others pass in the middle of its transaction is one transaction all the same."""

from __future__ import annotations

from dataclasses import replace

import pytest
import trio
from journal_builders import an_event, decided, question, uuid
from journal_worlds import LIMITS, PostgresWorld, sql
from legacy_builders import a_legacy_event, legacy_decided

from journal.aio import open_loop
from journal.append import ADVANCED_AT_ONCE_MAX, COPIED_AT_ONCE_MAX
from journal.embedded import EmbeddedPostgres
from journal.port import Away, Group, Journal, Moved, Stored
from journal.postgres import open_journal
from ves.records import CommandName, EntityName, Uuid, VerifiedEvent

COUNT = 2 * ADVANCED_AT_ONCE_MAX + 1
COPIES = -(-COUNT // COPIED_AT_ONCE_MAX)


class Passing:
    """Says that it is due as often as it is asked to wait."""

    def __init__(self, *, is_due: bool = True, waits_s: float = 0.0) -> None:
        self.is_due = is_due
        self.waits_s = waits_s
        self.steps = 0

    async def step(self) -> None:
        self.steps += 1
        with trio.CancelScope(shield=True):  # as the real one
            await trio.sleep(self.waits_s)


def new_events(known: list[VerifiedEvent] | None = None) -> list[VerifiedEvent]:
    """Each with a command id; of the entities of ``known`` ones, if there are."""
    if known is None:
        return [an_event(command=uuid()) for _ in range(COUNT)]
    return [an_event(command=uuid(), entity_id=one.entity_id) for one in known]


async def stored_versions(
    journal: Journal, tenant: Uuid, store: Uuid, events: list[VerifiedEvent]
) -> set[int]:
    facts = await journal.read_facts(question(tenant, [store], events))
    assert facts.used_commands == {CommandName(store, one.command_id) for one in events if one.command_id}
    assert facts.known.keys() == {one.event_id for one in events}
    return set(facts.entity_versions.values())


@pytest.mark.parametrize("is_due", [True, False])
async def test_everything_of_it_is_stored_at_once(postgres: PostgresWorld, is_due: bool) -> None:
    tenant, store = uuid(), uuid()
    first = new_events()
    for version, events in enumerate((first, new_events(first)), 1):
        group = await decided(postgres.journal, tenant, store, *events)
        passing = Passing(is_due=is_due)
        assert await postgres.journal.append(group, passing) == Stored()
        # Entities and command ids fill the same statements.
        advances = -(-2 * COUNT // ADVANCED_AT_ONCE_MAX)
        assert passing.steps == (advances + COPIES if is_due else 0)
        assert await stored_versions(postgres.journal, tenant, store, events) == {version}
        assert await postgres.journal.read_head(tenant, store) == version * COUNT


async def test_nothing_of_it_is_seen_before_all_of_it(postgres: PostgresWorld) -> None:
    tenant, store = uuid(), uuid()
    events = new_events()
    seen: list[tuple[int, int, int]] = []

    class Looking(Passing):
        async def step(self) -> None:
            await super().step()
            facts = await postgres.other.read_facts(question(tenant, [store], events))
            seen.append((len(facts.known), len(facts.entity_versions), len(facts.used_commands)))

    group = await decided(postgres.journal, tenant, store, *events)
    assert await postgres.journal.append(group, Looking()) == Stored()
    assert len(seen) > COPIES
    assert set(seen) == {(0, 0, 0)}


async def test_what_moved_in_the_last_step_undoes_the_others(postgres: PostgresWorld) -> None:
    """New and known entities, and command ids: each is in another step."""
    for kind in ("a known entity", "a new entity", "a command id", "an event id"):
        tenant, store, elsewhere = uuid(), uuid(), uuid()
        first = new_events()
        assert (
            await postgres.journal.append(await decided(postgres.journal, tenant, store, *first)) == Stored()
        )
        events = new_events(first) + new_events()
        group = await decided(postgres.journal, tenant, store, *events)
        spoilt = last_of(group, kind)
        if kind == "an event id":
            theirs = await decided(postgres.other, tenant, elsewhere, an_event(event_id=spoilt.event_id))
            assert await postgres.other.append(theirs) == Stored()
        elif kind == "a command id":
            assert spoilt.command_id
            await sql(
                postgres.owner_dsn,
                "INSERT INTO record.ves_command_dedupe (tenant_id, store_id, command_id, event_id) "
                f"VALUES ('{tenant.hex()}', '{store.hex()}', '{spoilt.command_id.hex()}', '{uuid().hex()}')",
            )
        else:  # a legacy event moves the entities of both
            legacy = a_legacy_event(entity_id=spoilt.entity_id)
            await postgres.other.append_legacy(await legacy_decided(postgres.other, tenant, store, legacy))

        passing = Passing()
        assert isinstance(await postgres.journal.append(group, passing), Moved), kind

        assert passing.steps > 2, kind
        facts = await postgres.journal.read_facts(question(tenant, [store], events))
        assert facts.fence == group.fence, kind
        assert len(facts.used_commands) == (kind == "a command id")
        assert len(facts.known) == (kind == "an event id")
        moved = sum(version == 2 for version in facts.entity_versions.values())
        assert moved == (kind == "a known entity")
        assert len(facts.entity_versions) == COUNT + (kind == "a new entity")


def last_of(group: Group, kind: str) -> VerifiedEvent:
    """The event whose name is the last one of its kind."""
    events = [one.event for one in group.numbered]
    if kind == "a command id":
        return max(events, key=lambda event: event.command_id or b"")
    if kind == "an event id":
        return events[-1]
    is_new = kind == "a new entity"
    last: EntityName = max(step.entity for step in group.versions if (step.believed == 0) == is_new)
    return next(event for event in events if event.entity_id == last.entity_id)


async def test_two_writers_for_the_same_entities_in_steps_do_not_hold_each_other_up(
    postgres: PostgresWorld,
) -> None:
    """Their streams differ, and a legacy stream is among them, so the entities are where they meet."""
    tenant, store = uuid(), uuid()
    first = new_events()
    assert await postgres.journal.append(await decided(postgres.journal, tenant, store, *first)) == Stored()
    mine = await decided(postgres.journal, tenant, store, *new_events(first))
    theirs = await legacy_decided(
        postgres.other, tenant, store, *(a_legacy_event(entity_id=one.entity_id) for one in reversed(first))
    )
    outcomes: list[object] = []

    async def append() -> None:
        outcomes.append(await postgres.journal.append(mine, Passing(waits_s=0.02)))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(append)
        await trio.sleep(0.05)
        outcomes.append(await postgres.other.append_legacy(theirs, Passing()))
    assert sorted(map(repr, outcomes)) == ["Moved(what='an entity')", "Stored()"], "and nobody was chosen"


async def test_a_legacy_group_lets_pass_between_its_copies(postgres: PostgresWorld) -> None:
    tenant, store = uuid(), uuid()
    events = [a_legacy_event() for _ in range(COUNT)]
    group = await legacy_decided(postgres.journal, tenant, store, *events)
    passing = Passing()
    assert await postgres.journal.append_legacy(group, passing) == Stored()
    assert passing.steps == COPIES
    assert await postgres.journal.read_legacy_head(tenant, store) == COUNT


async def test_who_lets_pass_for_too_long_has_stored_nothing(server: EmbeddedPostgres) -> None:
    limits = replace(LIMITS, unit_deadline_s=0.5)
    async with open_loop(), open_journal(server.app_dsn, node_id=uuid(), limits=limits) as journal:
        tenant, store = uuid(), uuid()
        group = await decided(journal, tenant, store, *new_events())
        passing = Passing(waits_s=0.7)
        assert isinstance(await journal.append(group, passing), Away)
        assert passing.steps == 1, "it ended there"
        assert await journal.read_head(tenant, store) == 0
        assert await journal.append(group, Passing()) == Stored()
        assert await journal.read_head(tenant, store) == COUNT
