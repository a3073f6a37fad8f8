"""When a chain that failed again and again is left alone, and for how long. Pure: time comes in.

Closed: everything is asked. Open: nothing is, until a pause has passed that doubles each time. Half open: one
call is asked, and how it ends decides. It never asks anything itself.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

FAILURES_MAX = 5
WINDOW_S = 60.0
PAUSE_S = 5.0
PAUSE_MAX_S = 300.0


@dataclass
class Breaker:
    failures_max: int = FAILURES_MAX
    """So many failures within the window, with no success among them, open it."""
    window_s: float = WINDOW_S
    pause_s: float = PAUSE_S
    pause_max_s: float = PAUSE_MAX_S
    _failed_at: deque[float] = field(default_factory=deque)
    _pause: float = 0.0
    """0: closed."""
    _until: float = 0.0
    _probing: bool = False

    @property
    def is_open(self) -> bool:
        """Also while it is half open: nothing has succeeded yet."""
        return self._pause > 0

    def opens_in_s(self, now: float) -> float:
        """How long calls are still refused, as far as is known."""
        return max(0.0, self._until - now) if self.is_open else 0.0

    def may_ask(self, now: float) -> bool:
        """True obliges the caller to say how it ended: ``succeeded``, ``failed`` or ``gave_up``."""
        if not self.is_open:
            return True
        if self._probing or now < self._until:
            return False
        self._probing = True
        return True

    def succeeded(self) -> None:
        self._failed_at.clear()
        self._pause, self._probing = 0.0, False

    def failed(self, now: float) -> None:
        if self.is_open:
            # A call that began before it opened says nothing new.
            if self._probing:
                self._open(now, min(self._pause * 2, self.pause_max_s))
            return
        self._failed_at.append(now)
        while self._failed_at[0] <= now - self.window_s:
            self._failed_at.popleft()
        if len(self._failed_at) >= self.failures_max:
            self._open(now, self.pause_s)

    def gave_up(self) -> None:
        """The caller did not wait for the answer: the next one may ask in its place."""
        self._probing = False

    def _open(self, now: float, pause: float) -> None:
        self._pause, self._until, self._probing = pause, now + pause, False
        self._failed_at.clear()
