"""One, two and three nodes on one PostgreSQL, with and without a synchronous standby: what an event costs, where.

``python -m bench.nodes [--seconds 3] [--rounds 3]``. All on this machine, so more nodes are not faster here: told
is the processor time per event of the core processes, the workers, PostgreSQL and its standby, from which the
next limit is computed; how often appends had to be decided anew (*moved*) when each tenant is written through
one node (*routed*) or through all of them (*split*); and that nothing is lost, doubled or skipped however many
write: every run ends with an error unless numbers, rows and heads are exactly the accepted events. Rounds are
interleaved, since machines drift.
"""

from __future__ import annotations

import argparse
import os
import secrets
import statistics
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import trio

from bench.lanes import Lane, latency_ms, sign_ahead, together
from bench.report import this_machine
from tests.chaos.database import Postgres
from tests.chaos.standby import a_standby_of, wait_for_standbys
from tests.e2e.nodes import metrics
from tests.e2e.world import Server, Tenant

NODES_MAX = 3
TENANTS, CLIENTS = 6, 4
"""So many, and so many connections of each."""
GUESS = {1: 2500, 10: 8000, 100: 14000}
"""Events a second that are signed ahead, by events in a request."""
ROOMY = {"max_connections": "100"}
PARTS = ("core", "workers", "postgres", "standby")


@dataclass(frozen=True)
class Setting:
    nodes: int
    way: str
    """routed or split."""
    batch: int
    synchronous: bool

    def __str__(self) -> str:
        copied = "waited for" if self.synchronous else "not waited for"
        return f"{self.nodes} {self.way:<7} {self.batch:>4} {copied:<14}"


@dataclass
class Result:
    events_per_s: float
    p50_ms: float
    p99_ms: float
    cpu_us: dict[str, float]
    moved_per_request: float
    contended: int


class Stage:
    """Three nodes, their PostgreSQL, and a standby that is waited for when a run asks for it."""

    def __init__(self, postgres: Postgres, standby: Postgres, nodes: list[Server]) -> None:
        self.postgres = postgres
        self.standby = standby
        self.nodes = nodes

    def cpu_s(self, used: list[Server]) -> dict[str, float]:
        """So far. Idle nodes do not count, but their pings of the database do: they are few."""
        spent = dict.fromkeys(PARTS, 0.0)
        for node in used:
            spent["core"] += seconds_of(node.pid, ended_children=False)
            spent["workers"] += sum(
                seconds_of(pid) for pid, line in node.children() if "actors.worker" in line
            )
        for part, server in (("postgres", self.postgres), ("standby", self.standby)):
            # Children that have ended count with their parent: backends come and go.
            spent[part] = seconds_of(server.pid) + sum(map(seconds_of, children_of(server.pid)))
        return spent

    def measure(self, setting: Setting, seconds: float) -> Result:
        wait_for_standbys(self.postgres, "standby" if setting.synchronous else "")
        used = self.nodes[: setting.nodes]
        tenants, lanes = self._lanes(setting, used, seconds)
        moved = moved_so_far(used)
        before = self.cpu_s(used)
        elapsed = trio.run(together, lanes, seconds)
        after = self.cpu_s(used)
        moved = moved_so_far(used) - moved
        accepted = sum(lane.accepted for lane in lanes)
        self._check(tenants, accepted)
        return Result(
            events_per_s=accepted / elapsed,
            p50_ms=latency_ms(lanes, 0.5),
            p99_ms=latency_ms(lanes, 0.99),
            cpu_us={part: 1e6 * (after[part] - before[part]) / accepted for part in PARTS},
            moved_per_request=moved / sum(len(lane.latencies_s) for lane in lanes),
            contended=sum(lane.contended for lane in lanes),
        )

    def _lanes(self, setting: Setting, used: list[Server], seconds: float) -> tuple[list[Tenant], list[Lane]]:
        tenants = [Tenant(used[0]) for _ in range(TENANTS)]
        count = int(GUESS[setting.batch] * seconds / setting.batch / TENANTS / CLIENTS) + 2
        lanes = []
        for n, tenant in enumerate(tenants):
            for client in range(CLIENTS):
                at = used[(client if setting.way == "split" else n) % len(used)]
                requests = sign_ahead(tenant, tenant.agent, setting.batch, count)
                lanes.append(Lane(at.url, requests, resends=True))
            tenant.http.close()
        return tenants, lanes

    def _check(self, tenants: list[Tenant], accepted: int) -> None:
        """Each stream has the numbers 1 to its head, each once, each event once; together what was accepted."""
        names = ", ".join(f"'{tenant.tenant_id}'" for tenant in tenants)
        lines = self.postgres.psql(
            "SELECT count(*), count(DISTINCT sequence_number), count(DISTINCT event_id), "
            "min(sequence_number), max(sequence_number), "
            "(SELECT max(current_sequence) FROM record.ves_sequence_counters c WHERE c.tenant_id = e.tenant_id) "
            f"FROM record.ves_events e WHERE tenant_id IN ({names}) GROUP BY tenant_id, store_id"
        )
        found = [tuple(map(int, line.split("|"))) for line in lines]
        if any(row != (row[0], row[0], row[0], 1, row[0], row[0]) for row in found):
            raise SystemExit(f"a stream has a gap, a double or another head: {found}")
        if sum(row[0] for row in found) != accepted:
            raise SystemExit(f"{found} are not the {accepted} accepted events")


def moved_so_far(nodes: list[Server]) -> float:
    return sum(metrics(node)["sequencer_appends_moved_total"] for node in nodes)


def seconds_of(pid: int, *, ended_children: bool = True) -> float:
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return sum(map(int, fields[11 : 15 if ended_children else 13])) / os.sysconf("SC_CLK_TCK")


def children_of(parent: int) -> Iterator[int]:
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue
            if int(fields[1]) == parent:
                yield int(entry.name)


def staged(folder: Path, stack: ExitStack) -> Stage:
    postgres = stack.enter_context(Postgres(folder / "primary", **ROOMY).running())
    postgres.migrate()
    standby = stack.enter_context(a_standby_of(postgres, folder / "standby", **ROOMY))
    shared = {"PAYLOAD_ENCRYPTION_KEYS": secrets.token_hex(32), "VERIFIERS": "1", "ENCRYPTORS": "1"}
    nodes = []
    for n in range(NODES_MAX):
        node = Server(folder / f"node-{n}", DATABASE_URL=postgres.dsn(), LOG_LEVEL="warning", **shared)
        stack.callback(node.kill_9)
        node.start().wait_ready()
        nodes.append(node)
    return Stage(postgres, standby, nodes)


def settings(batches: list[int]) -> list[Setting]:
    return [
        Setting(nodes, way, batch, synchronous)
        for batch in batches
        for synchronous in (False, True)
        for nodes, way in ((1, "routed"), (2, "routed"), (3, "routed"), (2, "split"), (3, "split"))
        if not (synchronous and way == "split")
    ]


def show(results: dict[Setting, list[Result]]) -> None:
    print(f"\n{TENANTS} tenants, {CLIENTS} connections each; medians; everything on this one machine")
    print(
        f"{'nodes way  batch standby':<34}{'events/s':>9}{'p50 ms':>8}{'p99 ms':>9}{'moved/req':>10}{'503':>5}"
        "   CPU us/event: core workers postgres standby"
    )
    for setting, rounds in results.items():
        cpu = [statistics.median(r.cpu_us[part] for r in rounds) for part in PARTS]
        print(
            f"{setting!s:<34}{statistics.median(r.events_per_s for r in rounds):>9,.0f}"
            f"{statistics.median(r.p50_ms for r in rounds):>8.1f}"
            f"{statistics.median(r.p99_ms for r in rounds):>9.1f}"
            f"{statistics.median(r.moved_per_request for r in rounds):>10.3f}"
            f"{sum(r.contended for r in rounds):>5}   " + " ".join(f"{us:>9.1f}" for us in cpu)
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=3)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--batch", type=int, action="append", choices=sorted(GUESS))
    chosen = parser.parse_args()
    print(this_machine())
    results: dict[Setting, list[Result]] = {s: [] for s in settings(chosen.batch or sorted(GUESS))}
    with tempfile.TemporaryDirectory(dir=Path.cwd(), prefix=".bench-") as home, ExitStack() as stack:
        stage = staged(Path(home), stack)
        for number in range(chosen.rounds):
            for setting, rounds in results.items():
                rounds.append(stage.measure(setting, chosen.seconds))
                print(f"round {number + 1}: {setting}: {rounds[-1].events_per_s:,.0f}/s", file=sys.stderr)
    show(results)


if __name__ == "__main__":
    main()
