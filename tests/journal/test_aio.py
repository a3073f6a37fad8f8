"""The bridge: what it replaces of the library it rests on, and what that buys."""

from __future__ import annotations

import asyncio
import gc
import inspect
import socket
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import trio
import trio.testing
import trio_asyncio  # type: ignore[import-untyped, unused-ignore]

from journal.aio import CALLBACKS_A_TURN, cross, open_loop


def test_the_library_still_has_what_is_replaced_or_leant_on() -> None:
    loop = trio_asyncio.TrioEventLoop
    for name in ("_main_loop_one", "_io_task", "_queue_handle", "_timer_handle_cancelled", "synchronize"):
        assert callable(getattr(loop, name))
    assert "self._io_task, fd, handle, wait_ready" in inspect.getsource(loop._add_io_handler)
    assert "self._timers[0]._when" in inspect.getsource(loop._main_loop_one)
    assert "_loop._timer_handle_cancelled(self)" in inspect.getsource(asyncio.TimerHandle.cancel)


class Turns(trio.abc.Instrument):
    """Counts how often Trio asks the kernel."""

    count = 0

    def before_io_wait(self, timeout: float) -> None:
        self.count += 1


@contextmanager
def turns_counted() -> Iterator[Turns]:
    turns = Turns()
    trio.lowlevel.add_instrument(turns)
    try:
        yield turns
    finally:
        trio.lowlevel.remove_instrument(turns)


async def test_all_callbacks_that_are_ready_run_in_one_turn_of_trio() -> None:
    async def many() -> None:
        for _ in range(CALLBACKS_A_TURN // 2):
            await asyncio.sleep(0)

    async with open_loop():
        await cross(many)
        with turns_counted() as turns:
            await cross(many)
        assert turns.count <= 2


async def test_a_round_trip_over_a_socket_takes_as_few_turns_as_can_be() -> None:
    near, far = socket.socketpair()
    with near, far:
        near.setblocking(False)

        async def ask() -> bytes:
            loop = asyncio.get_running_loop()
            async with asyncio.timeout(60):
                answer = await loop.sock_recv(near, 1)
                far.send(b"2")
                return answer + await loop.sock_recv(near, 1)

        async with open_loop():
            for _ in range(2):
                with turns_counted() as turns:
                    async with trio.open_nursery() as nursery:
                        nursery.start_soon(cross, ask)
                        await trio.testing.wait_all_tasks_blocked()
                        turns.count = 0
                        far.send(b"1")
            assert turns.count <= 3  # it is read, its caller goes on, and nobody is left


async def test_a_timer_that_was_cancelled_wakes_nobody_and_is_not_kept() -> None:
    async def hurried() -> None:
        loop = asyncio.get_running_loop()
        timers = [loop.call_later(0.01 + n / 10_000, int) for n in range(1000)]
        await asyncio.sleep(0.001)  # its own task has seen them
        for timer in timers:
            timer.cancel()
        loop.call_later(60, int).cancel()

    async with open_loop():
        await cross(hurried)
        gc.collect()
        assert sum(isinstance(one, asyncio.TimerHandle) for one in gc.get_objects()) < 10
        with turns_counted() as turns:
            await trio.sleep(0.2)
        assert turns.count <= 4


async def test_timers_ring_in_their_order_whatever_was_waited_for_already() -> None:
    rung: list[int] = []
    all_rung = trio.Event()

    def ring(order: int) -> None:
        rung.append(order)
        if len(rung) == 3:
            all_rung.set()

    async def wind() -> None:
        loop = asyncio.get_running_loop()
        now = loop.time()
        late = loop.call_at(now + 0.06, ring, 3)
        await asyncio.sleep(0.001)  # its own task waits for the late one now
        loop.call_at(now + 0.02, ring, 1)
        loop.call_at(now + 0.04, ring, 2)
        loop.call_at(now + 0.03, ring, 4).cancel()
        assert not late.cancelled()

    async with open_loop():
        await cross(wind)
        with trio.fail_after(60):
            await all_rung.wait()
    assert rung == [1, 2, 3]


async def test_a_unit_ends_although_its_caller_is_cancelled_and_then_the_caller_does() -> None:
    ended = False

    async def unit() -> None:
        nonlocal ended
        await asyncio.sleep(0.02)
        ended = True

    async with open_loop():
        with trio.move_on_after(0.001) as patience:
            await cross(unit)
            await trio.lowlevel.checkpoint()
    assert ended
    assert patience.cancelled_caught


async def test_what_a_unit_raises_reaches_who_crossed() -> None:
    async def fails() -> None:
        raise KeyError("at once")

    async def fails_later() -> None:
        await asyncio.sleep(0.001)
        raise KeyError("later")

    async with open_loop() as strays:
        for unit in (fails, fails_later):
            with pytest.raises(KeyError):
                await cross(unit)
        assert strays.count == 0


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
