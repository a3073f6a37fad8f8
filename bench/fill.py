"""Fills ``ves_events`` with millions of events of ordinary width, quickly and honestly.

``python -m bench.fill DSN ROWS [--streams 100]``. ``DSN`` logs in as the owner. The rows lie in the table as
appends would have left them: stream numbers without a gap, random ids, an entity version and a counter for
each, every index built row by row and every trigger run, so that plans and sizes are those of a real table.
Their hashes and signatures are random bytes: they are there to be in the way, not to be verified.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import time

import asyncpg

ROWS_A_STEP = 50_000

_EVENTS = """
INSERT INTO record.ves_events
SELECT n.sequence_number, clock_timestamp(), 1, NULL, 1, 0, s.tenant_id, s.store_id, gen_random_uuid(),
    s.tenant_id, NULL, s.store_id, 'order', 'order-' || s.number || '-' || n.sequence_number, 'order.created',
    '2026-01-01T00:00:00.123456Z', r.half, decode(repeat('00', 32), 'hex'), r.half || r.half, r.half, r.half,
    r.half || r.half, 'SSE2'::bytea || decode(repeat(encode(r.half, 'hex'), 10), 'hex')
FROM generate_series($1::bigint, $2::bigint) AS n (sequence_number), fill_streams s,
    LATERAL (SELECT uuid_send(gen_random_uuid()) || uuid_send(gen_random_uuid()) AS half, n.sequence_number) r
WHERE s.number BETWEEN $3 AND $4
"""
_VERSIONS = """
INSERT INTO record.entity_versions (tenant_id, store_id, entity_type, entity_id, previous_version, version)
SELECT s.tenant_id, s.store_id, 'order', 'order-' || s.number || '-' || n, 0, 1
FROM generate_series($1::bigint, $2::bigint) AS n, fill_streams s WHERE s.number BETWEEN $3 AND $4
"""
_STREAMS = """
CREATE TEMPORARY TABLE fill_streams AS
SELECT n AS number, gen_random_uuid() AS tenant_id, gen_random_uuid() AS store_id
FROM generate_series(1, {}) AS n
"""
_COUNTERS = """
INSERT INTO record.ves_sequence_counters
SELECT tenant_id, store_id, $1, clock_timestamp() FROM fill_streams
"""


async def fill(dsn: str, rows: int, streams: int = 100) -> list[tuple[bytes, bytes]]:
    """Adds ``rows`` events (rounded down to whole numbers per stream) in as many streams, each of a tenant of
    its own, and returns (tenant_id, store_id) of each. Ends with VACUUM ANALYZE and a checkpoint."""
    writers = min(streams, len(os.sched_getaffinity(0)))  # one backend uses one core
    shares = [streams // writers + (n < streams % writers) for n in range(writers)]
    filled = await asyncio.gather(*(_fill(dsn, rows // streams, share) for share in shares))
    connection = await asyncpg.connect(dsn)
    try:
        await connection.execute("VACUUM ANALYZE record.ves_events, record.entity_versions")
        await connection.execute("CHECKPOINT")
    finally:
        await connection.close()
    return [stream for share in filled for stream in share]


async def _fill(dsn: str, each: int, streams: int) -> list[tuple[bytes, bytes]]:
    """So many streams of ``each`` events."""
    connection = await asyncpg.connect(dsn)
    try:
        await connection.execute("SET synchronous_commit = off")  # of this session: what it adds is scenery
        await connection.execute(_STREAMS.format(streams))
        # Streams grow side by side, as they do under load: a step is the next numbers of all of them.
        numbers = max(1, ROWS_A_STEP // streams)
        streams_a_step = min(streams, ROWS_A_STEP)
        for first in range(1, each + 1, numbers):
            last = min(each, first + numbers - 1)
            for stream in range(1, streams + 1, streams_a_step):
                between = (first, last, stream, stream + streams_a_step - 1)
                await connection.execute(_EVENTS, *between)
                await connection.execute(_VERSIONS, *between)
        await connection.execute(_COUNTERS, each)
        found = await connection.fetch("SELECT tenant_id, store_id FROM fill_streams ORDER BY number")
        return [(row[0].bytes, row[1].bytes) for row in found]
    finally:
        await connection.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else None)
    parser.add_argument("dsn", help="of the owner, on a migrated database")
    parser.add_argument("rows", type=int)
    parser.add_argument("--streams", type=int, default=100)
    asked = parser.parse_args()
    began = time.perf_counter()
    asyncio.run(fill(asked.dsn, asked.rows, asked.streams))
    took = time.perf_counter() - began
    print(f"{asked.rows} events in {took:.0f} s")


if __name__ == "__main__":
    main()
