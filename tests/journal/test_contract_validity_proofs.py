"""What the journal promises about validity proofs."""

from __future__ import annotations

import msgspec
import pytest
import trio
from journal_builders import AUDIT, a_commitment, an_event, decided, uuid
from journal_worlds import World

from journal.port import (
    AuditWish,
    Journal,
    JournalOutcomeUnknown,
    ProofConflict,
    ProofSubmitted,
    Stored,
    StoredProof,
    ValidityProof,
)
from ves.records import Commitment


async def a_batch(world: World) -> Commitment:
    tenant, store = uuid(), uuid()
    group = await decided(world.journal, tenant, store, an_event())
    assert isinstance(await world.journal.append(group), Stored)
    commitment, levels, believed = await a_commitment(world.journal, tenant, store, 1)
    assert isinstance(
        await world.journal.commit(commitment, levels=levels, believed_through=believed), Stored
    )
    return commitment


def a_proof(
    batch: Commitment, *, digest: bytes = b"h" * 32, proof_type: str = "other", version: int = 1
) -> StoredProof:
    record = ValidityProof(
        *(uuid(), batch.batch_id, batch.tenant_id, batch.store_id, proof_type, version, digest),
        public_inputs='{"a":1}',
    )
    return StoredProof(record, b"sealed for " + record.proof_id)


async def acts(journal: Journal, batch: Commitment) -> int:
    """How many audit entries tell of this batch."""
    wish = AuditWish(tenant_id=batch.tenant_id)
    return len(await journal.find_audit_entries(wish, limit=100))


async def submit(journal: Journal, proof: StoredProof):  # type: ignore[no-untyped-def]
    audit = msgspec.structs.replace(AUDIT, tenant_id=proof.record.tenant_id)
    return await journal.submit_validity_proof(proof, audit)


async def test_a_proof_is_stored_with_its_audit_entry_and_comes_back_as_it_was(world: World) -> None:
    batch = await a_batch(world)
    proof = a_proof(batch)
    done = await submit(world.journal, proof)
    assert isinstance(done, ProofSubmitted)
    assert not done.already
    assert done.record.submitted_at_us > 1_700_000_000_000_000
    assert msgspec.structs.replace(done.record, submitted_at_us=0) == proof.record
    found = await world.other.read_validity_proof(proof.record.proof_id, tenant_id=None, store_ids=None)
    assert found == StoredProof(done.record, proof.proof)
    assert await world.other.list_validity_proofs(batch.batch_id, after=None, limit=10) == [done.record]
    assert await acts(world.other, batch) == 1


async def test_the_same_bytes_again_are_the_stored_record_whoever_sealed_them(world: World) -> None:
    batch = await a_batch(world)
    first = await submit(world.journal, a_proof(batch))
    again = await submit(world.other, a_proof(batch))
    assert again == ProofSubmitted(first.record, already=True)
    assert len(await world.journal.list_validity_proofs(batch.batch_id, after=None, limit=10)) == 1
    assert await acts(world.journal, batch) == 1


async def test_other_bytes_of_the_same_type_and_version_are_refused_and_change_nothing(world: World) -> None:
    batch = await a_batch(world)
    first = await submit(world.journal, a_proof(batch))
    refused = a_proof(batch, digest=b"i" * 32)
    assert await submit(world.other, refused) == ProofConflict(first.record.proof_id)
    assert (
        await world.journal.read_validity_proof(refused.record.proof_id, tenant_id=None, store_ids=None)
        is None
    )
    assert await acts(world.journal, batch) == 1
    for other in (a_proof(batch, digest=b"i" * 32, version=2), a_proof(batch, proof_type="Other")):
        assert not (await submit(world.other, other)).already


async def test_of_two_at_once_one_is_stored_and_the_other_told_which(world: World) -> None:
    batch = await a_batch(world)
    answers = []

    async def one(journal: Journal, digest: bytes) -> None:
        answers.append(await submit(journal, a_proof(batch, digest=digest)))

    async with trio.open_nursery() as nursery:
        for number in range(4):
            nursery.start_soon(one, (world.journal, world.other)[number % 2], bytes([number]) * 32)
    [stored] = [answer for answer in answers if isinstance(answer, ProofSubmitted)]
    assert answers.count(ProofConflict(stored.record.proof_id)) == 3
    assert await acts(world.journal, batch) == 1


@pytest.mark.parametrize("foreign", ["batch_id", "tenant_id", "store_id"])
async def test_a_proof_about_a_batch_that_the_stream_has_not_is_not_stored(
    world: World, foreign: str
) -> None:
    batch, another = await a_batch(world), await a_batch(world)
    proof = a_proof(msgspec.structs.replace(batch, **{foreign: getattr(another, foreign)}))
    assert await submit(world.journal, proof) is None
    assert await acts(world.journal, batch) == await acts(world.journal, another) == 0
    # Nor is anybody told about a foreign batch what proofs it has.
    await submit(world.journal, a_proof(batch))
    assert await submit(world.journal, proof) is None


@pytest.mark.parametrize("stored", [True, False])
async def test_a_proof_whose_outcome_is_unknown_is_there_or_not_and_can_be_sent_again(
    world: World, stored: bool
) -> None:
    batch = await a_batch(world)
    proof = a_proof(batch)
    world.fail_next("submit_validity_proof", "unheard" if stored else "lost")
    with pytest.raises(JournalOutcomeUnknown):
        await submit(world.journal, proof)
    assert (await submit(world.journal, a_proof(batch))).already is stored
    assert await acts(world.journal, batch) == 1


async def test_a_proof_is_found_only_within_its_tenant_and_stores(world: World) -> None:
    batch = await a_batch(world)
    proof = a_proof(batch)
    await submit(world.journal, proof)
    for tenant, stores, found in (
        (batch.tenant_id, None, True),
        (batch.tenant_id, (uuid(), batch.store_id), True),
        (uuid(), None, False),
        (batch.tenant_id, (uuid(),), False),
        (batch.tenant_id, (), False),
    ):
        read = await world.journal.read_validity_proof(
            proof.record.proof_id, tenant_id=tenant, store_ids=stores
        )
        assert (read is not None) is found


async def test_proofs_are_listed_in_pages_by_time_of_submission(world: World) -> None:
    batch, another = await a_batch(world), await a_batch(world)
    foreign = await submit(world.journal, a_proof(another))
    ids = []
    for version in range(1, 6):
        ids.append((await submit(world.journal, a_proof(batch, version=version))).record.proof_id)
    told, after = [], None
    while page := await world.journal.list_validity_proofs(batch.batch_id, after=after, limit=2):
        assert len(page) <= 2
        told += page
        after = page[-1].proof_id
    assert sorted(record.proof_id for record in told) == sorted(ids)
    assert [r.submitted_at_us for r in told] == sorted(r.submitted_at_us for r in told)
    after = foreign.record.proof_id
    assert await world.journal.list_validity_proofs(batch.batch_id, after=after, limit=2) == []
