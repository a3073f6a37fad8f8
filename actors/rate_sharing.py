"""One limit for all nodes: what each has let pass is told to a table that all of them share.

A node decides at once, from its own bucket. ``Sharing`` remembers what the shared buckets do not know yet; a
node that has let a portion (a tenth of the burst) pass untold refuses until it was heard. ``RateKeeper`` is
the actor that tells it, for all credentials in one statement, at most twenty times a second, and corrects the
node's buckets by the answer, which may be a debt. So ``n`` nodes together let pass at most what one would,
and (2n - 1) portions more (docs/adr). While the database does not answer, each node keeps the limits by
itself. Losing all of this loses no fact.
"""

from __future__ import annotations

import math
from contextlib import suppress
from itertools import islice
from typing import TYPE_CHECKING

import structlog
import trio

from actors.buckets import TOKEN, Bucket, Limit
from actors.mailbox import Inbox
from journal.port import Journal, JournalError, RateSpending

if TYPE_CHECKING:
    from actors.rate_limits import RateLimits

TELL_EVERY_S = 0.05
TOLD_AT_ONCE = 1_000
"""Buckets in one statement; the others wait for the next."""
ALONE_EVERY_S = 1.0
SWEEP_EVERY_S = 1.0
FORGET_IDLE_EVERY_S = 600.0
PATIENCE_NS = 1_000_000_000
"""What waits longer to be told means that nobody hears us: from then on each node is by itself."""
_UNITS = 1000
"""Of a bucket in one of the journal's: nanoseconds in a microsecond."""

log = structlog.get_logger("rates")


def now_ns() -> int:
    """The clock of all buckets."""
    return int(trio.current_time() * 1_000_000_000)


def portion(limit: Limit) -> int:
    return max(1, limit.burst // 10)


class Untold:
    """What a bucket let pass since the last answer that counted it."""

    __slots__ = ("bucket", "tokens")

    def __init__(self, bucket: Bucket) -> None:
        self.bucket = bucket
        self.tokens = 0


class Sharing:
    """Pure state of one node: nothing here waits or looks at a clock."""

    def __init__(self) -> None:
        self.failures = 0
        self.alone = False
        """Nobody hears us: the limits are this node's own."""
        self._untold: dict[bytes, Untold] = {}
        self._waiting_since_ns: int | None = None

    def take(self, key: bytes, bucket: Bucket, tokens: int, now_ns: int) -> int:
        """0: there was a token, and so many are taken. Else so many seconds to wait."""
        since_ns = self._waiting_since_ns
        if since_ns is not None and now_ns - since_ns > PATIENCE_NS:
            self.alone = True
        untold = None if self.alone else self._untold.get(key)
        if untold is not None and untold.tokens >= portion(bucket.limit):
            return 1
        if not bucket.take(now_ns, tokens):
            return bucket.wait_s
        self._will_tell(key, bucket, tokens, now_ns)
        return 0

    def charge(self, key: bytes, bucket: Bucket, tokens: int, now_ns: int) -> None:
        """They are gone, whether or not they were there."""
        bucket.charge(tokens, now_ns)
        self._will_tell(key, bucket, tokens, now_ns)

    def _will_tell(self, key: bytes, bucket: Bucket, tokens: int, now_ns: int) -> None:
        if self.alone:
            return
        untold = self._untold.get(key)
        if untold is None:
            untold = self._untold[key] = Untold(bucket)
            if self._waiting_since_ns is None:
                self._waiting_since_ns = now_ns
        untold.bucket = bucket  # a full one may have been forgotten and made anew
        untold.tokens += tokens

    def to_tell(self) -> list[RateSpending]:
        """Those that wait longest."""
        return [
            RateSpending(key, one.bucket.limit.per_minute, one.bucket.limit.burst, one.tokens)
            for key, one in islice(self._untold.items(), TOLD_AT_ONCE)
        ]

    def told(self, spendings: list[RateSpending], levels: dict[bytes, int], now_ns: int) -> None:
        """``levels``: what the shared buckets hold after these spendings, in the journal's units."""
        self.alone = False
        for spending in spendings:
            untold = self._untold.pop(spending.bucket)
            untold.tokens -= spending.tokens
            newer = untold.tokens * TOKEN
            untold.bucket.correct(levels[spending.bucket] * _UNITS - newer, now_ns)
            if untold.tokens:
                self._untold[spending.bucket] = untold  # behind those that nobody told yet
        self._waiting_since_ns = now_ns if self._untold else None

    def unheard(self) -> None:
        """It may have been counted all the same; it is told again: a limit errs on the side of less."""
        self.failures += 1
        self.alone = True


class RateKeeper:
    """Tells what is shared, and lets the node forget full buckets. Takes no letters."""

    def __init__(self, limits: RateLimits, *, journal: Journal) -> None:
        self._limits = limits
        self._journal = journal

    async def run(self, inbox: Inbox) -> None:
        sharing = self._limits.sharing
        sweep_at = forget_idle_at = -math.inf
        while True:
            if trio.current_time() >= sweep_at:
                self._limits.forget_full(now_ns())
                sweep_at = trio.current_time() + SWEEP_EVERY_S
            if sharing is None:
                await inbox.pause(SWEEP_EVERY_S)
                continue
            await self._tell(sharing)
            if trio.current_time() >= forget_idle_at and not sharing.alone:
                await self._forget_idle()
                forget_idle_at = trio.current_time() + FORGET_IDLE_EVERY_S
            await inbox.pause(ALONE_EVERY_S if sharing.alone else TELL_EVERY_S)

    async def _tell(self, sharing: Sharing) -> None:
        spendings = sharing.to_tell()
        if not spendings and not sharing.alone:
            return
        try:
            levels = await self._journal.spend_rates(spendings)
        except JournalError as error:
            if not sharing.alone:
                log.warning("rate limits are not shared: the database does not answer", reason=str(error))
            sharing.unheard()
            return
        if sharing.alone:
            log.warning("rate limits are shared again")
        sharing.told(spendings, levels, now_ns())

    async def _forget_idle(self) -> None:
        with suppress(JournalError):  # they take some room until the next time
            await self._journal.forget_idle_rates()
