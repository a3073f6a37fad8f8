"""The sweeper of this node: looks every few seconds which streams have waited long enough for a commitment.

It looks at all VES streams of all tenants and asks the committer for those that are due, small ranges of many
streams in one letter, so that the tail of an idle tenant does not stay open. Reads where streams stand and
nothing else; whatever goes wrong with a stream is looked at again by the next sweep.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import structlog
from msgspec.structs import replace

from actors.errors import NotNow
from actors.mailbox import Inbox, Ref
from actors.messages import Commit, CommitAlone, Committed, CommitTogether, NothingToCommit, RangeRefused
from journal.port import TOGETHER_LEAVES_MAX, TOGETHER_STREAMS_MAX, Journal, JournalAway, StreamBehind
from ves.records import Uuid

PAGE_STREAMS = 1000
COMMIT_DEADLINE_S = 60.0

log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class CommitmentPolicy:
    """Commit a stream when ``events`` wait or its oldest waiting event is ``interval_s`` old."""

    events: int
    interval_s: float
    sweep_s: float

    def due(self, stream: StreamBehind, now_us: int) -> bool:
        waiting = stream.head_sequence - stream.committed_through
        return waiting >= self.events or now_us - stream.oldest_uncommitted_us >= self.interval_s * 1e6


class Sweeper:
    """Asks the committer for every stream that is due, at start and every ``sweep_s``."""

    def __init__(
        self, *, journal: Journal, committer: Ref, policy: CommitmentPolicy, now_us: Callable[[], int]
    ) -> None:
        self._journal = journal
        self._committer = committer
        self._policy = policy
        self._now_us = now_us

    async def run(self, inbox: Inbox) -> None:
        while True:
            try:
                await self._sweep()
            except JournalAway as error:
                log.info("commitment sweep put off", reason=str(error))
            await inbox.pause(self._policy.sweep_s)

    async def _sweep(self) -> None:
        after: tuple[Uuid, Uuid] | None = None
        while True:
            streams = await self._journal.streams_behind(after=after, limit=PAGE_STREAMS)
            now_us = self._now_us()
            due = [stream for stream in streams if self._policy.due(stream, now_us)]
            while due:  # one range of each in turn: a stream far behind keeps the others waiting for one
                due = await self._commit_next_of_each(due)
            if len(streams) < PAGE_STREAMS:
                return
            after = (streams[-1].tenant_id, streams[-1].store_id)

    async def _commit_next_of_each(self, due: Sequence[StreamBehind]) -> list[StreamBehind]:
        """The next range, of the policy's size, of what this sweep saw of each; returns what is left of that.
        What came meanwhile is the next sweep's, so that one busy stream does not keep it for ever."""
        left: list[StreamBehind | None] = []
        small = [stream for stream in due if self._is_small(stream)]
        for first in range(0, len(small), TOGETHER_STREAMS_MAX):
            left += await self._commit_together(small[first : first + TOGETHER_STREAMS_MAX])
        for stream in due:
            if not self._is_small(stream):
                left.append(await self._commit_alone(stream))
        return [stream for stream in left if stream is not None]

    def _is_small(self, stream: StreamBehind) -> bool:
        return self._end(stream) - stream.committed_through <= TOGETHER_LEAVES_MAX

    async def _commit_together(self, streams: Sequence[StreamBehind]) -> list[StreamBehind | None]:
        wanted = CommitTogether(tuple(self._wanted(stream) for stream in streams))
        try:
            answers = await self._committer.ask(wanted, deadline_s=COMMIT_DEADLINE_S)
        except NotNow as error:
            log.warning("commitments put off", streams=len(streams), reason=str(error))
            return []
        return [
            await self._commit_alone(stream)
            if isinstance(answer, CommitAlone)
            else self._left(stream, answer)
            for stream, answer in zip(streams, answers, strict=True)
        ]

    async def _commit_alone(self, stream: StreamBehind) -> StreamBehind | None:
        try:
            answer = await self._committer.ask(self._wanted(stream), deadline_s=COMMIT_DEADLINE_S)
        except NotNow as error:
            log.warning("commitment put off", store=stream.store_id.hex(), reason=str(error))
            return None
        return self._left(stream, answer)

    def _end(self, stream: StreamBehind) -> int:
        return min(stream.head_sequence, stream.committed_through + self._policy.events)

    def _wanted(self, stream: StreamBehind) -> Commit:
        return Commit(stream.tenant_id, stream.store_id, stream.committed_through + 1, self._end(stream))

    def _left(
        self, stream: StreamBehind, answer: Committed | NothingToCommit | RangeRefused
    ) -> StreamBehind | None:
        end = self._end(stream)
        if not isinstance(answer, Committed) or end == stream.head_sequence:
            return None  # somebody else was first: the next sweep looks again; or it is done
        return replace(stream, committed_through=end)
