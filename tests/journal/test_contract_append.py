"""What an append promises, whatever the journal is made of."""

from __future__ import annotations

import msgspec
import pytest
import trio
from journal_builders import (
    AUDIT,
    a_group,
    an_agent_key,
    an_api_key,
    an_event,
    decided,
    question,
    uuid,
)
from journal_worlds import World

from journal.append import COPIED_AT_ONCE_MAX
from journal.port import (
    Away,
    Group,
    Journal,
    JournalAway,
    JournalOutcomeUnknown,
    KeyRegistered,
    Moved,
    Stored,
)
from ves.records import NEW_STREAM, CommandName, EntityName, Head, KeyStatus, Uuid, VerifiedEvent

SAME_IN_EVENT_AND_ROW = (
    "source_agent_id",
    "agent_key_id",
    "entity_type",
    "entity_id",
    "event_type",
    "created_at",
    "payload_kind",
    "payload_plain_hash",
    "payload_cipher_hash",
    "agent_signature",
    "event_signing_hash",
    "command_id",
    "base_version",
)


async def holds(journal: Journal, tenant: Uuid, store: Uuid, *events: VerifiedEvent) -> bool:
    """Exactly these events are in this stream, in this order."""
    page = await journal.read_events(tenant, store, from_sequence=1, limit=1000, bytes_max=1 << 30)
    assert [e.receipt.sequence_number for e in page.events] == list(range(1, page.head_sequence + 1))
    return [e.receipt.event_id for e in page.events] == [e.event_id for e in events]


async def leaves_no_trace(journal: Journal, group: Group, before: Group) -> bool:
    """Everything the group would have changed reads as when ``before`` was decided."""
    fence = group.fence
    events = [n.event for n in group.numbered]
    facts = await journal.read_facts(question(fence.tenant_id, fence.heads, events))
    known_before = {n.event.event_id for n in before.numbered}
    return (
        facts.fence == before.fence
        and facts.known.keys() <= known_before
        and not facts.used_commands
        and all(v == 0 for v in facts.entity_versions.values())
    )


async def test_what_was_appended_is_read_back_as_it_was_by_every_node(world: World) -> None:
    tenant, store = uuid(), uuid()
    plain = an_event(entity_id="Ωmega-\U0001f600")
    full = an_event(entity_id="", command=uuid(), base_version=0)
    group = await decided(world.journal, tenant, store, plain, full)

    assert isinstance(await world.journal.append(group), Stored)

    page = await world.other.read_events(tenant, store, from_sequence=1, limit=10, bytes_max=1 << 20)
    assert page.head_sequence == 2
    for stored, numbered, sealed in zip(page.events, group.numbered, group.sealed, strict=True):
        event, receipt = numbered.event, stored.receipt
        assert (stored.tenant_id, stored.store_id) == (tenant, store)
        for name in SAME_IN_EVENT_AND_ROW:
            assert getattr(stored, name) == getattr(event, name), name
        assert stored.payload_sealed == sealed.payload_sealed
        assert receipt.event_id == event.event_id
        assert receipt.sequence_number == numbered.sequence_number
        assert receipt.sequenced_at_us == numbered.sequenced_at_us
        assert receipt.receipt_hash == sealed.receipt_hash
        assert receipt.sequencer_signature == sealed.sequencer_signature
        assert (receipt.sequencer_id, receipt.sequencer_key_version) == (group.sequencer_id, 1)


async def test_facts_answer_everything_that_was_asked_and_nothing_else(world: World) -> None:
    tenant, store, empty = uuid(), uuid(), uuid()
    event = an_event(command=uuid(), base_version=0)
    stranger = an_event(command=uuid())
    registered = await world.journal.register_agent_key(an_agent_key(tenant), AUDIT)
    assert isinstance(registered, KeyRegistered)
    key, unknown_key = registered.key.name, registered.key.name._replace(key_id=2)
    before = await world.journal.read_facts(question(tenant, [store], [event]))
    assert before.fence.heads == {store: NEW_STREAM}
    await world.journal.append(group := a_group(before, [(store, event)]))

    facts = await world.other.read_facts(
        question(tenant, [store, empty], [event, stranger], keys=[key, unknown_key], credentials=[uuid()])
    )

    numbered, sealed = group.numbered[0], group.sealed[0]
    assert facts.now_us >= numbered.sequenced_at_us
    assert facts.fence.tenant_id == tenant
    assert facts.fence.heads[store].current_sequence == 1
    assert facts.fence.heads[store].last_sequenced_at_us == numbered.sequenced_at_us
    assert facts.fence.heads[empty] == NEW_STREAM
    assert facts.known.keys() == {event.event_id}
    known = facts.known[event.event_id]
    assert (known.store_id, known.event_signing_hash) == (store, event.event_signing_hash)
    assert (known.agent_signature, known.command_id) == (event.agent_signature, event.command_id)
    assert known.base_version == 0
    assert known.receipt.receipt_hash == sealed.receipt_hash
    assert known.receipt.sequencer_signature == sealed.sequencer_signature
    assert event.command_id is not None
    assert facts.used_commands == {CommandName(store, event.command_id)}
    assert facts.entity_versions == {EntityName(store, "order", event.entity_id): 1}
    assert facts.keys == {key: KeyStatus(1_000_000, None, False, None, registered.key.registered_at_us)}
    assert facts.revoked_credentials == frozenset()


async def test_facts_are_of_one_moment_while_another_node_appends(world: World) -> None:
    tenant, store = uuid(), uuid()
    events = [an_event() for _ in range(20)]

    async def append_one_by_one() -> None:
        for event in events:
            assert isinstance(
                await world.other.append(await decided(world.other, tenant, store, event)), Stored
            )

    async with trio.open_nursery() as nursery:
        nursery.start_soon(append_one_by_one)
        head = 0
        while head < len(events):
            facts = await world.journal.read_facts(question(tenant, [store], events))
            head = facts.fence.heads[store].current_sequence
            assert len(facts.known) == head == len(facts.entity_versions)


async def test_of_two_groups_decided_on_the_same_facts_one_is_stored_and_the_other_leaves_no_trace(
    world: World,
) -> None:
    tenant, store = uuid(), uuid()
    first, second = an_event(command=uuid()), an_event(command=uuid())
    mine = await decided(world.journal, tenant, store, first)
    theirs = await decided(world.other, tenant, store, second)

    assert isinstance(await world.other.append(theirs), Stored)
    assert isinstance(await world.journal.append(mine), Moved)

    assert await holds(world.journal, tenant, store, second)
    now = await decided(world.journal, tenant, store, first)
    assert not (await world.journal.read_facts(question(tenant, [store], [first]))).used_commands
    assert isinstance(await world.journal.append(now), Stored)
    assert await holds(world.journal, tenant, store, second, first)


async def test_an_event_id_that_appeared_in_another_stream_moves_the_whole_group_and_nothing_of_it_is_stored(
    world: World,
) -> None:
    tenant, store, elsewhere = uuid(), uuid(), uuid()
    doubled, innocent = an_event(command=uuid()), an_event(command=uuid())
    mine = await decided(world.journal, tenant, store, innocent, doubled)
    await world.other.append(
        await decided(world.other, tenant, elsewhere, an_event(event_id=doubled.event_id))
    )

    assert isinstance(await world.journal.append(mine), Moved)

    assert await holds(world.other, tenant, store)
    facts = await world.other.read_facts(question(tenant, [store], [innocent, doubled]))
    assert facts.fence == mine.fence
    assert facts.known.keys() == {doubled.event_id}
    assert not facts.used_commands
    assert not facts.entity_versions


async def test_a_group_of_several_copies_is_one_group(world: World) -> None:
    tenant, store, elsewhere = uuid(), uuid(), uuid()
    events = [an_event() for _ in range(3 * COPIED_AT_ONCE_MAX + 1)]
    assert await world.journal.append(await decided(world.journal, tenant, store, *events)) == Stored()
    assert await holds(world.other, tenant, store, *events)

    more = [an_event() for _ in range(3 * COPIED_AT_ONCE_MAX + 1)]
    mine = await decided(world.journal, tenant, store, *more)
    theirs = await decided(world.other, tenant, elsewhere, an_event(event_id=more[-1].event_id))
    assert await world.other.append(theirs) == Stored()
    assert isinstance(await world.journal.append(mine), Moved)  # found by the last COPY of four
    assert await holds(world.other, tenant, store, *events)


async def test_the_same_event_id_in_another_tenant_is_nobodys_business(world: World) -> None:
    event = an_event()
    for tenant, store in ((uuid(), uuid()), (uuid(), uuid())):
        assert isinstance(
            await world.journal.append(await decided(world.journal, tenant, store, event)), Stored
        )
        assert await holds(world.journal, tenant, store, event)


async def test_a_wrong_belief_about_an_entity_or_a_command_moves_the_group(world: World) -> None:
    tenant, store = uuid(), uuid()
    event = an_event(entity_id="e", command=uuid())
    await world.journal.append(await decided(world.journal, tenant, store, event))
    same_entity = an_event(entity_id="e")
    same_command = an_event(command=event.command_id)
    unknown_entity = an_event(entity_id="f")
    for wrong in (same_entity, same_command, unknown_entity):
        group = await decided(world.journal, tenant, store, wrong)
        for step in group.versions:
            believed = {"e": 0, "f": 7}.get(step.entity.entity_id, step.believed)
            lied = type(step)(step.entity, believed, believed + 1)
            group = msgspec.structs.replace(group, versions=[lied])
        assert isinstance(await world.journal.append(group), Moved)
    assert await holds(world.journal, tenant, store, event)


async def test_a_wrong_belief_about_a_head_moves_the_group_though_its_numbers_are_free(world: World) -> None:
    tenant, store = uuid(), uuid()
    await world.journal.append(await decided(world.journal, tenant, store, an_event()))
    for believed in (5, 0):
        event = an_event()
        facts = await world.journal.read_facts(question(tenant, [store], [event]))
        lie = Head(believed, facts.fence.heads[store].last_sequenced_at_us)
        lied = msgspec.structs.replace(facts, fence=msgspec.structs.replace(facts.fence, heads={store: lie}))
        group = a_group(lied, [(store, event)])
        number = msgspec.structs.replace(group.numbered[0], sequence_number=6)
        group = msgspec.structs.replace(group, numbered=[number])
        assert isinstance(await world.journal.append(group), Moved)
    assert await world.journal.read_head(tenant, store) == 1


async def test_one_group_may_number_several_streams_and_an_entity_twice(world: World) -> None:
    tenant, stores = uuid(), [uuid(), uuid(), uuid()]
    placed = [(stores[i % 3], an_event(entity_id="shared")) for i in range(9)]
    facts = await world.journal.read_facts(question(tenant, stores, [e for _, e in placed]))

    assert isinstance(await world.journal.append(a_group(facts, placed)), Stored)

    for store in stores:
        assert await holds(world.other, tenant, store, *(e for s, e in placed if s == store))
    entities = (await world.journal.read_facts(question(tenant, stores, [placed[0][1]]))).entity_versions
    assert entities == {EntityName(store, "order", "shared"): 3 for store in stores}


async def test_a_commit_that_never_arrived_is_unknown_and_left_nothing(world: World) -> None:
    tenant, store = uuid(), uuid()
    group = await decided(world.journal, tenant, store, an_event(command=uuid()))
    world.fail_next("append", "lost")

    with pytest.raises(JournalOutcomeUnknown):
        await world.journal.append(group)

    await world.journal.settle(tenant)
    assert await leaves_no_trace(world.journal, group, group)
    assert isinstance(await world.journal.append(group), Stored)


async def test_a_commit_whose_answer_was_lost_is_unknown_and_stored(world: World) -> None:
    tenant, store = uuid(), uuid()
    event = an_event()
    group = await decided(world.journal, tenant, store, event)
    world.fail_next("append", "unheard")

    with pytest.raises(JournalOutcomeUnknown):
        await world.journal.append(group)

    await world.journal.settle(tenant)
    assert await holds(world.journal, tenant, store, event)
    assert isinstance(await world.journal.append(group), Moved)
    assert await holds(world.journal, tenant, store, event)


@pytest.mark.usefixtures("as_if_large")
async def test_a_database_that_is_away_before_commit_has_stored_nothing_and_is_back_by_itself(
    world: World,
) -> None:
    tenant, store = uuid(), uuid()
    group = await decided(world.journal, tenant, store, an_event())
    world.fail_next("append", "away")

    assert isinstance(await world.journal.append(group), Away)

    assert await leaves_no_trace(world.other, group, group)
    assert isinstance(await world.journal.append(group), Stored)


async def test_reading_from_a_database_that_is_away_says_so(world: World) -> None:
    for method, read in (
        ("read_facts", lambda: world.journal.read_facts(question(uuid(), [uuid()]))),
        ("ping", world.journal.ping),
        ("read_head", lambda: world.journal.read_head(uuid(), uuid())),
    ):
        world.fail_next(method, "away")
        with pytest.raises(JournalAway):
            await read()
        await read()


async def test_a_key_revoked_between_reading_and_appending_moves_the_group(world: World) -> None:
    tenant, store = uuid(), uuid()
    registered = await world.journal.register_agent_key(an_agent_key(tenant), AUDIT)
    assert isinstance(registered, KeyRegistered)
    name = registered.key.name
    event = an_event(agent=name.agent_id)
    group = await decided(world.journal, tenant, store, event)

    await world.other.revoke_agent_key(name, "stolen", AUDIT)

    assert isinstance(await world.journal.append(group), Moved)
    assert await holds(world.journal, tenant, store)
    facts = await world.journal.read_facts(question(tenant, [store], [event], keys=[name]))
    assert facts.keys[name].revoked


async def test_a_credential_revoked_between_reading_and_appending_moves_the_group(world: World) -> None:
    tenant, store = uuid(), uuid()
    key = await world.journal.create_api_key(an_api_key(tenant), AUDIT)
    group = await decided(world.journal, tenant, store, an_event())

    await world.other.revoke_api_key(key.id, tenant_id=tenant, audit=AUDIT)

    assert isinstance(await world.journal.append(group), Moved)
    facts = await world.journal.read_facts(question(tenant, [store], credentials=[key.id, uuid()]))
    assert facts.revoked_credentials == {key.id}


async def test_registering_a_key_of_another_tenant_moves_nothing(world: World) -> None:
    tenant, store = uuid(), uuid()
    group = await decided(world.journal, tenant, store, an_event())
    await world.other.register_agent_key(an_agent_key(uuid()), AUDIT)
    assert isinstance(await world.journal.append(group), Stored)


@pytest.mark.usefixtures("as_if_large")
@pytest.mark.parametrize("committed", [True, False])
async def test_a_revocation_waits_for_an_append_under_way_and_every_later_append_sees_it(
    world: World, committed: bool
) -> None:
    tenant, store = uuid(), uuid()
    registered = await world.journal.register_agent_key(an_agent_key(tenant), AUDIT)
    assert isinstance(registered, KeyRegistered)
    event, later = an_event(), an_event()
    group = await decided(world.journal, tenant, store, event)
    decided_before = await decided(world.other, tenant, uuid(), later)
    world.fail_next("append", "held")
    with pytest.raises(JournalOutcomeUnknown):
        await world.journal.append(group)
    revoked = trio.Event()

    async def revoke() -> None:
        await world.other.revoke_agent_key(registered.key.name, "stolen", AUDIT)
        revoked.set()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(revoke)
        await trio.sleep(0.1)
        assert not revoked.is_set()
        await world.release(commit=committed)

    assert await holds(world.other, tenant, store, *([event] if committed else []))
    assert isinstance(await world.other.append(decided_before), Moved)


@pytest.mark.usefixtures("as_if_large")
@pytest.mark.parametrize("committed", [True, False])
@pytest.mark.parametrize("new_stream", [True, False])
async def test_settling_waits_for_the_predecessors_commit_and_then_reads_what_is_true(
    world: World, committed: bool, new_stream: bool
) -> None:
    tenant, store = uuid(), uuid()
    before = [] if new_stream else [an_event()]
    if before:
        await world.journal.append(await decided(world.journal, tenant, store, *before))
    event = an_event()
    group = await decided(world.journal, tenant, store, event)
    world.fail_next("append", "held")
    with pytest.raises(JournalOutcomeUnknown):
        await world.journal.append(group)
    settled = trio.Event()

    async def settle() -> None:
        await world.journal.settle(tenant)
        settled.set()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(settle)
        await trio.sleep(0.1)
        assert not settled.is_set()
        assert await holds(world.journal, tenant, store, *before)
        await world.release(commit=committed)

    assert await holds(world.journal, tenant, store, *before, *([event] if committed else []))
    facts = await world.journal.read_facts(question(tenant, [store], [event]))
    assert (event.event_id in facts.known) == committed


@pytest.mark.usefixtures("as_if_large")
@pytest.mark.parametrize("committed", [True, False])
async def test_an_append_behind_a_zombie_on_the_same_stream_waits_for_it(
    world: World, committed: bool
) -> None:
    tenant, store, other_store = uuid(), uuid(), uuid()
    zombie, mine, elsewhere = an_event(), an_event(), an_event()
    group = await decided(world.journal, tenant, store, zombie)
    behind = await decided(world.other, tenant, store, mine)
    beside = await decided(world.other, tenant, other_store, elsewhere)
    world.fail_next("append", "held")
    with pytest.raises(JournalOutcomeUnknown):
        await world.journal.append(group)
    outcome: list[object] = []

    async def append() -> None:
        outcome.append(await world.other.append(behind))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(append)
        assert isinstance(await world.other.append(beside), Stored)
        await trio.sleep(0.1)
        assert not outcome
        await world.release(commit=committed)

    assert isinstance(outcome[0], Moved if committed else Stored)
    assert await holds(world.other, tenant, store, zombie if committed else mine)


async def test_a_group_without_rows_is_stored_while_its_fence_stands_and_moved_after(world: World) -> None:
    tenant, store = uuid(), uuid()
    facts = await world.journal.read_facts(question(tenant, [store]))
    refusals = a_group(facts, [])
    assert isinstance(await world.journal.append(refusals), Stored)

    await world.other.append(await decided(world.other, tenant, store, an_event()))
    assert isinstance(await world.journal.append(refusals), Moved)

    refusals = a_group(await world.journal.read_facts(question(tenant, [store])), [])
    assert isinstance(await world.journal.append(refusals), Stored)
    await world.other.register_agent_key(an_agent_key(tenant), AUDIT)
    assert isinstance(await world.journal.append(refusals), Moved)

    world.fail_next("append", "away")
    assert isinstance(await world.journal.append(refusals), Away)


async def test_a_stream_that_gets_no_row_is_fenced_all_the_same(world: World) -> None:
    tenant, refused, accepted = uuid(), uuid(), uuid()
    event = an_event()
    facts = await world.journal.read_facts(question(tenant, [refused, accepted], [event]))
    group = a_group(facts, [(accepted, event)])
    await world.other.append(await decided(world.other, tenant, refused, an_event()))

    assert isinstance(await world.journal.append(group), Moved)

    facts = await world.journal.read_facts(question(tenant, [refused, accepted], [event]))
    assert isinstance(await world.journal.append(a_group(facts, [(accepted, event)])), Stored)


@pytest.mark.usefixtures("as_if_large")
async def test_an_append_that_has_begun_ends_and_tells_its_outcome_though_its_caller_is_cancelled(
    world: World,
) -> None:
    tenant, store = uuid(), uuid()
    zombie, mine = an_event(), an_event()
    group = await decided(world.journal, tenant, store, zombie)
    behind = await decided(world.other, tenant, store, mine)
    world.fail_next("append", "held")
    with pytest.raises(JournalOutcomeUnknown):
        await world.journal.append(group)
    outcome: list[object] = []

    async def append() -> None:
        outcome.append(await world.other.append(behind))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(append)
        await trio.sleep(0.1)
        nursery.cancel_scope.cancel()
        with trio.CancelScope(shield=True):
            await trio.sleep(0.1)
            assert not outcome
            await world.release(commit=False)

    assert outcome == [Stored()]
    assert await holds(world.other, tenant, store, mine)


async def test_a_caller_that_is_cancelled_already_begins_nothing(world: World) -> None:
    tenant, store = uuid(), uuid()
    group = await decided(world.journal, tenant, store, an_event())
    with trio.CancelScope() as scope:
        scope.cancel()
        await world.journal.append(group)
    assert scope.cancelled_caught
    assert await leaves_no_trace(world.journal, group, group)


async def test_an_append_whose_caller_is_cancelled_is_stored_whole_or_not_at_all(world: World) -> None:
    tenant, store = uuid(), uuid()
    stored = 0
    for after_s in [0, *(0.0002 * 1.35**i for i in range(12))]:
        events = [an_event() for _ in range(5)]
        group = await decided(world.journal, tenant, store, *events)
        with trio.move_on_after(after_s):
            await world.journal.append(group)
        facts = await world.other.read_facts(question(tenant, [store], events))
        assert len(facts.known) in (0, 5)
        stored += len(facts.known)
        assert facts.fence.heads[store].current_sequence == stored
    await world.journal.ping()


async def test_nodes_that_write_the_same_streams_at_once_leave_no_gap_and_no_double(world: World) -> None:
    tenant, stores = uuid(), [uuid(), uuid()]
    stored: dict[Uuid, list[VerifiedEvent]] = {store: [] for store in stores}

    async def write(journal: Journal, order: list[Uuid]) -> None:
        for _ in range(6):
            placed = [(store, an_event(entity_id=f"e{n}")) for n, store in enumerate(order)]
            while True:
                facts = await journal.read_facts(question(tenant, stores, [e for _, e in placed]))
                if isinstance(await journal.append(a_group(facts, placed)), Stored):
                    break
            for store, event in placed:
                stored[store].append(event)

    async with trio.open_nursery() as nursery:
        for journal in (world.journal, world.other):
            for order in (stores, stores[::-1]):
                nursery.start_soon(write, journal, order)

    for store in stores:
        page = await world.journal.read_events(tenant, store, from_sequence=1, limit=100, bytes_max=1 << 20)
        assert [e.receipt.sequence_number for e in page.events] == list(range(1, 25))
        assert {e.receipt.event_id for e in page.events} == {e.event_id for e in stored[store]}
