"""Which endpoints are asked, and in which order. Pure: time comes in.

The preferred one first. One that failed rests, longer each time, and is then in its place again; one that
told us to wait is not asked before. One whose latest block is far behind is not asked about the present. It
never speaks to an endpoint.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

REST_S = 2.0
REST_MAX_S = 60.0
TOLD_MAX_S = 120.0
"""No endpoint keeps us away for longer, whatever its Retry-After says."""
LAG_BLOCKS_MAX = 8
HEAD_FRESH_S = 10.0
"""So long what an endpoint said of its latest block counts as the present."""
HEAD_REMEMBERED_S = 300.0
"""If nobody shows a block as high as we once saw for so long, the chain itself went back: we follow it."""


@dataclass
class Standing:
    failures: int = 0
    """In a row."""
    rests_until: float = 0.0
    told: bool = False
    """It asked for the rest itself."""
    head: int | None = None
    head_at: float = 0.0

    def failed(self, now: float, told_s: float | None = None) -> None:
        self.failures += 1
        rest = min(REST_S * 2 ** min(self.failures - 1, 10), REST_MAX_S)
        if told_s is not None:
            rest = min(max(told_s, rest), TOLD_MAX_S)
        self.rests_until, self.told = now + rest, told_s is not None

    def answered(self) -> None:
        self.failures, self.rests_until, self.told = 0, 0.0, False

    def rests(self, now: float) -> bool:
        return now < self.rests_until

    def showed_head(self, number: int, now: float) -> None:
        self.head, self.head_at = number, now

    def head_is_fresh(self, now: float) -> bool:
        return self.head is not None and now - self.head_at < HEAD_FRESH_S


@dataclass
class HighestSeen:
    """The highest block anybody has shown lately."""

    lag_blocks_max: int = LAG_BLOCKS_MAX
    number: int = 0
    at: float = 0.0

    def showed(self, number: int, now: float) -> None:
        if number >= self.number or now - self.at > HEAD_REMEMBERED_S:
            self.number, self.at = number, now

    def blocks_behind(self, head: int, now: float) -> int:
        """How far behind it ``head`` is; 0 within what is tolerated."""
        if now - self.at > HEAD_REMEMBERED_S:
            return 0
        behind = self.number - head
        return behind if behind > self.lag_blocks_max else 0


def in_turn(standings: Sequence[Standing], now: float) -> list[int]:
    """Positions to ask, the first first: who does not rest; if all do, those that only we let rest."""
    awake = [at for at, one in enumerate(standings) if not one.rests(now)]
    return awake or [at for at, one in enumerate(standings) if not one.told]
