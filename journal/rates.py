"""The rate buckets that nodes share: one row each, in the schema of what may be lost.

A spending is never refused here: nodes tell what they have let pass already, so a bucket can be in debt. Rows
are locked in the order of their names, so that nodes that tell at once wait for each other, without deadlock.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from journal.arrays import numbers
from journal.port import RATE_REFILL_S_MAX, RATE_TOKEN, RateSpending

if TYPE_CHECKING:
    from journal.connections import Connection

DEADLINE_S = 1.0
"""A limit that is told later is of no use."""

_NOW_US = "(extract(epoch FROM clock_timestamp()) * 1000000)::bigint"

_SPEND = f"""
INSERT INTO work.rate_buckets AS b (bucket, per_minute, burst, units, at_us)
SELECT decode(s.bucket, 'hex'), s.per_minute, s.burst, (s.burst - s.tokens) * {RATE_TOKEN}, {_NOW_US}
FROM unnest($1::text::text[], $2::text::bigint[], $3::text::bigint[], $4::text::bigint[])
     AS s (bucket, per_minute, burst, tokens)
ORDER BY s.bucket
ON CONFLICT (bucket) DO UPDATE SET
    per_minute = EXCLUDED.per_minute,
    burst = EXCLUDED.burst,
    units = least(
        EXCLUDED.burst * {RATE_TOKEN},
        b.units + EXCLUDED.per_minute
            * least({RATE_REFILL_S_MAX} * 1000000::bigint, greatest(0, {_NOW_US} - b.at_us))
    ) - (EXCLUDED.burst * {RATE_TOKEN} - EXCLUDED.units),
    at_us = greatest(b.at_us, {_NOW_US})
RETURNING b.bucket, b.units
"""  # noqa: S608 - only our own constants are put in

_FORGET = f"""
DELETE FROM work.rate_buckets WHERE at_us < {_NOW_US} - {RATE_REFILL_S_MAX} * 1000000::bigint
"""  # noqa: S608


async def spend(connection: Connection, spendings: list[RateSpending]) -> dict[bytes, int]:
    rows = await connection.fetch(
        _SPEND,
        "{" + ",".join(one.bucket.hex() for one in spendings) + "}",
        numbers(one.per_minute for one in spendings),
        numbers(one.burst for one in spendings),
        numbers(one.tokens for one in spendings),
    )
    return {row[0]: row[1] for row in rows}


async def forget_idle(connection: Connection) -> None:
    await connection.execute(_FORGET)
