"""Commitments and inclusion proofs: asking for one, reading them, and proving that an event is in one.

Proofs come from the stored tree and are checked against the stored root before they leave. Which range is
committed and when is the committer's business.
"""

from __future__ import annotations

from typing import cast

import trio
from msgspec import Raw

from actors.messages import Commit, Committed, NothingToCommit, RangeRefused
from journal.port import CommitmentAnchor, CommittedLeaf
from transport.http import found_by_id
from transport.http.anchor_replies import anchored_commitment_reply, chain_members
from transport.http.errors import ApiError, Code
from transport.http.replies import commitment_members
from transport.http.routing import Route
from transport.http.shapes import (
    AnchoredCommitmentReply,
    BatchPath,
    CommitBody,
    CommitmentsQuery,
    CommitmentsReply,
    CommittedReply,
    LeavesReply,
    OptionalStreamQuery,
    ProofQuery,
    ProofReply,
    SequencePath,
    VerifyProofBody,
    VerifyProofReply,
)
from transport.http.visit import Visit
from ves.encoding import bare_hex_bytes, uuid_text
from ves.merkle import NODE_BYTES, directions, sibling_positions
from ves.proofs import path_leads_to_root
from ves.records import Commitment

LEAVES_AT_ONCE = 4096
"""Written as text; then others have their turn."""


class TreeCorrupt(Exception):
    """The stored tree does not lead to the stored root. An operator must look at the database."""


async def commit(visit: Visit) -> CommittedReply:
    wanted = await visit.json(CommitBody)
    tenant_id, store_id = visit.stream(wanted)
    if (wanted.sequence_start is None) != (wanted.sequence_end is None):
        raise ApiError(Code.INVALID_FIELD_VALUE, "give sequence_start and sequence_end, or neither")
    done = await committed(visit, Commit(tenant_id, store_id, wanted.sequence_start, wanted.sequence_end))
    # A repeated range may be anchored already.
    anchor = await _anchor_of(visit, done.commitment)
    members = commitment_members(done.commitment) | chain_members(anchor, visit.house.anchoring)
    return CommittedReply(**members, remaining=done.remaining)


async def committed(visit: Visit, wanted: Commit) -> Committed:
    """409 or 400 when it cannot be."""
    answer = await visit.house.committer.ask(wanted, deadline_s=visit.remaining_s)
    if isinstance(answer, NothingToCommit):
        raise ApiError(Code.CONFLICT, "the stream has no uncommitted event")
    if isinstance(answer, RangeRefused):
        raise ApiError(Code.CONFLICT if answer.conflict else Code.INVALID_FIELD_VALUE, answer.message)
    return answer


async def _anchor_of(visit: Visit, commitment: Commitment) -> CommitmentAnchor | None:
    return (await visit.house.journal.read_anchors([commitment.batch_id])).get(commitment.batch_id)


async def list_commitments(visit: Visit) -> CommitmentsReply:
    query = visit.query(CommitmentsQuery)
    tenant_id, store_id = visit.stream(query)
    page = await visit.house.journal.list_commitments(
        tenant_id,
        store_id,
        from_sequence=max(1, query.from_),
        limit=query.limit,
        anchored=query.anchored,
    )
    anchors = await visit.house.journal.read_anchors([one.batch_id for one in page.commitments])
    commitments = [
        anchored_commitment_reply(one, anchors.get(one.batch_id), visit.house.anchoring)
        for one in page.commitments
    ]
    return CommitmentsReply(commitments, len(commitments), page.has_more, page.next_from)


async def one_commitment(visit: Visit) -> AnchoredCommitmentReply:
    commitment = await found_by_id.commitment(visit)
    anchor = await _anchor_of(visit, commitment)
    return anchored_commitment_reply(commitment, anchor, visit.house.anchoring)


async def leaves(visit: Visit) -> LeavesReply:
    commitment = await found_by_id.commitment(visit)
    async with visit.door.pages:
        found = await visit.house.journal.read_leaves(commitment.batch_id, leaf_count=commitment.leaf_count)
    hashes = []
    for start in range(0, len(found), LEAVES_AT_ONCE * NODE_BYTES):
        # One text, with the quotes and commas between them, stands for so many elements of the list.
        text = found[start : start + LEAVES_AT_ONCE * NODE_BYTES].hex(",", NODE_BYTES).replace(",", '","')
        hashes.append(cast(str, Raw(f'"{text}"'.encode())))
        await trio.lowlevel.checkpoint()
    return LeavesReply(
        uuid_text(commitment.batch_id),
        commitment.sequence_start,
        commitment.sequence_end,
        commitment.leaf_count,
        commitment.merkle_root.hex(),
        hashes,
    )


async def prove(visit: Visit) -> ProofReply:
    sequence_number = visit.path(SequencePath).sequence_number
    query = visit.query(ProofQuery)
    tenant_id, store_id = visit.stream(query)
    batch_id = visit.optional_uuid(query, "batch_id")
    journal = visit.house.journal
    if batch_id is None:
        found = await journal.find_leaf(tenant_id, store_id, sequence_number=sequence_number)
        proven = found_by_id.committed(found)
    else:
        named = await journal.read_commitment(batch_id, tenant_id=tenant_id, store_ids=(store_id,))
        proven = await _leaf_in(visit, found_by_id.holding(named, sequence_number), sequence_number)
    commitment, leaf_index = proven.commitment, must_lead_to_root(proven, sequence_number)
    return ProofReply(
        sequence_number,
        uuid_text(commitment.batch_id),
        commitment.merkle_root.hex(),
        proven.leaf.hex(),
        leaf_index,
        [node.hex() for node in proven.path],
        directions(leaf_index, len(proven.path)),
        commitment.tree_depth,
        commitment.leaf_count,
        commitment.sequence_start,
        commitment.sequence_end,
    )


async def _leaf_in(visit: Visit, commitment: Commitment, sequence_number: int) -> CommittedLeaf:
    leaf_index = sequence_number - commitment.sequence_start
    positions = [leaf_index, *sibling_positions(commitment.leaf_count, leaf_index)]
    leaf, *path = await visit.house.journal.read_nodes(commitment.batch_id, positions)
    return CommittedLeaf(commitment, leaf, path)


def must_lead_to_root(found: CommittedLeaf, sequence_number: int) -> int:
    """The leaf's index, after its path was followed to the stored root. Raises TreeCorrupt."""
    commitment, leaf_index = found.commitment, sequence_number - found.commitment.sequence_start
    if not path_leads_to_root(found.leaf, leaf_index, found.path, commitment.merkle_root):
        raise TreeCorrupt(f"{commitment.batch_id.hex()}: leaf {leaf_index} does not lead to the root")
    return leaf_index


async def verify_proof(visit: Visit) -> VerifyProofReply:
    body = await visit.json(VerifyProofBody)
    valid = path_leads_to_root(
        hash_in(body.leaf_hash, "leaf_hash"),
        body.leaf_index,
        [hash_in(node, "proof_path") for node in body.proof_path],
        hash_in(body.merkle_root, "merkle_root"),
    )
    return VerifyProofReply(body.leaf_hash, body.merkle_root, valid)


def hash_in(text: str, field: str) -> bytes:
    """32 bytes of bare hex in a body; 400 naming the field."""
    try:
        return bare_hex_bytes(text, 32)
    except ValueError as wrong:
        raise ApiError(Code.INVALID_FIELD_VALUE, f"{field}: {wrong}") from None


ROUTES = [
    Route(
        "POST",
        "/api/v1/ves/commitments",
        commit,
        "Commit events of a stream; the same range again answers the stored commitment",
        CommittedReply,
        body_shape=CommitBody,
        refuses=(Code.CONFLICT,),
    ),
    Route(
        "GET",
        "/api/v1/ves/commitments",
        list_commitments,
        "A stream's commitments by sequence_start",
        CommitmentsReply,
        query_shape=CommitmentsQuery,
    ),
    Route(
        "GET",
        "/api/v1/ves/commitments/{batch_id}",
        one_commitment,
        "One commitment",
        AnchoredCommitmentReply,
        path_shape=BatchPath,
        query_shape=OptionalStreamQuery,
        refuses=(Code.BATCH_NOT_FOUND,),
    ),
    Route(
        "GET",
        "/api/v1/ves/commitments/{batch_id}/leaves",
        leaves,
        "All leaf hashes of a commitment",
        LeavesReply,
        path_shape=BatchPath,
        query_shape=OptionalStreamQuery,
        refuses=(Code.BATCH_NOT_FOUND,),
    ),
    Route(
        "GET",
        "/api/v1/ves/proofs/{sequence_number}",
        prove,
        "The inclusion proof of one event",
        ProofReply,
        path_shape=SequencePath,
        query_shape=ProofQuery,
        refuses=(Code.BATCH_NOT_FOUND,),
    ),
    Route(
        "POST",
        "/api/v1/ves/proofs/verify",
        verify_proof,
        "Whether a path leads from a hash to a root",
        VerifyProofReply,
        body_shape=VerifyProofBody,
    ),
]
