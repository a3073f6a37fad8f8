"""Audit entries that must not wait for the database: kept in a file until they can join the audit chain.

``AuditSpool`` alone owns the file. It serves the operator's acts on the house only, because those are wanted
most while the database is away: an entry is durable here *before* its act is done, and the act goes on.
``SpoolEmptier`` is the actor that carries the entries into the chain when the database is back, oldest first.
Nothing is ever lost; an entry may arrive twice, under one ``audit_id``. The file is no record: the chain is.
"""

from __future__ import annotations

import errno
import os
import time
import uuid
from collections.abc import Callable
from pathlib import Path

import msgspec
import structlog
import trio

from actors.errors import Unavailable
from actors.mailbox import Inbox
from config.files import sync_folder
from journal.port import AuditEntry, Journal, JournalAway, JournalError, JournalOutcomeUnknown
from ves.timestamps import utc_text

BYTES_MAX = 8 * 1024 * 1024
"""About 30,000 entries: hours of watching the tree once a second while the database is away."""
LINE_SHOWN = 200
EVERY_S = 1.0

_decoder = msgspec.json.Decoder(AuditEntry)

log = structlog.get_logger("audit")


class AuditSpool:
    """``path``: JSON lines, mode 0600, at most ``bytes_max``, of one process at a time."""

    def __init__(
        self,
        *,
        journal: Journal,
        path: Path,
        bytes_max: int = BYTES_MAX,
        now_us: Callable[[], int] = lambda: time.time_ns() // 1000,
    ) -> None:
        self._journal = journal
        self._path = path
        self._bytes_max = bytes_max
        self._now_us = now_us
        self._lock = trio.Lock()
        self._size: int | None = None
        """Of the file; None: not looked yet."""
        self._carried = 0
        """So many of its bytes are in the chain already."""

    @property
    def bytes_waiting(self) -> int:
        """Not yet in the chain."""
        if self._size is None:
            self._size = self._path.stat().st_size if self._path.exists() else 0
        return self._size - self._carried

    async def write(self, entry: AuditEntry, *, journal_away: bool) -> None:
        """The entry is durable: in the journal's chain or, while that is away or earlier ones still wait, in
        the file. Raises Unavailable when it is nowhere, because the file is full or cannot be written.

        ``journal_away``: known to be; then nobody waits for the journal to find out.
        """
        # In both places the same id: an outcome that nobody heard may put the entry into both.
        entry = _with(entry, audit_id=str(uuid.uuid4()))
        if not journal_away and not self.bytes_waiting:
            try:
                await self._journal.audit(entry)
                return
            except (JournalAway, JournalOutcomeUnknown) as error:
                log.warning("audit entry waits in the spool", action=entry.action, reason=str(error))
        line = msgspec.json.encode(_with(entry, spooled_at=utc_text(self._now_us()))) + b"\n"
        async with self._lock:
            await trio.to_thread.run_sync(self._append, line)

    async def empty(self) -> None:
        """Everything that waited is in the chain, and the file is empty. Raises JournalError; what was not
        carried yet waits on. Called by one task at a time."""
        while self.bytes_waiting:
            async with self._lock:
                waiting = await trio.to_thread.run_sync(self._read)
            for line in waiting.splitlines(keepends=True):
                await self._carry(line)
                self._carried += len(line)
            async with self._lock:
                await trio.to_thread.run_sync(self._forget_carried)

    async def _carry(self, line: bytes) -> None:
        try:
            entry = _decoder.decode(line)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            # Torn by a crash or a full disk: its act was never done, for it is done after the write.
            if line.strip():
                log.error("audit spool: a line that is no entry is skipped", line=repr(line[:LINE_SHOWN]))
            return
        await self._journal.audit(entry)

    # In a thread, one at a time.

    def _append(self, line: bytes) -> None:
        try:
            file = os.open(
                self._path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600
            )
            try:
                self._size = _append_durably(file, line, self._bytes_max)
            finally:
                os.close(file)
            if self._size == len(line):
                sync_folder(self._path.parent)
        except OSError as error:
            log.error("the audit spool cannot be written", path=str(self._path), reason=str(error))
            raise Unavailable("the database is away and the audit spool cannot be written") from error

    def _read(self) -> bytes:
        """What waits. Whatever the file was, somebody may have removed or shortened it by hand."""
        waiting = b""
        if self._path.exists():
            with self._path.open("rb") as file:
                file.seek(self._carried)
                waiting = file.read()
        self._size = self._carried + len(waiting)
        return waiting

    def _forget_carried(self) -> None:
        """A crash before this line carries everything once more, under the same ids."""
        if self._size == self._carried:
            if self._path.exists():
                os.truncate(self._path, 0)
            self._size = self._carried = 0


def _append_durably(file: int, line: bytes, bytes_max: int) -> int:
    """The new size. Raises OSError, and then the file is as before, or has a torn last line."""
    size = os.fstat(file).st_size
    if size and os.pread(file, 1, size - 1) != b"\n":
        line = b"\n" + line  # the last one is torn; it must not take this one along
    if size + len(line) > bytes_max:
        raise OSError(errno.EFBIG, f"it would be larger than {bytes_max} bytes")
    try:
        if os.write(file, line) != len(line):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        os.fsync(file)
    except OSError:
        os.ftruncate(file, size)
        raise
    return size + len(line)


def _with(entry: AuditEntry, **more: str) -> AuditEntry:
    return msgspec.structs.replace(entry, details={**entry.details, **more})


class SpoolEmptier:
    """Looks every ``every_s`` whether something waits. Takes no letters."""

    def __init__(self, spool: AuditSpool, *, every_s: float = EVERY_S) -> None:
        self._spool = spool
        self._every_s = every_s

    async def run(self, inbox: Inbox) -> None:
        while True:
            try:
                await self._spool.empty()
            except JournalError:
                pass  # the entries wait on
            except OSError as error:
                log.error("the audit spool cannot be read", reason=str(error))
            await inbox.pause(self._every_s)
