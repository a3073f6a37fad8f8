"""Validity proofs of commitments: the public inputs to prove, storing what somebody proved, reading it back.

Proofs come from outside and are kept sealed, under their hash. Nothing here can tell whether one proves
anything: there is no verifier of any proof system. What would have to be verified on submission (``stark``)
is refused, unless the operator wants it stored unverified; then it is never called valid.
"""

from __future__ import annotations

import base64
from typing import Any
from uuid import uuid4

import msgspec
from msgspec import Raw

from actors.messages import OpenAtRest, RowBytes, SealAtRest
from journal.port import ProofConflict, StoredProof, ValidityProof
from transport.http import found_by_id
from transport.http.bodies import read_json
from transport.http.errors import ApiError, Code
from transport.http.residency import must_be_served_here
from transport.http.routing import Route
from transport.http.shapes import BatchPath, OptionalStreamQuery
from transport.http.validity_shapes import (
    InputsReply,
    ProofPath,
    ProofVerifiedReply,
    Reason,
    SubmitProofBody,
    ValidityProofReply,
    ValidityProofsQuery,
    ValidityProofsReply,
    WholeValidityProofReply,
)
from transport.http.visit import Visit
from ves.at_rest import validity_proof_aad
from ves.encoding import base64_bytes, uuid_text
from ves.kdf import Purpose
from ves.records import Commitment
from ves.timestamps import zulu_text
from ves.validity import (
    PROOF_BYTES_MAX,
    PROOF_TYPE_BYTES_MAX,
    STARK_PROOF_VERSION,
    canonical_inputs,
    is_stark,
    proof_hash,
    public_inputs,
    public_inputs_hash,
)

BODY_BYTES_MAX = 3 * 1024 * 1024
"""A proof of the largest size in base64, and something more, so that a larger one is told its size."""
NO_VERIFIER = "this server has no STARK verifier"


async def inputs(visit: Visit) -> InputsReply:
    commitment = await found_by_id.commitment(visit)
    members = public_inputs(commitment)
    digest = public_inputs_hash(canonical_inputs(members))
    return msgspec.convert(
        {
            "batch_id": members["batchId"],
            "public_inputs": members,
            "public_inputs_hash": digest.hex(),
        },
        InputsReply,
    )


async def submit(visit: Visit) -> ValidityProofReply:
    commitment = await found_by_id.commitment(visit)
    await must_be_served_here(visit.house, commitment.tenant_id)
    body = read_json(await visit.body(bytes_max=BODY_BYTES_MAX), SubmitProofBody)
    submitted, proof = _read_body(body, commitment)
    if is_stark(submitted.proof_type) and visit.house.settings.ves_stark_verify_on_submit:
        text = f"proofType: {NO_VERIFIER}, and proofs are to be verified on submission; nothing was stored"
        raise ApiError(Code.INVALID_FIELD_VALUE, text)
    [sealed] = await visit.house.encryptors.ask(
        SealAtRest(Purpose.VALIDITY_PROOFS, submitted.tenant_id, [_row_bytes(submitted, proof)]),
        deadline_s=visit.remaining_s,
    )
    entry = visit.act(
        "validity_proof.submit",
        uuid_text(submitted.proof_id),
        submitted.tenant_id,
        batch_id=uuid_text(submitted.batch_id),
        proof_type=submitted.proof_type,
        proof_version=submitted.proof_version,
        proof_hash=submitted.proof_hash.hex(),
    )
    done = await visit.house.journal.submit_validity_proof(StoredProof(submitted, sealed), entry)
    assert done is not None, "commitments are never removed"
    if isinstance(done, ProofConflict):
        text = f"the batch has another proof of this proofType and proofVersion: {uuid_text(done.proof_id)}"
        raise ApiError(Code.CONFLICT, f"{text}; a stored proof is never replaced")
    return ValidityProofReply(**_members(done.record))


def _read_body(body: SubmitProofBody, commitment: Commitment) -> tuple[ValidityProof, bytes]:
    """Checked in the order of the wire (12.2)."""
    proof_type = _proof_type(body.proof_type)
    if body.proof_version < 1:
        raise _wrong("proofVersion must be >= 1")
    proof = _proof(body.proof_b64)
    if is_stark(proof_type) and body.proof_version != STARK_PROOF_VERSION:
        expected = f"(expected {STARK_PROOF_VERSION}) for STARK proofs"
        raise _wrong(f"Unsupported proofVersion {body.proof_version} {expected}")
    submitted = ValidityProof(
        uuid4().bytes,
        commitment.batch_id,
        commitment.tenant_id,
        commitment.store_id,
        proof_type,
        body.proof_version,
        proof_hash(proof),
        _agreed(body.public_inputs, commitment),
    )
    return submitted, proof


def _proof_type(text: str) -> str:
    proof_type = text.strip()
    if not proof_type:
        raise _wrong("proofType must not be empty")
    if len(proof_type.encode()) > PROOF_TYPE_BYTES_MAX:
        raise _wrong(f"proofType must be <= {PROOF_TYPE_BYTES_MAX} characters")
    if not proof_type.isprintable():
        raise _wrong("proofType must not hold control characters")
    return proof_type


def _proof(text: str) -> bytes:
    try:
        proof = base64_bytes(text)
    except ValueError as wrong:
        raise _wrong(f"Invalid base64: proofB64: {wrong}") from None
    if not proof:
        raise _wrong("proofB64 must not be empty")
    if len(proof) > PROOF_BYTES_MAX:
        raise _wrong(f"proofB64 decoded bytes must be <= {PROOF_BYTES_MAX} (got {len(proof)})")
    return proof


def _agreed(given: Any, commitment: Commitment) -> str | None:
    """The canonical text of the public inputs, if they were sent. As texts: to Python, 1 equals true."""
    if given is None:
        return None
    canonical = canonical_inputs(public_inputs(commitment))
    if not isinstance(given, dict) or canonical_inputs(given) != canonical:
        raise _wrong("publicInputs must match the sequencer's canonical inputs for this batch")
    return canonical


def _wrong(text: str) -> ApiError:
    return ApiError(Code.INVALID_FIELD_VALUE, text)


async def list_proofs(visit: Visit) -> ValidityProofsReply:
    commitment = await found_by_id.commitment(visit)
    query = visit.query(ValidityProofsQuery)
    found = await visit.house.journal.list_validity_proofs(
        commitment.batch_id, after=visit.optional_uuid(query, "after"), limit=query.limit + 1
    )
    page, more = found[: query.limit], len(found) > query.limit
    return ValidityProofsReply(
        uuid_text(commitment.batch_id),
        [ValidityProofReply(**_members(record)) for record in page],
        len(page),
        more,
        uuid_text(page[-1].proof_id) if more else None,
    )


async def one_proof(visit: Visit) -> WholeValidityProofReply:
    async with visit.door.pages:
        record, proof = await _opened(visit)
        return WholeValidityProofReply(**_members(record), proof_b64=base64.b64encode(proof).decode())


async def verify(visit: Visit) -> ProofVerifiedReply:
    async with visit.door.pages:
        record, proof = await _opened(visit)
        hash_match = proof_hash(proof) == record.proof_hash
    commitment = await visit.house.journal.read_commitment(
        record.batch_id, tenant_id=record.tenant_id, store_ids=None
    )
    assert commitment is not None, "commitments are never removed"
    canonical = canonical_inputs(public_inputs(commitment))
    given = record.public_inputs
    reason = _reason(record, hash_match, canonical)
    members = _members(record)
    del members["public_inputs"], members["submitted_at"]
    return ProofVerifiedReply(
        **members,
        proof_hash_match=hash_match,
        public_inputs_hash=None if given is None else public_inputs_hash(given).hex(),
        canonical_public_inputs_hash=public_inputs_hash(canonical).hex(),
        public_inputs_match=given == canonical,
        stark_valid=None,
        stark_error=f"not verified: {NO_VERIFIER}" if is_stark(record.proof_type) else None,
        stark_verification_time_ms=None,
        valid=reason is None,
        reason=reason,
    )


def _reason(record: ValidityProof, hash_match: bool, canonical: str) -> Reason | None:
    """Why a proof is not called valid; the first that applies."""
    if not hash_match:
        return "proof_hash_mismatch"
    if record.public_inputs is None:
        return "missing_public_inputs"
    if record.public_inputs != canonical:
        return "public_inputs_mismatch"
    return "stark_not_verified" if is_stark(record.proof_type) else None


async def _opened(visit: Visit) -> tuple[ValidityProof, bytes]:
    """The proof that the path names, and its bytes in clear."""
    proof_id = visit.uuid(visit.path(ProofPath), "proof_id")
    tenant_id, store_ids = found_by_id.reach(visit)
    found = await visit.house.journal.read_validity_proof(proof_id, tenant_id=tenant_id, store_ids=store_ids)
    if found is None:
        raise ApiError(Code.RESOURCE_NOT_FOUND, "Validity proof not found")
    record = found.record
    [proof] = await visit.house.encryptors.ask(
        OpenAtRest(Purpose.VALIDITY_PROOFS, record.tenant_id, [_row_bytes(record, found.proof)]),
        deadline_s=visit.remaining_s,
    )
    return record, proof


def _row_bytes(record: ValidityProof, content: bytes) -> RowBytes:
    name = f"the validity proof {uuid_text(record.proof_id)} of batch {uuid_text(record.batch_id)}"
    return RowBytes(
        name,
        validity_proof_aad(
            record.tenant_id,
            record.store_id,
            record.batch_id,
            record.proof_id,
            record.proof_version,
            record.proof_type,
            record.proof_hash,
        ),
        content,
    )


def _members(record: ValidityProof) -> dict[str, Any]:
    return {
        "proof_id": uuid_text(record.proof_id),
        "batch_id": uuid_text(record.batch_id),
        "tenant_id": uuid_text(record.tenant_id),
        "store_id": uuid_text(record.store_id),
        "proof_type": record.proof_type,
        "proof_version": record.proof_version,
        "proof_hash": record.proof_hash.hex(),
        "public_inputs": Raw((record.public_inputs or "null").encode()),
        "submitted_at": zulu_text(record.submitted_at_us),
    }


def _route(method: str, path: str, handle: Any, summary: str, answers: Any, **more: Any) -> Route:
    more = {"query_shape": OptionalStreamQuery} | more
    return Route(method, f"/api/v1/ves/validity{path}", handle, summary, answers, **more)


ROUTES = [
    _route(
        "GET",
        "/{batch_id}/inputs",
        inputs,
        "What a validity proof of this commitment has to prove",
        InputsReply,
        path_shape=BatchPath,
        refuses=(Code.BATCH_NOT_FOUND,),
    ),
    _route(
        "POST",
        "/{batch_id}/proofs",
        submit,
        "Store a validity proof, unverified; the same bytes again answer the stored record",
        ValidityProofReply,
        path_shape=BatchPath,
        body_shape=SubmitProofBody,
        refuses=(Code.BATCH_NOT_FOUND, Code.CONFLICT),
    ),
    _route(
        "GET",
        "/{batch_id}/proofs",
        list_proofs,
        "The validity proofs of a commitment by time of submission, without their bytes",
        ValidityProofsReply,
        path_shape=BatchPath,
        query_shape=ValidityProofsQuery,
        refuses=(Code.BATCH_NOT_FOUND,),
    ),
    _route(
        "GET",
        "/proofs/{proof_id}",
        one_proof,
        "One validity proof with its bytes",
        WholeValidityProofReply,
        path_shape=ProofPath,
        refuses=(Code.RESOURCE_NOT_FOUND,),
    ),
    _route(
        "GET",
        "/proofs/{proof_id}/verify",
        verify,
        "Whether a stored proof is intact and about its batch; what it proves is not verified",
        ProofVerifiedReply,
        path_shape=ProofPath,
        refuses=(Code.RESOURCE_NOT_FOUND,),
    ),
]
