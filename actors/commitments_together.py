"""Small ranges of many streams, committed together: one look at all of them, one transaction.

Whatever is not as it should be with one of them is left to ``Commit``, which says what it is; the others are
committed all the same. Roots are computed outside the transaction, a few streams at a time.
"""

from __future__ import annotations

from collections.abc import Sequence

import structlog
import trio

from actors.commitment_making import CommitmentMaker
from actors.commitment_ranges import Range, chosen_range
from actors.faults import checkpoint
from actors.messages import Commit, CommitAlone, Committed, CommitTogether, NothingToCommit, RangeRefused
from journal.port import (
    Away,
    Journal,
    JournalAway,
    MadeCommitment,
    NotTogether,
    Stored,
    StreamRange,
    Uncommitted,
)
from ves.merkle import LEAF_SOURCE_BYTES, build_levels, leaf_hashes, leaf_numbers
from ves.records import Uuid

STEP_STREAMS = 8
"""Whose roots are computed in one go: a tenth of a millisecond, half of one if each has all its leaves."""

log = structlog.get_logger(__name__)

Answer = Committed | NothingToCommit | RangeRefused | CommitAlone


class CommitmentsTogether:
    """Answers ``CommitTogether``, for the committer."""

    def __init__(self, *, journal: Journal, maker: CommitmentMaker) -> None:
        self._journal = journal
        self._maker = maker

    async def commit(self, wanted: CommitTogether) -> list[Answer]:
        try:
            return await self._commit(wanted.ranges)
        except NotTogether as error:
            log.warning("commitments not made together", streams=len(wanted.ranges), reason=str(error))
            return [CommitAlone()] * len(wanted.ranges)

    async def _commit(self, ranges: Sequence[Commit]) -> list[Answer]:
        found = await self._journal.read_uncommitted([_range_of(wanted) for wanted in ranges])
        made = await self._build(ranges, found)
        checkpoint("committer.built")
        ready = [m for m in made if isinstance(m, MadeCommitment)]
        outcomes = await self._journal.commit_together(ready) if ready else []
        checkpoint("committer.committed")
        if isinstance(outcomes, Away):
            raise JournalAway(outcomes.why)
        stored = {
            m.commitment.batch_id for m, o in zip(ready, outcomes, strict=True) if isinstance(o, Stored)
        }
        return [_answer(m, read, stored) for m, read in zip(made, found, strict=True)]

    async def _build(
        self, ranges: Sequence[Commit], found: Sequence[Uncommitted]
    ) -> list[MadeCommitment | Answer]:
        made: list[MadeCommitment | Answer] = []
        for n, (wanted, read) in enumerate(zip(ranges, found, strict=True), 1):
            made.append(self._made(wanted, read))
            if n % STEP_STREAMS == 0:
                await trio.lowlevel.checkpoint()
        return made

    def _made(self, wanted: Commit, read: Uncommitted) -> MadeCommitment | Answer:
        span = chosen_range(wanted, read.counter)
        if not isinstance(span, Range):
            return span
        if not _complete(span, read.sources):
            return CommitAlone()
        levels = build_levels(leaf_hashes(wanted.tenant_id, wanted.store_id, read.sources))
        return self._maker.make(wanted, read.counter, span, levels)


def _range_of(wanted: Commit) -> StreamRange:
    assert wanted.sequence_start is not None
    assert wanted.sequence_end is not None
    return StreamRange(wanted.tenant_id, wanted.store_id, wanted.sequence_start, wanted.sequence_end)


def _complete(span: Range, sources: bytes) -> bool:
    if len(sources) != LEAF_SOURCE_BYTES * (span.end - span.start + 1):
        return False
    return leaf_numbers(sources) == tuple(range(span.start, span.end + 1))


def _answer(made: MadeCommitment | Answer, read: Uncommitted, stored: set[Uuid]) -> Answer:
    if not isinstance(made, MadeCommitment):
        return made
    if made.commitment.batch_id not in stored:
        return RangeRefused(True, "sequence_start: another node was first")
    return Committed(made.commitment, read.counter.head_sequence - made.commitment.sequence_end)
