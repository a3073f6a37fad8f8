"""What the journal promises about API keys beside their revocation: roles, ends, limits, an agent's own."""

from __future__ import annotations

import os
import time

import msgspec
import pytest
import trio
from journal_builders import AUDIT, an_api_key, question, uuid
from journal_worlds import World

from journal.port import ApiKey, AuditEntry, AuditWish, CredentialEnded, JournalAway, JournalOutcomeUnknown
from ves.records import Uuid


def now_us() -> int:
    return time.time_ns() // 1000


async def test_a_key_keeps_its_role_its_end_and_its_rate_limit(world: World) -> None:
    key = an_api_key(uuid(), permissions=(), role="agent", expires_at_us=4_000_000_000_123_456)
    key = msgspec.structs.replace(key, rate_limit_per_minute=1_000_000)
    created = await world.journal.create_api_key(key, AUDIT)
    assert msgspec.structs.replace(created, created_at_us=0) == key
    assert await world.other.find_api_key(key.key_hash) == created


async def test_facts_tell_when_credentials_end(world: World) -> None:
    tenant = uuid()
    ending = an_api_key(tenant, expires_at_us=1_000_000)
    endless = an_api_key(tenant)
    for key in (ending, endless):
        await world.journal.create_api_key(key, AUDIT)
    asked = question(tenant, [uuid()], credentials=[ending.id, endless.id, uuid()])
    facts = await world.other.read_facts(asked)
    assert facts.credential_ends_us == {ending.id: 1_000_000}
    assert facts.revoked_credentials == frozenset()
    await world.journal.revoke_api_key(ending.id, tenant_id=tenant, audit=AUDIT)
    facts = await world.other.read_facts(asked)
    assert facts.credential_ends_us == {ending.id: 1_000_000}
    assert facts.revoked_credentials == {ending.id}


async def test_keys_are_listed_by_their_beginning(world: World) -> None:
    tenant = uuid()
    keys = [an_api_key(tenant, prefix=prefix) for prefix in ("sk_live_aaaa", "sk_live_aabb", "ss_%_x")]
    for key in keys:
        await world.journal.create_api_key(key, AUDIT)

    async def beginning(prefix: str) -> set[str]:
        listed = await world.other.list_api_keys(tenant, after=None, limit=9, prefix=prefix)
        return {key.prefix for key in listed}

    assert await beginning("sk_live_aa") == {"sk_live_aaaa", "sk_live_aabb"}
    assert await beginning("sk_live_aabb") == {"sk_live_aabb"}
    assert await beginning("ss_%") == {"ss_%_x"}, "% stands for itself"
    assert await beginning("%") == await beginning("sk_live_aaaaa") == set()


async def test_an_agents_keys_are_told_newest_first_within_its_tenant_and_the_stores_asked_for(
    world: World,
) -> None:
    tenant, agent, here, there = uuid(), uuid(), uuid(), uuid()
    scopes: list[tuple[Uuid, ...] | None] = [None, (here,), (here, there)]
    mine = [an_api_key(tenant, agent_id=agent, stores=stores) for stores in scopes]
    for key in (*mine, an_api_key(uuid(), agent_id=agent), an_api_key(tenant, agent_id=uuid())):
        await world.journal.create_api_key(key, AUDIT)
    await world.journal.revoke_api_key(mine[1].id, tenant_id=tenant, audit=AUDIT)

    async def listed(
        stores: tuple[Uuid, ...] | None = None, after: Uuid | None = None, hash_prefix: str = ""
    ) -> list[Uuid]:
        keys = await world.other.list_agent_api_keys(
            tenant, agent, store_ids=stores, after=after, limit=2, hash_prefix=hash_prefix
        )
        return [key.id for key in keys]

    assert await listed() == [mine[2].id, mine[1].id]
    assert await listed(after=mine[1].id) == [mine[0].id]
    assert await listed(after=mine[0].id) == await listed(after=uuid()) == []
    assert await listed(stores=(here,)) == [mine[1].id]
    assert await listed(stores=(there,)) == await listed(stores=()) == []
    assert await listed(hash_prefix=mine[0].key_hash.hex()[:12]) == [mine[0].id]
    assert await listed(hash_prefix="%") == []


async def test_the_newest_key_in_force_stands_for_its_agent(world: World) -> None:
    tenant, agent = uuid(), uuid()

    async def newest(stores: tuple[Uuid, ...] | None = None) -> ApiKey | None:
        return await world.other.newest_agent_api_key(tenant, agent, store_ids=stores)

    assert await newest() is None
    ended = an_api_key(tenant, agent_id=agent, expires_at_us=now_us() - 60_000_000)
    first, second = an_api_key(tenant, agent_id=agent), an_api_key(tenant, agent_id=agent)
    ids = [key.id for key in (first, second, ended)]
    for key in (first, second, ended):
        await world.journal.create_api_key(key, AUDIT)
    found = [await newest()]
    for credential_id in (second.id, first.id):
        await world.journal.revoke_api_key(credential_id, tenant_id=tenant, audit=AUDIT)
        found.append(await newest())
    assert [key.id for key in found if key] == [ids[1], ids[0], ids[2]], "and without one, the newest"
    assert await newest(stores=(uuid(),)) is None


async def test_an_agent_gets_so_many_keys_and_no_more_also_when_they_are_made_at_once(world: World) -> None:
    tenant, agent = uuid(), uuid()
    made: list[ApiKey | None] = []

    async def make(number: int, after_s: int = 0) -> None:
        node = world.journal if number % 2 else world.other
        key = an_api_key(tenant, agent_id=agent)
        made.append(
            await node.create_agent_api_key(key, AUDIT, by=None, in_force_max=3, freed_after_s=after_s)
        )

    await world.journal.create_api_key(an_api_key(tenant, agent_id=agent, expires_at_us=1), AUDIT)
    async with trio.open_nursery() as nursery:
        for number in range(8):
            nursery.start_soon(make, number)
    keys = [key for key in made if key is not None]
    assert len(keys) == 3
    await world.journal.revoke_api_key(keys[0].id, tenant_id=tenant, audit=AUDIT)
    await make(0, 60)
    assert made[-1] is None, "it has ended just now"
    await make(0)
    assert made[-1] is not None
    listed = await world.other.list_agent_api_keys(tenant, agent, store_ids=None, after=None, limit=99)
    assert len(listed) == 5


@pytest.mark.parametrize("end", ["revoked", "expired"])
async def test_a_key_that_has_ended_makes_no_other(world: World, end: str) -> None:
    tenant, agent = uuid(), uuid()
    maker = an_api_key(tenant, expires_at_us=now_us() - 60_000_000 if end == "expired" else None)
    child = an_api_key(tenant, agent_id=agent)
    await world.journal.create_api_key(maker, AUDIT)
    if end == "revoked":
        await world.journal.create_api_key(an_api_key(tenant), AUDIT, by=maker.id)
        await world.other.revoke_api_key(maker.id, tenant_id=tenant, audit=AUDIT)
    with pytest.raises(CredentialEnded):
        await world.journal.create_api_key(child, AUDIT, by=maker.id)
    with pytest.raises(CredentialEnded):
        await world.journal.create_agent_api_key(child, AUDIT, by=maker.id, in_force_max=9, freed_after_s=0)
    assert await world.other.find_api_key(child.key_hash) is None
    stranger = os.urandom(16)  # no API key: not the journal's to judge
    assert await world.journal.create_agent_api_key(
        child, AUDIT, by=stranger, in_force_max=9, freed_after_s=0
    )


@pytest.mark.parametrize("done", [True, False])
async def test_a_key_of_unknown_outcome_is_there_whole_or_not_at_all(world: World, done: bool) -> None:
    key = an_api_key(uuid(), agent_id=uuid(), role="agent", permissions=())
    world.fail_next("create_api_key", "unheard" if done else "lost")
    with pytest.raises(JournalOutcomeUnknown):
        await world.journal.create_agent_api_key(key, AUDIT, by=None, in_force_max=1, freed_after_s=0)
    found = await world.other.find_api_key(key.key_hash)
    assert (found is not None) == done
    world.fail_next("create_api_key", "away")
    with pytest.raises(JournalAway):
        await world.journal.create_agent_api_key(
            an_api_key(uuid(), agent_id=uuid()), AUDIT, by=None, in_force_max=1, freed_after_s=0
        )


async def test_a_tenant_sees_that_an_operator_ended_its_key(world: World) -> None:
    tenant = uuid()
    key = await world.journal.create_api_key(an_api_key(tenant), AUDIT)
    ended = AuditEntry("bootstrap", "api_key.revoke", key.id.hex(), None)
    await world.journal.revoke_api_key(key.id, tenant_id=None, audit=ended)
    wish = AuditWish(tenant_id=tenant, action="api_key.revoke")
    assert [one.subject for one in await world.other.find_audit_entries(wish, limit=9)] == [key.id.hex()]
