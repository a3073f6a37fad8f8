"""Signs of life for those who look from outside: the pulse of the database, and how late the loop is.

``Pulse`` asks the database once in a while whether it is there and tells readiness; requests find out for
themselves. ``LoopLag`` is where the watchdog writes down what it measured. Both decide and repair nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from actors.mailbox import Inbox
from journal.port import Journal, JournalError


@dataclass
class LoopLag:
    """Kept from one life of the watchdog to the next. ``lag_s`` is how late the last heartbeat was,
    ``peak_s`` the latest since ``take_peak``, ``hogs`` how often somebody held the loop too long,
    ``last_hog`` who and where."""

    lag_s: float = 0.0
    peak_s: float = 0.0
    hogs: int = 0
    last_hog: str | None = None

    def beat(self, late_s: float) -> None:
        self.lag_s = max(0.0, late_s)
        self.peak_s = max(self.peak_s, self.lag_s)

    def take_peak(self) -> float:
        """The greatest lag in seconds since the last call; for a gauge that is read at intervals."""
        peak, self.peak_s = self.peak_s, 0.0
        return peak


class Pulse:
    """``tell(None)`` when the database answered, ``tell(reason)`` when it did not."""

    def __init__(self, *, journal: Journal, every_s: float, tell: Callable[[str | None], None]) -> None:
        self._journal = journal
        self._every_s = every_s
        self._tell = tell

    async def run(self, inbox: Inbox) -> None:
        while True:
            try:
                await self._journal.ping()
            except JournalError as error:
                self._tell(f"the database does not answer: {error}")
            else:
                self._tell(None)
            await inbox.pause(self._every_s)
