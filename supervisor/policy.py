"""Who comes back, with whom, after which pause, and when it is too much: pure decisions, time as argument.

The rules are those of Erlang/OTP's ``supervisor`` (Design Principles, "Supervisor Behaviour"), plus pauses
between lives that grow. It never starts or stops anybody.
"""

from __future__ import annotations

from collections import deque
from typing import Literal

import msgspec

Strategy = Literal["one_for_one", "rest_for_one", "one_for_all"]
Restart = Literal["permanent", "transient", "temporary"]
Kind = Literal["finished", "asked", "crashed", "not_now", "killed"]
"""``finished``: returned by itself. ``asked``: ended between letters because it was told to."""


class Pauses(msgspec.Struct, frozen=True):
    """The n-th death in a row is followed by ``first_s`` x ``growth``^(n-1) seconds, at most ``max_s``;
    a life of ``healthy_s`` seconds ends the row."""

    first_s: float = 0.05
    growth: float = 2.0
    max_s: float = 5.0
    healthy_s: float = 30.0

    def after(self, deaths: int) -> float:
        """Seconds of pause after the ``deaths``-th death in a row (1 for the first)."""
        return min(self.max_s, self.first_s * self.growth ** min(deaths - 1, 100))

    def row(self, deaths: int, lived_s: float) -> int:
        """How many deaths are in a row after one more, of a life of ``lived_s`` seconds."""
        return 1 if lived_s >= self.healthy_s else deaths + 1


class Intensity:
    """At most ``limit`` deaths in any ``period_s`` seconds (OTP's MaxR and MaxT)."""

    __slots__ = ("_times", "limit", "period_s")

    def __init__(self, limit: int, period_s: float) -> None:
        self.limit = limit
        self.period_s = period_s
        self._times: deque[float] = deque(maxlen=limit + 1)

    def exceeded_by_death_at(self, now: float) -> bool:
        """Count one more death; True when it is one too many."""
        self._times.append(now)
        return len(self._times) > self.limit and now - self._times[0] < self.period_s


def reachable(intensity: int, period_s: float, pauses: Pauses) -> bool:
    """Whether deaths that follow each other as fast as the pauses allow ever exceed the intensity. If not,
    a child that can never start would be restarted for ever and nobody above would hear of it."""
    return sum(pauses.after(death) for death in range(1, intensity + 1)) < period_s


def comes_back(restart: Restart, kind: Kind) -> bool:
    """OTP: a permanent child always, a transient one unless it finished by itself, a temporary one never."""
    return restart == "permanent" or (restart == "transient" and kind not in ("finished", "asked"))


def counts(kind: Kind) -> bool:
    """Whether a death is held against the intensity. An incarnation that ended with a NotNow lost something
    it depends on, which the other's supervisor repairs; escalating would only widen the outage."""
    return kind != "not_now"


def group(strategy: Strategy, index: int, children: int) -> range:
    """The indexes, in start order, of those who are restarted when the child at ``index`` is."""
    if strategy == "one_for_one":
        return range(index, index + 1)
    if strategy == "rest_for_one":
        return range(index, children)
    return range(children)
