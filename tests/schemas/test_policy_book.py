"""Policies are remembered, and forgotten as soon as they are changed, here or on another node."""

from __future__ import annotations

import uuid

import pytest
import trio
from trio.testing import MockClock

from actors.errors import MailboxFull, Unavailable
from actors.freshness import FRESH_S, LOOKUPS_MAX, LOOKUPS_WAITING_MAX
from actors.mailbox import Inbox, Mailbox
from actors.policies import (
    HELD_BACK_FIRST_S,
    PolicyBook,
    PolicyPoller,
    with_defaults,
)
from journal.memory import MemoryDatabase, MemoryJournal
from journal.port import AuditEntry, EventSchema, JournalAway, TenantPolicy
from ves.policy import Policy, SchemaMode, SchemaName

AUDIT = AuditEntry("cli", "test", "", None)
TENANT = uuid.uuid4().bytes


class World:
    def __init__(self, *, mode: SchemaMode = "enforce") -> None:
        self.database = MemoryDatabase(now_us=lambda: 0)
        self.journal = MemoryJournal(self.database, node_id=bytes(16))
        self.other = MemoryJournal(self.database, node_id=bytes(16))
        self.book = PolicyBook(journal=self.journal, defaults=Policy(schema_mode=mode))
        self.lookups = 0
        read = self.journal.read_policy

        async def counted(tenant_id: bytes) -> TenantPolicy:
            self.lookups += 1
            return await read(tenant_id)

        self.journal.read_policy = counted  # type: ignore[method-assign]

    async def poll(self) -> None:
        poller = PolicyPoller(journal=self.journal, book=self.book)
        await poller.run(Inbox(Mailbox("policies", letters_max=1)))

    async def change_elsewhere(self, mode: SchemaMode = "required") -> None:
        await self.other.set_policy(TENANT, entity_types=None, schema_mode=mode, audit=AUDIT)


@pytest.fixture
def world() -> World:
    return World()


async def test_a_tenant_that_demands_nothing_is_looked_up_once(
    world: World, autojump_clock: MockClock
) -> None:
    world.book.heard(asked_at=trio.current_time())
    for _ in range(5):
        assert await world.book.find(TENANT) == Policy(TENANT)
    assert world.lookups == 1


async def test_a_change_elsewhere_is_known_within_two_seconds(
    world: World, autojump_clock: MockClock
) -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(world.poll)
        await trio.sleep(0.5)
        assert (await world.book.find(TENANT)).schema_mode == "enforce"
        await world.change_elsewhere()
        await trio.sleep(2)
        assert (await world.book.find(TENANT)).schema_mode == "required"
        nursery.cancel_scope.cancel()


async def test_a_change_here_is_known_at_once(world: World, autojump_clock: MockClock) -> None:
    world.book.heard(asked_at=trio.current_time())
    assert (await world.book.find(TENANT)).schema_mode == "enforce"
    await world.change_elsewhere()
    world.book.forget([TENANT])
    assert (await world.book.find(TENANT)).schema_mode == "required"


async def test_a_node_that_cannot_poll_asks_the_database_for_each_request(
    world: World, autojump_clock: MockClock
) -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(world.poll)
        await trio.sleep(0.5)
        await world.book.find(TENANT)
        world.database.reachable = False
        await trio.sleep(FRESH_S - 2)
        await world.book.find(TENANT)  # still believed
        await trio.sleep(3)
        with pytest.raises(JournalAway):
            await world.book.find(TENANT)
        assert world.book.unchecked == 0
        world.database.reachable = True
        await world.change_elsewhere()
        assert (await world.book.find(TENANT)).schema_mode == "required"
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("whose", ["the node's", "the tenant's"])
async def test_without_a_database_warn_lets_pass_and_counts(whose: str, autojump_clock: MockClock) -> None:
    world = World(mode="warn" if whose == "the node's" else "enforce")
    if whose == "the tenant's":
        await world.change_elsewhere("warn")
        await world.book.find(TENANT)
    world.database.reachable = False
    assert (await world.book.find(TENANT)).schema_mode == "warn"
    assert world.book.unchecked == 1


async def test_a_change_heard_of_during_the_lookup_is_not_overwritten(
    world: World, autojump_clock: MockClock
) -> None:
    world.book.heard(asked_at=trio.current_time())
    read = world.journal.read_policy

    async def changed_meanwhile(tenant_id: bytes) -> TenantPolicy:
        policy = await read(tenant_id)
        await world.change_elsewhere()
        world.book.forget([TENANT])
        return policy

    world.journal.read_policy = changed_meanwhile  # type: ignore[method-assign]
    await world.book.find(TENANT)
    world.journal.read_policy = read  # type: ignore[method-assign]
    assert (await world.book.find(TENANT)).schema_mode == "required"


async def test_a_new_life_of_the_poller_believes_nothing_of_the_old_one(
    world: World, autojump_clock: MockClock
) -> None:
    world.book.heard(asked_at=trio.current_time())
    await world.book.find(TENANT)
    await world.change_elsewhere()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(world.poll)
        await trio.sleep(0.1)
        assert (await world.book.find(TENANT)).schema_mode == "required"
        nursery.cancel_scope.cancel()


async def test_what_is_remembered_has_a_limit_in_tenants_and_in_names(autojump_clock: MockClock) -> None:
    world = World()
    book = PolicyBook(journal=world.journal, tenants_max=3, names_max=4)
    book.heard(asked_at=trio.current_time())
    tenants = [bytes([n]) * 16 for n in range(5)]
    for tenant in tenants:
        await book.find(tenant)
    assert len(book._by_tenant) == 3
    for tenant in tenants:
        for n in range(2):
            schema = EventSchema(uuid.uuid4().bytes, tenant, f"t{n}", 0, "{}", "none", None, "cli")
            stamp = (await world.other.read_policy(tenant)).stamp
            await world.other.create_schema(schema, believed_stamp=stamp, audit=AUDIT)
    book.forget_all()
    for tenant in tenants:
        assert len((await book.find(tenant)).schemas) == 2
    assert (len(book._by_tenant), book._names) == (2, 4)


async def test_a_flood_of_lookups_is_refused_before_it_takes_all_connections(
    world: World, autojump_clock: MockClock
) -> None:
    running, most = 0, 0
    read = world.journal.read_policy

    async def slow(tenant_id: bytes) -> TenantPolicy:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await trio.sleep(1)
        running -= 1
        return await read(tenant_id)

    world.journal.read_policy = slow  # type: ignore[method-assign]
    refused = 0

    async def find() -> None:
        nonlocal refused
        try:
            await world.book.find(uuid.uuid4().bytes)
        except MailboxFull:
            refused += 1

    async with trio.open_nursery() as nursery:
        for _ in range(LOOKUPS_MAX + LOOKUPS_WAITING_MAX + 10):
            nursery.start_soon(find)
    assert (most, refused) == (LOOKUPS_MAX, 10)


@pytest.mark.parametrize(
    ("own", "node", "effective"),
    [
        (None, None, None),
        (None, ("a", "b"), ("a", "b")),
        (("a", "x"), None, ("a", "x")),
        (("x", "a"), ("a", "b"), ("a",)),
        ((), ("a",), ()),
    ],
)
def test_a_tenant_narrows_the_nodes_entity_types_and_never_widens_them(
    own: tuple[str, ...] | None, node: tuple[str, ...] | None, effective: tuple[str, ...] | None
) -> None:
    found = with_defaults(TENANT, TenantPolicy(3, own, None, ()), Policy(entity_types=node))
    assert found.entity_types == effective
    assert (found.stamp, found.tenant_id) == (3, TENANT)


# Schemas that cost a verifier its process.


def policy(mode: SchemaMode = "enforce") -> Policy:
    return Policy(TENANT, 7, None, mode, (SchemaName("order.created", b"S" * 16, 1),))


async def test_schemas_that_killed_a_verifier_are_held_back_longer_each_time(
    world: World, autojump_clock: MockClock
) -> None:
    for nth in range(3):
        assert world.book.bearable(policy()) == policy()
        world.book.blame(policy())
        held_s = HELD_BACK_FIRST_S * 2**nth
        with pytest.raises(Unavailable) as refused:
            world.book.bearable(policy())
        assert refused.value.retry_after_s == pytest.approx(held_s)
        other = Policy(b"O" * 16, 1, None, "enforce", policy().schemas)
        assert world.book.bearable(other) == other, "nobody else pays for it"
        await trio.sleep(held_s)


async def test_held_back_schemas_that_only_warn_let_pass_and_count(
    world: World, autojump_clock: MockClock
) -> None:
    world.book.blame(policy("warn"))
    without = world.book.bearable(policy("warn"))
    assert without.schemas == ()
    assert without.stamp != policy().stamp, "or a verifier would take it for the policy it knows"
    assert world.book.unchecked == 1


async def test_a_tenant_that_archived_its_schemas_is_not_held_back(
    world: World, autojump_clock: MockClock
) -> None:
    world.book.blame(policy())
    archived = Policy(TENANT, 8)
    assert world.book.bearable(archived) == archived


async def test_a_death_without_schemas_is_nobodys_fault(world: World, autojump_clock: MockClock) -> None:
    world.book.blame(Policy(TENANT, 1))
    assert world.book.bearable(policy()) == policy()
