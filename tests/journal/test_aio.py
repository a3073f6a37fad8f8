"""The bridge: what it replaces of the library it rests on, and what that buys."""

from __future__ import annotations

import asyncio
import inspect

import trio
import trio_asyncio  # type: ignore[import-untyped, unused-ignore]

from journal.aio import CALLBACKS_A_TURN, cross, open_loop


def test_the_library_still_has_the_methods_that_are_replaced() -> None:
    assert callable(trio_asyncio.TrioEventLoop._main_loop_one)
    assert "self._check_callback(callback" in inspect.getsource(trio_asyncio.TrioEventLoop.call_soon)


async def test_all_callbacks_that_are_ready_run_in_one_turn_of_trio() -> None:
    class Turns(trio.abc.Instrument):
        count = 0

        def before_io_wait(self, timeout: float) -> None:
            self.count += 1

    async def many() -> int:
        turns = Turns()
        trio.lowlevel.add_instrument(turns)
        try:
            for _ in range(CALLBACKS_A_TURN // 2):
                await asyncio.sleep(0)
        finally:
            trio.lowlevel.remove_instrument(turns)
        return turns.count

    async with open_loop():
        await cross(many)
        assert await cross(many) <= 4


async def test_callbacks_without_end_leave_trio_its_turn() -> None:
    ended = False

    async def endless() -> None:
        while not ended:  # noqa: ASYNC110 - a callback in every turn is what is tested
            await asyncio.sleep(0)

    async with open_loop(), trio.open_nursery() as nursery:
        nursery.start_soon(cross, endless)
        for _ in range(10):
            await trio.lowlevel.checkpoint()
        ended = True
