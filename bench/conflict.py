"""What it costs when two nodes write for the same tenants: one node, split, and routed by tenant, side by side.

``python -m bench.conflict [--seconds 4] [--rounds 5]``. Two nodes and one PostgreSQL on this machine. The same
number of clients posts for the same number of fresh tenants in each way: all through one node; each tenant
through both at once, so that they take numbers from each other; each tenant through one of the two, as a load
balancer with a hash would do it. Rounds are interleaved, since machines drift. A refused request (503: the
stream is contended) is sent again, its time counts. Prints machine, versions, medians and spread; ends with an
error if the heads are not the accepted events.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import trio

from bench.lanes import Lane, latency_ms, sign_ahead, together
from bench.report import this_machine
from tests.e2e.nodes import metrics, operated_postgres
from tests.e2e.world import Server, Tenant

WAYS = ("one node", "split", "routed")
TENANTS = 2
CLIENTS = 8
"""Of each tenant."""
GUESS = {1: 3000, 10: 9000, 100: 18000}
"""Events a second that are signed ahead, by batch."""


@dataclass
class Result:
    events_per_s: float
    p50_ms: float
    p99_ms: float
    moved_per_request: float
    resent: int


def places(way: str, nodes: list[Server]) -> list[Tenant]:
    """For each client, its tenant through the node it uses."""
    found = []
    for n in range(TENANTS):
        tenant = Tenant(nodes[0])
        through = [tenant, tenant.seen_from(nodes[1])]
        used = {"one node": [0], "split": [0, 1], "routed": [n % 2]}[way]
        found += [through[used[client % len(used)]] for client in range(CLIENTS)]
    return found


def measure(way: str, nodes: list[Server], batch: int, seconds: float) -> Result:
    tenants = places(way, nodes)
    count = int(GUESS[batch] * seconds / batch / len(tenants)) + 2
    lanes = [
        Lane(tenant.server.url, sign_ahead(tenant, tenant.agent, batch, count), resends=True)
        for tenant in tenants
    ]
    moved, appended = total(nodes, "sequencer_appends_moved_total"), posts(nodes)
    elapsed = trio.run(together, lanes, seconds)
    accepted = sum(lane.accepted for lane in lanes)
    heads = {tenant.tenant_id: tenant.head() for tenant in tenants}
    if sum(heads.values()) != accepted:
        raise SystemExit(f"the heads {heads} are not the {accepted} accepted events")
    for tenant in tenants:
        tenant.http.close()
    return Result(
        accepted / elapsed,
        latency_ms(lanes, 0.5),
        latency_ms(lanes, 0.99),
        (total(nodes, "sequencer_appends_moved_total") - moved) / max(1.0, posts(nodes) - appended),
        sum(lane.contended for lane in lanes),
    )


def total(nodes: list[Server], name: str) -> float:
    return sum(metrics(node)[name] for node in nodes)


def posts(nodes: list[Server]) -> float:
    """Requests that were accepted so far."""
    path = "/api/v1/ves/events/ingest"
    labels = f'method="POST",path="{path}",status="200"'
    return sum(metrics(node).get(f"sequencer_http_requests_total{{{labels}}}", 0.0) for node in nodes)


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--seconds", type=float, default=4)
    arguments.add_argument("--rounds", type=int, default=5)
    arguments.add_argument("--batch", type=int, action="append", choices=sorted(GUESS))
    chosen = arguments.parse_args()
    batches = chosen.batch or sorted(GUESS)
    results: dict[tuple[int, str], list[Result]] = {(b, way): [] for b in batches for way in WAYS}
    print(this_machine())
    with tempfile.TemporaryDirectory(dir=Path.cwd(), prefix=".bench-") as home:
        folder = Path(home)
        with operated_postgres(folder / "postgres") as postgres:
            nodes = [postgres.node(folder / name) for name in ("one", "two")]
            try:
                for node in nodes:
                    node.start()
                    node.wait_ready()
                for number in range(chosen.rounds):
                    for (batch, way), rounds in results.items():
                        rounds.append(measure(way, nodes, batch, chosen.seconds))
                        told = f"{way}, {batch} a request: {rounds[-1].events_per_s:,.0f}/s"
                        print(f"round {number + 1}: {told}", file=sys.stderr)
            finally:
                for node in nodes:
                    if node.process is not None:
                        node.terminate()
    report(results)


def report(results: dict[tuple[int, str], list[Result]]) -> None:
    print(f"\n{TENANTS} tenants, {CLIENTS} clients each")
    print(
        f"{'a request':>10} {'way':>10} {'events/s median (min-max)':>30}  p50 ms  p99 ms  moved/request  503"
    )
    for (batch, way), rounds in results.items():
        speeds = [r.events_per_s for r in rounds]
        spread = f"{statistics.median(speeds):,.0f} ({min(speeds):,.0f}-{max(speeds):,.0f})"
        p50 = statistics.median(r.p50_ms for r in rounds)
        p99 = statistics.median(r.p99_ms for r in rounds)
        moved = statistics.median(r.moved_per_request for r in rounds)
        resent = sum(r.resent for r in rounds)
        print(f"{batch:>10} {way:>10} {spread:>30} {p50:>7.1f} {p99:>7.1f} {moved:>14.3f} {resent:>4}")


if __name__ == "__main__":
    main()
