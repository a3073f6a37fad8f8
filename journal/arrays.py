"""Array parameters as PostgreSQL's array literals, one text each.

The driver encodes a list element by element, asking each whether it is a list itself; for a group of some
hundred events that costs more than everything else the statement needs from us. Alone knows the quoting
(PostgreSQL manual, "Array Input and Output Syntax"). They are parameters all the same: no statement is built
out of them.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from ves.records import Uuid


def uuids(values: Iterable[Uuid]) -> str:
    """For ``$n::text::uuid[]``."""
    return "{" + ",".join([value.hex() for value in values]) + "}"


def numbers(values: Iterable[int]) -> str:
    """For ``$n::text::bigint[]``."""
    return "{" + ",".join(map(str, values)) + "}"


def texts(values: Sequence[str]) -> str:
    """For ``$n::text::text[]``. Any text but U+0000, which PostgreSQL has no place for."""
    if not values:
        return "{}"
    joined = '","'.join(values)
    if "\\" in joined or joined.count('"') != 2 * (len(values) - 1):
        joined = '","'.join(value.replace("\\", "\\\\").replace('"', '\\"') for value in values)
    return f'{{"{joined}"}}'
