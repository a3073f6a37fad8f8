"""``sequencer admin reencrypt-…``: stored values sealed anew, beside running servers or without any.

Here a walk (``supervisor.resealing``) meets the house: an audit entry at its start and its end, a note that
no plaintext is left, a bar at the terminal, an exit code that is 0 only when nothing is left to do.
"""

from __future__ import annotations

import os
from functools import partial
from typing import Any

from journal.own_keys import REENCRYPT_COMMANDS
from journal.resealing import Scope
from journal.sealed_tables import SEALED_TABLES, SealedTable
from supervisor.at_rest_house import AtRestHouse, in_the_house
from supervisor.resealing import Resealing, Tally
from supervisor.shell import StartRefused, patiently, readably
from transport.cli.admin import Reencryption
from transport.cli.console import Exit, show
from transport.cli.progress import Progress
from ves.encoding import uuid_text


def reencrypt_command(wish: Reencryption) -> int:
    """Seal a table's values anew; the exit code is 0 when nothing is left to do."""
    codes: list[int] = []
    return readably(lambda: codes.append(_reencrypt(wish))) or codes[0]


def _reencrypt(wish: Reencryption) -> int:
    try:
        tally, cleared = in_the_house(partial(_walk, wish))
    except KeyboardInterrupt:
        raise StartRefused("interrupted. What was sealed anew stays so; run it again to go on") from None
    done = tally.finished and cleared is not False
    show("\n".join(_text(wish, tally, cleared)), _document(wish, tally, cleared), wish.as_json)
    return Exit.OK if done else Exit.FAILED


async def _walk(wish: Reencryption, house: AtRestHouse) -> tuple[Tally, bool | None]:
    """What was seen and done, and whether the table is now noted to be without plaintext: None when it was
    before, or when this walk was not over all of it."""
    table, scope = SEALED_TABLES[wish.table], Scope(wish.tenant_id, wish.store_id)
    walk = Resealing(
        house.resealing,
        table,
        house.at_rest,
        scope=scope,
        batch_rows=wish.batch_rows or table.batch_rows,
        limit=wish.limit,
        dry_run=wish.dry_run,
        random_bytes=os.urandom,
    )
    whole = not wish.dry_run and scope == Scope()
    since = await patiently(partial(house.resealing.begin_sweep, table)) if whole else None
    total = await patiently(partial(house.resealing.total, table, scope))
    if not wish.dry_run:
        await house.audit("at_rest.reencrypt_begin", table.name, _scope(wish))
    with Progress(_command(table), total) as progress:
        tally = await walk.run(lambda tally: progress.is_at(tally.scanned))
    cleared = None
    if since is not None:
        clear = partial(house.resealing.end_plaintext, table, since)
        cleared = tally.reached_the_end and not tally.unframed and await patiently(clear)
    if not wish.dry_run:
        await house.audit("at_rest.reencrypt_end", table.name, {**_scope(wish), **_numbers(tally)})
    return tally, cleared


def _command(table: SealedTable) -> str:
    return REENCRYPT_COMMANDS[table.name]


def _scope(wish: Reencryption) -> dict[str, str | int | None]:
    return {
        "tenant": None if wish.tenant_id is None else uuid_text(wish.tenant_id),
        "store": None if wish.store_id is None else uuid_text(wish.store_id),
        "limit": wish.limit,
    }


def _numbers(tally: Tally) -> dict[str, str | int | None]:
    return {
        "scanned": tally.scanned,
        "reencrypted": tally.reencrypted,
        "already_current": tally.already_current,
        "changed_meanwhile": tally.changed_meanwhile,
        "unreadable": tally.unreadable_count,
        "plaintext_left": tally.unframed,
        "old_left": tally.old,
        "outcome": "done" if tally.finished else "unfinished",
    }


def _document(wish: Reencryption, tally: Tally, cleared: bool | None) -> dict[str, Any]:
    """For ``--json``."""
    return {
        "ok": tally.finished and cleared is not False,
        "table": wish.table,
        "dry_run": wish.dry_run,
        **_scope(wish),
        **_numbers(tally),
        "reached_the_end": tally.reached_the_end,
        "before": dict(sorted(tally.before.items())),
        "after": dict(sorted(tally.after.items())),
        "unreadable_rows": tally.unreadable,
    }


def _text(wish: Reencryption, tally: Tally, cleared: bool | None) -> list[str]:
    would = "would be " if wish.dry_run else ""
    kinds = sorted(tally.before | tally.after)
    width = max(map(len, kinds), default=0)
    return [
        f"{wish.table}: {tally.scanned} rows looked at, {tally.reencrypted} {would}sealed anew, "
        f"{tally.already_current} already current, {tally.changed_meanwhile} changed meanwhile, "
        f"{tally.unreadable_count} unreadable" + (" (dry run: nothing was written)" if wish.dry_run else ""),
        *(f"  {kind:{width}}  {tally.before[kind]} before, {tally.after[kind]} after" for kind in kinds),
        *map(_unreadable, tally.unreadable),
        *_rest(tally),
        *_verdict(wish, tally, cleared),
    ]


def _unreadable(row: dict[str, Any]) -> str:
    last = next(name for name in ("sequence_number", "proof_id") if name in row)
    place = f"tenant {row['tenant_id']}, store {row['store_id']}, {last} {row[last]}"
    return f"UNREADABLE {row['table']}, {place}: {row['reason']}"


def _rest(tally: Tally) -> list[str]:
    more = tally.unreadable_count - len(tally.unreadable)
    return [f"and {more} more that are unreadable"] if more else []


def _verdict(wish: Reencryption, tally: Tally, cleared: bool | None) -> list[str]:
    left = []
    if tally.unframed:
        left.append(
            f"NOT FINISHED: {tally.unframed} rows are plaintext. PAYLOAD_ENCRYPTION_MODE=required would make "
            "them unreadable"
        )
    if tally.old:
        left.append(f"NOT FINISHED: {tally.old} rows are under an old key, which has to stay in the ring")
    if tally.unreadable_count:
        left.append(
            f"NOT FINISHED: {tally.unreadable_count} rows are unreadable and were left as they are: look for "
            "their key, or restore them from a backup"
        )
    if not tally.reached_the_end:
        left.append(f"NOT FINISHED: --limit {wish.limit} was reached before the end; run it again to go on")
    if not left and cleared is False:
        left.append(
            "NOT FINISHED: a node wrote plaintext meanwhile. Restart it with PAYLOAD_ENCRYPTION_MODE=optional"
            ", then run this again"
        )
    return left or ["finished: every row looked at is sealed with the current key of its tenant"]
