"""Failed authentication: counted per client address and minute, throttled per address, audited in sum.

``FailedAttempts`` alone holds the counts and the buckets, all bounded. It knows addresses, never credentials.
``FailureReporter`` is the actor that writes one audit entry per address and minute once the minute is over;
while the database is away the entries wait, and when too many wait the oldest go, counted. The end
of the process loses the counts of the minute under way, nothing else: nobody is let in by it.
"""

from __future__ import annotations

import ipaddress
import time
from collections import OrderedDict, deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

import msgspec
import trio

from actors.mailbox import Inbox
from actors.security_events import SecurityEvents
from journal.port import AuditEntry, Journal, JournalError
from ves.timestamps import utc_text

MINUTE_S = 60
ADDRESSES_PER_MINUTE_MAX = 1000
"""So many addresses of one minute get entries of their own; the rest share one."""
ROWS_WAITING_MAX = 10_000
OTHERS = "other addresses"
REPORT_EVERY_S = 1.0


class FailedMinute(msgspec.Struct):
    """What one address (IPv6: one /64) did in one minute."""

    address: str
    minute_s: int
    """Its first second since the Unix epoch."""
    failed: int = 0
    throttled: int = 0


@dataclass(frozen=True)
class Patience:
    """``burst`` failures at once, ``per_minute`` more each minute, for ``addresses_max`` addresses."""

    burst: int = 20
    per_minute: float = 10.0
    addresses_max: int = 10_000


@dataclass
class _Bucket:
    left: float
    """May fall below zero, to ``-burst``: attempts that were under way together are all paid for."""
    at: float


class FailedAttempts:
    """Whose attempts failed, and who has to wait. Decides nothing about credentials."""

    def __init__(
        self,
        *,
        patience: Patience,
        security: SecurityEvents,
        now_s: Callable[[], float] = time.time,
        steady_s: Callable[[], float] = trio.current_time,
    ) -> None:
        self._patience = patience
        self._security = security
        self._now_s = now_s
        self._steady_s = steady_s
        self._buckets: OrderedDict[str, _Bucket] = OrderedDict()
        self._minute_s = 0
        self._present: dict[str, FailedMinute] = {}
        self.waiting: deque[FailedMinute] = deque()
        """Finished minutes that are not in the audit chain yet, oldest first."""
        self.dropped = 0
        """Attempts whose entries had to go because too many waited."""

    def wait_s(self, address: str) -> float | None:
        """How long this address has to wait before it may try something unknown; None: it need not."""
        bucket = self._buckets.get(network(address))
        if bucket is None:
            return None
        self._refill(bucket)
        missing = 1 - bucket.left
        return missing * MINUTE_S / self._patience.per_minute if missing > 0 else None

    def failed(self, address: str, *, guess: bool = True) -> None:
        """An attempt was refused. ``guess`` False: it showed something that was good once, so it costs
        nothing of the address's patience."""
        address = network(address)
        self._security.counted("authentication_failed")
        self._counted(address).failed += 1
        if guess:
            self._spend(address)

    def throttled(self, address: str) -> None:
        """An attempt was not even looked at."""
        self._security.counted("authentication_throttled")
        self._counted(network(address)).throttled += 1

    def turn_over(self) -> None:
        """Minutes that are over are told in the log, once, and wait for the audit chain."""
        minute_s = int(self._now_s()) // MINUTE_S * MINUTE_S
        if minute_s == self._minute_s:
            return
        over, self._present, self._minute_s = self._present, {}, minute_s
        for row in over.values():
            self._tell(row)
            self.waiting.append(row)
        while len(self.waiting) > ROWS_WAITING_MAX:
            oldest = self.waiting.popleft()
            self.dropped += oldest.failed + oldest.throttled

    def _tell(self, row: FailedMinute) -> None:
        about = {"address": row.address, "minute": utc_text(row.minute_s * 1_000_000)}
        if row.failed:
            self._security.told("authentication_failed", times=row.failed, **about)
        if row.throttled:
            self._security.told("authentication_throttled", times=row.throttled, **about)

    def _counted(self, address: str) -> FailedMinute:
        self.turn_over()
        if address not in self._present and len(self._present) >= ADDRESSES_PER_MINUTE_MAX:
            address = OTHERS
        return self._present.setdefault(address, FailedMinute(address, self._minute_s))

    def _spend(self, address: str) -> None:
        burst = self._patience.burst
        bucket = self._buckets.setdefault(address, _Bucket(burst, self._steady_s()))
        self._buckets.move_to_end(address)
        self._refill(bucket)
        bucket.left = max(-float(burst), bucket.left - 1)
        if len(self._buckets) > self._patience.addresses_max:
            self._buckets.popitem(last=False)

    def _refill(self, bucket: _Bucket) -> None:
        now = self._steady_s()
        gained = (now - bucket.at) * self._patience.per_minute / MINUTE_S
        bucket.left, bucket.at = min(float(self._patience.burst), bucket.left + gained), now


def network(address: str) -> str:
    """Who is counted as one: an IPv4 address, or an IPv6 /64, for that is what one customer is given."""
    try:
        parsed = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return address
    if isinstance(parsed, ipaddress.IPv4Address):
        return str(parsed)
    if parsed.ipv4_mapped is not None:
        return str(parsed.ipv4_mapped)
    return str(ipaddress.ip_network((parsed, 64), strict=False))


class FailureReporter:
    """Writes the finished minutes into the audit chain, every ``every_s``. Takes no letters."""

    def __init__(
        self, *, journal: Journal, attempts: FailedAttempts, every_s: float = REPORT_EVERY_S
    ) -> None:
        self._journal = journal
        self._attempts = attempts
        self._every_s = every_s

    async def run(self, inbox: Inbox) -> None:
        while True:
            self._attempts.turn_over()
            with suppress(JournalError):  # they wait on; one of unknown outcome may come twice, both the same
                await self._write_down()
            await inbox.pause(self._every_s)

    async def _write_down(self) -> None:
        waiting = self._attempts.waiting
        while waiting:
            row = waiting[0]
            await self._journal.audit(entry_of(row))
            if waiting and waiting[0] is row:  # else it was dropped meanwhile
                waiting.popleft()


def entry_of(row: FailedMinute) -> AuditEntry:
    minute = utc_text(row.minute_s * 1_000_000)
    details: dict[str, str | int | None] = {
        "minute": minute,
        "failed": row.failed,
        "throttled": row.throttled,
    }
    return AuditEntry("system", "authentication.failed", row.address, None, details)
