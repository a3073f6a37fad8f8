"""The wire's JSON of the legacy stream's commitments and proofs, all snake_case. No behaviour."""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta

from transport.http.shapes import (
    PAGE_DEFAULT,
    BareHex32In,
    Count,
    From,
    Hex32,
    Limit,
    Sequence,
    StreamQuery,
    Time,
    UuidText,
)
from ves.constants import INTEGER_MAX, PROOF_PATH_MAX

HashNumbers = Annotated[
    list[Annotated[int, Meta(ge=0, le=255)]],
    Meta(min_length=32, max_length=32, description="32 bytes as numbers, as the original answers here."),
]


class LegacyCommitmentsQuery(StreamQuery):
    from_: Annotated[From, Meta(description="Smallest sequence_start wanted.")] = msgspec.field(
        default=1, name="from"
    )
    limit: Limit = PAGE_DEFAULT


class LegacyCommittedReply(msgspec.Struct, kw_only=True):
    """``new_state_root`` is a hash of the versions of all entities of the store at this moment, of both
    streams, and no chain. ``remaining`` events of the stream stay uncommitted."""

    batch_id: UuidText
    tenant_id: UuidText
    store_id: UuidText
    prev_state_root: Hex32
    new_state_root: Hex32
    events_root: Hex32
    event_count: Sequence
    sequence_start: Sequence
    sequence_end: Sequence
    committed_at: Time
    remaining: Count


class LegacyCommitmentReply(msgspec.Struct, kw_only=True):
    """The record as the original answers it: roots as numbers."""

    batch_id: UuidText
    tenant_id: UuidText
    store_id: UuidText
    prev_state_root: HashNumbers
    new_state_root: HashNumbers
    events_root: HashNumbers
    event_count: Sequence
    sequence_range: Annotated[list[Sequence], Meta(min_length=2, max_length=2)]
    committed_at: Time
    chain_tx_hash: None = None


class ListedLegacyCommitment(msgspec.Struct, kw_only=True):
    batch_id: UuidText
    tenant_id: UuidText
    store_id: UuidText
    events_root: Hex32
    event_count: Sequence
    sequence_start: Sequence
    sequence_end: Sequence
    committed_at: Time
    is_anchored: bool = False


class LegacyCommitmentsReply(msgspec.Struct):
    commitments: list[ListedLegacyCommitment]
    count: Count
    has_more: bool
    next_from: Sequence


class LegacyProofReply(msgspec.Struct):
    """``proof_path`` has no step where a lone right-most node moved up, so it is followed with
    ``leaf_count``: at each level of width w (leaf_count, then half of it rounded up, …, 1) there is a sibling
    only if index XOR 1 < w. ``directions[k]`` is true where the running hash is the left input of step k."""

    sequence_number: Sequence
    batch_id: UuidText
    events_root: Hex32
    leaf_hash: Hex32
    leaf_index: Count
    proof_path: list[Hex32]
    directions: list[bool]
    leaf_count: Sequence


class VerifyLegacyProofBody(msgspec.Struct):
    leaf_hash: BareHex32In
    events_root: BareHex32In
    proof_path: Annotated[list[BareHex32In], Meta(max_length=PROOF_PATH_MAX)]
    leaf_index: Annotated[int, Meta(ge=0, le=INTEGER_MAX)]
    leaf_count: (
        Annotated[
            int,
            Meta(
                ge=1,
                le=INTEGER_MAX,
                description="Without it the original's rule: bit k of leaf_index tells the side of step k, "
                "which fails for leaves whose node moved up.",
            ),
        ]
        | None
    ) = None


class VerifyLegacyProofReply(msgspec.Struct):
    """Arithmetic only: it says nothing about which event the leaf belongs to."""

    events_root: str
    leaf_hash: str
    valid: bool
