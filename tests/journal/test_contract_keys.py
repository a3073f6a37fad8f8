"""What the journal promises about agent keys, API keys and our own keys."""

from __future__ import annotations

import os

import msgspec
import pytest
import trio
from journal_builders import AUDIT, an_agent_key, an_api_key, an_event, decided, uuid
from journal_worlds import World
from legacy_builders import a_legacy_event, legacy_decided

from journal.port import (
    AtRestKeyMissing,
    AtRestKeyRetired,
    AuditWish,
    Journal,
    JournalAway,
    JournalOutcomeUnknown,
    KeyConflict,
    KeyRegistered,
    KeyRevoked,
    KeyRotation,
    PlaintextRemains,
    PossessionProof,
    ReceiptKey,
    ReceiptKeyDiffers,
    Stored,
)
from ves.encoding import uuid_text
from ves.records import KeyName


async def test_a_registered_key_is_found_listed_and_stays_what_it_is(world: World) -> None:
    tenant, agent = uuid(), uuid()
    keys = [an_agent_key(tenant, agent=agent, key_id=n) for n in (7, 2, 5)]
    for key in keys:
        answer = await world.journal.register_agent_key(key, AUDIT)
        assert isinstance(answer, KeyRegistered)
        assert not answer.already
        assert answer.key.registered_at_us > 0
        assert msgspec.structs.replace(answer.key, registered_at_us=0) == key
    names = [key.name for key in keys]

    found = await world.other.find_public_keys([*names, KeyName(tenant, agent, 9), KeyName(uuid(), agent, 7)])
    assert found == {key.name: key.public_key for key in keys}
    assert await world.other.find_public_keys([]) == {}

    listed = await world.other.list_agent_keys(tenant, agent, from_key_id=0, limit=2)
    assert [key.name.key_id for key in listed] == [2, 5]
    listed = await world.other.list_agent_keys(tenant, agent, from_key_id=6, limit=2)
    assert [key.name.key_id for key in listed] == [7]
    assert await world.other.list_agent_keys(tenant, uuid(), from_key_id=0, limit=2) == []


async def test_registering_the_same_again_changes_nothing_and_another_binding_is_a_conflict(
    world: World,
) -> None:
    key = an_agent_key(uuid())
    first = await world.journal.register_agent_key(key, AUDIT)
    again = await world.other.register_agent_key(
        msgspec.structs.replace(key, proof_of_possession=None), AUDIT
    )
    assert isinstance(first, KeyRegistered)
    assert again == KeyRegistered(first.key, already=True)
    for other in (
        msgspec.structs.replace(key, public_key=os.urandom(32)),
        msgspec.structs.replace(key, valid_to_us=2_000_000),
        msgspec.structs.replace(key, key_algorithm=0),
    ):
        assert await world.journal.register_agent_key(other, AUDIT) == KeyConflict(same_name=True)
    assert await world.journal.find_public_keys([key.name]) == {key.name: key.public_key}


async def test_a_public_key_belongs_to_one_agent_who_may_know_it_under_several_ids(world: World) -> None:
    tenant, key = uuid(), an_agent_key(uuid())
    await world.journal.register_agent_key(key, AUDIT)
    for thief in (
        an_agent_key(key.name.tenant_id, public_key=key.public_key),
        an_agent_key(tenant, agent=key.name.agent_id, public_key=key.public_key),
        an_agent_key(tenant, public_key=key.public_key),
    ):
        assert await world.other.register_agent_key(thief, AUDIT) == KeyConflict(same_name=False)
        assert await world.other.find_public_keys([thief.name]) == {}
    second = msgspec.structs.replace(key, name=key.name._replace(key_id=2))
    assert isinstance(await world.other.register_agent_key(second, AUDIT), KeyRegistered)


async def test_two_tenants_that_register_one_public_key_at_once_do_not_both_get_it(world: World) -> None:
    public_key = os.urandom(32)
    answers: list[KeyRegistered | KeyConflict] = []

    async def register(journal: object) -> None:
        assert journal in (world.journal, world.other)
        node = world.journal if journal is world.journal else world.other
        answers.append(await node.register_agent_key(an_agent_key(uuid(), public_key=public_key), AUDIT))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(register, world.journal)
        nursery.start_soon(register, world.other)
    assert sorted(type(answer).__name__ for answer in answers) == ["KeyConflict", "KeyRegistered"]


async def test_revoking_is_for_ever_and_revoking_twice_changes_nothing(world: World) -> None:
    registered = await world.journal.register_agent_key(key := an_agent_key(uuid()), AUDIT)
    assert isinstance(registered, KeyRegistered)
    first = await world.journal.revoke_agent_key(key.name, "stolen", AUDIT)
    assert isinstance(first, KeyRevoked)
    assert not first.already
    assert first.key.revoked_at_us is not None
    assert first.key.revoked_at_us >= registered.key.registered_at_us
    assert first.key.revocation_reason == "stolen"
    again = await world.other.revoke_agent_key(key.name, "lost", AUDIT)
    assert again == KeyRevoked(first.key, already=True)
    assert await world.other.register_agent_key(key, AUDIT) == KeyRegistered(first.key, already=True)
    agent_keys = await world.other.list_agent_keys(
        key.name.tenant_id, key.name.agent_id, from_key_id=0, limit=9
    )
    assert agent_keys == [first.key]
    assert await world.journal.revoke_agent_key(key.name._replace(key_id=8), "?", AUDIT) is None
    assert await world.journal.revoke_agent_key(key.name._replace(tenant_id=uuid()), "?", AUDIT) is None


@pytest.mark.parametrize("done", [True, False])
async def test_a_registration_and_a_revocation_of_unknown_outcome_can_be_repeated(
    world: World, done: bool
) -> None:
    key = an_agent_key(uuid())
    world.fail_next("register_agent_key", "unheard" if done else "lost")
    with pytest.raises(JournalOutcomeUnknown):
        await world.journal.register_agent_key(key, AUDIT)
    registered = await world.journal.register_agent_key(key, AUDIT)
    assert isinstance(registered, KeyRegistered)
    assert registered.already == done
    world.fail_next("revoke_agent_key", "unheard" if done else "lost")
    with pytest.raises(JournalOutcomeUnknown):
        await world.journal.revoke_agent_key(key.name, "stolen", AUDIT)
    revoked = await world.journal.revoke_agent_key(key.name, "stolen", AUDIT)
    assert isinstance(revoked, KeyRevoked)
    assert revoked.already == done
    world.fail_next("register_agent_key", "away")
    with pytest.raises(JournalAway):
        await world.journal.register_agent_key(an_agent_key(uuid()), AUDIT)


async def test_an_api_key_is_found_by_its_hash_and_listed_within_its_tenant(world: World) -> None:
    tenant = uuid()
    keys = sorted(
        [an_api_key(tenant, stores=stores) for stores in (None, (), (uuid(), uuid()))], key=lambda key: key.id
    )
    for key in keys:
        created = await world.journal.create_api_key(key, AUDIT)
        assert created.created_at_us > 0
        assert msgspec.structs.replace(created, created_at_us=0) == key
        assert await world.other.find_api_key(key.key_hash) == created
    assert await world.other.find_api_key(os.urandom(32)) is None
    listed = await world.other.list_api_keys(tenant, after=None, limit=2)
    assert [key.id for key in listed] == [key.id for key in keys[:2]]
    listed = await world.other.list_api_keys(tenant, after=keys[1].id, limit=2)
    assert [key.id for key in listed] == [keys[2].id]
    assert await world.other.list_api_keys(uuid(), after=None, limit=2) == []
    just_before = (int.from_bytes(keys[0].id, "big") - 1).to_bytes(16, "big")
    everybodys = await world.other.list_api_keys(None, after=just_before, limit=1)
    assert everybodys[0].id == keys[0].id


async def test_revoking_an_api_key_is_told_once_to_whoever_asks_since_a_cursor(world: World) -> None:
    tenant = uuid()
    first, second = [await world.journal.create_api_key(an_api_key(tenant), AUDIT) for _ in range(2)]
    start = await world.other.revocations_since(None)
    assert start.credential_ids == []
    assert await world.journal.revoke_api_key(first.id, tenant_id=uuid(), audit=AUDIT) is None
    assert await world.journal.revoke_api_key(uuid(), tenant_id=None, audit=AUDIT) is None
    assert await world.other.revocations_since(start.cursor) == start

    revoked = await world.journal.revoke_api_key(first.id, tenant_id=tenant, audit=AUDIT)
    assert revoked is not None
    assert revoked.revoked_at_us is not None
    assert await world.journal.find_api_key(first.key_hash) == revoked
    assert await world.other.revoke_api_key(first.id, tenant_id=None, audit=AUDIT) == revoked
    after_first = await world.other.revocations_since(start.cursor)
    assert after_first.credential_ids == [first.id]

    await world.other.revoke_api_key(second.id, tenant_id=None, audit=AUDIT)
    assert (await world.journal.revocations_since(after_first.cursor)).credential_ids == [second.id]
    both = await world.journal.revocations_since(start.cursor)
    assert both.credential_ids == [first.id, second.id]
    assert await world.journal.revocations_since(both.cursor) == type(both)([], both.cursor)
    assert await world.journal.revocations_since(None) == type(both)([], both.cursor)


async def test_no_revocation_is_skipped_by_a_poller_while_many_are_made(world: World) -> None:
    keys = [await world.journal.create_api_key(an_api_key(uuid()), AUDIT) for _ in range(8)]
    cursor = (await world.journal.revocations_since(None)).cursor
    heard: list[bytes] = []

    async def revoke(number: int) -> None:
        node = world.journal if number % 2 else world.other
        await node.revoke_api_key(keys[number].id, tenant_id=None, audit=AUDIT)

    with trio.fail_after(10):
        async with trio.open_nursery() as nursery:
            for number in range(len(keys)):
                nursery.start_soon(revoke, number)
            while len(heard) < len(keys):
                news = await world.journal.revocations_since(cursor)
                heard += news.credential_ids
                cursor = news.cursor
    assert sorted(heard) == sorted(key.id for key in keys)


async def test_a_node_with_another_receipt_key_than_the_recorded_one_is_refused(world: World) -> None:
    sequencer, public_key = uuid(), os.urandom(32)
    assert await world.journal.claim_receipt_key(sequencer, public_key) == 1
    assert await world.other.claim_receipt_key(sequencer, public_key) == 1
    with pytest.raises(ReceiptKeyDiffers):
        await world.other.claim_receipt_key(sequencer, os.urandom(32))
    other = uuid()
    await world.other.claim_receipt_key(other, os.urandom(32))
    published = {key.sequencer_id: key for key in await world.journal.receipt_keys()}
    assert published.keys() >= {sequencer, other}
    mine = published[sequencer]
    assert (mine.public_key, mine.key_version, mine.active) == (public_key, 1, True)
    assert mine.created_at_us > 0


def a_successor(sequencer: bytes, version: int) -> ReceiptKey:
    return ReceiptKey(sequencer, version, os.urandom(32), 0, True, os.urandom(64))


async def chain_of(world: World, sequencer: bytes) -> list[ReceiptKey]:
    return [key for key in await world.other.receipt_keys() if key.sequencer_id == sequencer]


async def test_a_new_receipt_key_is_recorded_once_and_the_old_ones_stay_published(world: World) -> None:
    sequencer, first = uuid(), os.urandom(32)
    await world.journal.claim_receipt_key(sequencer, first)
    second = a_successor(sequencer, 2)
    recorded = await world.journal.rotate_receipt_key(second, AUDIT)
    assert await world.journal.rotate_receipt_key(second, AUDIT) == recorded, "done twice is done once"
    third = await world.other.rotate_receipt_key(a_successor(sequencer, 3), AUDIT)
    chain = await chain_of(world, sequencer)
    assert [(key.key_version, key.active) for key in chain] == [(1, False), (2, False), (3, True)]
    assert chain[0].public_key == first
    assert chain[0].previous_signature is None
    assert (chain[1].public_key, chain[1].previous_signature) == (
        second.public_key,
        second.previous_signature,
    )
    assert chain[2] == third
    assert chain[0].created_at_us <= chain[1].created_at_us <= chain[2].created_at_us
    assert await world.journal.claim_receipt_key(sequencer, third.public_key) == 3
    with pytest.raises(ReceiptKeyDiffers):
        await world.journal.claim_receipt_key(sequencer, first)


async def test_a_receipt_key_that_was_retired_or_has_no_predecessor_is_not_recorded(world: World) -> None:
    sequencer, first = uuid(), os.urandom(32)
    with pytest.raises(ReceiptKeyDiffers, match="no receipt key to rotate"):
        await world.journal.rotate_receipt_key(a_successor(sequencer, 2), AUDIT)
    await world.journal.claim_receipt_key(sequencer, first)
    await world.journal.rotate_receipt_key(a_successor(sequencer, 2), AUDIT)
    again = msgspec.structs.replace(a_successor(sequencer, 3), public_key=first)
    with pytest.raises(ReceiptKeyDiffers, match="before, as version 1"):
        await world.journal.rotate_receipt_key(again, AUDIT)
    newest = (await chain_of(world, sequencer))[-1]
    for version in (1, 2, 4):
        assert await world.journal.rotate_receipt_key(a_successor(sequencer, version), AUDIT) == newest
    assert len(await chain_of(world, sequencer)) == 2


async def test_of_two_rotations_at_once_one_is_recorded_and_both_learn_which(world: World) -> None:
    sequencer = uuid()
    await world.journal.claim_receipt_key(sequencer, os.urandom(32))
    answers: list[ReceiptKey] = []

    async def rotate(journal: Journal) -> None:
        answers.append(await journal.rotate_receipt_key(a_successor(sequencer, 2), AUDIT))

    async with trio.open_nursery() as nursery:
        for journal in (world.journal, world.other) * 3:
            nursery.start_soon(rotate, journal)
    (newest,) = set(answers)
    assert [key for key in await chain_of(world, sequencer) if key.key_version == 2] == [newest]


async def test_a_rotation_that_was_not_heard_of_is_finished_by_doing_it_again(world: World) -> None:
    sequencer = uuid()
    await world.journal.claim_receipt_key(sequencer, os.urandom(32))
    second, third = a_successor(sequencer, 2), a_successor(sequencer, 3)
    world.fail_next("rotate_receipt_key", "away")
    with pytest.raises(JournalAway):
        await world.journal.rotate_receipt_key(second, AUDIT)
    assert len(await chain_of(world, sequencer)) == 1
    world.fail_next("rotate_receipt_key", "lost")
    with pytest.raises(JournalOutcomeUnknown):
        await world.journal.rotate_receipt_key(second, AUDIT)
    assert (await world.journal.rotate_receipt_key(second, AUDIT)).public_key == second.public_key
    world.fail_next("rotate_receipt_key", "unheard")
    with pytest.raises(JournalOutcomeUnknown):
        await world.journal.rotate_receipt_key(third, AUDIT)
    assert (await world.journal.rotate_receipt_key(third, AUDIT)).public_key == third.public_key
    assert len(await chain_of(world, sequencer)) == 3


async def test_an_audit_entry_of_its_own_can_be_written_and_its_loss_is_told(world: World) -> None:
    await world.journal.audit(AUDIT)
    world.fail_next("audit", "away")
    with pytest.raises(JournalAway):
        await world.journal.audit(AUDIT)


async def test_a_ring_that_lacks_a_recorded_at_rest_key_is_refused_by_its_fingerprint(
    own_world: World,
) -> None:
    world = own_world  # the recorded ring is one for the whole database
    old, new = os.urandom(8), os.urandom(8)
    await world.journal.claim_at_rest_keys([old])
    await world.other.claim_at_rest_keys([new, old])
    await world.journal.claim_at_rest_keys([old, new])
    with pytest.raises(AtRestKeyMissing, match=old.hex()):
        await world.journal.claim_at_rest_keys([new])


async def test_a_tenants_ring_that_lacks_a_key_of_its_data_is_refused_whoever_else_has_the_key(
    own_world: World,
) -> None:
    world, tenant, other = own_world, uuid(), uuid()
    default, mine, his = os.urandom(8), os.urandom(8), os.urandom(8)
    claim = world.journal.claim_at_rest_keys
    await claim([default], {tenant: [mine], other: [his]})
    await world.other.claim_at_rest_keys([default], {tenant: [mine], other: [his]})
    said = f"{uuid_text(tenant)} has data under the at-rest key {mine.hex()}, which is not in its own ring"
    for elsewhere in ({other: [his]}, {other: [his, mine]}):
        with pytest.raises(AtRestKeyMissing, match=said):
            await claim([default, mine], {tenant: [os.urandom(8)], **elsewhere})
    with pytest.raises(AtRestKeyMissing, match=f"{mine.hex()}, and has no ring of its own now"):
        await claim([default], {other: [his, mine]})
    with pytest.raises(AtRestKeyMissing, match=f"only in that of tenant {uuid_text(tenant)}"):
        await claim([os.urandom(8)], {tenant: [mine, default], other: [his]})
    await claim([default, mine], {other: [his]})  # the default ring serves him now, and opens his data
    with pytest.raises(AtRestKeyMissing, match=default.hex()):
        await claim([default, mine], {tenant: [mine], other: [his]})  # he may have data under it since then
    await claim([default, mine], {tenant: [mine, default], other: [his]})


@pytest.mark.parametrize("unsigned", [False, True], ids=["signed", "unsigned"])
async def test_a_tenant_with_data_gets_a_ring_of_its_own_only_with_the_keys_of_that_data(
    own_world: World, unsigned: bool
) -> None:
    world, tenant, fresh = own_world, uuid(), uuid()
    default, mine = os.urandom(8), os.urandom(8)
    claim = world.journal.claim_at_rest_keys
    await claim([default])
    if unsigned:
        old = await legacy_decided(world.journal, tenant, uuid(), a_legacy_event())
        assert isinstance(await world.journal.append_legacy(old), Stored)
    else:
        group = await decided(world.journal, tenant, uuid(), an_event())
        assert isinstance(await world.journal.append(group), Stored)
    await claim([default], {fresh: [mine]})
    with pytest.raises(AtRestKeyMissing, match=f"{uuid_text(tenant)} has data under.* {default.hex()}"):
        await claim([default], {fresh: [mine], tenant: [mine]})
    await claim([default], {fresh: [mine], tenant: [mine, default]})


async def test_a_refused_ring_is_not_recorded_and_a_new_one_is_audited_by_its_fingerprints(
    own_world: World,
) -> None:
    world, tenant = own_world, uuid()
    default, mine, refused = os.urandom(8), os.urandom(8), os.urandom(8)
    await world.journal.claim_at_rest_keys([default], {tenant: [mine]})
    with pytest.raises(AtRestKeyMissing):
        await world.journal.claim_at_rest_keys([default, refused], {tenant: [refused]})
    await world.journal.claim_at_rest_keys([default], {tenant: [mine]})
    many = {uuid(): [os.urandom(8)] for _ in range(30)}
    await world.journal.claim_at_rest_keys([default], {tenant: [mine], **many})
    wish = AuditWish(action="at_rest_key.claim")
    claims = await world.journal.find_audit_entries(wish, limit=100)
    assert [(one.subject, one.tenant_id) for one in claims[::-1]] == [
        (default.hex(), None),
        (mine.hex(), tenant),
        ("30 tenants", None),
    ]


async def test_a_retired_at_rest_key_is_demanded_by_no_start_and_seals_for_none(own_world: World) -> None:
    world = own_world
    old, new = os.urandom(8), os.urandom(8)
    await world.journal.claim_at_rest_keys([old, new], current=[old])
    assert await world.journal.retire_at_rest_key(old, AUDIT) is True
    assert await world.other.retire_at_rest_key(old, AUDIT) is False, "once is enough"
    await world.journal.claim_at_rest_keys([new], current=[new])
    await world.other.claim_at_rest_keys([new, old], current=[new])
    with pytest.raises(AtRestKeyRetired, match=old.hex()):
        await world.other.claim_at_rest_keys([old, new], current=[old])
    with pytest.raises(AtRestKeyMissing, match=new.hex()):
        await world.journal.claim_at_rest_keys([old])
    with pytest.raises(AtRestKeyMissing, match="no node ever had"):
        await world.journal.retire_at_rest_key(os.urandom(8), AUDIT)


async def test_a_retirement_whose_commit_is_not_heard_may_be_repeated(own_world: World) -> None:
    world = own_world
    old = os.urandom(8)
    await world.journal.claim_at_rest_keys([old])
    world.fail_next("retire_at_rest_key", "unheard")
    with pytest.raises(JournalOutcomeUnknown):
        await world.journal.retire_at_rest_key(old, AUDIT)
    assert await world.journal.retire_at_rest_key(old, AUDIT) is False
    await world.journal.claim_at_rest_keys([])


async def test_a_start_that_requires_frames_is_refused_once_plaintext_was_stored(own_world: World) -> None:
    world, key = own_world, os.urandom(8)
    await store(world, b"SSE1" + bytes(40))
    await store(world, b"SSE2" + bytes(40))
    await world.journal.claim_at_rest_keys([key], required=True)
    for _ in range(2):
        await store(world, b"{}")
        with pytest.raises(PlaintextRemains, match="reencrypt-ves-events"):
            await world.journal.claim_at_rest_keys([key], required=True)
    await world.other.claim_at_rest_keys([key], required=False)


async def store(world: World, payload_sealed: bytes) -> None:
    group = await decided(world.journal, uuid(), uuid(), an_event(), an_event())
    sealed = [msgspec.structs.replace(one, payload_sealed=payload_sealed) for one in group.sealed]
    assert isinstance(await world.journal.append(msgspec.structs.replace(group, sealed=sealed)), Stored)


async def test_the_best_proof_of_possession_is_read_back(world: World) -> None:
    key = msgspec.structs.replace(an_agent_key(uuid()), proof_of_possession=None)
    assert await world.journal.read_possession(key.name) is None
    await world.journal.register_agent_key(key, AUDIT)
    assert await world.journal.read_possession(key.name) is None
    for version in (1, 2, 1):
        proven = msgspec.structs.replace(key, proof_of_possession=version, proof=bytes([version]) * 64)
        await world.journal.register_agent_key(proven, AUDIT)
    assert await world.other.read_possession(key.name) == PossessionProof(2, b"\2" * 64)


async def test_the_proof_that_came_with_a_rotation_is_read_back(world: World) -> None:
    old = an_agent_key(uuid())
    await world.journal.register_agent_key(old, AUDIT)
    new = an_agent_key(old.name.tenant_id, agent=old.name.agent_id, key_id=2)
    new = msgspec.structs.replace(new, proof=b"p" * 64)
    await world.journal.rotate_agent_key(KeyRotation(new, 1, 60), AUDIT)
    assert await world.other.read_possession(new.name) == PossessionProof(2, b"p" * 64)
