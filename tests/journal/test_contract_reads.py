"""What reading back promises: pages, bounds, scopes."""

from __future__ import annotations

from journal_builders import a_commitment, a_group, an_event, decided, question, uuid
from journal_worlds import World
from legacy_builders import a_legacy_event, legacy_decided

from journal.port import EventPage, Stored, StreamHead
from ves.records import EntityName, Uuid, VerifiedEvent

PLENTY = 1 << 30


async def stored(
    world: World, tenant: Uuid, store: Uuid, *events: VerifiedEvent, sealed_bytes: int = 100
) -> None:
    group = await decided(world.journal, tenant, store, *events, sealed_bytes=sealed_bytes)
    assert isinstance(await world.journal.append(group), Stored)


def numbers(page: EventPage) -> list[int]:
    return [event.receipt.sequence_number for event in page.events]


async def test_pages_of_a_stream_join_without_gap_or_overlap(world: World) -> None:
    tenant, store = uuid(), uuid()
    await stored(world, tenant, store, *(an_event() for _ in range(7)))
    seen, start, pages = [], 1, 0
    while True:
        page = await world.journal.read_events(tenant, store, from_sequence=start, limit=3, bytes_max=PLENTY)
        assert page.head_sequence == 7
        seen += numbers(page)
        start, pages = page.next_from, pages + 1
        if not page.has_more:
            break
    assert (seen, start, pages) == ([1, 2, 3, 4, 5, 6, 7], 8, 3)


async def test_a_page_that_ends_with_the_stream_has_no_more(world: World) -> None:
    tenant, store = uuid(), uuid()
    await stored(world, tenant, store, *(an_event() for _ in range(3)))
    page = await world.journal.read_events(tenant, store, from_sequence=1, limit=3, bytes_max=PLENTY)
    assert (page.has_more, page.next_from) == (False, 4)


async def test_a_page_ends_at_its_bytes_but_holds_at_least_one_event(world: World) -> None:
    tenant, store = uuid(), uuid()
    await stored(world, tenant, store, *(an_event() for _ in range(5)), sealed_bytes=10_000)
    for bytes_max, expected in (
        (1, [1]),
        (10_000, [1]),
        (19_999, [1]),
        (20_000, [1, 2]),
        (49_999, [1, 2, 3, 4]),
    ):
        page = await world.journal.read_events(tenant, store, from_sequence=1, limit=5, bytes_max=bytes_max)
        assert numbers(page) == expected
        assert (page.has_more, page.next_from) == (True, expected[-1] + 1)
    page = await world.journal.read_events(tenant, store, from_sequence=1, limit=5, bytes_max=50_000)
    assert (numbers(page), page.has_more) == ([1, 2, 3, 4, 5], False)


async def test_a_page_holds_what_each_event_read_alone_holds(world: World) -> None:
    tenant, store = uuid(), uuid()
    longest = "\u00e9" * 255
    sent = [
        an_event(command=uuid(), base_version=0, entity_id=longest),
        an_event(entity_id="", agent=uuid()),
        an_event(base_version=1, entity_id=longest),
    ]
    await stored(world, tenant, store, *sent)
    page = await world.journal.read_events(tenant, store, from_sequence=1, limit=9, bytes_max=PLENTY)
    alone = [await world.journal.read_event(tenant, e.event_id, store_ids=None) for e in sent]
    assert page.events == alone
    assert [(e.command_id, e.base_version, e.entity_id) for e in page.events] == [
        (e.command_id, e.base_version, e.entity_id) for e in sent
    ]


async def test_reading_past_the_head_is_an_empty_page_that_says_where_it_stands(world: World) -> None:
    tenant, store = uuid(), uuid()
    for head in (0, 2):
        page = await world.journal.read_events(tenant, store, from_sequence=9, limit=5, bytes_max=PLENTY)
        assert page == EventPage(head, b"", count=0, has_more=False, next_from=9)
        assert await world.journal.read_head(tenant, store) == head
        if not head:
            await stored(world, tenant, store, an_event(), an_event())


async def test_one_event_is_found_within_its_tenant_and_the_named_stores_only(world: World) -> None:
    tenant, store, event = uuid(), uuid(), an_event()
    await stored(world, tenant, store, event)
    for store_ids in (None, (store,), (uuid(), store)):
        found = await world.journal.read_event(tenant, event.event_id, store_ids=store_ids)
        assert found is not None
        assert found.receipt.event_id == event.event_id
    for store_ids in ((uuid(),), ()):
        assert await world.journal.read_event(tenant, event.event_id, store_ids=store_ids) is None
    assert await world.journal.read_event(uuid(), event.event_id, store_ids=None) is None
    assert await world.journal.read_event(tenant, uuid(), store_ids=None) is None


async def test_an_entitys_history_is_its_events_in_order_with_its_version(world: World) -> None:
    tenant, store, other_store = uuid(), uuid(), uuid()
    placed = [(store, an_event(entity_id="x" if i % 2 else "y")) for i in range(9)]
    placed.append((other_store, an_event(entity_id="x")))
    facts = await world.journal.read_facts(question(tenant, [store, other_store], [e for _, e in placed]))
    assert isinstance(await world.journal.append(a_group(facts, placed)), Stored)
    name = EntityName(store, "order", "x")

    first = await world.journal.read_entity(tenant, name, from_sequence=1, limit=3, bytes_max=PLENTY)
    assert [e.receipt.sequence_number for e in first.events] == [2, 4, 6]
    assert (first.version, first.has_more, first.next_from) == (4, True, 7)
    rest = await world.journal.read_entity(tenant, name, from_sequence=7, limit=3, bytes_max=PLENTY)
    assert [e.receipt.sequence_number for e in rest.events] == [8]
    assert (rest.version, rest.has_more, rest.next_from) == (4, False, 9)
    small = await world.journal.read_entity(tenant, name, from_sequence=1, limit=3, bytes_max=1)
    assert [e.receipt.sequence_number for e in small.events] == [2]
    assert small.has_more

    nobody = EntityName(store, "order", "z")
    empty = await world.journal.read_entity(tenant, nobody, from_sequence=1, limit=3, bytes_max=PLENTY)
    assert (empty.version, empty.events, empty.has_more, empty.next_from) == (0, [], False, 1)


async def test_a_tenants_streams_are_paged_by_store_with_how_far_they_go(world: World) -> None:
    tenant = uuid()
    stores = sorted(uuid() for _ in range(3))
    for count, store in enumerate(stores, 1):
        await stored(world, tenant, store, *(an_event() for _ in range(count)))
    await stored(world, uuid(), uuid(), an_event())
    commitment, levels, believed = await a_commitment(world.journal, tenant, stores[2], 2)
    await world.journal.commit(commitment, levels=levels, believed_through=believed)
    everything = [
        StreamHead(stores[0], 1, 0, 0),
        StreamHead(stores[1], 2, 0, 0),
        StreamHead(stores[2], 3, 2, 0),
    ]
    listed = world.journal.list_streams
    assert await listed(tenant, store_ids=None, after=None, limit=9) == everything
    assert await listed(tenant, store_ids=None, after=None, limit=2) == everything[:2]
    assert await listed(tenant, store_ids=None, after=stores[1], limit=2) == everything[2:]
    assert await listed(tenant, store_ids=(stores[1], uuid()), after=None, limit=9) == everything[1:2]
    assert await listed(tenant, store_ids=(), after=None, limit=9) == []


async def test_a_tenants_streams_are_those_of_unsigned_events_too(world: World) -> None:
    tenant = uuid()
    unsigned, both, signed, last = stores = sorted(uuid() for _ in range(4))
    for store in (both, signed):
        await stored(world, tenant, store, an_event(), an_event())
    for store in (last, both, unsigned):
        group = await legacy_decided(world.journal, tenant, store, a_legacy_event())
        assert isinstance(await world.journal.append_legacy(group), Stored)
    group = await legacy_decided(world.journal, uuid(), unsigned, a_legacy_event())
    assert isinstance(await world.journal.append_legacy(group), Stored)
    everything = [
        StreamHead(unsigned, 0, 0, 1),
        StreamHead(both, 2, 0, 1),
        StreamHead(signed, 2, 0, 0),
        StreamHead(last, 0, 0, 1),
    ]
    listed = world.journal.list_streams
    assert await listed(tenant, store_ids=None, after=None, limit=9) == everything
    for at, after in enumerate((None, *stores)):
        assert await listed(tenant, store_ids=None, after=after, limit=2) == everything[at : at + 2]
    assert await listed(tenant, store_ids=(last, both), after=None, limit=9) == [everything[1], everything[3]]
