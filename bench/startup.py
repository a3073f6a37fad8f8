"""How long a start takes after a clean stop, from exec to the first ready answer: with nothing, and with much.

``python -m bench.startup [--tenants 10000] [--events 5000000] [--starts 5]``. The same data directory is
started again and again. Everything of the many is committed, as a server leaves it that was given the time,
and every tenant has a registered key. Prints machine, versions, medians and spread, and CPU seconds by part.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import tempfile
import time
from pathlib import Path

import asyncpg
import httpx

from bench.fill import fill
from bench.ingest import cpu_seconds, machine
from journal.embedded import _dsn
from journal.embedded_cluster import OWNER, Cluster
from tests.e2e.world import Server

POLL_S = 0.005
_SETTLED = (
    "INSERT INTO record.ves_commitment_counters (tenant_id, store_id, committed_through, state_root) "
    "SELECT tenant_id, store_id, current_sequence, sha256(uuid_send(store_id)) "
    "FROM record.ves_sequence_counters ON CONFLICT DO NOTHING",
    "WITH made AS (INSERT INTO record.agent_public_keys "
    "SELECT sha256(uuid_send(tenant_id)), tenant_id, store_id FROM record.ves_sequence_counters RETURNING *) "
    "INSERT INTO record.agent_keys SELECT tenant_id, agent_id, 1, 1, NULL, NULL, NULL, now(), public_key "
    "FROM made",
    "VACUUM ANALYZE",
    "CHECKPOINT",
)


async def fill_up(dsn: str, tenants: int, events: int) -> None:
    await fill(dsn, events, tenants)
    connection = await asyncpg.connect(dsn)
    try:
        for statement in _SETTLED:
            await connection.execute(statement, timeout=600)
    finally:
        await connection.close()


def one_start(server: Server) -> tuple[float, dict[str, float]]:
    """Seconds from exec to ready, and CPU seconds spent by then; afterwards it is stopped in order."""
    began = time.perf_counter()
    server.start()
    while True:
        try:
            if httpx.get(server.url + "/ready", timeout=5).status_code == 200:
                break
        except httpx.HTTPError:
            pass
        if time.perf_counter() - began > 60:
            raise SystemExit(f"not ready:\n{server.tail()}")
        time.sleep(POLL_S)
    took, cpu = time.perf_counter() - began, cpu_seconds(server)
    if server.terminate() != 0:
        raise SystemExit(f"no clean stop:\n{server.tail()}")
    return took, cpu


def show(label: str, starts: list[tuple[float, dict[str, float]]]) -> None:
    seconds = [took for took, _ in starts]
    cpu = {part: statistics.median(one[part] for _, one in starts) for part in starts[0][1]}
    print(
        f"{label:<44} {statistics.median(seconds):.2f} s ({min(seconds):.2f}-{max(seconds):.2f})   CPU s: "
        + " ".join(f"{part} {value:.2f}" for part, value in cpu.items())
    )


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--tenants", type=int, default=10_000)
    arguments.add_argument("--events", type=int, default=5_000_000)
    arguments.add_argument("--starts", type=int, default=5)
    arguments.add_argument("--folder", type=Path, help="keep the data there, and go on with it")
    chosen = arguments.parse_args()
    print(machine())
    with tempfile.TemporaryDirectory(dir=Path.cwd(), prefix=".bench-") as folder:
        data = (chosen.folder or Path(folder)) / "data"
        made_before = data.exists()
        data.parent.mkdir(parents=True, exist_ok=True)
        server = Server(data, LOG_LEVEL="warning")
        if not made_before:
            one_start(server)  # makes the database
            show("nothing", [one_start(server) for _ in range(chosen.starts)])
            server.start().wait_ready()
            asyncio.run(fill_up(_dsn(Cluster(data, None), OWNER), chosen.tenants, chosen.events))
            server.terminate()
        label = f"{chosen.tenants:,} tenants, {chosen.events:,} events"
        show(label, [one_start(server) for _ in range(chosen.starts)])


if __name__ == "__main__":
    main()
