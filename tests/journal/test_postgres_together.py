"""Groups of several tenants in one real transaction."""

from __future__ import annotations

from contextlib import ExitStack

import pytest
import trio
import trio.testing
from journal_builders import AUDIT, a_group, an_agent_key, an_event, decided, question, uuid
from journal_worlds import LIMITS, PostgresWorld, sql

from journal import appends
from journal.aio import open_loop
from journal.append import GoAlone
from journal.embedded import EmbeddedPostgres
from journal.expected import LARGE
from journal.locks import tenant_lock
from journal.port import Group, Moved, Stored
from journal.postgres import PostgresJournal, open_journal
from ves.records import Uuid


async def together(journal: PostgresJournal, groups: list[Group]) -> list[object]:
    return list(await journal._appends._append_together(groups))


def postgres_journal(world: PostgresWorld) -> PostgresJournal:
    assert isinstance(world.journal, PostgresJournal)
    return world.journal


async def some_groups(world: PostgresWorld, count: int) -> list[tuple[Uuid, Uuid, Group]]:
    found = []
    for _ in range(count):
        tenant, store = uuid(), uuid()
        found.append((tenant, store, await decided(world.journal, tenant, store, an_event(command=uuid()))))
    return found


async def test_several_tenants_share_one_commit(server: EmbeddedPostgres) -> None:
    passed: list[str] = []
    async with (
        open_loop(),
        open_journal(server.app_dsn, node_id=uuid(), limits=LIMITS, checkpoint=passed.append) as journal,
    ):
        groups = [await decided(journal, uuid(), uuid(), an_event()) for _ in range(30)]
        async with trio.open_nursery() as nursery:
            for group in groups:
                nursery.start_soon(journal.append, group)
        for group in groups:
            [store] = group.fence.heads
            assert await journal.read_head(group.fence.tenant_id, store) == 1
    # The first two found a free lane each.
    assert 1 <= passed.count("append.committed") <= 4


async def test_while_many_are_expected_those_who_come_one_by_one_share_a_commit(
    server: EmbeddedPostgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    passed: list[str] = []
    monkeypatch.setattr(appends, "_GATHERING_S", 60)
    async with (
        open_loop(),
        open_journal(server.app_dsn, node_id=uuid(), limits=LIMITS, checkpoint=passed.append) as journal,
    ):
        groups = [await decided(journal, uuid(), uuid(), an_event()) for _ in range(4)]
        with ExitStack() as expected:
            for tenant_id in [*(group.fence.tenant_id for group in groups), *(uuid() for _ in range(29))]:
                expected.enter_context(journal.expecting(tenant_id, 1_000)).has(1)
            async with trio.open_nursery() as nursery:
                for group in groups:
                    await trio.testing.wait_all_tasks_blocked()
                    assert passed.count("append.committed") == 0
                    nursery.start_soon(journal.append, group)
        for group in groups:
            [store] = group.fence.heads
            assert await journal.read_head(group.fence.tenant_id, store) == 1
        assert passed.count("append.committed") == 1
        alone = await decided(journal, uuid(), uuid(), an_event())
        with trio.fail_after(30):
            assert await journal.append(alone) == Stored(), "nobody is expected any more"


async def test_nobody_waits_for_a_tenant_whose_groups_go_by_themselves(
    server: EmbeddedPostgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(appends, "_GATHERING_S", 60)
    async with open_loop(), open_journal(server.app_dsn, node_id=uuid(), limits=LIMITS) as journal:
        small = await decided(journal, uuid(), uuid(), an_event())
        large = await decided(journal, uuid(), uuid(), *(an_event() for _ in range(LARGE)))
        with ExitStack() as expected, trio.fail_after(30):
            for group in (small, large):
                expected.enter_context(journal.expecting(group.fence.tenant_id, 1_000)).has(16)
            assert await journal.append(large) == Stored()
            assert await journal.append(small) == Stored()
        ones, others = small.fence.tenant_id, large.fence.tenant_id
        assert await journal.append(await decided(journal, others, uuid(), an_event())) == Stored()
        with journal.expecting(ones, 1_000) as one, journal.expecting(others, 1_000) as other:
            one.has(16)
            other.has(16)
            assert journal._appends.expected.worth_waiting_for(ones) > 0, "its newest group went with others"


async def test_a_moved_group_is_left_out_and_the_others_are_stored(postgres: PostgresWorld) -> None:
    found = await some_groups(postgres, 4)
    await postgres.other.register_agent_key(an_agent_key(found[1][0]), AUDIT)
    await postgres.other.append(await decided(postgres.other, *found[2][:2], an_event()))
    outcomes = await together(postgres_journal(postgres), [group for _, _, group in found])
    assert outcomes == [Stored(), Moved("a key or a credential"), Moved("a stream"), Stored()]
    heads = [await postgres.other.read_head(tenant, store) for tenant, store, _ in found]
    assert heads == [1, 0, 1, 1]


@pytest.mark.parametrize("what", ["event id", "entity", "command"])
async def test_a_conflict_found_late_undoes_all_and_sends_each_alone(
    postgres: PostgresWorld, what: str
) -> None:
    found = await some_groups(postgres, 3)
    tenant, store, group = found[1]
    event = group.numbered[0].event
    other = {
        "event id": an_event(event_id=event.event_id),
        "entity": an_event(entity_id=event.entity_id),
        "command": an_event(command=event.command_id),
    }[what]
    # In the same stream another entity or command would have moved its head: these came by another way.
    theirs = await decided(postgres.other, tenant, store if what != "event id" else uuid(), other)
    if what == "event id":
        await postgres.other.append(theirs)
    else:
        await as_if_by_the_legacy_stream(postgres, tenant, store, what, group)
    groups = [group for _, _, group in found]
    assert await together(postgres_journal(postgres), groups) == [GoAlone()] * 3
    assert [await postgres.other.read_head(t, s) for t, s, _ in found] == [0, 0, 0]
    outcomes = [await postgres.journal.append(group) for group in groups]
    assert [type(outcome) for outcome in outcomes] == [Stored, Moved, Stored]


async def as_if_by_the_legacy_stream(
    world: PostgresWorld, tenant: Uuid, store: Uuid, what: str, group: Group
) -> None:
    event = group.numbered[0].event
    if what == "entity":
        await sql(
            world.dsn,
            "INSERT INTO record.entity_versions "
            "(tenant_id, store_id, version, previous_version, entity_type, entity_id) "
            "VALUES ($1, $2, 1, 0, $3, $4)",
            arguments=(tenant, store, event.entity_type, event.entity_id),
        )
    else:
        await sql(
            world.dsn,
            "INSERT INTO record.ves_command_dedupe VALUES ($1, $2, $3, $4)",
            arguments=(tenant, store, event.command_id, uuid()),
        )


async def test_a_group_of_two_streams_of_which_one_moved_is_undone_whole(postgres: PostgresWorld) -> None:
    tenant, (first, second) = uuid(), sorted((uuid(), uuid()))
    facts = await postgres.journal.read_facts(question(tenant, [first, second]))
    group = a_group(facts, [(first, an_event()), (second, an_event())])
    neighbour = await some_groups(postgres, 1)
    await postgres.other.append(await decided(postgres.other, tenant, second, an_event()))
    outcomes = await together(postgres_journal(postgres), [group, neighbour[0][2]])
    assert outcomes == [GoAlone(), GoAlone()]
    assert await postgres.journal.append(group) == Moved("a stream")
    assert await postgres.other.read_head(tenant, first) == 0


async def test_a_tenant_whose_keys_are_being_changed_waits_alone(postgres: PostgresWorld) -> None:
    found = await some_groups(postgres, 3)
    finished: list[int] = []

    async def append(n: int) -> None:
        assert isinstance(await postgres.journal.append(found[n][2]), Stored)
        finished.append(n)

    async with trio.open_nursery() as nursery:
        lock = f"SELECT pg_advisory_xact_lock({tenant_lock(found[0][0])})"
        nursery.start_soon(sql, postgres.dsn, "BEGIN", lock, "SELECT pg_sleep(0.8)", "COMMIT")
        await trio.sleep(0.3)
        outcomes = await together(postgres_journal(postgres), [found[0][2], found[1][2]])
        assert outcomes == [GoAlone(), Stored()]
        nursery.start_soon(append, 0)
        await trio.sleep(0.02)
        nursery.start_soon(append, 2)
    assert finished == [2, 0]


async def test_nobody_waits_long_for_a_neighbours_locked_stream(postgres: PostgresWorld) -> None:
    found = await some_groups(postgres, 2)
    tenant, store, group = found[0]
    await postgres.journal.append(group)
    later = await decided(postgres.journal, tenant, store, an_event())
    async with trio.open_nursery() as nursery:
        locked = f"SELECT FROM record.ves_sequence_counters WHERE tenant_id = '{tenant.hex()}' FOR UPDATE"
        nursery.start_soon(sql, postgres.dsn, "BEGIN", locked, "SELECT pg_sleep(1.2)", "COMMIT")
        await trio.sleep(0.3)
        outcomes = await together(postgres_journal(postgres), [later, found[1][2]])
        assert outcomes == [GoAlone(), GoAlone()]
        assert isinstance(await postgres.journal.append(found[1][2]), Stored)
        assert isinstance(await postgres.journal.append(later), Stored)  # once it is free
    assert await postgres.other.read_head(tenant, store) == 2


async def test_a_group_that_cannot_be_stored_harms_only_itself(postgres: PostgresWorld) -> None:
    found = await some_groups(postgres, 2)
    tenant, store = uuid(), uuid()
    facts = await postgres.journal.read_facts(question(tenant, [store]))
    wrong = a_group(facts, [(store, an_event(entity_id="x" * 513))])
    outcomes: dict[int, object] = {}

    async def append(n: int, group: Group) -> None:
        try:
            outcomes[n] = await postgres.journal.append(group)
        except Exception as error:
            outcomes[n] = error

    async with trio.open_nursery() as nursery:
        for n, group in enumerate([wrong, found[0][2], wrong, found[1][2]]):
            nursery.start_soon(append, n, group)
    assert [type(outcomes[n]) for n in (1, 3)] == [Stored, Stored]
    assert all("violates check constraint" in str(outcomes[n]) for n in (0, 2))
