"""Who may still ask: one token bucket for each credential and class of routes, one for each address, and one
of events for each tenant.

Alone owns the buckets of a node and what a class is. A credential with a limit of its own has one bucket for
all classes instead. Addresses have a table of their own, so that nobody who is unknown can push the bucket of
a credential out. Tables are bounded, and only a full bucket is ever forgotten: that gives nobody anything.
Knows no HTTP and no clock; never waits.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Mapping
from typing import Literal, NamedTuple, get_args

from actors.buckets import Bucket, Limit, of_credential
from actors.rate_sharing import Sharing

RateClass = Literal["events_ingest", "events_read", "commitments", "agent_keys", "admin", "public", "failed"]
"""``public``: without a credential; ``failed``: refused before anybody knew who asks for what. Both count by
address, the others by credential."""
CLASSES: tuple[RateClass, ...] = get_args(RateClass)
TENANT_EVENTS = "tenant_events"
"""Events of a tenant, whoever posts them. How many a request brings is only known when they were counted: at
first as many are taken as it must bring, and the others then, which may leave a debt."""
LIMITED = (*CLASSES, TENANT_EVENTS)
OWN = "own"
"""Stands for all classes of a credential with a limit of its own."""

BUCKETS_MAX = 50_000
"""Of each of the three tables, some 15 MB: more credentials, addresses or tenants than a node can serve while
a bucket of the usual limits fills up."""
LOOKED_AT = 1_000
"""Buckets that one beat looks at, a millisecond's work …"""
LOOKED_AT_FOR_ROOM = 10
"""… and a newcomer when there is no room: a flood of newcomers must stay cheap."""

Key = tuple[bytes | str, str]
"""Whose, and of which class."""


class Verdict(NamedTuple):
    """``remaining`` tokens of ``limit``; all of them in ``full_in_s`` seconds, one in ``wait_s``."""

    allowed: bool
    of: str
    """The class, ``tenant_events`` or ``own``."""
    limit: Limit
    remaining: int
    full_in_s: int
    wait_s: int


class RateLimits:
    """One per node. ``now_ns`` may be any clock's that does not jump."""

    def __init__(
        self, limits: Mapping[str, Limit], *, sharing: Sharing | None, buckets_max: int = BUCKETS_MAX
    ) -> None:
        """``limits``: of all that is LIMITED; none at all: nothing is limited."""
        self.sharing = sharing
        self.refused: Counter[str] = Counter(dict.fromkeys((*limits, OWN), 0) if limits else {})
        self._limits = limits
        self._of_credentials = Table(buckets_max)
        self._of_addresses = Table(buckets_max)
        self._of_tenants = Table(buckets_max)

    @property
    def enforced(self) -> bool:
        return bool(self._limits)

    @property
    def buckets(self) -> int:
        return len(self._of_credentials) + len(self._of_addresses) + len(self._of_tenants)

    def of_credential(
        self, credential: bytes, own_per_minute: int | None, rate_class: str, now_ns: int
    ) -> Verdict | None:
        """None: not limited."""
        if not self._limits:
            return None
        of = rate_class if own_per_minute is None else OWN
        key = (credential, of)
        bucket = self._of_credentials.find(key)
        if bucket is None:
            limit = self._limits[of] if own_per_minute is None else of_credential(own_per_minute)
            bucket = self._of_credentials.make(key, limit, now_ns)
        return self._take(key, bucket, 1, now_ns)

    def of_address(self, address: str, rate_class: str, now_ns: int) -> Verdict | None:
        """None: not limited. Addresses are each node's own business: they are never shared."""
        if not self._limits:
            return None
        bucket = self._of_addresses.bucket((address, rate_class), self._limits[rate_class], now_ns)
        return self._verdict(bucket.take(now_ns), rate_class, bucket)

    def of_tenant(self, tenant_id: bytes, events: int, now_ns: int) -> Verdict | None:
        """Takes ``events`` if there is one; the others are a debt. None: not limited."""
        if not self._limits:
            return None
        key = (tenant_id, TENANT_EVENTS)
        return self._take(key, self._of_tenant(key, now_ns), events, now_ns)

    def charge_tenant(self, tenant_id: bytes, events: int, now_ns: int) -> None:
        """So many more came, whether or not the tenant still had them."""
        if not self._limits:
            return
        key = (tenant_id, TENANT_EVENTS)
        bucket = self._of_tenant(key, now_ns)
        if self.sharing is None:
            bucket.charge(events, now_ns)
        else:
            self.sharing.charge(_shared(key), bucket, events, now_ns)

    def _take(self, key: tuple[bytes, str], bucket: Bucket, tokens: int, now_ns: int) -> Verdict:
        if self.sharing is None:
            return self._verdict(bucket.take(now_ns, tokens), key[1], bucket)
        wait_s = self.sharing.take(_shared(key), bucket, tokens, now_ns)
        return self._verdict(wait_s == 0, key[1], bucket, wait_s)

    def _of_tenant(self, key: tuple[bytes, str], now_ns: int) -> Bucket:
        return self._of_tenants.bucket(key, self._limits[TENANT_EVENTS], now_ns)

    def forget_full(self, now_ns: int) -> None:
        """Looks at some buckets of each table; again and again, at all of them."""
        for table in (self._of_credentials, self._of_addresses, self._of_tenants):
            table.forget_full(now_ns, LOOKED_AT)

    def _verdict(self, allowed: bool, of: str, bucket: Bucket, wait_s: int = 0) -> Verdict:
        if allowed:
            return Verdict(True, of, bucket.limit, bucket.tokens, bucket.full_in_s, 0)
        self.refused[of] += 1
        return Verdict(False, of, bucket.limit, 0, bucket.full_in_s, max(1, wait_s, bucket.wait_s))


def _shared(key: tuple[bytes, str]) -> bytes:
    """Its name for all nodes."""
    return key[0] + key[1].encode()


class Table:
    """At most ``buckets_max`` buckets by key. Newcomers for whom there is no room, because too many others
    are still spent, share one bucket for each class until there is."""

    def __init__(self, buckets_max: int) -> None:
        self._buckets_max = buckets_max
        self._buckets: OrderedDict[Key, Bucket] = OrderedDict()
        self._crowds: dict[str, Bucket] = {}
        self.find = self._buckets.get

    def __len__(self) -> int:
        return len(self._buckets)

    def bucket(self, key: Key, limit: Limit, now_ns: int) -> Bucket:
        return self.find(key) or self.make(key, limit, now_ns)

    def make(self, key: Key, limit: Limit, now_ns: int) -> Bucket:
        if len(self._buckets) >= self._buckets_max:
            self.forget_full(now_ns, LOOKED_AT_FOR_ROOM)
            if len(self._buckets) >= self._buckets_max:
                return self._crowds.setdefault(key[1], Bucket(limit, now_ns))
        made = self._buckets[key] = Bucket(limit, now_ns)
        return made

    def forget_full(self, now_ns: int, looked_at: int) -> None:
        """Those that are still spent go to the end, so that the next look sees others."""
        buckets = self._buckets
        for _ in range(min(looked_at, len(buckets))):
            key = next(iter(buckets))
            if buckets[key].is_full(now_ns):
                del buckets[key]
            else:
                buckets.move_to_end(key)
