"""The pulse: asks the database once in a while whether it is there and tells readiness.

Owns no state but its last finding; decides nothing and repairs nothing. Requests find out for themselves
that the database is away, this is for those who look from outside.
"""

from __future__ import annotations

from collections.abc import Callable

import trio

from actors.mailbox import Inbox
from journal.port import Journal, JournalError


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
            with trio.move_on_after(self._every_s):
                await inbox.take()
