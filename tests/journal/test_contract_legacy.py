"""What the journal promises about the legacy stream, whatever it is made of."""

from __future__ import annotations

import msgspec
import pytest
import trio
from journal_builders import AUDIT, an_api_key, an_event, decided, question, uuid
from journal_worlds import World
from legacy_builders import a_legacy_event, a_legacy_group, legacy_decided, legacy_question

from journal.append import COPIED_AT_ONCE_MAX
from journal.port import Away, Journal, JournalAway, JournalOutcomeUnknown, LegacyGroup, Moved, Stored
from ves.legacy import LegacyEvent
from ves.records import NEW_STREAM, CommandName, EntityName, Uuid


async def holds(journal: Journal, tenant: Uuid, store: Uuid, *events: LegacyEvent) -> bool:
    """Exactly these events are in this stream, in this order."""
    page = await journal.read_legacy_events(tenant, store, from_sequence=1, limit=1000, bytes_max=1 << 30)
    assert [e.sequence_number for e in page.events] == list(range(1, page.head_sequence + 1))
    assert await journal.read_legacy_head(tenant, store) == page.head_sequence
    return [e.event_id for e in page.events] == [e.event_id for e in events]


async def leaves_no_trace(journal: Journal, group: LegacyGroup) -> bool:
    """Everything the group would have changed reads as when it was decided, on fresh entities and ids."""
    fence = group.fence
    events = [n.event for n in group.numbered]
    facts = await journal.read_facts(legacy_question(fence.tenant_id, fence.heads, events))
    return (
        facts.fence == fence
        and not facts.taken
        and not facts.used_commands
        and not any(facts.entity_versions.values())
    )


async def test_what_was_appended_is_read_back_as_it_was_by_every_node(world: World) -> None:
    tenant, store = uuid(), uuid()
    plain = a_legacy_event(entity_id="Ωmega-\U0001f600")
    full = a_legacy_event(command=uuid(), base_version=0, signature=b"\0\xff" * 40)
    group = await legacy_decided(world.journal, tenant, store, plain, full)

    assert isinstance(await world.journal.append_legacy(group), Stored)

    page = await world.other.read_legacy_events(tenant, store, from_sequence=1, limit=9, bytes_max=1 << 20)
    assert (page.head_sequence, page.has_more, page.next_from) == (2, False, 3)
    for stored, numbered, payload in zip(page.events, group.numbered, group.payloads, strict=True):
        assert (stored.tenant_id, stored.store_id) == (tenant, store)
        assert (stored.sequence_number, stored.sequenced_at_us) == (
            numbered.sequence_number,
            numbered.sequenced_at_us,
        )
        assert stored.payload_encrypted == payload
        for name in set(LegacyEvent.__struct_fields__) - {"payload", "findings"}:
            assert getattr(stored, name) == getattr(numbered.event, name), name


async def test_the_two_streams_of_a_store_share_versions_and_nothing_else(world: World) -> None:
    tenant, store = uuid(), uuid()
    unsigned = a_legacy_event(entity_id="both", command=uuid())
    signed = an_event(event_id=unsigned.event_id, entity_id="both", command=unsigned.command_id)

    assert isinstance(
        await world.journal.append_legacy(await legacy_decided(world.journal, tenant, store, unsigned)),
        Stored,
    )
    group = await decided(world.journal, tenant, store, signed)
    assert [n.sequence_number for n in group.numbered] == [1]
    assert [(step.believed, step.new) for step in group.versions] == [(1, 2)]
    assert isinstance(await world.journal.append(group), Stored)

    legacy = await world.other.read_facts(legacy_question(tenant, [store], [unsigned]))
    ves = await world.other.read_facts(question(tenant, [store], [signed]))
    assert legacy.entity_versions == ves.entity_versions == {EntityName(store, "order", "both"): 2}
    assert (legacy.taken, legacy.known) == ({unsigned.event_id}, {})
    assert (ves.taken, ves.known.keys()) == (frozenset(), {signed.event_id})
    assert unsigned.command_id is not None
    assert legacy.used_commands == ves.used_commands == {CommandName(store, unsigned.command_id)}
    assert legacy.fence.heads[store].current_sequence == ves.fence.heads[store].current_sequence == 1


async def test_facts_answer_what_was_asked_of_this_stream(world: World) -> None:
    tenant, store, empty = uuid(), uuid(), uuid()
    event, stranger = a_legacy_event(command=uuid()), a_legacy_event(command=uuid())
    assert isinstance(
        await world.journal.append(await decided(world.journal, tenant, store, an_event())), Stored
    )
    before = await world.journal.read_facts(legacy_question(tenant, [store], [event]))
    assert (before.fence.heads, before.taken) == ({store: NEW_STREAM}, frozenset())
    await world.journal.append_legacy(a_legacy_group(before, [(store, event)]))

    facts = await world.other.read_facts(legacy_question(tenant, [store, empty], [event, stranger]))

    assert event.command_id is not None
    assert facts.taken == {event.event_id}
    assert facts.used_commands == {CommandName(store, event.command_id)}
    assert facts.entity_versions == {EntityName(store, "order", event.entity_id): 1}
    assert facts.fence.heads[empty] == NEW_STREAM
    assert facts.fence.heads[store].current_sequence == 1
    other_tenant = await world.other.read_facts(legacy_question(uuid(), [store], [event]))
    assert not other_tenant.taken


async def test_a_lost_compare_and_set_on_the_counter_leaves_no_trace(world: World) -> None:
    tenant, store = uuid(), uuid()
    first, second = a_legacy_event(command=uuid()), a_legacy_event(command=uuid())
    for _ in range(2):  # a counter that is new, and one that is there
        mine = await legacy_decided(world.journal, tenant, store, first)
        theirs = await legacy_decided(world.other, tenant, store, second)
        assert isinstance(await world.other.append_legacy(theirs), Stored)

        moved = await world.journal.append_legacy(mine)

        assert moved == Moved("a stream")
        facts = await world.journal.read_facts(legacy_question(tenant, [store], [first]))
        assert not facts.taken
        assert not facts.used_commands
        assert not facts.entity_versions
        second = a_legacy_event(command=uuid())


async def test_a_version_that_the_other_stream_moved_in_between_moves_the_group(world: World) -> None:
    tenant, store = uuid(), uuid()
    for _ in range(2):  # an entity believed new, and one that is there
        unsigned, signed = a_legacy_event(entity_id="e"), an_event(entity_id="e")
        mine = await legacy_decided(world.journal, tenant, store, unsigned)
        assert isinstance(await world.other.append(await decided(world.other, tenant, store, signed)), Stored)
        assert await world.journal.append_legacy(mine) == Moved("an entity")
        assert not (await world.journal.read_facts(legacy_question(tenant, [store], [unsigned]))).taken

        theirs = await decided(world.other, tenant, store, an_event(entity_id="e"))
        now = await legacy_decided(world.journal, tenant, store, unsigned)
        assert isinstance(await world.journal.append_legacy(now), Stored)
        assert await world.other.append(theirs) == Moved("an entity")


async def test_an_event_id_that_appeared_in_another_store_moves_the_whole_group(world: World) -> None:
    tenant, store, elsewhere = uuid(), uuid(), uuid()
    doubled, innocent = a_legacy_event(command=uuid()), a_legacy_event(command=uuid())
    mine = await legacy_decided(world.journal, tenant, store, innocent, doubled)
    again = a_legacy_event(event_id=doubled.event_id)
    assert isinstance(
        await world.other.append_legacy(await legacy_decided(world.other, tenant, elsewhere, again)), Stored
    )

    assert isinstance(await world.journal.append_legacy(mine), Moved)

    assert await holds(world.other, tenant, store)
    facts = await world.other.read_facts(legacy_question(tenant, [store], [innocent, doubled]))
    assert facts.fence == mine.fence
    assert facts.taken == {doubled.event_id}
    assert not facts.used_commands
    assert not facts.entity_versions


async def test_a_group_of_several_copies_is_one_group(world: World) -> None:
    tenant, store, elsewhere = uuid(), uuid(), uuid()
    events = [a_legacy_event() for _ in range(2 * COPIED_AT_ONCE_MAX + 1)]
    mine = await legacy_decided(world.journal, tenant, store, *events)
    assert await world.journal.append_legacy(mine) == Stored()
    assert await holds(world.other, tenant, store, *events)

    more = [a_legacy_event() for _ in range(2 * COPIED_AT_ONCE_MAX + 1)]
    mine = await legacy_decided(world.journal, tenant, store, *more)
    again = a_legacy_event(event_id=more[-1].event_id)
    theirs = await legacy_decided(world.other, tenant, elsewhere, again)
    assert await world.other.append_legacy(theirs) == Stored()
    assert isinstance(await world.journal.append_legacy(mine), Moved)  # found by the last COPY of three
    assert await holds(world.other, tenant, store, *events)


async def test_the_same_event_id_in_another_tenant_is_nobodys_business(world: World) -> None:
    event = a_legacy_event()
    for tenant, store in ((uuid(), uuid()), (uuid(), uuid())):
        group = await legacy_decided(world.journal, tenant, store, event)
        assert isinstance(await world.journal.append_legacy(group), Stored)
        assert await holds(world.journal, tenant, store, event)


async def test_a_command_id_that_was_used_in_between_moves_the_group(world: World) -> None:
    tenant, store = uuid(), uuid()
    first, second = a_legacy_event(command=uuid()), a_legacy_event()
    await world.journal.append_legacy(await legacy_decided(world.journal, tenant, store, first))
    group = await legacy_decided(
        world.journal, tenant, store, msgspec.structs.replace(second, command_id=first.command_id)
    )

    assert await world.journal.append_legacy(group) == Moved("a command id")
    assert await holds(world.journal, tenant, store, first)


async def test_a_credential_revoked_in_between_moves_the_group(world: World) -> None:
    tenant, store = uuid(), uuid()
    key = await world.journal.create_api_key(an_api_key(tenant), AUDIT)
    asked = legacy_question(tenant, [store], [event := a_legacy_event()], credentials=[key.id])
    facts = await world.journal.read_facts(asked)
    assert not facts.revoked_credentials
    await world.other.revoke_api_key(key.id, tenant_id=None, audit=AUDIT)

    assert await world.journal.append_legacy(a_legacy_group(facts, [(store, event)])) == Moved(
        "a key or a credential"
    )
    assert await holds(world.journal, tenant, store)
    assert (await world.journal.read_facts(asked)).revoked_credentials == {key.id}


async def test_a_group_without_rows_is_told_whether_its_fence_still_stands(world: World) -> None:
    tenant, store = uuid(), uuid()
    nothing = await legacy_decided(world.journal, tenant, store)
    assert isinstance(await world.journal.append_legacy(nothing), Stored)
    await world.other.append(await decided(world.other, tenant, store, an_event()))
    assert isinstance(await world.journal.append_legacy(nothing), Stored), "another stream's counter"
    await world.other.append_legacy(await legacy_decided(world.other, tenant, store, a_legacy_event()))
    assert isinstance(await world.journal.append_legacy(nothing), Moved)


async def test_before_commit_a_failure_is_away_and_leaves_no_trace(world: World) -> None:
    tenant, store = uuid(), uuid()
    group = await legacy_decided(world.journal, tenant, store, a_legacy_event(command=uuid()))
    world.fail_next("append_legacy", "away")
    assert isinstance(await world.journal.append_legacy(group), Away)
    assert await leaves_no_trace(world.other, group)
    assert isinstance(await world.journal.append_legacy(group), Stored)


async def test_a_commit_that_never_arrived_is_unknown_and_leaves_no_trace(world: World) -> None:
    tenant, store = uuid(), uuid()
    group = await legacy_decided(world.journal, tenant, store, a_legacy_event(command=uuid()))
    world.fail_next("append_legacy", "lost")
    with pytest.raises(JournalOutcomeUnknown):
        await world.journal.append_legacy(group)
    await world.other.settle(tenant)
    assert await leaves_no_trace(world.other, group)
    assert isinstance(await world.other.append_legacy(group), Stored)


async def test_a_commit_whose_answer_was_lost_is_unknown_and_stored(world: World) -> None:
    tenant, store = uuid(), uuid()
    event = a_legacy_event(command=uuid())
    group = await legacy_decided(world.journal, tenant, store, event)
    world.fail_next("append_legacy", "unheard")
    with pytest.raises(JournalOutcomeUnknown):
        await world.journal.append_legacy(group)
    await world.other.settle(tenant)
    assert await holds(world.other, tenant, store, event)
    assert await world.journal.append_legacy(group) == Moved("a stream")
    assert await holds(world.other, tenant, store, event)


@pytest.mark.parametrize("commit", [True, False], ids=["arrives", "is given up"])
async def test_settling_waits_out_a_commit_that_is_still_on_its_way(world: World, commit: bool) -> None:
    tenant, store = uuid(), uuid()
    event = a_legacy_event(command=uuid())
    group = await legacy_decided(world.journal, tenant, store, event)
    world.fail_next("append_legacy", "held")
    with pytest.raises(JournalOutcomeUnknown):
        await world.journal.append_legacy(group)
    over = trio.Event()

    async def settle() -> None:
        await world.other.settle(tenant)
        over.set()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(settle)
        await trio.sleep(0.2)
        assert not over.is_set()
        await world.release(commit=commit)
    expected = (event,) if commit else ()
    assert await holds(world.other, tenant, store, *expected)


@pytest.mark.usefixtures("as_if_large")
@pytest.mark.parametrize("commit", [True, False], ids=["arrives", "is given up"])
async def test_an_entity_held_by_a_commit_on_its_way_keeps_the_other_stream_waiting(
    world: World, commit: bool
) -> None:
    tenant, store = uuid(), uuid()
    group = await decided(world.journal, tenant, store, an_event(entity_id="e"))
    unsigned = await legacy_decided(world.other, tenant, store, a_legacy_event(entity_id="e"))
    world.fail_next("append", "held")
    with pytest.raises(JournalOutcomeUnknown):
        await world.journal.append(group)
    outcome: list[object] = []

    async def append() -> None:
        outcome.append(await world.other.append_legacy(unsigned))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(append)
        await trio.sleep(0.2)
        assert not outcome
        await world.release(commit=commit)
    assert outcome == [Moved("an entity") if commit else Stored()]


async def test_pages_end_at_their_limit_or_their_bytes_and_hold_at_least_one_event(world: World) -> None:
    tenant, store = uuid(), uuid()
    events = [a_legacy_event() for _ in range(5)]
    await world.journal.append_legacy(
        await legacy_decided(world.journal, tenant, store, *events, payload_bytes=100)
    )

    async def page(start: int, limit: int, bytes_max: int) -> tuple[list[int], bool, int]:
        got = await world.journal.read_legacy_events(
            tenant, store, from_sequence=start, limit=limit, bytes_max=bytes_max
        )
        assert got.head_sequence == 5
        return [e.sequence_number for e in got.events], got.has_more, got.next_from

    assert await page(1, 2, 10_000) == ([1, 2], True, 3)
    assert await page(4, 2, 10_000) == ([4, 5], False, 6)
    assert await page(1, 5, 250) == ([1, 2], True, 3)
    assert await page(2, 5, 1) == ([2], True, 3)
    assert await page(6, 5, 250) == ([], False, 6)
    nobody = await world.journal.read_legacy_events(uuid(), store, from_sequence=1, limit=5, bytes_max=10)
    assert (nobody.head_sequence, nobody.events) == (0, [])


async def test_an_entitys_history_holds_its_legacy_events_and_the_version_of_both_streams(
    world: World,
) -> None:
    tenant, store, elsewhere = uuid(), uuid(), uuid()
    entity = EntityName(store, "order", "e")
    mine = [a_legacy_event(entity_id="e") for _ in range(3)]
    mixed = [mine[0], a_legacy_event(), mine[1], mine[2]]
    await world.journal.append_legacy(await legacy_decided(world.journal, tenant, store, *mixed))
    await world.journal.append(await decided(world.journal, tenant, store, an_event(entity_id="e")))
    await world.journal.append_legacy(
        await legacy_decided(world.journal, tenant, elsewhere, a_legacy_event(entity_id="e"))
    )

    page = await world.other.read_legacy_entity(tenant, entity, from_sequence=2, limit=1, bytes_max=10_000)
    assert (page.version, page.has_more, page.next_from) == (4, True, 4)
    assert [e.event_id for e in page.events] == [mine[1].event_id]
    rest = await world.other.read_legacy_entity(tenant, entity, from_sequence=4, limit=9, bytes_max=10_000)
    assert [e.sequence_number for e in rest.events] == [4]
    assert not rest.has_more
    unknown = await world.other.read_legacy_entity(
        tenant, entity._replace(entity_id="f"), from_sequence=1, limit=9, bytes_max=10
    )
    assert (unknown.version, unknown.events, unknown.next_from) == (0, [], 1)


async def test_reading_says_away_when_there_is_no_database(world: World) -> None:
    tenant, store = uuid(), uuid()
    world.fail_next("read_legacy_head", "away")
    with pytest.raises(JournalAway):
        await world.journal.read_legacy_head(tenant, store)


async def test_head_and_events_of_a_page_are_of_one_moment(world: World) -> None:
    tenant, store = uuid(), uuid()

    async def append_one_by_one() -> None:
        for _ in range(15):
            group = await legacy_decided(world.other, tenant, store, a_legacy_event())
            assert isinstance(await world.other.append_legacy(group), Stored)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(append_one_by_one)
        head = 0
        while head < 15:
            page = await world.journal.read_legacy_events(
                tenant, store, from_sequence=1, limit=1000, bytes_max=1 << 20
            )
            head = page.head_sequence
            assert [e.sequence_number for e in page.events] == list(range(1, head + 1))
