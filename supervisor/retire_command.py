"""``sequencer admin retire-at-rest-key``: an old at-rest key ends, once nothing is sealed under it.

    nothing is under it                 else refused, nothing has changed
    no table takes a frame under it     from here on a node that still seals with it can store nothing
    nothing has come under it since     else allowed again, and refused
    recorded, with its audit entry      no start demands the key any more, none accepts it as current

Alone knows this order. Whatever dies in it, running it again finishes it.
"""

from __future__ import annotations

from collections import Counter
from functools import partial
from typing import TYPE_CHECKING, Any

from actors.faults import checkpoint
from journal.port import AuditEntry
from journal.resealing import Scope
from journal.sealed_tables import SEALED_TABLES, SealedTable, place_of
from supervisor.at_rest_house import OPERATOR, AtRestHouse, in_the_house
from supervisor.shell import StartRefused, patiently, readably
from transport.cli.console import show
from ves.resealing import is_under

if TYPE_CHECKING:
    pass

BATCH_ROWS = 2000


def retire_command(key_id: bytes, as_json: bool) -> int:
    """End an at-rest key under which nothing is sealed any more."""
    return readably(partial(_retire, key_id, as_json))


def _retire(key_id: bytes, as_json: bool) -> None:
    retired = in_the_house(partial(_end, key_id))
    what = "is retired: no start demands it any more" if retired else "was retired before"
    text = (
        f"at-rest key {key_id.hex()} {what}.\nTake it out of PAYLOAD_ENCRYPTION_KEYS (or the key file) of "
        "every node; keep a copy as long as you keep backups from before the re-encryption."
    )
    show(text, {"ok": True, "key_id": key_id.hex(), "already": not retired}, as_json)


async def _end(key_id: bytes, house: AtRestHouse) -> bool:
    """Whether it was this run that retired it."""
    already = await patiently(partial(house.resealing.is_at_rest_key, key_id))
    if already is None:
        raise StartRefused(f"no node ever had an at-rest key {key_id.hex()}: there is nothing to retire")
    if key_id in house.keys.at_rest_current_ids:
        raise StartRefused(
            f"{key_id.hex()} is the current key of this ring: put the new one before it, restart all nodes, "
            "re-encrypt, then retire it"
        )
    if not already:
        await _refuse_use(house, key_id)
        await patiently(partial(house.resealing.forbid, [key_id]))
        checkpoint("retire.forbidden")
        try:
            await _refuse_use(house, key_id)
        except StartRefused:
            await patiently(partial(house.resealing.forbid, []))
            raise
    entry = AuditEntry(OPERATOR, "at_rest_key.retire", key_id.hex(), None, {"outcome": "done"})
    return await patiently(partial(house.journal.retire_at_rest_key, key_id, entry))


async def _refuse_use(house: AtRestHouse, key_id: bytes) -> None:
    """Raises StartRefused when a row is sealed under the key, or may be."""
    used: Counter[str] = Counter()
    unknown: Counter[str] = Counter()
    example: dict[str, Any] = {}
    for table in SEALED_TABLES.values():
        async for row in _rows(house, table):
            bound = table.bind(row)
            under = is_under(house.at_rest, bound.row, row["sealed"], key_id)
            if under is False:
                continue
            name = str(table.archive if row["archived"] else table.name)
            (unknown if under is None else used)[name] += 1
            example = example or {"table": name, **place_of(row)}
    if used or unknown:
        raise StartRefused(_why(key_id, used, unknown, example))


async def _rows(house: AtRestHouse, table: SealedTable):  # type: ignore[no-untyped-def]
    after = table.first(None, None)
    while page := await patiently(
        partial(house.resealing.page, table, Scope(), after, BATCH_ROWS, whole=False)
    ):
        for row in page:
            yield row
        after = tuple(page[-1][column] for column in table.key)


def _why(key_id: bytes, used: Counter[str], unknown: Counter[str], example: dict[str, Any]) -> str:
    parts = [f"{count} rows of {name} are sealed under it" for name, count in sorted(used.items())]
    parts += [
        f"{count} SSE1 rows of {name} open with no key of this ring, so they may be under it"
        for name, count in sorted(unknown.items())
    ]
    place = ", ".join(f"{name} {value}" for name, value in example.items())
    return (
        f"at-rest key {key_id.hex()} cannot be retired: {'; '.join(parts)} (the first: {place}). "
        "Run sequencer admin reencrypt-ves-events, reencrypt-events and reencrypt-ves-validity-proofs, with "
        "this key in the ring, and see that every node was restarted with the new key first"
    )
