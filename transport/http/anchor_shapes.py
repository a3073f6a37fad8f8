"""The wire's JSON of anchoring, all snake_case. No behaviour.

No word here says more than its state proves: ``anchored`` is a block of the chain as it is now, ``finalized``
is what the chain calls final, ``reported`` is what somebody else said.
"""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from transport.http.shapes import (
    U32,
    Count,
    Hex32,
    PrefixedHex32,
    Sequence,
    Time,
    UuidText,
)

REPORT_HASH_CHARACTERS_MAX = 256
PENDING_DEFAULT = 1000
PENDING_MAX = 5000
MAX_EVENTS_DEFAULT = 1024

Address = Annotated[str, Meta(pattern="^0x[0-9a-f]{40}$", description="20 bytes, 0x lowercase hex.")]
ChainId = Annotated[int, Meta(ge=1)]
Wei = Annotated[str, Meta(pattern="^[0-9]{1,78}$", description="Wei, decimal: too large for JSON numbers.")]
U64In = Annotated[int, Meta(ge=0, le=2**63 - 1)]
Road = Annotated[
    Literal["aggregate", "single"],
    Meta(
        description="aggregate: one leaf of a root over many commitments; single: a transaction of its own."
    ),
]
State = Annotated[
    Literal["waiting", "pending", "submitted", "included", "safe", "finalized", "reported"],
    Meta(
        description="waiting: no anchor holds it; pending: an anchor holds it, nothing is sent; submitted: "
        "sent; included: in a block that a reorganisation can take back; safe: in a block that the chain "
        "calls safe; finalized: in one that it calls final; reported: somebody else says so, nobody here "
        "verified it."
    ),
]
Confirmations = Annotated[
    Count | None,
    Meta(
        description="Blocks from its own to the newest; null: not in a block, or the height is unknown here."
    ),
]
LocalChain = Annotated[
    bool | None,
    Meta(
        description="true: the chain is the sequencer's own, on its machine, and no third party witnesses "
        "it; null: this node does not look at that chain."
    ),
]


class AnchorBody(msgspec.Struct):
    batch_id: UuidText


class AnchoredReply(msgspec.Struct, kw_only=True):
    """200: ``anchored`` or ``already_anchored``, a block includes it now; ``finalized`` says whether that is
    final. ``reported``: somebody else says that it is anchored. 202: ``pending``, ask again."""

    batch_id: UuidText
    status: Literal["anchored", "already_anchored", "pending", "reported"]
    state: State
    finalized: bool
    message: Annotated[str, Meta(description="What the state means, for people.")]
    local_chain: LocalChain
    chain_id: ChainId | None
    chain_tx_hash: Hex32 | None
    chain_block_number: Count | None
    confirmations: Confirmations
    merkle_root: Hex32
    prev_state_root: Hex32
    new_state_root: Hex32
    sequence_start: Sequence
    sequence_end: Sequence


class CommitAndAnchorBody(msgspec.Struct):
    """Without a range: from the first uncommitted event on, at most ``max_events``. camelCase is read too."""

    tenant_id: UuidText
    store_id: UuidText
    sequence_start: Sequence | None = None
    sequence_end: Sequence | None = None
    max_events: (
        Annotated[U64In, Meta(description="0 means 1; at most 65,536 are committed at once.")] | None
    ) = None


class AnchorVerifiedReply(msgspec.Struct, kw_only=True):
    """What the contract said when it was asked, at the newest block, over an endpoint that this server chose.
    Whoever trusts the server no further asks an endpoint of his own: ``sequencer verify evidence --rpc``."""

    batch_id: UuidText
    anchored_on_chain: Annotated[
        bool,
        Meta(description="The contract has exactly this commitment's roots, by the question in compared."),
    ]
    state: State
    road: Road | None
    compared: Annotated[
        Literal["verifyIncluded", "verifyEventsRoot"],
        Meta(
            description="verifyIncluded: this commitment's leaf, computed anew, under the stored aggregate "
            "root; verifyEventsRoot: the batch's events root as stored under its id."
        ),
    ]
    compared_with: Annotated[str, Meta(examples=["the node's RPC endpoint"])]
    local_chain: LocalChain
    chain_id: ChainId
    contract: Address
    block_number: Annotated[Count | None, Meta(description="Of its transaction, as recorded here.")]


class OpenAnchors(msgspec.Struct):
    pending: Count = 0
    submitted: Count = 0
    included: Count = 0
    safe: Count = 0


class AnchorNodeReply(msgspec.Struct, kw_only=True):
    """Of this node and of all tenants together."""

    role: Annotated[
        Literal["apart", "starting", "standby", "active", "stopped"],
        Meta(
            description="Of this process: apart: it has no anchor; standby: another one works; "
            "stopped: it waits for an operator."
        ),
    ]
    trouble: Annotated[str | None, Meta(description="Why nothing is sent now.")]
    address: Address | None
    balance_wei: Wei | None
    spent_today_wei: Wei
    breaker_open: bool
    latest_block: Count | None
    safe_block: Count | None
    finalized_block: Count | None
    looked_at: Annotated[Time | None, Meta(description="When this process last saw the chain.")]
    waiting: Annotated[Count, Meta(description="Commitments in no anchor yet; counted up to 100,000.")]
    open_anchors: OpenAnchors
    oldest_unfinalized_s: Annotated[float, Meta(ge=0)]
    anchored_batches: Annotated[Count, Meta(description="In finalized anchors.")]
    anchored_events: Count
    gas_used: Count
    cost_wei: Wei
    lease_holder: Annotated[UuidText | None, Meta(description="Whose turn it is; null: nobody's.")]
    lease_held: bool


class AnchorStatusReply(msgspec.Struct, kw_only=True):
    """``node`` only for operators: it tells of all tenants."""

    anchor_enabled: bool
    message: str
    chain_id: ChainId | None
    contract: Address | None
    road: Road | None
    finality: Annotated[
        str | None,
        Meta(description="When an anchor is called finalized.", examples=["the chain's finalized tag"]),
    ]
    local_chain: LocalChain
    local_chain_note: str | None
    node: AnchorNodeReply | None


class PendingQuery(msgspec.Struct):
    limit: Annotated[U32, Meta(description="More than 5000 means 5000; 0: none.")] = PENDING_DEFAULT


class PendingCommitmentReply(msgspec.Struct, kw_only=True):
    batch_id: UuidText
    tenant_id: UuidText
    store_id: UuidText
    prev_state_root: PrefixedHex32
    new_state_root: PrefixedHex32
    events_root: PrefixedHex32
    sequence_start: Sequence
    sequence_end: Sequence
    event_count: Sequence
    committed_at: Time
    chain_tx_hash: PrefixedHex32 | None


class PendingCommitmentsReply(msgspec.Struct):
    """Neither finalized nor reported, oldest first; ``total``: of this answer."""

    commitments: list[PendingCommitmentReply]
    total: Count


class ReportBody(msgspec.Struct):
    """``gas_used`` is read and not kept."""

    chain_tx_hash: Annotated[
        str,
        Meta(
            max_length=REPORT_HASH_CHARACTERS_MAX,
            description="32 bytes in hex, 0x optional.",
            examples=["0x" + "ab" * 32],
        ),
    ]
    chain_id: Annotated[U64In, Meta(description="Must fit in 32 bits.")]
    block_number: U64In | None = None
    gas_used: U64In | None = None


class ReportedReply(msgspec.Struct, omit_defaults=True, kw_only=True):
    """Kept as what was reported, never called verified."""

    batch_id: UuidText
    status: Literal["anchored", "already_anchored"]
    chain_tx_hash: PrefixedHex32 | msgspec.UnsetType = msgspec.UNSET
    chain_id: U32 | msgspec.UnsetType = msgspec.UNSET
    block_number: Count | msgspec.UnsetType | None = msgspec.UNSET
    checked: (
        Annotated[
            bool | None,
            Meta(
                description="Whether our own endpoint knows it as mined and successful, in that block if one "
                "was named; null: it was not asked or did not answer. Not whether it anchors this batch."
            ),
        ]
        | msgspec.UnsetType
    ) = msgspec.UNSET
