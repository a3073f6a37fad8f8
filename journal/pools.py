"""A pool of sessions for as long as somebody needs it. Alone opens and closes pools; knows no table."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import trio

from journal.aio import cross
from journal.connections import Limits, make_pool
from journal.units import Checkpoint, Units

if TYPE_CHECKING:
    from journal.connections import Connection, Pool

_CLOSE_S = 5.0


@asynccontextmanager
async def open_units(
    dsn: str,
    *,
    limits: Limits,
    checkpoint: Checkpoint,
    application_name: str,
    check: Callable[[Connection], Awaitable[None]] | None = None,
    appending_beside: Units | None = None,
) -> AsyncIterator[Units]:
    """Inside ``journal.aio.open_loop`` only. Connects when first asked; ``check`` looks at each new
    connection before it is used. ``appending_beside``: these are for appends, on the same database."""
    pool = make_pool(
        dsn,
        limits,
        application_name=application_name,
        check=check,
        for_appends=appending_beside is not None,
    )
    await cross(lambda: _initialize(pool))
    units = Units(
        pool,
        deadline_s=limits.unit_deadline_s,
        checkpoint=checkpoint,
        condition=appending_beside.condition if appending_beside else None,
    )
    try:
        yield units
    finally:
        with trio.CancelScope(shield=True):  # also when we leave because we are cancelled
            await cross(units.give_back)
            await cross(lambda: _close(pool))


async def _initialize(pool: Pool) -> None:
    await pool  # with min_size 0 it connects to nothing yet


async def _close(pool: Pool) -> None:
    """Whoever still holds a connection has a deadline for it; then the connections are cut."""
    try:
        async with asyncio.timeout(_CLOSE_S):
            await pool.close()
    except TimeoutError:
        pool.terminate()
