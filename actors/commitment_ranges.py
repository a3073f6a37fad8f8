"""Which range of a stream is committed next, and the limits of one commitment; the same for both streams."""

from __future__ import annotations

from dataclasses import dataclass

import structlog

from actors.errors import Unavailable
from actors.messages import Commit, CommitLegacy, NothingToCommit, RangeRefused
from journal.port import CommitmentCounter
from ves.merkle import SUBTREE_LEAVES
from ves.records import Uuid

LEAVES_MAX = 65_536
"""Of one commitment; a longer tail takes several."""
READ_EVENTS = 4 * SUBTREE_LEAVES
"""Leaf sources read at once."""
MOVED_MAX = 5
"""How often a commitment is computed anew because another node was first."""

log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class Range:
    """Both ends included."""

    start: int
    end: int


def chosen_range(
    wanted: Commit | CommitLegacy, counter: CommitmentCounter
) -> Range | NothingToCommit | RangeRefused:
    """What to commit: the wanted range if it comes next, or without one all there is, up to LEAVES_MAX."""
    following = counter.committed_through + 1
    start = following if wanted.sequence_start is None else wanted.sequence_start
    if start < 1:
        return RangeRefused(False, "sequence_start: numbers start at 1")
    if wanted.sequence_end is not None and wanted.sequence_end < start:
        return RangeRefused(False, f"sequence_end: {wanted.sequence_end} is before the start {start}")
    if start != following:
        return RangeRefused(True, f"sequence_start: the next commitment of this stream starts at {following}")
    if wanted.sequence_end is None:
        end = min(counter.head_sequence, start + LEAVES_MAX - 1)
        return Range(start, end) if end >= start else NothingToCommit()
    if wanted.sequence_end > counter.head_sequence:
        return RangeRefused(
            False, f"sequence_end: {wanted.sequence_end} is after the stream's head {counter.head_sequence}"
        )
    if wanted.sequence_end - start >= LEAVES_MAX:
        return RangeRefused(False, f"sequence_end: at most {LEAVES_MAX} events a commitment")
    return Range(start, wanted.sequence_end)


def damaged(store_id: Uuid, start: int, end: int) -> Unavailable:
    """No surprise that kills: the damage is this stream's alone, and is there again tomorrow."""
    log.error("stream damaged", store=store_id.hex(), start=start, end=end)
    text = f"the journal does not hold every event of {start}..{end}"
    return Unavailable(text, retry_after_s=60)
