"""Monitors: whoever wants to know is told once when a life ends, and why (OTP: ``erlang:monitor/2``).

One office serves the whole house; the supervisors report every end to it. It never keeps anybody alive and
never decides about a restart. A monitor watches one incarnation: after its end a new one has to be set.
"""

from __future__ import annotations

from collections.abc import Callable

import trio

from actors.mailbox import Mailbox
from actors.messages import Message


class Down(Message[None], frozen=True):
    """What a watching actor finds in its mailbox. ``how`` as in ``actors.views.EndView``, or ``not_alive``:
    there was nobody when the monitor was set."""

    path: str
    incarnation: int
    how: str
    why: str


class Monitor:
    """One watch. ``with`` it, or ``demonitor`` when nobody wants to know any more."""

    __slots__ = ("_demonitor", "_fired", "down", "path", "watcher")

    def __init__(self, path: str, watcher: Mailbox | None, demonitor: Callable[[Monitor], None]) -> None:
        self.path = path
        self.watcher = watcher
        self.down: Down | None = None
        self._fired = trio.Event()
        self._demonitor = demonitor

    async def wait(self) -> Down:
        """Until that life has ended."""
        await self._fired.wait()
        assert self.down is not None
        return self.down

    def demonitor(self) -> None:
        """No word comes any more. Harmless when it has come."""
        self._demonitor(self)

    def fire(self, down: Down) -> None:
        self.down = down
        self._fired.set()
        if self.watcher is not None:
            self.watcher.notify(down)

    def __enter__(self) -> Monitor:
        return self

    def __exit__(self, *_: object) -> None:
        self.demonitor()


class Monitors:
    """Who watches whom."""

    def __init__(self) -> None:
        self._of_path: dict[str, list[Monitor]] = {}

    def __len__(self) -> int:
        return sum(map(len, self._of_path.values()))

    def monitor(self, path: str, watcher: Mailbox | None) -> Monitor:
        monitor = Monitor(path, watcher, self._forget)
        self._of_path.setdefault(path, []).append(monitor)
        return monitor

    def tell(self, down: Down) -> None:
        """That life is over: everybody who watches it hears it, once."""
        for monitor in self._of_path.pop(down.path, ()):
            monitor.fire(down)

    def _forget(self, monitor: Monitor) -> None:
        watching = self._of_path.get(monitor.path, [])
        if monitor in watching:
            watching.remove(monitor)
            if not watching:
                del self._of_path[monitor.path]
