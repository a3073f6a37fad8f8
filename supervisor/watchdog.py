"""Measures how late the event loop is, and names the actor that held it.

A daemon thread looks at a heartbeat; when it stays away too long it reads the loop thread's stack *while* it
is stuck, so the log shows the very line, at no cost to anybody else. It never interrupts the culprit: nothing
in this process can, which is why heavy work belongs to worker processes.
"""

from __future__ import annotations

import sys
import threading
import time
from types import FrameType

import structlog
import trio

from actors.mailbox import Inbox
from actors.vitals import LoopLag
from supervisor.incarnation import Incarnation

log = structlog.get_logger()


class Watchdog:
    """Writes into ``lag``; whoever holds the loop longer than ``alarm_s`` is named."""

    def __init__(self, lag: LoopLag, *, interval_s: float = 0.1, alarm_s: float = 0.2) -> None:
        self.lag = lag
        self.interval_s = interval_s
        self.alarm_s = alarm_s
        self._beat_at = time.monotonic()

    async def run(self, inbox: Inbox) -> None:
        over = threading.Event()
        self._beat_at = time.monotonic()
        threading.Thread(
            target=self._watch, args=(threading.get_ident(), over), name="watchdog", daemon=True
        ).start()
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._beat)
                await inbox.until_stop()
                nursery.cancel_scope.cancel(reason="asked to stop")
        finally:
            over.set()

    async def _beat(self) -> None:
        while True:
            slept_at = time.monotonic()
            await trio.sleep(self.interval_s)
            self._beat_at = time.monotonic()
            self.lag.beat(self._beat_at - slept_at - self.interval_s)

    def _watch(self, loop_thread: int, over: threading.Event) -> None:
        named_beat = 0.0
        while not over.wait(self.alarm_s / 2):
            beat_at = self._beat_at
            late_s = time.monotonic() - beat_at - self.interval_s
            if late_s > self.alarm_s and beat_at != named_beat:
                named_beat = beat_at  # one hog is named once, however long it holds on
                self._name_the_hog(sys._current_frames().get(loop_thread), late_s)

    def _name_the_hog(self, frame: FrameType | None, late_s: float) -> None:
        self.lag.hogs += 1
        self.lag.last_hog = whose(frame)
        log.warning("event loop held", by=self.lag.last_hog, late_s=round(late_s, 3))


def whose(frame: FrameType | None) -> str:
    """The actor on whose stack ``frame`` is, and the innermost line; only the line for an actor's own
    sub-tasks, whose stack does not show who started them."""
    if frame is None:
        return "unknown"
    where = f"{frame.f_code.co_filename}:{frame.f_lineno} {frame.f_code.co_name}"
    outer: FrameType | None = frame
    while outer is not None:
        if outer.f_code is Incarnation.live.__code__:
            return f"{outer.f_locals['self'].name} at {where}"
        outer = outer.f_back
    return where
