"""The committer of this node: turns ranges of sequenced events into chained Merkle commitments.

``Committer`` answers ``Commit``, ``CommitTogether`` and ``CommitLegacy``, one at a time, so that two ranges
of a stream never race within a node; ``actors.sweeper`` finds what is due. Leaves and root are computed
outside any transaction, in steps that let the event loop breathe; what is decided in the database is only
whether somebody else was first. Never on a client's write path.
"""

from __future__ import annotations

from collections.abc import Callable

import trio

from actors.commitment_making import CommitmentMaker
from actors.commitment_ranges import MOVED_MAX, READ_EVENTS, Range, chosen_range, damaged
from actors.commitments_together import Answer as OfMany
from actors.commitments_together import CommitmentsTogether
from actors.errors import NotNow, OutcomeUnknown, Unavailable
from actors.faults import checkpoint
from actors.legacy_commitments import LegacyAnswer, LegacyCommitments
from actors.mailbox import Inbox
from actors.messages import (
    Commit,
    CommitLegacy,
    Committed,
    CommitTogether,
    NothingToCommit,
    RangeRefused,
)
from journal.port import (
    Away,
    CommitmentCounter,
    Journal,
    JournalAway,
    JournalOutcomeUnknown,
    MadeCommitment,
    Moved,
    Stored,
)
from ves.merkle import (
    LEAF_SOURCE_BYTES,
    SUBTREE_LEAVES,
    TreeBuilder,
    leaf_hashes,
    leaf_numbers,
)
from ves.records import Commitment, Uuid

_SUBTREE_BYTES = SUBTREE_LEAVES * LEAF_SOURCE_BYTES

Answer = Committed | NothingToCommit | RangeRefused


class Committer:
    """Answers ``Commit``, ``CommitTogether`` and ``CommitLegacy``."""

    def __init__(
        self, *, journal: Journal, new_batch_id: Callable[[], Uuid], now_us: Callable[[], int]
    ) -> None:
        self._journal = journal
        self._maker = CommitmentMaker(new_batch_id, now_us)
        self._together = CommitmentsTogether(journal=journal, maker=self._maker)
        self._legacy = LegacyCommitments(journal=journal, new_batch_id=new_batch_id, now_us=now_us)

    async def run(self, inbox: Inbox) -> None:
        while True:
            letter = await inbox.take()
            message = letter.message
            assert isinstance(message, Commit | CommitTogether | CommitLegacy)
            if letter.abandoned:
                continue
            try:
                answer = await self._answer(message)
            except JournalAway as error:
                letter.refuse(Unavailable(f"the database is not available: {error}"))
            except JournalOutcomeUnknown as error:
                letter.refuse(OutcomeUnknown(str(error)))
            except NotNow as error:
                letter.refuse(error)
            else:
                letter.answer(answer)

    async def _answer(
        self, wanted: Commit | CommitTogether | CommitLegacy
    ) -> Answer | list[OfMany] | LegacyAnswer:
        if isinstance(wanted, CommitTogether):
            return await self._together.commit(wanted)
        if isinstance(wanted, CommitLegacy):
            return await self._legacy.commit(wanted)
        return await self._commit(wanted)

    async def _commit(self, wanted: Commit) -> Answer:
        for _ in range(MOVED_MAX):
            counter = await self._journal.read_commitment_counter(wanted.tenant_id, wanted.store_id)
            stored = await self._same_range(wanted, counter)
            if stored is not None:
                return Committed(stored, counter.head_sequence - counter.committed_through)
            span = chosen_range(wanted, counter)
            if not isinstance(span, Range):
                return span
            made = await self._build(wanted, counter, span)
            checkpoint("committer.built")
            outcome = await self._journal.commit(
                made.commitment, levels=made.levels, believed_through=counter.committed_through
            )
            checkpoint("committer.committed")
            if isinstance(outcome, Stored):
                return Committed(made.commitment, counter.head_sequence - span.end)
            if isinstance(outcome, Away):
                raise JournalAway(outcome.why)
            assert isinstance(outcome, Moved)  # somebody else committed first: look again
        raise Unavailable("the stream's commitments are contended by other nodes")

    async def _same_range(self, wanted: Commit, counter: CommitmentCounter) -> Commitment | None:
        """The stored commitment over exactly the wanted range: asking again is harmless."""
        start, end = wanted.sequence_start, wanted.sequence_end
        if start is None or end is None or end > counter.committed_through:
            return None
        found = await self._journal.find_commitment(wanted.tenant_id, wanted.store_id, sequence_number=start)
        same = found is not None and (found.sequence_start, found.sequence_end) == (start, end)
        return found if same else None

    async def _build(self, wanted: Commit, counter: CommitmentCounter, span: Range) -> MadeCommitment:
        tree = TreeBuilder()
        for start in range(span.start, span.end + 1, READ_EVENTS):
            end = min(span.end, start + READ_EVENTS - 1)
            sources = await self._journal.read_leaf_sources(
                wanted.tenant_id, wanted.store_id, sequence_start=start, sequence_end=end
            )
            if leaf_numbers(sources) != tuple(range(start, end + 1)):
                raise damaged(wanted.store_id, start, end)
            for first in range(0, len(sources), _SUBTREE_BYTES):
                some = sources[first : first + _SUBTREE_BYTES]
                tree.add(leaf_hashes(wanted.tenant_id, wanted.store_id, some))
                await trio.lowlevel.checkpoint()
        return self._maker.make(wanted, counter, span, tree.levels())
