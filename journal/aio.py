"""The bridge between Trio and the database driver: an asyncio loop that runs inside the Trio one.

Alone imports ``trio_asyncio``, which replaces the whole process's asyncio policy: open the loop outermost,
before anything that may want the journal, and only once. A stray failure on the asyncio side (a forgotten
task, a broken callback) is logged and counted here; without the handler it would take the house down.
Replaces private methods of the pinned library where their cost shows (ADR 40); tests say which.
"""

from __future__ import annotations

import asyncio
import heapq
import math
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager
from contextvars import Context
from typing import Any, TypeVar

import structlog
import trio
import trio_asyncio  # type: ignore[import-untyped, unused-ignore]
from trio_asyncio._base import (  # type: ignore[import-untyped, unused-ignore]
    sniffio_library as _library,
)

T = TypeVar("T")

CALLBACKS_A_TURN = 64
"""Then whatever else the house does has its turn."""
_CANCELLED_TIMERS_MAX = 64
"""And as many as those that still run: then all that were cancelled are dropped."""

_log = structlog.get_logger("journal.aio")


class Strays:
    """How many failures nobody was waiting for; not zero is worth an alert."""

    def __init__(self) -> None:
        self.count = 0

    def handle(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        """What asyncio calls as exception handler. ``context["message"]`` is asyncio's own text."""
        self.count += 1
        error = context.get("exception")
        _log.error("asyncio_stray", message=context.get("message"), error=repr(error) if error else None)


@asynccontextmanager
async def open_loop() -> AsyncIterator[Strays]:
    """Inside, the journal can be opened. Yields the counter of stray failures."""
    strays = Strays()
    async with trio_asyncio.open_loop() as loop:
        loop.set_exception_handler(strays.handle)
        loop.__class__ = _Loop
        loop.begin()
        yield strays


class _Loop(trio_asyncio.TrioEventLoop):  # type: ignore[misc, unused-ignore]
    """Runs callbacks where they become ready: by whoever crosses, and where a socket was found readable.

    The bridge's own loop has a task for them, which goes once around Trio's scheduler, and asks the kernel
    for events, before each; a round trip to the database took half a dozen such turns, now two. That task is
    left what nobody else runs: timers, and what goes beyond one turn's share.
    """

    def begin(self) -> None:
        """After the library has made it."""
        self._callbacks: deque[asyncio.Handle] = deque()
        self._is_running_them = False
        self._wakes_at = math.inf
        """When the loop's own task will look at the timers without being asked."""
        self._cancelled_timers = 0
        """Of those in ``_timers``."""

    def start(self, unit: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        """Has run as far as it gets without waiting."""
        return self._run_with_what_follows(lambda: self.create_task(unit))

    def call_soon(
        self, callback: Callable[..., object], *args: Any, context: Context | None = None
    ) -> asyncio.Handle:
        handle = asyncio.Handle(callback, args, self, context)
        if not self._callbacks and not self._is_running_them:
            self._ask_own_task()
        self._callbacks.append(handle)
        return handle

    def call_later(
        self, delay: float, callback: Callable[..., object], *args: Any, context: Context | None = None
    ) -> asyncio.TimerHandle:
        return self.call_at(self.time() + delay, callback, *args, context=context)

    def call_at(
        self, when: float, callback: Callable[..., object], *args: Any, context: Context | None = None
    ) -> asyncio.TimerHandle:
        handle = asyncio.TimerHandle(when, callback, args, self, context)
        self._drop_cancelled_timers()
        heapq.heappush(self._timers, handle)
        if when < self._wakes_at:
            self._wakes_at = when
            self._ask_own_task()
        return handle

    def _timer_handle_cancelled(self, handle: asyncio.TimerHandle) -> None:
        self._cancelled_timers += 1

    def _drop_cancelled_timers(self) -> None:
        """Nearly all of them are cancelled long before they ring, and nobody is to wake up for those."""
        timers = self._timers
        if self._cancelled_timers > max(_CANCELLED_TIMERS_MAX, len(timers) // 2):
            timers[:] = [timer for timer in timers if not timer.cancelled()]
            heapq.heapify(timers)
            self._cancelled_timers = 0
        while timers and timers[0].cancelled():
            heapq.heappop(timers)
            self._cancelled_timers -= 1

    async def _main_loop_one(self, no_wait: bool = False) -> None:
        self._drop_cancelled_timers()
        self._wakes_at = self._timers[0].when() if self._timers else math.inf
        await super()._main_loop_one(no_wait)

    def _ask_own_task(self) -> None:
        self._queue_handle(asyncio.Handle(self._run_with_what_follows, (_nothing,), self))

    def _run_with_what_follows(self, act: Callable[[], T]) -> T:
        """``act``, and the callbacks that are ready then."""
        callbacks = self._callbacks
        library, _library.name = _library.name, "asyncio"
        self._is_running_them = True
        try:
            answer = act()
            for _ in range(CALLBACKS_A_TURN):
                if not callbacks:
                    break
                handle = callbacks.popleft()
                if not handle.cancelled():
                    handle._run()
            return answer
        finally:
            self._is_running_them = False
            _library.name = library
            if callbacks:
                self._ask_own_task()

    async def _io_task(self, fd: Any, handle: Any, wait_ready: Callable[[Any], Awaitable[None]]) -> None:
        """For each time that ``fd`` is ready, until ``handle`` is cancelled."""
        with handle._scope:
            while not handle.cancelled():
                try:
                    await wait_ready(fd)
                except Exception as error:
                    if not handle.cancelled():  # else it was closed before its handle's task heard of it
                        handle._raise(error)
                    return
                if handle.cancelled():
                    return
                self._run_with_what_follows(handle._run)
                if self._callbacks:  # one of them may be about to cancel it
                    await self.synchronize()


def _nothing() -> None:
    pass


async def cross(unit: Callable[[], Awaitable[T]]) -> T:
    """Runs one asyncio unit to its end and answers with its result, whoever is cancelled meanwhile.

    Cancelling an asyncio task that speaks to the database leaks connections and leaves transactions open,
    and cancelled does not mean not committed. So the unit is shielded; its own deadline ends it. A caller
    that is cancelled already starts none (else a loop of units could never be left).
    """
    await trio.lowlevel.checkpoint_if_cancelled()
    loop: _Loop = trio_asyncio.current_loop.get()
    task = loop.start(_awaited(unit))
    if task.done():
        await trio.lowlevel.cancel_shielded_checkpoint()
    else:
        caller = trio.lowlevel.current_task()
        task.add_done_callback(lambda _: trio.lowlevel.reschedule(caller))
        await trio.lowlevel.wait_task_rescheduled(_until_it_ends)
    return task.result()


async def on_trio(act: Callable[[], Awaitable[T]]) -> T:
    """For a unit: its answer, from Trio's side. It should not take long: if the unit's deadline passes and
    ``act`` is shielded, the unit is cancelled when ``act`` is over."""
    task = asyncio.current_task()
    assert task is not None
    cancelled_before = task.cancelling()
    answer: T = await trio_asyncio.trio_as_aio(act)()
    if task.cancelling() > cancelled_before:  # a shielded act answers all the same, and asyncio forgets
        raise asyncio.CancelledError
    return answer


async def _awaited(unit: Callable[[], Awaitable[T]]) -> T:
    return await unit()


def _until_it_ends(_: object) -> trio.lowlevel.Abort:
    return trio.lowlevel.Abort.FAILED
