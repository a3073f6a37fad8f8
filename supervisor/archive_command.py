"""``sequencer admin archive``: old committed ranges into the archive, whether a server runs or not.

Per stream, from its start: the next due range, its file if files are wanted, its rows in small steps; as long
as ranges are due. Each step can be repeated and finds what is done already, so a run that died is run again.
Begin and end are in the audit trail. The single steps are ``journal.archive``'s and ``archive_files``'s.
"""

from __future__ import annotations

import os
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import asdict, dataclass
from functools import partial

import msgspec
import trio
from rich.console import Console
from rich.progress import Progress, TextColumn, TimeElapsedColumn

from actors.faults import arm_from_environment, checkpoint
from config.secrets import load_sequencer_id
from config.settings import Settings
from journal.aio import open_loop
from journal.archive import (
    LEGACY_EVENTS,
    VES_EVENTS,
    Archive,
    DueRange,
    EventTable,
    StreamName,
    open_archive,
)
from journal.connections import Limits
from journal.port import AuditEntry, JournalAway, JournalOutcomeUnknown
from supervisor.archive_files import ArchiveFolder, ArchiveFolderError
from supervisor.shell import (
    FORMATS,
    JOURNAL_PATIENCE_S,
    StartRefused,
    database_beside,
    log,
    patiently,
    read_settings,
    readably,
)
from transport.cli.archive import ArchiveWish
from ves.encoding import uuid_text
from ves.records import Uuid

DAY_S = 86_400
PAUSE_S = 0.5
FILE_ROWS = 200
"""Read at a time for a file: a row may hold a megabyte."""


@dataclass
class Report:
    """What a run did, or would do."""

    events: int = 0
    """VES events."""
    legacy_events: int = 0
    ranges: int = 0
    streams: int = 0
    files: int = 0
    held_back: int = 0
    """Streams whose next range did not fit under --limit."""


def archive_command(wish: ArchiveWish) -> int:
    """Move what is old enough; the answer is the exit code."""
    return readably(partial(_archive, wish))


def _archive(wish: ArchiveWish) -> None:
    settings = read_settings()
    arm_from_environment(os.environ)
    node_id = load_sequencer_id(settings, settings.data_dir, FORMATS)
    try:
        folder = ArchiveFolder(wish.to, checkpoint) if wish.to and not wish.dry_run else None
        with database_beside(settings, admin=True) as dsn:
            report = trio.run(run_archive, settings, dsn, node_id, wish, folder)
    except ArchiveFolderError as error:
        raise StartRefused(str(error)) from None
    _tell(report, wish)


async def run_archive(
    settings: Settings, dsn: str, node_id: Uuid, wish: ArchiveWish, folder: ArchiveFolder | None
) -> Report:
    limits = Limits(
        connections_max=1,
        unit_deadline_s=settings.db_unit_deadline_s,
        statement_timeout_s=settings.db_statement_timeout_s,
        lock_timeout_s=settings.db_lock_timeout_s,
        idle_in_transaction_timeout_s=settings.db_idle_in_transaction_timeout_s,
    )
    async with open_loop(), AsyncExitStack() as stack:
        enter = partial(open_archive, dsn, node_id=node_id, limits=limits, checkpoint=checkpoint)
        archive = await patiently(lambda: stack.enter_async_context(enter()))
        before_us = await _before_us(archive, wish)
        report = Report()
        if wish.dry_run:
            await _Run(archive, wish, before_us, folder, report).all()
            return report
        await _note(archive, wish, before_us, report, "begun")
        await _Run(archive, wish, before_us, folder, report).all()
        await _note(archive, wish, before_us, report, "done")
        return report


async def _before_us(archive: Archive, wish: ArchiveWish) -> int:
    """By the database's clock."""
    a_day_ago = await patiently(partial(archive.cutoff_us, seconds_ago=DAY_S))
    before_us = wish.older_than.before_us
    if before_us is None:
        before_us = await patiently(partial(archive.cutoff_us, seconds_ago=wish.older_than.seconds_ago or 0))
    elif before_us > a_day_ago + DAY_S * 1_000_000:
        raise StartRefused("--older-than: this time has not come yet")
    if before_us > a_day_ago and not wish.young_too:
        raise StartRefused(
            "--older-than: events younger than a day would be archived; if that is meant, add --yes"
        )
    return before_us


async def _note(archive: Archive, wish: ArchiveWish, before_us: int, report: Report, outcome: str) -> None:
    details: dict[str, str | int | None] = {
        "outcome": outcome,
        "before_us": before_us,
        "store_id": uuid_text(wish.store_id) if wish.store_id else None,
        **({} if outcome == "begun" else asdict(report)),
    }
    subject = "all tenants" if wish.tenant_id is None else uuid_text(wish.tenant_id)
    await patiently(
        partial(archive.audit, AuditEntry("cli", "retention.archive", subject, wish.tenant_id, details))
    )


class _Run:
    """One walk over all streams that were asked for."""

    def __init__(
        self,
        archive: Archive,
        wish: ArchiveWish,
        before_us: int,
        folder: ArchiveFolder | None,
        report: Report,
    ) -> None:
        self._archive = archive
        self._wish = wish
        self._before_us = before_us
        self._folder = folder
        self._report = report
        self._progress = Progress(
            TextColumn("{task.completed} events {task.description}"),
            TimeElapsedColumn(),
            console=Console(stderr=True),
            disable=not sys.stderr.isatty(),
        )

    async def all(self) -> None:
        with self._progress:
            self._task = self._progress.add_task("found" if self._wish.dry_run else "archived", total=None)
            for table in (VES_EVENTS, LEGACY_EVENTS):
                async for stream in self._streams(table):
                    await self._stream(table, stream)

    async def _streams(self, table: EventTable) -> AsyncIterator[StreamName]:
        after: StreamName | None = None
        ask = partial(
            self._archive.streams, table, tenant_id=self._wish.tenant_id, store_id=self._wish.store_id
        )
        while page := await patiently(partial(ask, after=after)):
            for stream in page:
                yield stream
            after = page[-1]

    async def _stream(self, table: EventTable, stream: StreamName) -> None:
        from_number, touched = 1, False
        while True:
            due = await patiently(
                partial(
                    self._archive.next_due, table, stream, from_number=from_number, before_us=self._before_us
                )
            )
            if due is None:
                break
            if not self._fits(due):
                self._report.held_back += 1
                break
            if not self._wish.dry_run:
                await self._write_file(table, stream, due)
                await self._move(table, stream, due)
            else:
                self._moved(table, due.sequence_end - due.first + 1)
            self._report.ranges += 1
            touched, from_number = True, due.sequence_end + 1
        self._report.streams += touched

    def _fits(self, due: DueRange) -> bool:
        moved = self._report.events + self._report.legacy_events
        return self._wish.limit is None or moved + due.sequence_end - due.first < self._wish.limit

    async def _write_file(self, table: EventTable, stream: StreamName, due: DueRange) -> None:
        if self._folder is None:
            return
        commitment = await patiently(partial(self._archive.commitment, table, due.batch_id))
        await self._folder.write(table, stream, due, commitment, self._rows(table, stream, due))
        self._report.files += 1

    async def _rows(self, table: EventTable, stream: StreamName, due: DueRange) -> AsyncIterator[str]:
        """All of the range, those too that an earlier run has moved."""
        for first in range(due.sequence_start, due.sequence_end + 1, FILE_ROWS):
            last = min(first + FILE_ROWS - 1, due.sequence_end)
            for row in await patiently(partial(self._archive.rows, table, stream, first, last)):
                yield row

    async def _move(self, table: EventTable, stream: StreamName, due: DueRange) -> None:
        for first in range(due.first, due.sequence_end + 1, self._wish.batch_rows):
            last = min(first + self._wish.batch_rows - 1, due.sequence_end)
            self._moved(table, await self._step(table, stream, first, last))

    async def _step(self, table: EventTable, stream: StreamName, first: int, last: int) -> int:
        """How many rows were moved. An unanswered COMMIT is looked into before it is tried again."""
        give_up_at = trio.current_time() + JOURNAL_PATIENCE_S
        while True:
            try:
                return await self._archive.move(table, stream, first, last)
            except JournalAway as away:  # perhaps only a lock of somebody else's
                why = str(away)
            except JournalOutcomeUnknown as unknown:
                why = str(unknown)
                moved = await patiently(partial(self._archive.archived, table, stream, first, last))
                if moved:
                    return moved
            if trio.current_time() >= give_up_at:
                raise StartRefused(f"{why}; run this again, nothing is lost or doubled")
            log.warning("waiting for the database", reason=why)
            await trio.sleep(PAUSE_S)

    def _moved(self, table: EventTable, count: int) -> None:
        if table is VES_EVENTS:
            self._report.events += count
        else:
            self._report.legacy_events += count
        self._progress.advance(self._task, count)


def _tell(report: Report, wish: ArchiveWish) -> None:
    if wish.as_json:
        document = {"ok": True, "dry_run": wish.dry_run, **asdict(report)}
        print(msgspec.json.encode(document).decode(), flush=True)
        return
    what = "would be archived" if wish.dry_run else "archived"
    print(
        f"{what}: {report.events} events and {report.legacy_events} legacy events, "
        f"{report.ranges} committed ranges of {report.streams} streams"
    )
    if report.files:
        print(f"{report.files} files in {wish.to}, listed in its manifest.jsonl")
    if report.held_back:
        print(f"{report.held_back} streams have more: their next range does not fit under --limit")
