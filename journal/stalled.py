"""Ends a COPY of ours whose sender has stopped, because PostgreSQL never would.

``idle_in_transaction_session_timeout`` does not hold inside COPY, and while the server waits for rows it
looks at no statement_timeout either. A node that is stopped there (SIGSTOP, a frozen virtual machine) would
hold its tenant's counters, and with them every other node, for as long as its kernel keeps the connection
alive. Nothing is lost by ending it: a session that waits for rows was not sent COMMIT. Sees only sessions of
our own login in our own database, and touches none that makes progress.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import structlog

if TYPE_CHECKING:
    from journal.connections import Connection

_COPIES = (
    "SELECT pid, xact_start::text, bytes_processed FROM pg_stat_progress_copy "
    "JOIN pg_stat_activity USING (pid) "
    "WHERE relid IN ('record.ves_events'::regclass, 'record.events'::regclass) "
    "AND usename = current_user AND wait_event = 'ClientRead'"
)
_END = "SELECT pg_terminate_backend($1)"

_log = structlog.get_logger("journal.stalled")


class StalledCopies:
    """Remembers what it saw: call ``end_them`` often."""

    def __init__(self, patience_s: float) -> None:
        """``patience_s``: as long as the server itself waits for a client inside a transaction."""
        self._patience_s = patience_s
        self._seen: dict[tuple[int, str, int], float] = {}
        """Since when a session waits, in this transaction and after so many bytes."""

    async def end_them(self, connection: Connection) -> None:
        now = time.monotonic()
        waiting = [tuple(row) for row in await connection.fetch(_COPIES)]
        self._seen = {copy: self._seen.get(copy, now) for copy in waiting}
        for (pid, _, _), since in self._seen.items():
            if now - since >= self._patience_s:
                _log.warning("stalled_copy_ended", session=pid, waited_s=round(now - since, 1))
                await connection.fetchval(_END, pid)
