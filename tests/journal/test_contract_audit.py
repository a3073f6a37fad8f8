"""What the journal promises about the audit trail: reading it, and committing it whoever's it is."""

from __future__ import annotations

import json

import msgspec
import pytest
from journal_builders import AUDIT, an_agent_key, uuid
from journal_worlds import LIMITS, PostgresWorld, World

from journal.port import (
    AuditChain,
    AuditEntry,
    AuditPlace,
    AuditWish,
    Away,
    Journal,
    JournalOutcomeUnknown,
    Moved,
    Stored,
)
from ves.audit import AuditCommitment, AuditRecord, entry_hash, next_audit_commitment
from ves.constants import ZERO_HASH
from ves.records import Uuid


def node_of(journal: Journal) -> Uuid:
    return journal._node_id  # type: ignore[attr-defined,no-any-return]


async def written(journal: Journal, count: int, **changes: object) -> list[AuditRecord]:
    for number in range(count):
        entry = msgspec.structs.replace(AUDIT, subject=f"s-{number}", **changes)
        await journal.audit(entry)
    return await journal.read_audit_chain(node_of(journal), from_number=1, limit=1000)


async def committable(journal: Journal, node: Uuid, start: int, end: int) -> AuditCommitment:
    before = await journal.list_audit_commitments(node, from_number=start - 1, limit=1) if start > 1 else []
    entries = await journal.read_audit_chain(node, from_number=start, limit=end - start + 1)
    return next_audit_commitment(
        node,
        entry_start=start,
        entry_hashes=[one.entry_hash for one in entries],
        prev_state_root=before[0].new_state_root if before else ZERO_HASH,
        committed_at_us=1_700_000_000_000_000,
    )


async def test_a_chain_is_read_by_number_with_the_texts_that_were_hashed(world: World) -> None:
    tenant = uuid()
    entries = await written(world.journal, 3, tenant_id=tenant)
    assert [one.entry_number for one in entries] == [1, 2, 3]
    previous = ZERO_HASH
    for entry in entries:
        told = json.loads(entry.text)
        assert entry.prev_hash == previous
        previous = entry_hash(previous, entry.text)
        assert entry.entry_hash == previous
        assert (told["subject"], told["recorded_at_us"]) == (entry.subject, entry.recorded_at_us)
        assert (entry.node_id, entry.tenant_id) == (node_of(world.journal), tenant)
    page = await world.other.read_audit_chain(node_of(world.journal), from_number=2, limit=1)
    assert page == entries[1:2]
    assert await world.other.read_audit_chain(uuid(), from_number=1, limit=10) == []


async def test_chains_tell_where_they_and_their_commitments_stand(world: World) -> None:
    entries = await written(world.journal, 3)
    node = node_of(world.journal)
    first = AuditChain(node, 3, entries[2].entry_hash, 0, ZERO_HASH, entries[0].recorded_at_us)
    assert await world.other.read_audit_chains(only=node, limit=10) == [first]
    commitment = await committable(world.journal, node, 1, 2)
    assert isinstance(await world.journal.commit_audit(commitment), Stored)
    later = AuditChain(
        node, 3, entries[2].entry_hash, 2, commitment.new_state_root, entries[2].recorded_at_us
    )
    assert await world.other.read_audit_chains(only=node, limit=10) == [later]
    await written(world.other, 1)
    both = sorted([node, node_of(world.other)])
    found: list[Uuid] = []
    after = None
    while page := await world.journal.read_audit_chains(after=after, limit=1):
        after = page[-1].node_id
        found.append(after)
    assert [one for one in found if one in both] == both


async def test_whoever_commits_first_has_committed_and_the_other_is_told(world: World) -> None:
    await written(world.journal, 5)
    node = node_of(world.journal)
    mine = await committable(world.journal, node, 1, 3)
    theirs = await committable(world.other, node, 1, 2)
    assert isinstance(await world.other.commit_audit(theirs), Stored)
    assert isinstance(await world.journal.commit_audit(mine), Moved)
    beyond = msgspec.structs.replace(await committable(world.journal, node, 3, 5), entry_end=6)
    assert isinstance(await world.journal.commit_audit(beyond), Moved)
    gap = await committable(world.journal, node, 4, 5)
    assert isinstance(await world.journal.commit_audit(gap), Moved)
    unchained = msgspec.structs.replace(
        await committable(world.journal, node, 3, 5), prev_state_root=ZERO_HASH
    )
    assert isinstance(await world.journal.commit_audit(unchained), Moved)
    rest = await committable(world.journal, node, 3, 5)
    assert isinstance(await world.journal.commit_audit(rest), Stored)
    assert await world.other.list_audit_commitments(node, from_number=1, limit=9) == [theirs, rest]
    assert await world.other.list_audit_commitments(node, from_number=3, limit=9) == [rest]
    assert await world.other.list_audit_commitments(node, from_number=2, limit=1) == [theirs]
    assert await world.other.list_audit_commitments(node, from_number=6, limit=9) == []


@pytest.mark.parametrize("stored", [True, False])
async def test_an_audit_commitment_whose_outcome_is_unknown_is_there_or_not(
    world: World, stored: bool
) -> None:
    await written(world.journal, 2)
    commitment = await committable(world.other, node_of(world.journal), 1, 2)
    world.fail_next("commit_audit", "unheard" if stored else "lost")
    with pytest.raises(JournalOutcomeUnknown):
        await world.journal.commit_audit(commitment)
    again = await world.journal.commit_audit(commitment)
    assert isinstance(again, Moved if stored else Stored)
    world.fail_next("commit_audit", "away")
    assert isinstance(await world.journal.commit_audit(commitment), Away)


async def test_entries_are_found_newest_first_by_tenant_actor_action_node_and_time(world: World) -> None:
    tenant = uuid()
    mine = await written(world.journal, 3, tenant_id=tenant, action="agent_key.revoke")
    theirs = await written(world.other, 2, tenant_id=tenant, actor=f"api_key:{tenant.hex()}")
    everything = sorted([*mine, *theirs], key=lambda one: (one.recorded_at_us, one.node_id), reverse=True)
    found = await world.journal.find_audit_entries(AuditWish(tenant_id=tenant), limit=10)
    assert found == everything

    async def only(**wish: object) -> list[AuditRecord]:
        return await world.other.find_audit_entries(AuditWish(tenant_id=tenant, **wish), limit=10)  # type: ignore[arg-type]

    assert await only(action="agent_key.revoke") == mine[::-1]
    assert await only(actor=f"api_key:{tenant.hex()}") == theirs[::-1]
    assert await only(node_id=node_of(world.other)) == theirs[::-1]
    assert await only(from_us=everything[0].recorded_at_us + 1) == []
    assert await only(to_us=everything[-1].recorded_at_us) == []
    assert len(await only(from_us=everything[-1].recorded_at_us)) == 5
    assert await world.journal.find_audit_entries(AuditWish(tenant_id=uuid()), limit=10) == []

    paged: list[AuditRecord] = []
    after = None
    while page := await world.journal.find_audit_entries(AuditWish(tenant_id=tenant, after=after), limit=2):
        paged += page
        after = AuditPlace(page[-1].recorded_at_us, page[-1].node_id, page[-1].entry_number)
    assert paged == everything


async def test_keys_of_our_own_leave_an_entry_when_they_are_first_recorded_and_never_again(
    own_world: World,
) -> None:
    sequencer = uuid()
    for _ in range(2):
        await own_world.journal.claim_receipt_key(sequencer, b"k" * 32)
        await own_world.journal.claim_at_rest_keys([b"a" * 8, b"b" * 8])
    entries = await own_world.journal.read_audit_chain(node_of(own_world.journal), from_number=1, limit=9)
    assert sorted(one.action for one in entries) == [
        "at_rest_key.claim",
        "at_rest_key.claim",
        "receipt_key.claim",
    ]
    await own_world.other.claim_receipt_key(sequencer, b"k" * 32)
    assert await own_world.other.read_audit_chain(node_of(own_world.other), from_number=1, limit=9) == []


async def test_an_act_that_is_undone_leaves_no_entry(world: World) -> None:
    key = an_agent_key(uuid())
    entry = AuditEntry("api_key:x", "agent_key.register", "s", key.name.tenant_id, {"request_id": "r"})
    world.fail_next("register_agent_key", "lost")
    with pytest.raises(JournalOutcomeUnknown):
        await world.journal.register_agent_key(key, entry)
    wish = AuditWish(tenant_id=key.name.tenant_id)
    assert await world.other.find_audit_entries(wish, limit=9) == []
    await world.journal.register_agent_key(key, entry)
    [found] = await world.other.find_audit_entries(wish, limit=9)
    assert found.action == "agent_key.register"


async def test_units_and_connections_are_counted_and_a_database_that_is_away_shows(
    postgres: PostgresWorld,
) -> None:
    await postgres.journal.ping()
    before = postgres.journal.vitals()
    connections_max = LIMITS.connections_max + LIMITS.writers_max
    assert (before.done > 0, before.away, before.connections_max) == (True, 0, connections_max)
    postgres.fail_next("audit", "away")
    with pytest.raises(Exception, match="connection"):
        await postgres.journal.audit(AUDIT)
    after = postgres.journal.vitals()
    assert (after.away, after.unknown, after.connections_in_use) == (1, 0, 0)
    postgres.fail_next("audit", "lost")
    with pytest.raises(JournalOutcomeUnknown):
        await postgres.journal.audit(AUDIT)
    assert postgres.journal.vitals().unknown == 1
