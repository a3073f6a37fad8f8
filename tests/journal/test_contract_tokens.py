"""What the journal promises about revoked tokens: no append after a revocation, and nobody misses one."""

from __future__ import annotations

import pytest
import trio
from journal_builders import AUDIT, an_api_key, an_event, decided, question, uuid
from journal_worlds import World

from journal.port import JournalAway, JournalOutcomeUnknown, Moved, Stored, TokenRevocation
from ves.decide import Request, ask, decide
from ves.records import IssuedToken, Uuid, VerifiedBatch


async def revoke(world: World, tenant: Uuid, subject: Uuid, *, ahead_s: int = 0) -> TokenRevocation:
    return await world.other.revoke_tokens(tenant, subject, ahead_s=ahead_s, reason="lost", audit=AUDIT)


async def event_ids(world: World, tenant: Uuid, store: Uuid) -> list[Uuid]:
    page = await world.other.read_events(tenant, store, from_sequence=1, limit=9, bytes_max=10**6)
    return [event.receipt.event_id for event in page.events]


async def test_a_revocation_says_until_when_and_the_latest_second_counts(world: World) -> None:
    tenant, subject = uuid(), uuid()
    assert await world.journal.tokens_revoked_until(tenant, subject) == -1
    first = await revoke(world, tenant, subject, ahead_s=60)
    assert first.revoked_until_s == -(-first.revoked_at_us // 1_000_000) + 60
    assert (first.tenant_id, first.subject, first.reason) == (tenant, subject, "lost")
    second = await revoke(world, tenant, subject)
    assert second.number > first.number
    assert await world.journal.tokens_revoked_until(tenant, subject) == first.revoked_until_s
    for other in ((tenant, uuid()), (uuid(), subject), (subject, tenant)):
        assert await world.journal.tokens_revoked_until(*other) == -1
    assert await world.journal.list_token_revocations(tenant, after=0, limit=9) == [first, second]
    assert await world.journal.list_token_revocations(tenant, after=0, limit=1) == [first]
    assert await world.journal.list_token_revocations(tenant, after=first.number, limit=9) == [second]
    assert await world.journal.list_token_revocations(None, after=first.number - 1, limit=1) == [first]
    assert await world.journal.list_token_revocations(uuid(), after=0, limit=9) == []


async def test_the_tenants_own_id_stands_for_every_subject_of_it_and_no_other(world: World) -> None:
    tenant, subject = uuid(), uuid()
    whole = await revoke(world, tenant, tenant)
    assert await world.journal.tokens_revoked_until(tenant, subject) == whole.revoked_until_s
    assert await world.journal.tokens_revoked_until(tenant, tenant) == whole.revoked_until_s
    assert await world.journal.tokens_revoked_until(uuid(), subject) == -1


async def test_facts_tell_which_tokens_and_which_keys_are_revoked(world: World) -> None:
    tenant, store, subject, other = uuid(), uuid(), uuid(), uuid()
    key = await world.journal.create_api_key(an_api_key(tenant), AUDIT)
    await world.journal.revoke_api_key(key.id, tenant_id=None, audit=AUDIT)
    revoked = await revoke(world, tenant, subject)
    until_s = revoked.revoked_until_s
    dead = {IssuedToken(subject, until_s), IssuedToken(subject, 0), key.id}
    alive = {IssuedToken(subject, until_s + 1), IssuedToken(other, until_s), uuid()}
    facts = await world.journal.read_facts(question(tenant, [store], credentials=dead | alive))
    assert facts.revoked_credentials == dead
    facts = await world.journal.read_facts(question(uuid(), [store], credentials=dead | alive))
    assert facts.revoked_credentials == {key.id}
    await revoke(world, tenant, tenant)
    facts = await world.journal.read_facts(question(tenant, [store], credentials=[IssuedToken(other, 0)]))
    assert facts.revoked_credentials == {IssuedToken(other, 0)}


async def test_a_token_revoked_between_reading_and_appending_moves_the_group(world: World) -> None:
    tenant, store, subject = uuid(), uuid(), uuid()
    group = await decided(world.journal, tenant, store, an_event())
    await revoke(world, uuid(), subject)
    other = await decided(world.journal, tenant, uuid(), an_event())
    assert isinstance(await world.journal.append(other), Stored), "another tenant's moves nothing"

    await revoke(world, tenant, subject)

    assert isinstance(await world.journal.append(group), Moved)
    assert await event_ids(world, tenant, store) == []


async def test_what_the_door_let_in_before_the_revocation_is_refused_when_it_is_decided_again(
    world: World,
) -> None:
    tenant, store, agent = uuid(), uuid(), uuid()
    batch = VerifiedBatch(tenant, store, agent, [an_event(agent=agent)])
    requests = [Request(batch, IssuedToken(agent, 1_700_000_000))]
    before = await world.journal.read_facts(ask(tenant, requests))
    assert not decide(requests, before).requests[0].credential_revoked
    await revoke(world, tenant, agent)
    plan = decide(requests, await world.journal.read_facts(ask(tenant, requests)))
    assert (plan.requests[0].credential_revoked, plan.numbered) == (True, [])
    assert plan.depends_on_state, "it is told only after the fence was seen unchanged"


@pytest.mark.usefixtures("as_if_large")
@pytest.mark.parametrize("committed", [True, False])
async def test_a_revocation_of_tokens_waits_for_an_append_under_way_and_later_ones_see_it(
    world: World, committed: bool
) -> None:
    tenant, store, subject = uuid(), uuid(), uuid()
    event, later = an_event(), an_event()
    group = await decided(world.journal, tenant, store, event)
    decided_before = await decided(world.other, tenant, uuid(), later)
    world.fail_next("append", "held")
    with pytest.raises(JournalOutcomeUnknown):
        await world.journal.append(group)
    revoked = trio.Event()

    async def revoking() -> None:
        await revoke(world, tenant, subject)
        revoked.set()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(revoking)
        await trio.sleep(0.1)
        assert not revoked.is_set()
        await world.release(commit=committed)

    assert await event_ids(world, tenant, store) == ([event.event_id] if committed else [])
    assert isinstance(await world.other.append(decided_before), Moved)


async def test_revocations_of_keys_and_tokens_are_told_in_one_order_and_none_is_skipped(world: World) -> None:
    tenant = uuid()
    keys = [await world.journal.create_api_key(an_api_key(tenant), AUDIT) for _ in range(4)]
    subjects = [uuid() for _ in range(4)]
    cursor = (await world.journal.revocations_since(None)).cursor
    heard_keys: list[Uuid] = []
    heard_subjects: list[Uuid] = []

    async def revoke_both(n: int) -> None:
        await revoke(world, tenant, subjects[n])
        await world.journal.revoke_api_key(keys[n].id, tenant_id=None, audit=AUDIT)

    with trio.fail_after(10):
        async with trio.open_nursery() as nursery:
            for n in range(4):
                nursery.start_soon(revoke_both, n)
            while len(heard_keys) + len(heard_subjects) < 8:
                news = await world.journal.revocations_since(cursor)
                heard_keys += news.credential_ids
                heard_subjects += [one.subject for one in news.tokens]
                cursor = news.cursor
    assert sorted(heard_keys) == sorted(key.id for key in keys)
    assert sorted(heard_subjects) == sorted(subjects)
    news = await world.journal.revocations_since(cursor)
    assert (news.credential_ids, news.tokens, news.cursor) == ([], [], cursor)


@pytest.mark.parametrize("done", [True, False])
async def test_a_revocation_of_unknown_outcome_can_be_repeated(world: World, done: bool) -> None:
    tenant, subject = uuid(), uuid()
    for fault in ("unheard" if done else "lost", "away"):
        world.fail_next("revoke_tokens", fault)  # type: ignore[arg-type]
        with pytest.raises(JournalAway if fault == "away" else JournalOutcomeUnknown):
            await world.journal.revoke_tokens(tenant, subject, ahead_s=0, reason=None, audit=AUDIT)
    assert len(await world.journal.list_token_revocations(tenant, after=0, limit=9)) == done
    await world.journal.revoke_tokens(tenant, subject, ahead_s=0, reason=None, audit=AUDIT)
    assert len(await world.journal.list_token_revocations(tenant, after=0, limit=9)) == 1 + done
