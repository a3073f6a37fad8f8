"""``sequencer admin archive``: what can be asked for, and what is refused before anything is opened.

The act is handed in, because it works on the house's own database, as a member of sequencer_admin.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated
from uuid import UUID

from cyclopts import App, Parameter

from transport.cli.ages import OlderThan, parse_older_than
from transport.cli.console import Exit, Json, notice

BATCH_ROWS = 500
BATCH_ROWS_MAX = 5000


@dataclass(frozen=True)
class ArchiveWish:
    """What ``admin archive`` was asked for, after it was found to make sense."""

    older_than: OlderThan
    young_too: bool
    tenant_id: bytes | None
    store_id: bytes | None
    dry_run: bool
    limit: int | None
    to: Path | None
    batch_rows: int
    as_json: bool


def add_archive(app: App, archive: Callable[[ArchiveWish], int]) -> None:
    """One more word of ``sequencer admin``."""

    @app.command(name="archive")
    def archive_events(
        *,
        older_than: str,
        tenant: UUID | None = None,
        store: UUID | None = None,
        dry_run: Annotated[bool, Parameter(negative=())] = False,
        limit: int | None = None,
        to: Path | None = None,
        batch_size: int = BATCH_ROWS,
        yes: Annotated[bool, Parameter(negative=())] = False,
        as_json: Json = False,
    ) -> int:
        """Move old events into the archive tables. They stay what they were: readable, provable, replayable.

        Whole committed ranges only, from the start of each stream, by the time they were sequenced. Safe
        beside servers at work; killed at any point it is simply run again. Needs a login that is a member of
        sequencer_admin: the embedded database has one, else DATABASE_ADMIN_URL.

        Parameters
        ----------
        older_than
            7y, 90d, 12h … or a date (2019-12-31, UTC) or time (RFC 3339).
        tenant
            Only this tenant's streams.
        store
            Only streams of this store.
        dry_run
            Say what would be moved, and move nothing.
        limit
            At most so many events in this run; a range that does not fit is left for the next.
        to
            Folder to write each range to as well, before it is moved: JSON lines, with a manifest.
        batch_size
            Rows moved in one transaction.
        yes
            Also when events younger than a day are meant.
        """
        try:
            age = parse_older_than(older_than)
        except ValueError as wrong:
            notice(f"--older-than: {wrong}")
            return Exit.USAGE
        if not 1 <= batch_size <= BATCH_ROWS_MAX:
            notice(f"--batch-size: 1 to {BATCH_ROWS_MAX}")
            return Exit.USAGE
        if limit is not None and limit < 1:
            notice("--limit: 1 or more")
            return Exit.USAGE
        return archive(
            ArchiveWish(
                older_than=age,
                young_too=yes,
                tenant_id=tenant.bytes if tenant else None,
                store_id=store.bytes if store else None,
                dry_run=dry_run,
                limit=limit,
                to=to,
                batch_rows=batch_size,
                as_json=as_json,
            )
        )
