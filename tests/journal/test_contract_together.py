"""What appends of many tenants at the same time promise: each what it promises alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pytest
import trio
from journal_builders import AUDIT, an_agent_key, an_event, decided, question, uuid
from journal_worlds import World

from journal.port import Group, Journal, JournalOutcomeUnknown, Moved, Stored
from ves.records import Uuid, VerifiedEvent


@dataclass(frozen=True)
class Stream:
    tenant_id: Uuid
    store_id: Uuid
    events: list[VerifiedEvent]

    @classmethod
    def new(cls) -> Stream:
        return cls(uuid(), uuid(), [an_event(entity_id=f"e{n}", command=uuid()) for n in range(3)])

    async def group(self, journal: Journal) -> Group:
        return await decided(journal, self.tenant_id, self.store_id, *self.events)

    async def stored(self, journal: Journal) -> bool:
        """All of it or nothing of it."""
        asked = question(self.tenant_id, [self.store_id], self.events)
        facts = await journal.read_facts(asked)
        head = facts.fence.heads[self.store_id].current_sequence
        reached = (head, len(facts.known), len(facts.used_commands), sum(facts.entity_versions.values()))
        assert reached in ((0, 0, 0, 0), (3, 3, 3, 3)), reached
        return head == 3


async def append_at_once(journal: Journal, groups: Sequence[Group]) -> list[object]:
    outcomes: list[object] = [None] * len(groups)

    async def append(n: int, group: Group) -> None:
        try:
            outcomes[n] = await journal.append(group)
        except JournalOutcomeUnknown as error:
            outcomes[n] = error

    async with trio.open_nursery() as nursery:
        for n, group in enumerate(groups):
            nursery.start_soon(append, n, group)
    return outcomes


async def test_many_tenants_at_once_are_all_stored_and_each_reads_its_own(world: World) -> None:
    streams = [Stream.new() for _ in range(20)]
    groups: list[Group] = []

    async def decide(stream: Stream) -> None:
        groups.append(await stream.group(world.journal))

    async with trio.open_nursery() as nursery:
        for stream in streams:
            nursery.start_soon(decide, stream)
    assert await append_at_once(world.journal, groups) == [Stored()] * 20
    for stream in streams:
        page = await world.other.read_events(
            stream.tenant_id, stream.store_id, from_sequence=1, limit=10, bytes_max=1 << 20
        )
        assert [e.receipt.event_id for e in page.events] == [e.event_id for e in stream.events]
        assert await stream.stored(world.other)


async def test_whose_world_has_moved_costs_the_neighbours_nothing(world: World) -> None:
    streams = [Stream.new() for _ in range(8)]
    groups = [await stream.group(world.journal) for stream in streams]
    head, epoch, event_id = streams[1], streams[3], streams[5]
    await world.other.append(await decided(world.other, head.tenant_id, head.store_id, an_event()))
    await world.other.register_agent_key(an_agent_key(epoch.tenant_id), AUDIT)
    double = an_event(event_id=event_id.events[1].event_id)
    await world.other.append(await decided(world.other, event_id.tenant_id, uuid(), double))

    outcomes = await append_at_once(world.journal, groups)

    for n, (stream, outcome) in enumerate(zip(streams, outcomes, strict=True)):
        assert isinstance(outcome, Moved if n in (1, 3, 5) else Stored), (n, outcome)
        if stream not in (head, event_id):
            assert await stream.stored(world.other) is isinstance(outcome, Stored)
    again = await append_at_once(world.journal, [await epoch.group(world.journal)])
    assert again == [Stored()]


@pytest.mark.parametrize("fault", ["unheard", "lost"])
async def test_an_unknown_outcome_is_that_of_all_who_shared_it_and_of_nobody_else(
    world: World, fault: str
) -> None:
    streams = [Stream.new() for _ in range(12)]
    groups = [await stream.group(world.journal) for stream in streams]
    world.fail_next("append", fault)  # type: ignore[arg-type]

    outcomes = await append_at_once(world.journal, groups)

    assert any(isinstance(outcome, JournalOutcomeUnknown) for outcome in outcomes)
    for stream, outcome in zip(streams, outcomes, strict=True):
        await world.other.settle(stream.tenant_id)
        told = isinstance(outcome, Stored)
        assert told or isinstance(outcome, JournalOutcomeUnknown)
        assert await stream.stored(world.other) is (told or fault == "unheard")
