"""What the journal promises when one agent key takes the place of another, and about looking through keys."""

from __future__ import annotations

import os

import msgspec
import pytest
import trio
import trio.lowlevel
from journal_builders import AUDIT, a_group, an_agent_key, an_event, decided, question, uuid
from journal_worlds import World

from journal.port import (
    AgentKey,
    Journal,
    JournalAway,
    JournalOutcomeUnknown,
    KeyConflict,
    KeyEnded,
    KeyRegistered,
    KeyRotated,
    KeyRotation,
    KeysRevoked,
    Moved,
    Stored,
)
from ves.records import KeyName, KeyStatus, Uuid

DAY_S = 86_400


async def registered(world: World, tenant: Uuid | None = None) -> AgentKey:
    answer = await world.journal.register_agent_key(an_agent_key(tenant or uuid()), AUDIT)
    assert isinstance(answer, KeyRegistered)
    return answer.key


def successor(old: AgentKey, key_id: int = 2) -> AgentKey:
    return an_agent_key(old.name.tenant_id, agent=old.name.agent_id, key_id=key_id)


async def rotated(world: World, rotation: KeyRotation) -> KeyRotated:
    answer = await world.journal.rotate_agent_key(rotation, AUDIT)
    assert isinstance(answer, KeyRotated), answer
    return answer


async def status(world: World, name: KeyName) -> KeyStatus:
    facts = await world.other.read_facts(question(name.tenant_id, [uuid()], keys=[name]))
    return facts.keys[name]


async def listed(world: World, key: AgentKey) -> list[AgentKey]:
    return await world.other.list_agent_keys(*key.name[:2], from_key_id=0, limit=9)


async def test_a_rotation_registers_the_new_key_and_says_when_the_old_one_ends(world: World) -> None:
    old = await registered(world)
    new = successor(old)
    done = await rotated(world, KeyRotation(new, 1, 7 * DAY_S, rotation_signature=b"s" * 64))
    assert not done.already
    assert done.key.public_key == new.public_key
    assert done.replaced.retires_at_us is not None
    lasts_s = (done.replaced.retires_at_us - done.key.registered_at_us) / 1e6
    assert abs(lasts_s - 7 * DAY_S) < 60
    assert (done.replaced.replaced_by, done.replaced.rotation_signature) == (2, b"s" * 64)
    assert done.replaced.public_key == old.public_key
    assert await listed(world, old) == [done.replaced, done.key]
    assert (await status(world, old.name)).retires_at_us == done.replaced.retires_at_us
    assert (await status(world, new.name)).retires_at_us is None
    assert (await status(world, old.name)).registered_at_us == old.registered_at_us


async def test_the_same_rotation_again_changes_nothing_and_an_earlier_end_only_brings_it_forward(
    world: World,
) -> None:
    old = await registered(world)
    rotation = KeyRotation(successor(old), 1, DAY_S, rotation_signature=b"s" * 64)
    first = await rotated(world, rotation)
    for later in (rotation, msgspec.structs.replace(rotation, grace_s=2 * DAY_S)):
        again = await world.other.rotate_agent_key(later, AUDIT)
        assert again == KeyRotated(first.key, first.replaced, already=True)
    sooner = msgspec.structs.replace(rotation, grace_s=60, rotation_signature=None)
    earlier = await rotated(world, sooner)
    assert not earlier.already
    assert earlier.replaced.rotation_signature == b"s" * 64, "given once, it stays given"
    assert earlier.replaced.retires_at_us is not None
    assert first.replaced.retires_at_us is not None
    assert earlier.replaced.retires_at_us < first.replaced.retires_at_us
    assert earlier.key == first.key
    third = await rotated(world, KeyRotation(successor(old, 3), 1, 90 * DAY_S))
    assert third.replaced.retires_at_us == earlier.replaced.retires_at_us, "a later end stands no chance"
    assert (third.replaced.replaced_by, third.replaced.rotation_signature) == (3, None)


async def test_a_rotation_of_a_key_that_is_not_there_or_to_a_taken_name_or_key_does_nothing(
    world: World,
) -> None:
    old, other = await registered(world), await registered(world)
    new = successor(old)
    assert await world.journal.rotate_agent_key(KeyRotation(new, 7, 60), AUDIT) is None
    stolen = msgspec.structs.replace(new, public_key=other.public_key)
    assert await world.journal.rotate_agent_key(KeyRotation(stolen, 1, 60), AUDIT) == KeyConflict(False)
    await world.journal.register_agent_key(new, AUDIT)
    another = msgspec.structs.replace(new, public_key=os.urandom(32))
    assert await world.journal.rotate_agent_key(KeyRotation(another, 1, 60), AUDIT) == KeyConflict(True)
    assert [key.retires_at_us for key in await listed(world, old)] == [None, None]
    # The guide's way: registered before, now it takes over.
    assert not (await rotated(world, KeyRotation(new, 1, 60))).already


async def test_neither_an_ended_key_nor_one_about_to_end_takes_part_in_a_rotation(world: World) -> None:
    revoked, old = await registered(world), await registered(world)
    await world.journal.revoke_agent_key(revoked.name, "stolen", AUDIT)
    told = await world.journal.rotate_agent_key(KeyRotation(successor(revoked), 1, 60), AUDIT)
    assert told == KeyEnded(revoked.name)
    assert len(await listed(world, revoked)) == 1
    new = successor(old)
    await rotated(world, KeyRotation(new, 1, 60))
    back = KeyRotation(msgspec.structs.replace(old, registered_at_us=0), 2, 60)
    assert await world.journal.rotate_agent_key(back, AUDIT) == KeyEnded(old.name)
    await rotated(world, KeyRotation(new, 1, 0))
    third = KeyRotation(successor(old, 3), 1, 0)
    assert await world.journal.rotate_agent_key(third, AUDIT) == KeyEnded(old.name)


async def test_a_holder_alone_gives_its_key_one_successor_and_no_second(world: World) -> None:
    old = await registered(world)
    first = KeyRotation(successor(old), 1, 60, by_holder=True)
    await rotated(world, first)
    assert (await rotated(world, first)).already
    second = KeyRotation(successor(old, 3), 1, 60, by_holder=True)
    assert await world.journal.rotate_agent_key(second, AUDIT) == KeyEnded(old.name)
    assert not (await rotated(world, msgspec.structs.replace(second, by_holder=False))).already


async def test_what_was_decided_before_a_rotation_is_not_stored_after_it(world: World) -> None:
    tenant, store = uuid(), uuid()
    old = await registered(world, tenant)
    group = await decided(world.other, tenant, store, an_event())
    await rotated(world, KeyRotation(successor(old), 1, 0))
    assert isinstance(await world.other.append(group), Moved)


async def test_an_end_is_never_before_what_was_sequenced_already(world: World) -> None:
    tenant, store = uuid(), uuid()
    old = await registered(world, tenant)
    facts = await world.journal.read_facts(question(tenant, [store], [event := an_event()]))
    ahead = msgspec.structs.replace(facts, now_us=facts.now_us + 3_600_000_000)  # the clock is set back later
    assert isinstance(await world.journal.append(a_group(ahead, [(store, event)])), Stored)
    done = await rotated(world, KeyRotation(successor(old), 1, 0))
    assert done.replaced.retires_at_us == ahead.now_us


@pytest.mark.parametrize("done", [True, False])
async def test_a_rotation_and_a_revocation_of_all_of_unknown_outcome_can_be_repeated(
    world: World, done: bool
) -> None:
    old = await registered(world)
    rotation = KeyRotation(successor(old), 1, DAY_S)
    world.fail_next("rotate_agent_key", "unheard" if done else "lost")
    with pytest.raises(JournalOutcomeUnknown):
        await world.journal.rotate_agent_key(rotation, AUDIT)
    assert len(await listed(world, old)) == 1 + done
    assert (await rotated(world, rotation)).already == done
    world.fail_next("revoke_agent_keys", "unheard" if done else "lost")
    with pytest.raises(JournalOutcomeUnknown):
        await world.journal.revoke_agent_keys(*old.name[:2], "stolen", AUDIT)
    again = await world.journal.revoke_agent_keys(*old.name[:2], "stolen", AUDIT)
    assert again == KeysRevoked(*((0, 2) if done else (2, 0)))
    world.fail_next("rotate_agent_key", "away")
    with pytest.raises(JournalAway):
        await world.journal.rotate_agent_key(rotation, AUDIT)


async def test_all_keys_of_an_agent_are_revoked_at_once_and_nobody_elses(world: World) -> None:
    tenant = uuid()
    old, bystander = await registered(world, tenant), await registered(world, tenant)
    await rotated(world, KeyRotation(successor(old), 1, DAY_S))
    await world.journal.revoke_agent_key(old.name, "before", AUDIT)
    group = await decided(world.other, tenant, uuid(), an_event())
    assert await world.journal.revoke_agent_keys(tenant, old.name.agent_id, "stolen", AUDIT) == KeysRevoked(
        1, 1
    )
    assert isinstance(await world.other.append(group), Moved)
    assert [key.revocation_reason for key in await listed(world, old)] == ["before", "stolen"]
    assert [key.revoked_at_us for key in await listed(world, bystander)] == [None]
    assert await world.journal.revoke_agent_keys(tenant, uuid(), "stolen", AUDIT) is None


async def test_a_proof_that_comes_later_is_recorded_and_a_worse_one_is_not(world: World) -> None:
    bare = msgspec.structs.replace(an_agent_key(uuid()), proof_of_possession=None)
    await world.journal.register_agent_key(bare, AUDIT)

    async def again(version: int | None, proof: bytes | None) -> int | None:
        key = msgspec.structs.replace(bare, proof_of_possession=version, proof=proof)
        answer = await world.journal.register_agent_key(key, AUDIT)
        assert isinstance(answer, KeyRegistered)
        assert answer.already
        assert await listed(world, bare) == [answer.key]
        return answer.key.proof_of_possession

    assert await again(2, None) is None, "claimed without a proof"
    assert await again(1, b"1" * 64) == 1
    assert await again(2, b"2" * 64) == 2
    assert await again(1, b"1" * 64) == 2
    assert await again(None, None) == 2


async def test_keys_are_walked_page_by_page_in_one_tenant_or_in_all(own_world: World) -> None:
    world = own_world
    tenants = sorted(uuid() for _ in range(3))
    keys = sorted([await registered(world, t) for t in tenants for _ in range(3)], key=lambda k: k.name)
    found: list[AgentKey] = []
    while page := await world.other.walk_agent_keys(None, after=found[-1].name if found else None, limit=4):
        found += page
    assert found == keys
    mine = await world.other.walk_agent_keys(tenants[1], after=None, limit=99)
    assert mine == keys[3:6]
    assert await world.other.walk_agent_keys(tenants[1], after=mine[0].name, limit=1) == [mine[1]]


async def test_the_events_a_key_signed_are_found_in_bounded_steps(world: World) -> None:
    tenant, agent = uuid(), uuid()
    stores = sorted([uuid(), uuid()])
    wanted: list[tuple[Uuid, int]] = []
    for store in stores:
        events = [an_event(agent=agent if n % 3 == 0 else uuid()) for n in range(10)]
        await world.journal.append(await decided(world.journal, tenant, store, *events))
        wanted += [(store, number) for number in (1, 4, 7, 10)]
    key = KeyName(tenant, agent, 1)

    async def found(limit: int, looked_at_max: int) -> tuple[list[tuple[Uuid, int]], int]:
        places: list[tuple[Uuid, int]] = []
        after, steps = None, 0
        while True:
            page = await world.other.read_signed_by(
                key, after=after, limit=limit, looked_at_max=looked_at_max
            )
            steps += 1
            assert len(page.events) <= limit
            places += [(e.store_id, e.sequence_number) for e in page.events]
            after = page.next_after
            if after is None:
                return places, steps

    assert await found(100, 100) == (wanted, 1)
    assert await found(100, 3) == (wanted, 7)
    assert await found(2, 100) == (wanted, 4)
    assert (await found(1, 2))[0] == wanted
    one = (await world.other.read_signed_by(key, after=None, limit=1, looked_at_max=9)).events[0]
    stored = await world.other.read_event(tenant, one.event_id, store_ids=None)
    assert stored is not None
    assert (stored.receipt.sequenced_at_us, stored.source_agent_id) == (one.sequenced_at_us, agent)
    nobody = await world.other.read_signed_by(key._replace(key_id=2), after=None, limit=9, looked_at_max=99)
    assert (nobody.events, nobody.next_after) == ([], None)
    stranger = key._replace(tenant_id=uuid())
    assert (await world.other.read_signed_by(stranger, after=None, limit=9, looked_at_max=9)).events == []


async def test_revocations_under_load_leave_nothing_numbered_after_their_answer(world: World) -> None:
    for _ in range(6):
        await a_race(world, await registered(world))


async def a_race(world: World, key: AgentKey) -> None:
    """Both nodes append as fast as they can, on facts in which the key was good, while it is revoked."""
    tenant, store = key.name.tenant_id, uuid()
    head_at_answer = -1

    async def append(journal: Journal) -> None:
        while True:
            event = an_event(agent=key.name.agent_id)
            facts = await journal.read_facts(question(tenant, [store], [event], keys=[key.name]))
            if facts.keys[key.name].revoked:
                return
            await journal.append(a_group(facts, [(store, event)]))

    async def revoke() -> None:
        nonlocal head_at_answer
        while await world.other.read_head(tenant, store) < 5:
            await trio.lowlevel.checkpoint()
        await world.journal.revoke_agent_key(key.name, "suspected_compromise", AUDIT)
        head_at_answer = await world.other.read_head(tenant, store)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(append, world.journal)
        nursery.start_soon(append, world.other)
        nursery.start_soon(revoke)
    assert await world.journal.read_head(tenant, store) == head_at_answer


async def test_a_holder_alone_does_not_begin_before_its_key_may_sign(world: World) -> None:
    early = msgspec.structs.replace(an_agent_key(uuid()), valid_from_us=4_000_000_000_000_000)
    await world.journal.register_agent_key(early, AUDIT)
    rotation = KeyRotation(successor(early), 1, 60, by_holder=True)
    assert await world.journal.rotate_agent_key(rotation, AUDIT) == KeyEnded(early.name)
    assert len(await listed(world, early)) == 1
    await rotated(world, msgspec.structs.replace(rotation, by_holder=False))


async def test_the_public_key_of_a_revoked_key_does_not_come_back(world: World) -> None:
    stolen, old = await registered(world), await registered(world)
    await world.journal.revoke_agent_key(stolen.name, "stolen", AUDIT)
    again = msgspec.structs.replace(successor(stolen), public_key=stolen.public_key)
    assert await world.journal.register_agent_key(again, AUDIT) == KeyConflict(False)
    second = successor(old)
    await rotated(world, KeyRotation(second, 1, 60))
    await world.journal.revoke_agent_key(old.name, "stolen", AUDIT)
    third = msgspec.structs.replace(successor(old, 3), public_key=old.public_key)
    assert await world.journal.rotate_agent_key(KeyRotation(third, 2, 60), AUDIT) == KeyConflict(False)
    told = await world.journal.register_agent_key(stolen, AUDIT)
    assert isinstance(told, KeyRegistered)
    assert told.already, "the same registration again"
