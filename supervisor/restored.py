"""At a start: was this database brought back from a copy, and has nobody said yet that it may go on?

Alone decides whether a start is read-only. Two signs count: a restoration that is recorded in the database
and not confirmed, and numbers that this node gave, by its own file, and that the database does not know.
"""

from __future__ import annotations

import uuid

import structlog

from actors.given_numbers import GivenNumbers
from journal.port import Voided
from journal.postgres import PostgresJournal
from journal.restorations import Given, Restoration
from ves.encoding import uuid_text

READ_ONLY = "restored: read-only until confirmed (sequencer restore confirm)"

log = structlog.get_logger(__name__)


async def read_only_because(journal: PostgresJournal, given: GivenNumbers) -> str | None:
    """Why this life must not write; None: it may. What was found is recorded, so that every node, and every
    copy of the database, knows."""
    found = await journal.pending_restoration()
    if found is None:
        lost = await lacking(journal, given.load())
        if not lost:
            return None
        details = (
            f"{len(lost)} of the streams this node wrote to lack numbers it gave, for example "
            f"number {lost[0].sequence_number} of store {uuid_text(lost[0].store_id)}"
        )
        await journal.record_restoration(uuid.uuid4().bytes, "behind", details)
        found = await journal.pending_restoration()
    if found is None:  # confirmed between two looks: the next start may write
        return READ_ONLY
    log.error("read-only: the database was restored and nobody has confirmed it", **_told(found))
    return READ_ONLY


def _told(found: Restoration) -> dict[str, str]:
    return {
        "restoration": uuid_text(found.restoration_id),
        "cause": found.cause,
        "details": found.details,
        "remedy": "compare and confirm: sequencer restore confirm",
    }


async def lacking(journal: PostgresJournal, given: list[Given]) -> list[Given]:
    """Those whose event does not stand at its number, but for the numbers that were declared void."""
    standing = await journal.standing_at(given)
    absent = [one for one, event_id in zip(given, standing, strict=True) if event_id != one.event_id]
    voids: dict[tuple[bytes, bytes], list[Voided]] = {}
    for one in absent:
        if one.stream not in voids:
            voids[one.stream] = await journal.read_voided(*one.stream)
    return [
        one
        for one in absent
        if not any(void.first_number <= one.sequence_number <= void.last_number for void in voids[one.stream])
    ]
