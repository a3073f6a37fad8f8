"""Waiting for a stream to grow, for readers who would otherwise ask again and again.

It alone knows who waits for which stream. What this node appends is announced at once; what other nodes
append is found by looking at the head now and then. At most ``WAITERS_MAX`` wait; the next ones are answered
at once, as if they had not wanted to wait.
"""

from __future__ import annotations

from collections import Counter

import trio

from journal.port import Journal
from ves.records import Uuid

WAITERS_MAX = 200
WAITERS_OF_TENANT_MAX = 50
LOOK_EVERY_S = 1.0

Stream = tuple[Uuid, Uuid]


class Heads:
    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self._listeners: dict[Stream, set[trio.Event]] = {}
        self._waiting: Counter[Uuid] = Counter()

    def announce(self, tenant_id: Uuid, store_id: Uuid) -> None:
        """This node appended to the stream."""
        for grown in self._listeners.get((tenant_id, store_id), ()):
            grown.set()

    async def wait_for(self, tenant_id: Uuid, store_id: Uuid, *, sequence: int, wait_s: float) -> None:
        """Returns when the stream's head has reached ``sequence``, after ``wait_s``, or when too many wait.
        Raises JournalAway."""
        waiting = self._waiting
        if waiting.total() >= WAITERS_MAX or waiting[tenant_id] >= WAITERS_OF_TENANT_MAX:
            return
        waiting[tenant_id] += 1
        try:
            with trio.move_on_after(wait_s):
                while not await self._reached(tenant_id, store_id, sequence):
                    pass
        finally:
            waiting[tenant_id] -= 1
            if not waiting[tenant_id]:
                del waiting[tenant_id]

    async def _reached(self, tenant_id: Uuid, store_id: Uuid, sequence: int) -> bool:
        """Looks at the head; if it is too low, returns after the next announcement or a pause."""
        listeners = self._listeners.setdefault((tenant_id, store_id), set())
        grown = trio.Event()
        listeners.add(grown)  # before looking, so that nothing is announced unheard in between
        try:
            if await self._journal.read_head(tenant_id, store_id) >= sequence:
                return True
            with trio.move_on_after(LOOK_EVERY_S):
                await grown.wait()
            return False
        finally:
            listeners.discard(grown)
            if not listeners:
                self._listeners.pop((tenant_id, store_id), None)
