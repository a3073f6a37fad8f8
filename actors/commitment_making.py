"""The commitment over a range of a VES stream, once its Merkle levels are computed. Stores nothing."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from actors.commitment_ranges import Range
from actors.messages import Commit
from journal.port import CommitmentCounter, MadeCommitment
from ves.commitments import next_commitment
from ves.merkle import Levels, stored_levels
from ves.records import Uuid


@dataclass(frozen=True)
class CommitmentMaker:
    """Gives it its id and its time."""

    new_batch_id: Callable[[], Uuid]
    now_us: Callable[[], int]

    def make(self, wanted: Commit, counter: CommitmentCounter, span: Range, levels: Levels) -> MadeCommitment:
        """Right after what ``counter`` says is committed. ``levels``: from the padded leaves to the root."""
        commitment = next_commitment(
            batch_id=self.new_batch_id(),
            tenant_id=wanted.tenant_id,
            store_id=wanted.store_id,
            merkle_root=levels[-1][0],
            prev_state_root=counter.state_root,
            sequence_start=span.start,
            sequence_end=span.end,
            committed_at_us=self.now_us(),
        )
        return MadeCommitment(commitment, stored_levels(levels))
