"""Waiting until a block includes a commitment, for callers who would otherwise ask again and again.

It alone knows who waits for which commitment. All of them share one look at the journal every
``LOOK_EVERY_S``, and nobody holds a connection while he waits. At most ``WAITERS_MAX`` wait; the next ones
are answered at once with what is known.
"""

from __future__ import annotations

from collections import Counter

import trio

from journal.port import AnchorRecord, CommitmentAnchor, JournalError
from ves.records import Uuid

WAITERS_MAX = 100
WAITERS_OF_TENANT_MAX = 10
LOOK_EVERY_S = 0.25
IN_A_BLOCK = frozenset({"included", "safe", "finalized"})
SETTLED = IN_A_BLOCK | {"reported"}


class AnchorWaits:
    def __init__(self, journal: AnchorRecord) -> None:
        self._journal = journal
        self._of_tenant: Counter[Uuid] = Counter()
        self._waited_for: Counter[Uuid] = Counter()
        self._looking = trio.Lock()
        self._seen: dict[Uuid, CommitmentAnchor | None] = {}
        """As the last look found them, all those that were waited for then."""
        self._good_until = -float("inf")

    async def wait_for(
        self, tenant_id: Uuid, batch_id: Uuid, *, known: CommitmentAnchor | None, wait_s: float
    ) -> CommitmentAnchor | None:
        """Its anchor as last seen: in a block, or as it is after ``wait_s``; at once when too many wait. A
        journal that is away meanwhile costs only news."""
        if self._of_tenant.total() >= WAITERS_MAX or self._of_tenant[tenant_id] >= WAITERS_OF_TENANT_MAX:
            return known
        self._of_tenant[tenant_id] += 1
        self._waited_for[batch_id] += 1
        try:
            with trio.move_on_after(wait_s):
                while known is None or known.state not in SETTLED:
                    known = await self._look(batch_id, known)
                    if known is None or known.state not in SETTLED:
                        await trio.sleep(LOOK_EVERY_S)
        finally:
            _one_less(self._of_tenant, tenant_id)
            _one_less(self._waited_for, batch_id)
        return known

    async def _look(self, batch_id: Uuid, known: CommitmentAnchor | None) -> CommitmentAnchor | None:
        async with self._looking:
            if trio.current_time() >= self._good_until or batch_id not in self._seen:
                wanted = list(self._waited_for)
                try:
                    found = await self._journal.read_anchors(wanted)
                except JournalError:
                    return known
                self._seen = {one: found.get(one) for one in wanted}
                self._good_until = trio.current_time() + LOOK_EVERY_S
            return self._seen[batch_id]


def _one_less(counter: Counter[Uuid], of: Uuid) -> None:
    counter[of] -= 1
    if not counter[of]:
        del counter[of]
