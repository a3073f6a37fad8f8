"""Whose events are on their way to the journal: told by who receives them, asked by who could wait for them.

A hint and nothing else: what it says changes how many small groups go together, never what is stored.
"""

from __future__ import annotations

from types import TracebackType

from ves.records import Uuid

LARGE = 256
"""Events of a group that goes by itself: what a transaction costs is spread over many already."""
SHARE = 8
"""An eighth of what is on its way is worth waiting for: as it comes at the rate at which it is answered, that
takes about an eighth of the time that each of it is under way anyway."""
_LEARNED_KEPT = 0.9
"""Of what earlier requests taught of an event's size, for each one more."""
_EVENT_BYTES_MAX = 4096
"""An event counts for no more when sizes are learned, or one rare large one would make all others nothing."""
_ALONE_MAX = 1000
"""Tenants remembered whose newest group went by itself, the last ones."""


class Expected:
    """Requests under way. How many events are in one is estimated by its size, as the last ones were, until
    it was read."""

    def __init__(self) -> None:
        self._tenants: dict[Uuid | None, _Tenant] = {}
        self._together = _Tenant()
        """All that those have whose groups go with others …"""
        self._tenants_together = 0
        """… and how many tenants that are."""
        self._alone: dict[Uuid, None] = {}
        """Whose newest group went by itself, with or without requests under way."""
        self._event_bytes = 0.0
        self._events = 0.0
        """In so many bytes, lately."""

    def __len__(self) -> int:
        """Tenants, each counted once, however many requests it has under way."""
        return len(self._tenants)

    def of(self, tenant_id: Uuid | None, size: int) -> Request:
        """For the time of one request with a body of so many bytes. None: whose events they are stands in its
        body only. Nobody waits for those: they may go by themselves, or be of whoever would wait."""
        return Request(self, tenant_id, size)

    def worth_waiting_for(self, tenant_id: Uuid) -> int:
        """Events of several tenants together, for this one: an eighth of what the others have on their way,
        all together for no more than if each had as much as itself. So whoever has little under way does not
        wait for one who has much, and nobody waits who is alone, or beside those alone whose groups go by
        themselves."""
        tenant = self._tenants.get(tenant_id)
        if tenant is None:
            return 0
        mine, others, all_others = self._count(tenant), self._tenants_together, self._count(self._together)
        if not tenant.by_itself:
            others -= 1
            all_others -= mine
        return int(max(0, min(all_others, others * mine))) // SHARE

    def goes(self, tenant_id: Uuid, *, by_itself: bool) -> None:
        """Its newest group, and so perhaps the next one."""
        self._alone.pop(tenant_id, None)
        if by_itself:
            self._alone[tenant_id] = None
            if len(self._alone) > _ALONE_MAX:
                del self._alone[next(iter(self._alone))]
        tenant = self._tenants.get(tenant_id)
        if tenant is not None and tenant.by_itself != by_itself:
            tenant.by_itself = by_itself
            sign = -1 if by_itself else 1
            self._tenants_together += sign
            self._together.add(sign * tenant.requests, sign * tenant.unread, sign * tenant.events)

    def _count(self, tenant: _Tenant) -> float:
        return tenant.events + (tenant.unread * self._events / self._event_bytes if self._event_bytes else 0)

    def _changes(
        self, tenant_id: Uuid | None, *, requests: int = 0, unread: int = 0, events: int = 0
    ) -> None:
        tenant = self._tenants.get(tenant_id)
        if tenant is None:
            tenant = self._tenants[tenant_id] = _Tenant(tenant_id is None or tenant_id in self._alone)
            self._tenants_together += not tenant.by_itself
        tenant.add(requests, unread, events)
        if not tenant.by_itself:
            self._together.add(requests, unread, events)
        if not tenant.requests:
            del self._tenants[tenant_id]
            self._tenants_together -= not tenant.by_itself

    def _learns(self, size: int, events: int) -> None:
        self._event_bytes = self._event_bytes * _LEARNED_KEPT + min(size, events * _EVENT_BYTES_MAX)
        self._events = self._events * _LEARNED_KEPT + events


class _Tenant:
    __slots__ = ("by_itself", "events", "requests", "unread")

    def __init__(self, by_itself: bool = False) -> None:
        self.requests = 0
        self.unread = 0
        """Bytes."""
        self.events = 0
        """Of those that were read."""
        self.by_itself = by_itself

    def add(self, requests: int, unread: int, events: int) -> None:
        self.requests += requests
        self.unread += unread
        self.events += events


class Request:
    """One that is under way, from entering until leaving."""

    __slots__ = ("_events", "_expected", "_tenant_id", "_unread")

    def __init__(self, expected: Expected, tenant_id: Uuid | None, size: int) -> None:
        self._expected = expected
        self._tenant_id = tenant_id
        self._unread = size
        self._events = 0

    def has(self, events: int) -> None:
        """It was read. One that is large makes a group that goes by itself."""
        if events >= LARGE and self._tenant_id is not None:
            self._expected.goes(self._tenant_id, by_itself=True)
        self._expected._learns(self._unread, events)
        self._expected._changes(self._tenant_id, unread=-self._unread, events=events)
        self._unread, self._events = 0, events

    def __enter__(self) -> Request:
        self._expected._changes(self._tenant_id, requests=1, unread=self._unread)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._expected._changes(self._tenant_id, requests=-1, unread=-self._unread, events=-self._events)
