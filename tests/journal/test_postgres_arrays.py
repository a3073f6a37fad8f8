"""Array literals mean to PostgreSQL what they meant to us."""

from __future__ import annotations

import random
import sys
import uuid

from journal_worlds import PostgresWorld

from journal.aio import cross
from journal.arrays import numbers, texts, uuids

NASTY = [
    "",
    "NULL",
    "null",
    '"',
    "\\",
    '\\"',
    "{}",
    ",",
    " a ",
    "\n\t",
    '","',
    "{,}",
    "é\U0001f600",
    "a" * 500,
]


def any_text(chance: random.Random) -> str:
    if chance.random() < 0.5:
        return chance.choice(NASTY)
    points = (chance.choice([chance.randint(1, 127), chance.randint(1, sys.maxunicode)]) for _ in range(9))
    return "".join(chr(point) for point in points if not 0xD800 <= point <= 0xDFFF)


async def test_every_text_number_and_uuid_arrives_as_it_was(postgres: PostgresWorld) -> None:
    chance = random.Random(4)
    for length in [0, 1, 1, 2, *(chance.randint(0, 30) for _ in range(100))]:
        words = [any_text(chance) for _ in range(length)]
        counts = [chance.randint(-(2**63), 2**63 - 1) for _ in range(length)]
        ids = [uuid.UUID(int=chance.getrandbits(128)).bytes for _ in range(length)]
        sent = (texts(words), numbers(counts), uuids(ids))

        async def ask(sent: tuple[str, str, str] = sent) -> list[object]:
            async with postgres.pool.acquire() as connection:
                statement = "SELECT $1::text::text[], $2::text::bigint[], $3::text::uuid[]"
                return list(await connection.fetchrow(statement, *sent))

        assert await cross(ask) == [words, counts, ids]
