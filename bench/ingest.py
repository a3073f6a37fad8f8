"""Durable events per second of the whole service: real server, real PostgreSQL, real signatures, one machine.

``python -m bench.ingest [--seconds 10] [--rounds 3]``. Starts its own server on a fresh data directory (on
disk, ``synchronous_commit=on``), signs everything before the clock starts, posts over keep-alive
connections, and checks afterwards that every accepted event is there: heads equal what was accepted. Rounds
of the shapes are interleaved, since machines drift. Prints machine, versions, medians and spread.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import sys
import tempfile
import urllib.parse
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

import trio
from nacl.signing import SigningKey

from tests.e2e.world import Agent, Server, Tenant

SHAPES = [(1, 1), (1, 16), (10, 16), (100, 1), (100, 16), (1000, 4)]
"""(events per request, connections)."""


@dataclass
class Round:
    events_per_s: float
    p50_ms: float
    p99_ms: float
    accepted: int
    cpu_us_per_event: dict[str, float]


@dataclass
class Lane:
    """One connection's work: bodies signed beforehand, latencies and accepted events counted."""

    requests: list[bytes]
    accepted: int = 0
    latencies_s: list[float] = field(default_factory=list)
    ran_out: bool = False


def sign_ahead(tenant: Tenant, agent: Agent, batch: int, count: int) -> list[bytes]:
    """Whole HTTP requests, ready to send. Signed with libsodium: it is three times as fast."""
    signer = SigningKey(agent.key.private_bytes_raw())
    url = urllib.parse.urlsplit(tenant.server.url)
    requests = []
    for _ in range(count):
        events = []
        for n in range(batch):
            event = agent.event(
                {
                    "customer": f"c-{n}",
                    "currency": "USD",
                    "lines": [{"sku": "ABC-123", "quantity": n % 7 + 1, "price": 1295}],
                    "note": "an order of ordinary size, as shops send them all day long",
                },
                agent_signature="",
            )
            digest = signing_hash_of(event)
            event["agent_signature"] = "0x" + signer.sign(digest).signature.hex()
            events.append(event)
        body = agent.body(events)
        requests.append(
            f"POST /api/v1/ves/events/ingest HTTP/1.1\r\nhost: {url.netloc}\r\ncontent-type: application/json\r\n"
            f"authorization: ApiKey {tenant.api_key}\r\ncontent-length: {len(body)}\r\n\r\n".encode()
            + body
        )
    return requests


def signing_hash_of(event: dict[str, Any]) -> bytes:
    from tests.e2e.world import signing_hash

    return signing_hash(event)


async def drive(lane: Lane, host: str, port: int, until: float) -> None:
    stream = await trio.open_tcp_stream(host, port)
    async with stream:
        for request in lane.requests:
            if trio.current_time() >= until:
                return
            began = trio.current_time()
            await stream.send_all(request)
            head, body = await read_response(stream)
            if b" 200 " not in head.split(b"\r\n", 1)[0]:
                raise SystemExit(f"unexpected answer: {head!r} {body[:300]!r}")
            lane.latencies_s.append(trio.current_time() - began)
            told = json.loads(body[: body.index(b',"receipts"')] + b"}")
            if told["eventsRejected"]:
                raise SystemExit(f"refused: {body[-600:]!r}")
            lane.accepted += told["eventsAccepted"]
        lane.ran_out = True


async def read_response(stream: trio.SocketStream) -> tuple[bytes, bytes]:
    data = bytearray()
    while (end := data.find(b"\r\n\r\n")) < 0:
        data += await stream.receive_some(65536)
    head = bytes(data[:end])
    length = next(
        int(line.split(b":")[1]) for line in head.split(b"\r\n") if line.lower().startswith(b"content-length")
    )
    while len(data) < end + 4 + length:
        data += await stream.receive_some(1 << 20)
    return head, bytes(data[end + 4 :])


def cpu_seconds(server: Server) -> dict[str, float]:
    """User + system seconds so far, by part: the server itself, its workers, PostgreSQL."""
    tick = os.sysconf("SC_CLK_TCK")
    total: dict[str, float] = {"server": 0.0, "workers": 0.0, "postgres": 0.0}
    parents: dict[int, int] = {}
    spent: dict[int, tuple[str, float]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                stat = (entry / "stat").read_text().rsplit(")", 1)[1].split()
                line = (entry / "cmdline").read_bytes().decode(errors="replace")
            except OSError:
                continue
            parents[int(entry.name)] = int(stat[1])
            # Ended children count with their parent: PostgreSQL's backends come and go.
            spent[int(entry.name)] = (line, sum(map(int, stat[11:15])) / tick)
    for pid, (line, seconds) in spent.items():
        above, chain = pid, []
        while above in parents and above != server.pid:
            chain.append(above)
            above = parents[above]
        if above == server.pid:
            part = "server" if not chain else "workers" if "actors.worker" in line else "postgres"
            total[part] += seconds
    return total


def measure(server: Server, batch: int, connections: int, seconds: float) -> Round:
    tenant = Tenant(server)
    agents = [tenant.new_agent() for _ in range(connections)]
    guess = {1: 6000, 10: 16000, 100: 24000, 1000: 24000}[batch]
    count = max(2, int(guess * seconds / batch / connections) + 1)
    lanes = [Lane(sign_ahead(tenant, agent, batch, count)) for agent in agents]
    url = urllib.parse.urlsplit(server.url)
    assert url.hostname is not None
    assert url.port is not None
    before = cpu_seconds(server)

    async def run() -> float:
        began = trio.current_time()
        async with trio.open_nursery() as nursery:
            for lane in lanes:
                nursery.start_soon(drive, lane, url.hostname, url.port, began + seconds)
        return trio.current_time() - began

    elapsed = trio.run(run)
    after = cpu_seconds(server)
    accepted = sum(lane.accepted for lane in lanes)
    if tenant.head() != accepted:
        raise SystemExit(f"head {tenant.head()} is not the {accepted} accepted events")
    if any(lane.ran_out for lane in lanes) and elapsed < seconds / 2:
        raise SystemExit("the signed requests ran out; sign more")
    latencies = sorted(x for lane in lanes for x in lane.latencies_s)
    tenant.http.close()
    return Round(
        events_per_s=accepted / elapsed,
        p50_ms=1000 * latencies[len(latencies) // 2],
        p99_ms=1000 * latencies[min(len(latencies) - 1, len(latencies) * 99 // 100)],
        accepted=accepted,
        cpu_us_per_event={part: 1e6 * (after[part] - before[part]) / accepted for part in after},
    )


def machine() -> str:
    model = next(
        (
            line.split(":")[1].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if "model name" in line
        ),
        platform.processor(),
    )
    packages = " ".join(
        f"{name} {version(name)}" for name in ("trio", "asyncpg", "quart", "hypercorn", "pynacl")
    )
    return f"{model}, {os.cpu_count()} cores, {platform.system()} {platform.release()}, Python {platform.python_version()}, {packages}"


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--seconds", type=float, default=5)
    arguments.add_argument("--rounds", type=int, default=3)
    arguments.add_argument("--shape", action="append", help="events x connections, such as 100x16")
    chosen = arguments.parse_args()
    shapes = [tuple(map(int, s.split("x"))) for s in chosen.shape] if chosen.shape else SHAPES
    print(machine())
    results: dict[tuple[int, ...], list[Round]] = {shape: [] for shape in shapes}
    with tempfile.TemporaryDirectory(dir=Path.cwd(), prefix=".bench-") as folder:
        server = Server(Path(folder) / "data").start()
        server.wait_ready()
        try:
            for number in range(chosen.rounds):
                for batch, connections in shapes:
                    result = measure(server, batch, connections, chosen.seconds)
                    results[batch, connections].append(result)
                    print(
                        f"round {number + 1}: {batch} x {connections}: {result.events_per_s:,.0f}/s",
                        file=sys.stderr,
                    )
        finally:
            server.terminate()
    print(
        f"\n{'batch x conn':>12} {'events/s median (min-max)':>30} {'p50 ms':>8} {'p99 ms':>8}  CPU us/event"
    )
    for (batch, connections), rounds in results.items():
        speeds = [r.events_per_s for r in rounds]
        cpu = {
            p: statistics.median(r.cpu_us_per_event[p] for r in rounds) for p in rounds[0].cpu_us_per_event
        }
        print(
            f"{batch:>5} x {connections:<4} {statistics.median(speeds):>12,.0f} ({min(speeds):,.0f}-{max(speeds):,.0f})"
            f"{'':>4} {statistics.median(r.p50_ms for r in rounds):>8.1f}"
            f" {statistics.median(r.p99_ms for r in rounds):>8.1f}  "
            + " ".join(f"{part} {value:.0f}" for part, value in cpu.items())
        )


if __name__ == "__main__":
    main()
