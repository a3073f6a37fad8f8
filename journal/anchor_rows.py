"""How anchors are read, for the doors and for the anchor alike: the statements' common parts, and what is
told of an anchor in which state. Changes nothing.
"""

from __future__ import annotations

import msgspec

from journal.port import CommitmentAnchor

BATCHES_MAX = 1000
"""Asked for in one call."""

LAST = """JOIN LATERAL (
    SELECT * FROM record.anchor_transitions l WHERE l.anchor_number = a.anchor_number
    ORDER BY l.transition_number DESC LIMIT 1
) t ON true"""
"""The last transition ``t`` of the anchor ``a``: every anchor has one from its first moment on."""

# One look into an index per row, whatever the planner believes of tables that are mostly empty.
UNDER_WAY = f"""work.open_anchors o JOIN LATERAL (
    SELECT * FROM record.anchors n WHERE n.anchor_number = o.anchor_number LIMIT 1
) a ON true {LAST}"""  # noqa: S608  texts of this module only
"""Anchors ``a`` that are not finalized, with their last transition ``t``."""

THEIR_BATCHES = """JOIN LATERAL (
    SELECT * FROM record.anchor_batches m WHERE m.anchor_number = a.anchor_number
    ORDER BY m.position LIMIT 4096
) b ON true"""
"""The batches ``b`` of the anchor ``a``."""

ON_A_BLOCK = ("included", "safe", "finalized")

_ANCHORED = f"""AND (
    EXISTS (SELECT FROM record.anchor_reports r WHERE r.batch_id = ves_commitments.batch_id)
    OR EXISTS (
        SELECT FROM record.anchor_batches b JOIN record.anchors a USING (anchor_number) {LAST}
        WHERE b.batch_id = ves_commitments.batch_id AND t.state IN {ON_A_BLOCK}
    )
)"""  # noqa: S608  texts of this module only
# Named one by one, so that nobody walks over a long stream whose commitments are anchored but for the last.
_NOT_ANCHORED = f"""AND batch_id = ANY (
    ARRAY(
        SELECT w.batch_id FROM work.anchor_backlog w
        WHERE w.tenant_id = $1 AND w.store_id = $2 AND w.sequence_start >= $3
        ORDER BY w.sequence_start LIMIT $4::bigint + 1
    ) || ARRAY(
        SELECT b.batch_id FROM {UNDER_WAY} {THEIR_BATCHES} WHERE t.state NOT IN {ON_A_BLOCK}
    )
)"""  # noqa: S608  texts of this module only


def anchored_only(anchored: bool) -> str:
    """The condition on rows of ``ves_commitments`` in a page of a stream: $1 tenant, $2 store, $3 from,
    $4 limit."""
    return _ANCHORED if anchored else _NOT_ANCHORED


def as_told(anchor: CommitmentAnchor) -> CommitmentAnchor:
    """Without what an earlier transaction or block left in the row: there is a transaction from ``submitted``
    on, a block from ``included`` on."""
    if anchor.state == "pending":
        anchor = msgspec.structs.replace(anchor, tx_hash=None)
    if anchor.state in ("pending", "submitted"):
        return msgspec.structs.replace(
            anchor, block_number=None, block_hash=None, gas_used=None, effective_gas_price=None
        )
    return anchor
