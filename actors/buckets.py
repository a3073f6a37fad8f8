"""The arithmetic of token buckets. Pure: time comes in as an argument, in nanoseconds of any one clock.

A bucket holds at most ``burst`` tokens and gains ``per_minute`` of them a minute, evenly. Everything is
counted in whole numbers: one token is 60,000,000,000 units (the nanoseconds of a minute), so that each
nanosecond brings exactly ``per_minute`` units and nothing is ever rounded. Time that runs backwards brings
nothing and takes nothing. In no stretch of time are more than ``burst`` + ``per_minute`` x minutes tokens
taken, but for what ``correct`` adds, and the debts.
"""

from __future__ import annotations

import msgspec

TOKEN = 60_000_000_000
"""Units of one token."""
_NS_PER_S = 1_000_000_000
OWN_BURST_MIN = 10


class Limit(msgspec.Struct, frozen=True):
    """What a bucket allows."""

    per_minute: int
    burst: int


def of_seconds(per_second: float, burst: int) -> Limit:
    """To whole tokens a minute, at least one."""
    return Limit(max(1, round(per_second * 60)), burst)


def of_credential(per_minute: int) -> Limit:
    """A credential's own limit: ten seconds' worth at once, but at least ten requests if it has so many in a
    minute: also a narrow limit lets a client do the few requests in a row that belong together."""
    per_minute = max(1, per_minute)
    return Limit(per_minute, min(per_minute, max(OWN_BURST_MIN, per_minute // 6)))


class Bucket:
    """Full at first."""

    __slots__ = ("_at_ns", "_full", "_units", "limit")

    def __init__(self, limit: Limit, now_ns: int) -> None:
        self.limit = limit
        self._full = limit.burst * TOKEN
        self._units = self._full
        self._at_ns = now_ns

    def take(self, now_ns: int, tokens: int = 1) -> bool:
        """Whether there was a token; then so many are gone, what was not there as a debt."""
        if self._refilled(now_ns) < TOKEN:
            return False
        self._units -= tokens * TOKEN
        return True

    def charge(self, tokens: int, now_ns: int) -> None:
        """They are gone, also those that were not there: that is a debt."""
        self._units = self._refilled(now_ns) - tokens * TOKEN

    def correct(self, units: int, now_ns: int) -> None:
        """Somebody who knows better says what is in it; less than nothing is a debt."""
        self._refilled(now_ns)
        self._units = min(self._full, units)

    def is_full(self, now_ns: int) -> bool:
        """Nobody gains anything if it is forgotten."""
        return self._refilled(now_ns) == self._full

    # As of the last call above.

    @property
    def tokens(self) -> int:
        """Whole ones."""
        return max(0, self._units // TOKEN)

    @property
    def wait_s(self) -> int:
        """Whole seconds after which there is a token, if nobody takes it meanwhile; 0: there is one."""
        return self._seconds_until(TOKEN)

    @property
    def full_in_s(self) -> int:
        """Whole seconds after which it is full, if nobody takes anything meanwhile."""
        return self._seconds_until(self._full)

    def _seconds_until(self, units: int) -> int:
        return max(0, -((self._units - units) // (self.limit.per_minute * _NS_PER_S)))

    def _refilled(self, now_ns: int) -> int:
        elapsed_ns = now_ns - self._at_ns
        if elapsed_ns > 0:
            self._units = min(self._full, self._units + elapsed_ns * self.limit.per_minute)
            self._at_ns = now_ns
        return self._units
