"""How many bytes of requests and replies may be in memory at once, per tenant and on the node.

It alone counts them. What is over the caller's own share is the caller's to wait for (429), what is over the
node's is ours (503); both before the bytes are read.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager, nullcontext

import trio

from config.machine import usable_memory
from transport.http.errors import ApiError, Code
from ves.records import Uuid

PAUSE_S = 1.0
LARGE_BODY_BYTES = 256 * 1024
"""A few hundred ordinary events; above it the worst body takes a verifier noticeably long."""
HUGE_BODY_BYTES = 2 * 1024 * 1024
"""More than a full batch of ordinary events; the worst such body takes a verifier seconds."""


class BytesInFlight:
    def __init__(self, *, tenant_bytes_max: int, node_bytes_max: int | None) -> None:
        self.total = 0
        self._tenant_bytes_max = tenant_bytes_max
        self._node_bytes_max = node_bytes_max or usable_memory() // 4
        self._of_tenant: Counter[Uuid | None] = Counter()

    def reserve(self, tenant_id: Uuid | None, size: int) -> None:
        """Raises 429 or 503; then nothing was reserved."""
        if self._of_tenant[tenant_id] + size > self._tenant_bytes_max:
            text = "too many bytes of your tenant's requests are in flight; nothing was done"
            raise ApiError(Code.RATE_LIMIT_EXCEEDED, text, retry_after_s=PAUSE_S)
        if self.total + size > self._node_bytes_max:
            text = "too many bytes of requests are in flight on this node; nothing was done"
            raise ApiError(Code.SERVICE_UNAVAILABLE, text, retry_after_s=PAUSE_S)
        self._of_tenant[tenant_id] += size
        self.total += size

    def release(self, tenant_id: Uuid | None, size: int) -> None:
        self.total -= size
        self._of_tenant[tenant_id] -= size
        if not self._of_tenant[tenant_id]:
            del self._of_tenant[tenant_id]


_AT_ONCE = nullcontext()
"""The turn of what need not wait."""


class LargeBodies:
    """Turns for what takes a verifier long: of one tenant at most ``at_once`` large bodies are verified at a
    time, and of all tenants at most as many huge ones, so that a verifier is left for small ones."""

    def __init__(self, at_once: int) -> None:
        self._at_once = at_once
        self._turns: dict[Uuid | None, trio.Semaphore] = {}
        self._huge = trio.Semaphore(at_once, max_value=at_once)

    def turn(
        self, tenant_id: Uuid | None, size: int, *, patience_s: float
    ) -> AbstractAsyncContextManager[None]:
        """Raises 503 when its turn has not come within ``patience_s``; nothing was done."""
        return _AT_ONCE if size <= LARGE_BODY_BYTES else self._turn(tenant_id, size, patience_s)

    @asynccontextmanager
    async def _turn(self, tenant_id: Uuid | None, size: int, patience_s: float) -> AsyncIterator[None]:
        turns = self._turns.setdefault(tenant_id, trio.Semaphore(self._at_once, max_value=self._at_once))
        try:
            async with AsyncExitStack() as held:
                try:
                    with trio.fail_after(patience_s):
                        await held.enter_async_context(turns)
                        if size > HUGE_BODY_BYTES:
                            await held.enter_async_context(self._huge)
                except trio.TooSlowError:
                    text = "other large requests of your tenant are being verified; nothing was done"
                    raise ApiError(Code.SERVICE_UNAVAILABLE, text, retry_after_s=PAUSE_S) from None
                yield
        finally:
            if turns.value == self._at_once:
                self._turns.pop(tenant_id, None)


class Turns:
    """Of each tenant one request at a time, so that many of one keep nobody from what there is one of."""

    def __init__(self, others: str) -> None:
        """``others``: what is under way when one has to wait, for the refusal."""
        self._others = others
        self._of_tenant: dict[Uuid, trio.Semaphore] = {}

    @asynccontextmanager
    async def turn(self, tenant_id: Uuid, *, patience_s: float) -> AsyncIterator[None]:
        """Raises 429 when its turn has not come within ``patience_s``; nothing was done."""
        mine = self._of_tenant.setdefault(tenant_id, trio.Semaphore(1, max_value=1))
        try:
            with trio.move_on_after(patience_s) as waiting:
                await mine.acquire()
            if waiting.cancelled_caught:
                text = f"{self._others}; nothing was done"
                raise ApiError(Code.RATE_LIMIT_EXCEEDED, text, retry_after_s=PAUSE_S)
            try:
                yield
            finally:
                mine.release()
        finally:
            if mine.value:
                self._of_tenant.pop(tenant_id, None)


class Pace:
    """Things that may happen ``per_s`` times a second, evenly; whoever comes too early waits."""

    def __init__(self, *, per_s: float) -> None:
        self._apart_s = 1 / per_s
        self._next = 0.0

    async def turn(self, *, patience_s: float) -> None:
        """Returns when it is the caller's turn, or after ``patience_s``."""
        now = trio.current_time()
        mine = max(now, self._next)
        self._next = min(mine, now + patience_s) + self._apart_s
        await trio.sleep(min(mine - now, patience_s))
