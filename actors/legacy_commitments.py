"""How the committer commits the legacy stream: the same way round, with that stream's tree and state root.

Nobody but the committer calls this. Leaves and root are computed outside any transaction, in steps that let
the event loop breathe; the state root is the journal's, in the commitment's own snapshot.
"""

from __future__ import annotations

from collections.abc import Callable

import trio

from actors.commitment_ranges import MOVED_MAX, READ_EVENTS, Range, chosen_range, damaged
from actors.errors import Unavailable
from actors.faults import checkpoint
from actors.messages import CommitLegacy, LegacyCommitted, NothingToCommit, RangeRefused
from journal.port import (
    LEGACY_ENTITIES_MAX,
    Away,
    CommitmentCounter,
    Journal,
    JournalAway,
    LegacyLeafSource,
    Moved,
    TooManyEntities,
)
from ves.constants import ZERO_HASH
from ves.legacy import leaf_hash
from ves.legacy_commitments import LegacyCommitment
from ves.legacy_tree import promoting_parents, stored_levels
from ves.merkle import SUBTREE_LEAVES, Levels, TreeBuilder
from ves.records import Uuid

LegacyAnswer = LegacyCommitted | NothingToCommit | RangeRefused


class LegacyCommitments:
    def __init__(
        self, *, journal: Journal, new_batch_id: Callable[[], Uuid], now_us: Callable[[], int]
    ) -> None:
        self._journal = journal
        self._new_batch_id = new_batch_id
        self._now_us = now_us

    async def commit(self, wanted: CommitLegacy) -> LegacyAnswer:
        """Raises JournalAway, JournalOutcomeUnknown and NotNow."""
        for _ in range(MOVED_MAX):
            counter = await self._journal.read_legacy_commitment_counter(wanted.tenant_id, wanted.store_id)
            stored = await self._same_range(wanted, counter)
            if stored is not None:
                return LegacyCommitted(stored, counter.head_sequence - counter.committed_through)
            span = chosen_range(wanted, counter)
            if not isinstance(span, Range):
                return span
            levels = await self._levels(wanted, span)
            commitment = self._commitment(wanted, counter, span, levels)
            checkpoint("committer.legacy_built")
            outcome = await self._journal.commit_legacy(commitment, levels=stored_levels(levels))
            checkpoint("committer.legacy_committed")
            if isinstance(outcome, LegacyCommitment):
                return LegacyCommitted(outcome, counter.head_sequence - span.end)
            if isinstance(outcome, TooManyEntities):
                text = f"the store has more than {LEGACY_ENTITIES_MAX} entities, too many for a state root"
                return RangeRefused(True, text)
            if isinstance(outcome, Away):
                raise JournalAway(outcome.why)
            assert isinstance(outcome, Moved)  # somebody else committed first: look again
        raise Unavailable("the stream's commitments are contended by other nodes")

    async def _same_range(self, wanted: CommitLegacy, counter: CommitmentCounter) -> LegacyCommitment | None:
        """The stored commitment over exactly the wanted range: asking again is harmless."""
        start, end = wanted.sequence_start, wanted.sequence_end
        if start is None or end is None or end > counter.committed_through:
            return None
        found = await self._journal.find_legacy_commitment(
            wanted.tenant_id, wanted.store_id, sequence_number=start
        )
        same = found is not None and (found.sequence_start, found.sequence_end) == (start, end)
        return found if same else None

    async def _levels(self, wanted: CommitLegacy, span: Range) -> Levels:
        tree = TreeBuilder(promoting_parents)
        for start in range(span.start, span.end + 1, READ_EVENTS):
            end = min(span.end, start + READ_EVENTS - 1)
            sources = await self._journal.read_legacy_leaf_sources(
                wanted.tenant_id, wanted.store_id, sequence_start=start, sequence_end=end
            )
            if [source.sequence_number for source in sources] != list(range(start, end + 1)):
                raise damaged(wanted.store_id, start, end)
            for first in range(0, len(sources), SUBTREE_LEAVES):
                tree.add([_leaf(wanted, source) for source in sources[first : first + SUBTREE_LEAVES]])
                await trio.lowlevel.checkpoint()
        return tree.levels()

    def _commitment(
        self, wanted: CommitLegacy, counter: CommitmentCounter, span: Range, levels: Levels
    ) -> LegacyCommitment:
        """Without its state root, which is the journal's to say."""
        return LegacyCommitment(
            batch_id=self._new_batch_id(),
            tenant_id=wanted.tenant_id,
            store_id=wanted.store_id,
            sequence_start=span.start,
            sequence_end=span.end,
            event_count=span.end - span.start + 1,
            committed_at_us=self._now_us(),
            events_root=levels[-1][0],
            prev_state_root=counter.state_root,
            new_state_root=ZERO_HASH,
        )


def _leaf(wanted: CommitLegacy, source: LegacyLeafSource) -> bytes:
    return leaf_hash(
        wanted.tenant_id,
        wanted.store_id,
        source.sequence_number,
        source.payload_hash,
        source.entity_type,
        source.entity_id,
    )
