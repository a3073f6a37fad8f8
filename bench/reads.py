"""What reading back costs: pages of events, a commitment, proofs, whatever the stream's length.

``python -m bench.reads [--seconds 3] [--rounds 3] [--million 1000000]``. A real server on a fresh data
directory. Pulled events were signed, ingested and sealed; the long stream is made by one INSERT, since leaves
and proofs open no payload. Every page, commitment and proof is checked before it counts. CPU is told by
process, the client's too. Prints machine, versions, medians and spread; ``--json FILE`` writes them.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import asyncpg
import trio

from bench.lanes import Lane, address, read_response, sign_ahead
from bench.machine import cpu_seconds
from bench.report import this_machine
from journal.embedded import _dsn
from journal.embedded_cluster import OWNER, Cluster
from tests.e2e.world import Server, Tenant
from ves.proofs import path_leads_to_root

PAGE = 1000
PULLED = 10_000
COMMITTED = 10_000
LEAVES_MAX = 65_536
SHORT = 1000

# A stream of $3 events whose payloads nobody can open; the numbers go on from what is there.
_FILL = """
INSERT INTO record.ves_events
SELECT n, now(), 1, NULL, 1, 0, $1, $2, gen_random_uuid(), gen_random_uuid(), NULL, gen_random_uuid(),
    'order', 'o-' || n % 1000, 'order.created', '2026-01-01T00:00:00.123Z',
    sha256(int8send(n)), sha256(int8send(n)), sha256(int8send(n)) || sha256(int8send(n)),
    sha256('s' || int8send(n)), sha256(int8send(n)), sha256(int8send(n)) || sha256(int8send(n)),
    sha256(int8send(n)) || sha256(int8send(n)) || sha256(int8send(n))
FROM generate_series(1, $3::bigint) n
"""
_COUNT = "INSERT INTO record.ves_sequence_counters VALUES ($1, $2, $3, now())"


@dataclass
class Measured:
    """Seconds of every request; CPU seconds by process meanwhile."""

    latencies_s: list[float] = field(default_factory=list)
    elapsed_s: float = 0.0
    events: int = 0
    cpu_s: dict[str, float] = field(default_factory=dict)

    def percentile_ms(self, share: float) -> float:
        ordered = sorted(self.latencies_s)
        return 1000 * ordered[min(len(ordered) - 1, int(len(ordered) * share))]


class Client:
    """One keep-alive connection."""

    def __init__(self, tenant: Tenant) -> None:
        self._tenant = tenant
        self._where = address(tenant.server.url)
        host = tenant.server.url.removeprefix("http://")
        self.head = f"host: {host}\r\nauthorization: ApiKey {tenant.api_key}\r\n"
        self.stream_query = f"tenant_id={tenant.tenant_id}&store_id={tenant.store_id}"

    async def __aenter__(self) -> Client:
        self._stream = await trio.open_tcp_stream(*self._where)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stream.aclose()

    async def get(self, path: str) -> bytes:
        return await self._exchange(f"GET {path} HTTP/1.1\r\n{self.head}\r\n".encode())

    async def post(self, path: str, content: dict[str, Any]) -> bytes:
        body = json.dumps(content).encode()
        head = f"content-type: application/json\r\ncontent-length: {len(body)}\r\n"
        return await self._exchange(f"POST {path} HTTP/1.1\r\n{self.head}{head}\r\n".encode() + body)

    async def _exchange(self, request: bytes) -> bytes:
        await self._stream.send_all(request)
        head, body = await read_response(self._stream)
        if head.split(b" ", 2)[1] not in (b"200", b"201"):
            raise SystemExit(f"unexpected answer to {request[:200]!r}: {head!r} {body[:300]!r}")
        return body


class Clock:
    """Around a measured piece of work: wall clock, and CPU by process, ours included."""

    def __init__(self, server: Server, into: Measured) -> None:
        self._server, self._into = server, into

    def _now(self) -> dict[str, float]:
        return cpu_seconds(self._server.pid) | {"client": time.process_time()}

    def __enter__(self) -> None:
        self._before, self._began = self._now(), time.perf_counter()

    def __exit__(self, *_: object) -> None:
        self._into.elapsed_s += time.perf_counter() - self._began
        for part, seconds in self._now().items():
            self._into.cpu_s[part] = self._into.cpu_s.get(part, 0.0) + seconds - self._before[part]


def owner_dsn(server: Server) -> str:
    return _dsn(Cluster(server.data_dir, None), OWNER)


async def fill(dsn: str, tenant: Tenant, count: int) -> None:
    connection = await asyncpg.connect(dsn)
    try:
        await connection.execute(_FILL, tenant.tenant_id, tenant.store_id, count)
        await connection.execute(_COUNT, tenant.tenant_id, tenant.store_id, count)
        await connection.execute("VACUUM ANALYZE record.ves_events")
    finally:
        await connection.close()


async def ingest(tenant: Tenant, count: int) -> None:
    await Lane(tenant.server.url, sign_ahead(tenant, tenant.agent, 500, -(-count // 500))).run()


async def pull(tenant: Tenant, connections: int, seconds: float) -> Measured:
    """All connections read the stream from its beginning, again and again, page by page."""
    measured = Measured()

    async def reader(until: float) -> None:
        async with Client(tenant) as client:
            while True:
                for start in range(1, PULLED, PAGE):
                    began = trio.current_time()
                    if began >= until:
                        return
                    body = await client.get(
                        f"/api/v1/ves/events?{client.stream_query}&from={start}&limit={PAGE}"
                    )
                    measured.latencies_s.append(trio.current_time() - began)
                    if body.count(b'"event_signing_hash":') != PAGE:
                        raise SystemExit(f"a page of {body.count(b'event_signing_hash')} events")
                    measured.events += PAGE

    with Clock(tenant.server, measured):
        async with trio.open_nursery() as nursery:
            until = trio.current_time() + seconds
            for _ in range(connections):
                nursery.start_soon(reader, until)
    return measured


async def commit(tenant: Tenant, spans: list[tuple[int, int]]) -> Measured:
    """A commitment for each span. How long the event loop was held meanwhile is told by small requests."""
    measured = Measured()
    with Clock(tenant.server, measured):
        async with Client(tenant) as client:
            for start, end in spans:
                began = trio.current_time()
                body = await client.post(
                    "/api/v1/ves/commitments",
                    {
                        "tenant_id": str(tenant.tenant_id),
                        "store_id": str(tenant.store_id),
                        "sequence_start": start,
                        "sequence_end": end,
                    },
                )
                measured.latencies_s.append(trio.current_time() - began)
                told = json.loads(body)
                if (told["sequence_start"], told["sequence_end"]) != (start, end):
                    raise SystemExit(f"another commitment: {body[:300]!r}")
                measured.events += end - start + 1
    return measured


async def beside(tenant: Tenant, done: trio.Event, into: list[float]) -> None:
    """How late small answers are that need nothing but the event loop."""
    async with Client(tenant) as client:
        while not done.is_set():
            began = trio.current_time()
            await client.get("/health")
            into.append(trio.current_time() - began)
            await trio.sleep(0.002)


async def commit_and_watch(tenant: Tenant, spans: list[tuple[int, int]]) -> tuple[Measured, list[float]]:
    waits: list[float] = []
    done = trio.Event()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(beside, tenant, done, waits)
        measured = await commit(tenant, spans)
        done.set()
    return measured, waits


async def prove(tenant: Tenant, head: int, count: int) -> Measured:
    """Proofs of numbers spread over the whole stream, one connection, each checked."""
    measured = Measured()
    with Clock(tenant.server, measured):
        async with Client(tenant) as client:
            for n in range(count):
                number = 1 + (n * 7919 * 7919) % head
                began = trio.current_time()
                body = await client.get(f"/api/v1/ves/proofs/{number}?{client.stream_query}")
                measured.latencies_s.append(trio.current_time() - began)
                told = json.loads(body)
                path = [bytes.fromhex(node) for node in told["proof_path"]]
                leaf, root = bytes.fromhex(told["leaf_hash"]), bytes.fromhex(told["merkle_root"])
                if not path_leads_to_root(leaf, told["leaf_index"], path, root):
                    raise SystemExit(f"a proof that proves nothing: {body[:300]!r}")
                measured.events += 1
    return measured


def spans(first: int, last: int, size: int) -> list[tuple[int, int]]:
    return [(start, min(last, start + size - 1)) for start in range(first, last + 1, size)]


def show(label: str, rounds: list[Measured], per: str) -> dict[str, Any]:
    rates = [one.events / one.elapsed_s for one in rounds]
    p50, p99 = ([one.percentile_ms(share) for one in rounds] for share in (0.5, 0.99))
    events = sum(one.events for one in rounds)
    cpu = {part: 1e6 * sum(one.cpu_s[part] for one in rounds) / events for part in rounds[0].cpu_s}
    print(
        f"{label:<38} {statistics.median(rates):>9,.0f}/s ({min(rates):,.0f}-{max(rates):,.0f})"
        f"  p50 {statistics.median(p50):.2f} p99 {statistics.median(p99):.2f} ms  CPU us/{per}: "
        + " ".join(f"{part} {value:.1f}" for part, value in cpu.items())
    )
    return {
        "name": label,
        "per_s": rates,
        "p50_ms": p50,
        "p99_ms": p99,
        "cpu_us": cpu,
    }


def measure(server: Server, seconds: float, rounds: int, long: int) -> list[dict[str, Any]]:
    pulled, short, tall = Tenant(server), Tenant(server), Tenant(server)
    trio.run(ingest, pulled, PULLED)
    dsn = owner_dsn(server)
    asyncio.run(fill(dsn, short, SHORT))
    asyncio.run(fill(dsn, tall, long + rounds * COMMITTED))
    results = []
    trio.run(pull, pulled, 4, 0.5)  # what is made on first use
    for connections in (1, 4):
        pages = [trio.run(pull, pulled, connections, seconds) for _ in range(rounds)]
        results.append(show(f"pages of {PAGE} events x {connections}", pages, "event"))
    trio.run(commit, short, [(1, SHORT)])
    largest = trio.run(commit, tall, spans(1, long, LEAVES_MAX))
    results.append(show(f"commitments of {LEAVES_MAX:,} events", [largest], "event"))
    made, waits = [], []
    for start, end in spans(long + 1, long + rounds * COMMITTED, COMMITTED):
        one, late = trio.run(commit_and_watch, tall, [(start, end)])
        made.append(one)
        waits.append(max(late))
    results.append(show(f"commitments of {COMMITTED:,} events", made, "event"))
    print(f"{'':<38} longest wait of others meanwhile {1000 * statistics.median(waits):.1f} ms")
    for label, tenant, head in (("short", short, SHORT), (f"{long:,} events", tall, long)):
        trio.run(prove, tenant, head, 50)
        proofs = [trio.run(prove, tenant, head, int(150 * seconds)) for _ in range(rounds)]
        results.append(show(f"proofs in a stream of {label}", proofs, "proof"))
    return results


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--seconds", type=float, default=3)
    arguments.add_argument("--rounds", type=int, default=3)
    arguments.add_argument("--million", type=int, default=1_000_000, help="events of the long stream")
    arguments.add_argument("--json", type=Path)
    chosen = arguments.parse_args()
    print(this_machine())
    with tempfile.TemporaryDirectory(dir=Path.cwd(), prefix=".bench-") as folder:
        # Nobody else commits meanwhile.
        server = Server(Path(folder) / "data", LOG_LEVEL="warning", COMMITMENT_SWEEP_SECS="3600").start()
        server.wait_ready()
        try:
            results = measure(server, chosen.seconds, chosen.rounds, chosen.million)
        finally:
            server.terminate()
    if chosen.json is not None:
        chosen.json.write_text(json.dumps({"machine": this_machine(), "results": results}, indent=1))


if __name__ == "__main__":
    main()
