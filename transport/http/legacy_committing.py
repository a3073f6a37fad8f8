"""Commitments and inclusion proofs of the legacy stream (wire 9), where the original's clients look for them.

Like ``transport.http.committing``, with the legacy stream's tree. Nobody signed these events: a proof shows
that something with this payload hash stands at this number, not who sent it.
"""

from __future__ import annotations

from typing import Any

from actors.messages import CommitLegacy, NothingToCommit, RangeRefused
from transport.http import found_by_id
from transport.http.committing import TreeCorrupt, hash_in
from transport.http.errors import ApiError, Code
from transport.http.legacy_commitment_shapes import (
    LegacyCommitmentReply,
    LegacyCommitmentsQuery,
    LegacyCommitmentsReply,
    LegacyCommittedReply,
    LegacyProofReply,
    ListedLegacyCommitment,
    VerifyLegacyProofBody,
    VerifyLegacyProofReply,
)
from transport.http.routing import Route
from transport.http.shapes import BatchPath, CommitBody, OptionalStreamQuery, ProofQuery, SequencePath
from transport.http.visit import Visit
from ves.encoding import uuid_text
from ves.legacy_commitments import LegacyCommitment
from ves.legacy_tree import leads_to_root, steps
from ves.timestamps import zulu_text


async def commit(visit: Visit) -> LegacyCommittedReply:
    wanted = await visit.json(CommitBody)
    tenant_id, store_id = visit.stream(wanted)
    if (wanted.sequence_start is None) != (wanted.sequence_end is None):
        raise ApiError(Code.INVALID_FIELD_VALUE, "give sequence_start and sequence_end, or neither")
    message = CommitLegacy(tenant_id, store_id, wanted.sequence_start, wanted.sequence_end)
    answer = await visit.house.committer.ask(message, deadline_s=visit.remaining_s)
    if isinstance(answer, NothingToCommit):
        raise ApiError(Code.CONFLICT, "the stream has no uncommitted event")
    if isinstance(answer, RangeRefused):
        raise ApiError(Code.CONFLICT if answer.conflict else Code.INVALID_FIELD_VALUE, answer.message)
    commitment = answer.commitment
    return LegacyCommittedReply(
        **_listed_members(commitment),
        prev_state_root=commitment.prev_state_root.hex(),
        new_state_root=commitment.new_state_root.hex(),
        remaining=answer.remaining,
    )


async def list_commitments(visit: Visit) -> LegacyCommitmentsReply:
    query = visit.query(LegacyCommitmentsQuery)
    tenant_id, store_id = visit.stream(query)
    page = await visit.house.journal.list_legacy_commitments(
        tenant_id, store_id, from_sequence=max(1, query.from_), limit=query.limit
    )
    listed = [ListedLegacyCommitment(**_listed_members(commitment)) for commitment in page.commitments]
    return LegacyCommitmentsReply(listed, len(listed), page.has_more, page.next_from)


def _listed_members(commitment: LegacyCommitment) -> dict[str, Any]:
    return {
        "batch_id": uuid_text(commitment.batch_id),
        "tenant_id": uuid_text(commitment.tenant_id),
        "store_id": uuid_text(commitment.store_id),
        "events_root": commitment.events_root.hex(),
        "event_count": commitment.event_count,
        "sequence_start": commitment.sequence_start,
        "sequence_end": commitment.sequence_end,
        "committed_at": zulu_text(commitment.committed_at_us),
    }


async def one_commitment(visit: Visit) -> LegacyCommitmentReply:
    commitment = await found_by_id.legacy_commitment(visit)
    return LegacyCommitmentReply(
        batch_id=uuid_text(commitment.batch_id),
        tenant_id=uuid_text(commitment.tenant_id),
        store_id=uuid_text(commitment.store_id),
        prev_state_root=list(commitment.prev_state_root),
        new_state_root=list(commitment.new_state_root),
        events_root=list(commitment.events_root),
        event_count=commitment.event_count,
        sequence_range=[commitment.sequence_start, commitment.sequence_end],
        committed_at=zulu_text(commitment.committed_at_us),
    )


async def prove(visit: Visit) -> LegacyProofReply:
    sequence_number = visit.path(SequencePath).sequence_number
    query = visit.query(ProofQuery)
    tenant_id, store_id = visit.stream(query)
    batch_id = visit.optional_uuid(query, "batch_id")
    journal = visit.house.journal
    if batch_id is None:
        commitment = found_by_id.committed(
            await journal.find_legacy_commitment(tenant_id, store_id, sequence_number=sequence_number)
        )
    else:
        named = await journal.read_legacy_commitment(batch_id, tenant_id=tenant_id, store_ids=(store_id,))
        commitment = found_by_id.holding(named, sequence_number)
    leaf_index = sequence_number - commitment.sequence_start
    leaf, path, directions = await _read_path(visit, commitment, leaf_index)
    return LegacyProofReply(
        sequence_number,
        uuid_text(commitment.batch_id),
        commitment.events_root.hex(),
        leaf.hex(),
        leaf_index,
        [node.hex() for node in path],
        directions,
        commitment.event_count,
    )


async def _read_path(
    visit: Visit, commitment: LegacyCommitment, leaf_index: int
) -> tuple[bytes, list[bytes], list[bool]]:
    """The leaf, its siblings bottom-up and on which side it stands of them, checked. Raises TreeCorrupt."""
    count = commitment.event_count
    way = list(steps(count, leaf_index))
    positions = [leaf_index, *(step.position for step in way)]
    leaf, *path = await visit.house.journal.read_legacy_nodes(commitment.batch_id, positions)
    if not leads_to_root(leaf, leaf_index, path, commitment.events_root, count):
        raise TreeCorrupt(f"{commitment.batch_id.hex()}: leaf {leaf_index} does not lead to the root")
    return leaf, path, [step.running_is_left for step in way]


async def verify_proof(visit: Visit) -> VerifyLegacyProofReply:
    body = await visit.json(VerifyLegacyProofBody)
    valid = leads_to_root(
        hash_in(body.leaf_hash, "leaf_hash"),
        body.leaf_index,
        [hash_in(node, "proof_path") for node in body.proof_path],
        hash_in(body.events_root, "events_root"),
        body.leaf_count,
    )
    return VerifyLegacyProofReply(body.events_root, body.leaf_hash, valid)


ROUTES = [
    Route(
        "POST",
        "/api/v1/commitments",
        commit,
        "Commit events of a legacy stream; the same range again answers the stored commitment",
        LegacyCommittedReply,
        body_shape=CommitBody,
        refuses=(Code.CONFLICT,),
    ),
    Route(
        "GET",
        "/api/v1/commitments",
        list_commitments,
        "A legacy stream's commitments by sequence_start",
        LegacyCommitmentsReply,
        query_shape=LegacyCommitmentsQuery,
    ),
    Route(
        "GET",
        "/api/v1/commitments/{batch_id}",
        one_commitment,
        "One commitment of a legacy stream, its roots as numbers",
        LegacyCommitmentReply,
        path_shape=BatchPath,
        query_shape=OptionalStreamQuery,
        refuses=(Code.BATCH_NOT_FOUND,),
    ),
    Route(
        "GET",
        "/api/v1/proofs/{sequence_number}",
        prove,
        "The inclusion proof of one legacy event",
        LegacyProofReply,
        path_shape=SequencePath,
        query_shape=ProofQuery,
        refuses=(Code.BATCH_NOT_FOUND,),
    ),
    Route(
        "POST",
        "/api/v1/proofs/verify",
        verify_proof,
        "Whether a path of a legacy tree leads from a hash to a root",
        VerifyLegacyProofReply,
        body_shape=VerifyLegacyProofBody,
    ),
]
