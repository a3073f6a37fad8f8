"""The bridge between Trio and the database driver: an asyncio loop that runs inside the Trio one.

Alone imports ``trio_asyncio``, which replaces the whole process's asyncio policy: open the loop outermost,
before anything that may want the journal, and only once. A stray failure on the asyncio side (a forgotten
task, a broken callback) is logged and counted here; without the handler it would take the house down.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from functools import partial
from typing import Any, TypeVar

import structlog
import trio
import trio_asyncio  # type: ignore[import-untyped, unused-ignore]

T = TypeVar("T")

CALLBACKS_A_TURN = 64
"""Then whatever else the house does has its turn."""

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
        loop._main_loop_one = partial(_turn, loop._main_loop_one)
        loop._check_callback = _unchecked
        yield strays


async def _turn(run_one: Callable[..., Awaitable[None]], no_wait: bool = False) -> None:
    """Runs every callback that is ready, as asyncio does, where the bridge's own loop goes once around
    Trio's scheduler, and asks the kernel for events, after each."""
    await run_one(no_wait)
    if not no_wait:
        with suppress(trio.WouldBlock):
            for _ in range(CALLBACKS_A_TURN):
                await run_one(True)


def _unchecked(callback: object, method: str) -> None:
    """asyncio looks at each callback in debug mode only; the bridge's loop always does."""


async def cross(unit: Callable[[], Awaitable[T]]) -> T:
    """Runs one asyncio unit to its end and answers with its result, whoever is cancelled meanwhile.

    Cancelling an asyncio task that speaks to the database leaks connections and leaves transactions open,
    and cancelled does not mean not committed. So the unit is shielded; its own deadline ends it. A caller
    that is cancelled already starts none (else a loop of units could never be left).
    """
    await trio.lowlevel.checkpoint_if_cancelled()
    result: T
    with trio.CancelScope(shield=True):
        result = await trio_asyncio.aio_as_trio(unit)()
    return result
