"""Who is on the way with little goes first: a large group lets them pass between its steps (ADR 47, 48).

A large group takes both pools, the core and the database for a tenth of a second. So between two of its
steps it waits while other tenants have something under way, but little; in all about as long as its events
take by themselves. It never waits for one that has much under way, so no two large groups wait for each
other. Knows no events and stores nothing: what it says changes when a step begins, never what is stored.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from types import TracebackType

import trio

from journal.port import Passing
from ves.records import Uuid

LARGE_EVENTS = 256
"""Of a group that lets others pass. What fewer take is over soon."""
LITTLE_BYTES = 128 * 1024
"""Of a tenant's requests under way: some two hundred events, about two batches of a hundred."""
PATIENCE_S = 0.00005
"""Of a group for each of its events, all its waits together: about as long as two cores take for one. So
whatever others do, waiting alone leaves a tenant with large groups 20,000 events a second."""
GATHERED_SHARE = 4
"""A quarter of a tenant's requests under way are worth waiting for before a group of them is written: as they
come at the rate at which they are answered, that takes a quarter of the time they are under way anyway."""
GATHERED_BYTES = 512 * 1024
"""But no more of them than this: some eight hundred events, and their group is large."""
MUCH_BYTES = 256 * 1024
"""Of a tenant's requests under way, from which on its groups wait for more of them."""
LATELY_S = 1.0
"""So long after its last request somebody counts as coming again."""


class _Traffic:
    """What one tenant has under way."""

    __slots__ = ("bytes", "large", "requests")

    def __init__(self) -> None:
        self.requests = 0
        self.bytes = 0
        self.large = 0
        """Groups."""

    @property
    def is_little(self) -> bool:
        return self.requests > 0 and self.bytes < LITTLE_BYTES and not self.large


class RightOfWay:
    """One for the process: told by who receives events, asked by who writes a group of them."""

    def __init__(self) -> None:
        self.waited_s = 0.0
        """All large groups together."""
        self._traffic: dict[Uuid, _Traffic] = {}
        self._little = 0
        """Tenants that have little under way."""
        self._waiting = trio.lowlevel.ParkingLot()
        """Large groups."""
        self._is_held_up = False
        """One of them is waiting in the middle of its transaction."""
        self._last: Uuid | None = None
        """Who came last with little …"""
        self._last_at = -LATELY_S
        self._another_at = -LATELY_S
        """… and when anybody else did."""

    @property
    def tenants(self) -> int:
        """With anything under way."""
        return len(self._traffic)

    def request(self, tenant_id: Uuid | None, size: int) -> AbstractContextManager[None]:
        """For the time that a request with a body of so many bytes is under way. None: whose events they are
        stands in its body only. Nobody waits for those: they may be of the very group that would."""
        return nullcontext() if tenant_id is None else _Request(self, tenant_id, size)

    def worth_waiting_for(self, tenant_id: Uuid) -> int:
        """So many of its requests, before a group of them is written (ADR 49)."""
        traffic = self._traffic.get(tenant_id)
        if traffic is None or traffic.bytes < MUCH_BYTES:
            return 1
        return min(traffic.requests // GATHERED_SHARE, GATHERED_BYTES * traffic.requests // traffic.bytes)

    def group(self, tenant_id: Uuid, events: int) -> AbstractContextManager[Passage]:
        """For the time that a group of so many events is written."""
        return self._large_group(tenant_id, events) if events >= LARGE_EVENTS else _SMALL_GROUP

    @contextmanager
    def _large_group(self, tenant_id: Uuid, events: int) -> Iterator[Passage]:
        self._changes(tenant_id, large=1)
        try:
            yield _LargePassage(self, tenant_id, events * PATIENCE_S)
        finally:
            self._changes(tenant_id, large=-1)

    def _changes(self, tenant_id: Uuid, *, requests: int = 0, size: int = 0, large: int = 0) -> None:
        traffic = self._traffic.get(tenant_id)
        if traffic is None:
            traffic = self._traffic[tenant_id] = _Traffic()
        was_little = traffic.is_little
        traffic.requests += requests
        traffic.bytes += size
        traffic.large += large
        if traffic.is_little:
            self._little += not was_little
            if requests > 0:
                self._came(tenant_id)
        elif was_little:
            self._little -= 1
            if not self._little:
                self._waiting.unpark()
        if not traffic.requests and not traffic.large:
            del self._traffic[tenant_id]

    def _came(self, tenant_id: Uuid) -> None:
        now = trio.current_time()
        if tenant_id != self._last:
            self._another_at, self._last = self._last_at, tenant_id
        self._last_at = now

    # What a large group asks. Its own tenant has not little under way, so it is not among those.

    def _others_came_lately(self, tenant_id: Uuid) -> bool:
        at = self._another_at if self._last == tenant_id else self._last_at
        return trio.current_time() < at + LATELY_S

    async def _let_pass(self, patience_s: float) -> float:
        """Returns how much of the patience is left. Not cancelled meanwhile."""
        began = trio.current_time()
        with trio.CancelScope(deadline=began + patience_s, shield=True):
            while self._little:
                await self._waiting.park()
        if not self._little:  # one after the other: all at once would hold up whoever comes now
            self._waiting.unpark()
        waited_s = trio.current_time() - began
        self.waited_s += waited_s
        return patience_s - waited_s


class Passage:
    """One group's way: a small one's, that nothing is in the way of and that is in nobody's."""

    @property
    def is_large_beside_others(self) -> bool:
        """Short steps are worth their price."""
        return False

    @property
    def in_transaction(self) -> Passing | None:
        """How it lets others pass there, if it is large beside others."""
        return None

    async def step(self) -> None:
        """Before a step of a large group: whoever has little goes first, and everybody has a turn. A small
        one does not go around for nothing."""

    async def turn(self) -> None:
        """Before what is short and only this group's: everybody has a turn, nobody is waited for. Never
        cancelled: what is durable is told."""

    def hurry(self) -> None:
        """Another writer was first: the sooner this one has decided anew and written, the better."""


_SMALL_GROUP = nullcontext(Passage())


class _LargePassage(Passage):
    def __init__(self, way: RightOfWay, tenant_id: Uuid, patience_s: float) -> None:
        self._way = way
        self._tenant_id = tenant_id
        self._patience_s = patience_s

    @property
    def is_large_beside_others(self) -> bool:
        return self._patience_s > 0 and self._way._others_came_lately(self._tenant_id)

    @property
    def is_due(self) -> bool:
        """Somebody is there to be let pass, and there is patience left."""
        return self._way._little > 0 and self._patience_s > 0

    @property
    def in_transaction(self) -> Passing | None:
        return _InTransaction(self._way, self) if self.is_large_beside_others else None

    async def step(self) -> None:
        await self.turn()
        if self.is_due:
            self._patience_s = await self._way._let_pass(self._patience_s)

    async def turn(self) -> None:
        await trio.lowlevel.cancel_shielded_checkpoint()

    def hurry(self) -> None:
        self._patience_s = 0


class _InTransaction:
    """Only one group at a time waits with a connection in its hands: those it lets pass need one too."""

    def __init__(self, way: RightOfWay, passage: _LargePassage) -> None:
        self._way = way
        self._passage = passage

    @property
    def is_due(self) -> bool:
        return self._passage.is_due and not self._way._is_held_up

    async def step(self) -> None:
        if not self.is_due:  # it was when asked, some turns ago
            return
        self._way._is_held_up = True
        try:
            await self._passage.step()
        finally:
            self._way._is_held_up = False


class _Request:
    __slots__ = ("_size", "_tenant_id", "_way")

    def __init__(self, way: RightOfWay, tenant_id: Uuid, size: int) -> None:
        self._way = way
        self._tenant_id = tenant_id
        self._size = size

    def __enter__(self) -> None:
        self._way._changes(self._tenant_id, requests=1, size=self._size)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._way._changes(self._tenant_id, requests=-1, size=-self._size)
