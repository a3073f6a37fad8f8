"""The audit trail's JSON as types, for its routes, its export files and the auditor's kept heads.

One spelling for all three, so that a line of an export is what the route answered. No behaviour.
"""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta

from transport.http.shapes import (
    PAGE_DEFAULT,
    Count,
    From,
    Hex32,
    Limit,
    Sequence,
    ShortText,
    Time,
    TimeIn,
    UuidText,
)

Cursor = Annotated[
    str,
    Meta(
        pattern="^[0-9]{1,17}\\.[0-9a-f]{32}\\.[0-9]{1,16}$", description="``next_after`` of the page before."
    ),
]


class AuditQuery(msgspec.Struct):
    """Newest first. Without ``tenant_id`` the caller's own tenant, for an operator everybody."""

    tenant_id: UuidText | None = None
    node_id: UuidText | None = None
    action: ShortText | None = None
    actor: ShortText | None = None
    from_: Annotated[TimeIn, Meta(description="Recorded at or after.")] | None = msgspec.field(
        default=None, name="from"
    )
    to: Annotated[TimeIn, Meta(description="Recorded before.")] | None = None
    after: Cursor | None = None
    limit: Limit = PAGE_DEFAULT


class HeadsQuery(msgspec.Struct):
    after: Annotated[UuidText, Meta(description="``next_after`` of the page before.")] | None = None
    limit: Limit = PAGE_DEFAULT


class NodePath(msgspec.Struct):
    node_id: UuidText


class EntryPath(msgspec.Struct):
    node_id: UuidText
    entry_number: Sequence


class NumbersQuery(msgspec.Struct):
    from_: From = msgspec.field(default=1, name="from")
    limit: Limit = PAGE_DEFAULT


class AuditEntryReply(msgspec.Struct):
    node_id: str
    entry_number: int
    recorded_at: Time
    recorded_at_us: int
    tenant_id: str | None
    actor: str
    action: str
    subject: str
    entry: Annotated[str, Meta(description="Canonical JSON of the whole entry: what entry_hash is of.")]
    prev_hash: Hex32
    entry_hash: Hex32


class AuditReply(msgspec.Struct):
    entries: list[AuditEntryReply]
    count: Count
    has_more: bool
    next_after: str | None


class AuditChainReply(msgspec.Struct):
    entries: list[AuditEntryReply]
    count: Count
    has_more: bool
    next_from: int


class AuditHeadReply(msgspec.Struct):
    """Where a node's chain and its commitments stand; 0 and zeros before the first."""

    node_id: str
    entry_number: Count
    entry_hash: Hex32
    committed_through: Count
    state_root: Hex32


class AuditHeadsReply(msgspec.Struct):
    heads: list[AuditHeadReply]
    count: Count
    has_more: bool
    next_after: str | None


class AuditCommitmentReply(msgspec.Struct):
    node_id: str
    entry_start: int
    entry_end: int
    leaf_count: int
    merkle_root: Hex32
    prev_state_root: Hex32
    new_state_root: Hex32
    committed_at: Time


class AuditCommitmentsReply(msgspec.Struct):
    commitments: list[AuditCommitmentReply]
    count: Count
    has_more: bool
    next_from: int


class AuditProofReply(msgspec.Struct):
    """The entry, the commitment that holds it, and the path between them (docs/audit.md has the formulas)."""

    entry: AuditEntryReply
    commitment: AuditCommitmentReply
    leaf_hash: Hex32
    leaf_index: Count
    proof_path: list[Hex32]
