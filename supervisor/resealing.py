"""A re-encryption: the walk over a table and its archive, row by row in the order of keys, each exactly once.

    page read -> looked at and sealed anew -> exchanged (compare-and-set, one transaction) -> next page

Each page is durable by itself, so a run may end anywhere: the next one finds what is left, because what is
sealed with the current key is passed over. Rows that were changed or moved between reading and exchanging
are looked at again where they are now. Nothing of a row but its place ever reaches a text.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

from actors.faults import checkpoint
from journal.resealing import Exchange, ResealingJournal, Scope
from journal.sealed_tables import Bound, Key, SealedTable, place_of
from supervisor.shell import patiently
from ves.at_rest import NONCE_BYTES, AtRest
from ves.resealing import PLAIN, UNREADABLE, Look, look, sealed_under

if TYPE_CHECKING:
    import asyncpg

ROUNDS_MAX = 5
"""How often a row that changes under our hands is looked at."""
UNREADABLE_LISTED_MAX = 50
"""The others are only counted."""


@dataclass
class Tally:
    """What a walk saw and did; every row it looked at is in ``before`` and in ``after`` once."""

    before: Counter[str] = field(default_factory=Counter)
    after: Counter[str] = field(default_factory=Counter)
    scanned: int = 0
    reencrypted: int = 0
    """In a dry run: that would be."""
    already_current: int = 0
    changed_meanwhile: int = 0
    """By somebody else, between reading and exchanging; looked at again."""
    unreadable: list[dict[str, Any]] = field(default_factory=list)
    unframed: int = 0
    """Rows left that are no frame, whether they are what their hash says or not."""
    old: int = 0
    """Rows left that would have to be sealed anew."""
    reached_the_end: bool = False

    @property
    def unreadable_count(self) -> int:
        return self.before[UNREADABLE]

    @property
    def finished(self) -> bool:
        """Everything was looked at, and is under the current key of its tenant."""
        return self.reached_the_end and not (self.old or self.unframed or self.unreadable_count)


@dataclass
class _Pending:
    """A row that is to be sealed anew."""

    bound: Bound
    row: asyncpg.Record
    look: Look
    new: bytes


class Resealing:
    """One walk. ``random_bytes`` makes nonces."""

    def __init__(
        self,
        journal: ResealingJournal,
        table: SealedTable,
        at_rest: AtRest,
        *,
        scope: Scope,
        batch_rows: int,
        limit: int | None,
        dry_run: bool,
        random_bytes: Callable[[int], bytes],
    ) -> None:
        """``at_rest`` writes frames, whatever the server's mode is."""
        self._journal = journal
        self._table = table
        self._at_rest = at_rest
        self._scope = scope
        self._batch_rows = batch_rows
        self._limit = limit
        self._dry_run = dry_run
        self._random_bytes = random_bytes
        self.tally = Tally()

    async def run(self, progress: Callable[[Tally], None]) -> Tally:
        """To the end of the table, or of the limit."""
        after = self._table.first(*self._scope)
        while page := await self._page(after, self._batch_rows):
            checkpoint("reencrypt.page_read")
            after = self._key(await self._work(page))
            progress(self.tally)
            if self._room() == 0:
                self.tally.reached_the_end = not await self._page(after, 1)
                return self.tally
        self.tally.reached_the_end = True
        return self.tally

    async def _page(self, after: Key, rows: int) -> list[asyncpg.Record]:
        return await patiently(partial(self._journal.page, self._table, self._scope, after, rows))

    def _room(self) -> int | None:
        """How many rows the limit leaves; None: there is none."""
        return None if self._limit is None else self._limit - self.tally.reencrypted

    async def _work(self, page: list[asyncpg.Record]) -> asyncpg.Record:
        """The last row looked at: where the limit is reached, the others of the page are not."""
        pending: dict[Key, _Pending] = {}
        room = self._room()
        for row in page:
            self._look_at(row, pending)
            if len(pending) == room:
                break
        checkpoint("reencrypt.sealed")
        if self._dry_run:
            self._settle(pending.values(), self._under_current)
        else:
            await self._exchange(pending)
        return row

    def _look_at(self, row: asyncpg.Record, pending: dict[Key, _Pending]) -> None:
        """Settled at once when nothing is to be done, else pending."""
        bound = self._table.bind(row)
        found = look(self._at_rest, bound.row, row["sealed"], bound.belongs)
        if found.plaintext is None:
            self._count(row, found, found.kind)
            return
        new = self._at_rest.store(bound.row, self._random_bytes(NONCE_BYTES), found.plaintext)
        pending[self._key(row)] = _Pending(bound, row, found, new)

    async def _exchange(self, pending: dict[Key, _Pending]) -> None:
        for _ in range(ROUNDS_MAX):
            if not pending:
                return
            wanted = [
                Exchange(key, one.row["archived"], one.row["sealed"], one.new) for key, one in pending.items()
            ]
            done = await patiently(partial(self._journal.exchange, self._table, wanted))
            self._settle((pending.pop(key) for key in done), self._under_current)
            if pending:
                pending = await self._again(pending)
        self._settle(pending.values(), lambda one: one.look.kind)

    async def _again(self, missed: dict[Key, _Pending]) -> dict[Key, _Pending]:
        """Those that are still to be sealed, as they are now. An exchange that took place unheard is found
        done."""
        pending: dict[Key, _Pending] = {}
        for row in await patiently(partial(self._journal.rows, self._table, list(missed))):
            before = missed[self._key(row)]
            if row["sealed"] == before.new:
                self._settle([before], self._under_current)
            else:
                self.tally.changed_meanwhile += 1
                self._look_at(row, pending)
        return pending

    def _under_current(self, one: _Pending) -> str:
        return sealed_under(self._at_rest.ring_of(one.bound.row.tenant_id).current)

    def _settle(self, many: Iterable[_Pending], after: Callable[[_Pending], str]) -> None:
        for one in many:
            self._count(one.row, one.look, after(one))

    def _count(self, row: asyncpg.Record, found: Look, after: str) -> None:
        tally = self.tally
        tally.scanned += 1
        tally.before[found.kind] += 1
        if found.kind == UNREADABLE:
            if len(tally.unreadable) < UNREADABLE_LISTED_MAX:
                table = self._table.archive if row["archived"] else self._table.name
                tally.unreadable.append({"table": table, **place_of(row), "reason": found.reason})
        elif found.plaintext is None:
            tally.already_current += 1
        elif after != found.kind:
            tally.reencrypted += 1
        still = found.kind if self._dry_run else after
        tally.after[still] += 1
        tally.unframed += still == PLAIN or (not found.framed and found.kind == UNREADABLE)
        tally.old += still not in (PLAIN, UNREADABLE) and found.plaintext is not None and still == found.kind

    def _key(self, row: asyncpg.Record) -> Key:
        return tuple(row[column] for column in self._table.key)
