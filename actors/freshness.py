"""How long what was read of the database may be believed: the one rule of all books that remember.

Somebody polls the database every second for news (a revocation, a changed policy) and says when it was last
heard. So long as that is a moment ago, what is remembered stands; else the database is asked for each
request, few at a time. Alone counts the news and knows these limits; remembers nothing itself.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeVar

import trio

from actors.errors import MailboxFull

POLL_EVERY_S = 1.0
FRESH_S = 5.0
"""So long after the last good poll what is remembered is believed."""
LOOKUPS_MAX = 4
"""Lookups in the database at a time, so that a flood of unknown names leaves connections for the rest …"""
LOOKUPS_WAITING_MAX = 200
"""… and so many requests wait for their turn; more are refused at once."""

T = TypeVar("T")


class Freshness:
    """Of one book. ``whose``: what waiting requests wait for, in the words of a refusal."""

    def __init__(self, whose: str) -> None:
        self._whose = whose
        self._lookups = trio.Semaphore(LOOKUPS_MAX)
        self._news = 0
        """Counts what was heard of."""
        self._until = -float("inf")

    def __bool__(self) -> bool:
        """What is remembered is at most ``FRESH_S`` behind the database."""
        return trio.current_time() < self._until

    def heard(self, *, asked_at: float) -> None:
        """All news from before ``asked_at`` (``trio.current_time``) was heard."""
        self._until = asked_at + FRESH_S

    def news(self) -> None:
        """Something remembered, or being read just now, is not so any more."""
        self._news += 1

    async def look_up(self, read: Callable[[], Awaitable[T]]) -> tuple[T, bool]:
        """What ``read`` answered, and whether it may be remembered: news heard while it was reading may be
        of this very thing, and then nobody would forget it. MailboxFull when too many wait."""
        if self._lookups.statistics().tasks_waiting >= LOOKUPS_WAITING_MAX:
            raise MailboxFull(f"too many requests wait for {self._whose} to be looked up")
        async with self._lookups:
            before = self._news
            found = await read()
        return found, before == self._news
