"""The wire's JSON of validity proofs: a camelCase body, snake_case replies. No behaviour."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta, Raw

from transport.http.shapes import U32, Count, Hex32, OptionalStreamQuery, Time, UuidText

PROOFS_PAGE_DEFAULT = 20
PROOFS_PAGE_MAX = 100

PublicInputs = Annotated[
    Raw,
    Meta(
        description="The canonical public inputs as they were sent; null: none were sent.",
        extra_json_schema={"type": ["object", "null"]},
    ),
]
ProofVersion = Annotated[int, Meta(ge=1, le=2**32 - 1)]
Reason = Literal[
    "proof_hash_mismatch",
    "missing_public_inputs",
    "public_inputs_mismatch",
    "stark_not_verified",
]


class ProofPath(msgspec.Struct):
    proof_id: UuidText


class ValidityProofsQuery(OptionalStreamQuery):
    after: Annotated[UuidText, Meta(description="``next_after`` of the page before.")] | None = None
    limit: Annotated[int, Meta(ge=1, le=PROOFS_PAGE_MAX)] = PROOFS_PAGE_DEFAULT


class SubmitProofBody(msgspec.Struct, rename="camel"):
    """A proof about this batch. snake_case is read too."""

    proof_type: Annotated[
        str, Meta(description="1 to 32 bytes, blanks around it do not count.", examples=["groth16"])
    ]
    proof_b64: Annotated[
        str,
        Meta(description="At most 2 MiB in base64, either alphabet, padded or not.", examples=["cHJvb2Y="]),
    ] = msgspec.field(name="proofB64")
    proof_version: Annotated[U32, Meta(description="From 1 on; 2 for types that begin with stark.")] = 1
    public_inputs: Annotated[
        Any, Meta(description="If given, it must be what …/inputs answers as public_inputs.")
    ] = None


class InputsMembers(msgspec.Struct, rename="camel"):
    batch_id: UuidText
    tenant_id: UuidText
    store_id: UuidText
    ves_version: Literal[1]
    tree_depth: Count
    leaf_count: Count
    padded_leaf_count: Count
    merkle_root: Hex32
    prev_state_root: Hex32
    new_state_root: Hex32
    sequence_start: Count
    sequence_end: Count
    all_compliant: bool
    policy_hash: Hex32
    policy_limit: Count


class InputsReply(msgspec.Struct):
    """``public_inputs_hash``: SHA-256 of the public inputs' canonical JSON (keys sorted, no blanks)."""

    batch_id: UuidText
    public_inputs: InputsMembers
    public_inputs_hash: Hex32


class ValidityProofReply(msgspec.Struct, kw_only=True):
    """Stored as it was sent: nobody here has looked whether it proves anything."""

    proof_id: UuidText
    batch_id: UuidText
    tenant_id: UuidText
    store_id: UuidText
    proof_type: str
    proof_version: ProofVersion
    proof_hash: Annotated[
        Hex32, Meta(description='SHA-256 of "STATESET_VES_VALIDITY_PROOF_HASH_V1" and the proof.')
    ]
    public_inputs: PublicInputs
    submitted_at: Time


class WholeValidityProofReply(ValidityProofReply, kw_only=True):
    proof_b64: Annotated[str, Meta(description="The proof, padded base64.")]


class ValidityProofsReply(msgspec.Struct):
    batch_id: UuidText
    proofs: list[ValidityProofReply]
    count: Count
    has_more: bool
    next_after: UuidText | None


class ProofVerifiedReply(msgspec.Struct, kw_only=True):
    """``valid`` means *stored intact and about this batch*: the stored bytes have the recorded hash, and the
    public inputs sent with them are this batch's. It is no word about what the proof proves: this server has
    no verifier of any proof system. A proof whose type begins with ``stark`` is therefore never ``valid``."""

    proof_id: UuidText
    batch_id: UuidText
    tenant_id: UuidText
    store_id: UuidText
    proof_type: str
    proof_version: ProofVersion
    proof_hash: Hex32
    proof_hash_match: bool
    public_inputs_hash: Hex32 | None
    canonical_public_inputs_hash: Hex32
    public_inputs_match: bool
    stark_valid: Annotated[bool | None, Meta(description="null: no STARK was verified.")]
    stark_error: Annotated[str | None, Meta(description="Why not, for types that begin with stark.")]
    stark_verification_time_ms: Count | None
    valid: Annotated[bool, Meta(description="Stored intact; not: cryptographically verified.")]
    reason: Reason | None
