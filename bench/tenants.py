"""What ten thousand tenants cost that were touched once: memory of the server, and what the others notice.

``python -m bench.tenants [--tenants 10000] [--seconds 10]``. A real server on a fresh data directory; every
tenant registers a key and posts one event over HTTP, so that its sequencer has lived. One busy tenant posts
all the while; its speed is measured alone, while the others come, and beside all of them idle. Prints
machine, versions, memory by part, medians and spread. ``--keep --tenants 1000 --soak 600`` keeps all of them
alive and then looks for so many seconds whether memory stays flat under a light load of everything: told are the
start, each minute, the end, and what has grown in the second half.

Memory is the proportional share (PSS) of our Python processes, core, workers and front-ends: what would be free again
if they ended. PostgreSQL is not counted.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import trio

from bench.lanes import Lane, latency_ms, sign_ahead, together
from bench.machine import CORE, FRONTENDS, OTHERS, POSTGRES, WORKERS, part_of
from bench.report import this_machine
from tests.e2e.world import Agent, Server, Tenant

CONNECTIONS = 16
WINDOWS = 5
MINUTE_S = 60.0
MEMORY_MAX_MIB = 250e6 / (1 << 20)
"""Goal: 250 MB with 1,000 active tenants."""
GROWTH_MAX = 0.03
"""Of private memory in the second half of a soak, at most, that is called flat."""
BUSY_BATCH, BUSY_LANES = 20, 4
BUSY_GUESS = 12_000
"""Events a second that are signed ahead for the busy one."""


def mib(pid: int, *kinds: str) -> float:
    told = Path(f"/proc/{pid}/smaps_rollup").read_text()
    return sum(int(told.split(f"\n{kind}:")[1].split()[0]) for kind in kinds) / 1024


def memory(server: Server, *kinds: str) -> dict[str, float]:
    """MiB by part of all Python processes of the server, which PostgreSQL's are not."""
    kinds = kinds or ("Pss",)
    sizes = {CORE: mib(server.pid, *kinds), WORKERS: 0.0, FRONTENDS: 0.0, OTHERS: 0.0}
    for pid, line in server.children():
        part = part_of(line)
        if part != POSTGRES:
            sizes[part] += mib(pid, *kinds)
    return sizes


async def touch(tenants: Iterator[int], http: httpx.AsyncClient) -> None:
    """Each of these tenants is new, registers its agent's key and posts one event."""
    for _ in tenants:
        agent = Agent(uuid.uuid4(), uuid.uuid4())
        registered = await http.post(
            "/api/v1/agents/keys",
            json={
                "tenantId": str(agent.tenant_id),
                "agentId": str(agent.agent_id),
                "keyId": 1,
                "publicKey": agent.public_key,
            },
        )
        if registered.status_code not in (200, 201):
            raise SystemExit(f"not registered: {registered.text}")
        posted = await http.post(
            "/api/v1/ves/events/ingest",
            content=agent.body([agent.event({"n": 1})]),
            headers={"content-type": "application/json"},
        )
        if posted.status_code != 200 or posted.json()["eventsAccepted"] != 1:
            raise SystemExit(f"not accepted: {posted.status_code} {posted.text[:300]}")


async def touch_all(server: Server, count: int) -> float:
    began = trio.current_time()
    tenants = iter(range(count))
    headers = {"authorization": f"ApiKey {server.bootstrap_key}"}
    async with (
        httpx.AsyncClient(base_url=server.url, headers=headers, timeout=60) as http,
        trio.open_nursery() as nursery,
    ):
        for _ in range(CONNECTIONS):
            nursery.start_soon(touch, tenants, http)
    return trio.current_time() - began


class Busy:
    """One tenant that posts on four connections; its speed in windows of time."""

    def __init__(self, server: Server, window_s: float) -> None:
        self.tenant = Tenant(server)
        self.window_s = window_s

    async def window(self) -> tuple[float, float]:
        """(events per second, p50 ms)."""
        count = int(BUSY_GUESS * self.window_s / BUSY_BATCH / BUSY_LANES) + 1
        tenant = self.tenant
        lanes = [
            Lane(tenant.server.url, sign_ahead(tenant, tenant.agent, BUSY_BATCH, count))
            for _ in range(BUSY_LANES)
        ]
        elapsed = await together(lanes, self.window_s)
        return sum(lane.accepted for lane in lanes) / elapsed, latency_ms(lanes, 0.5)

    async def windows(self, count: int = WINDOWS) -> list[tuple[float, float]]:
        return [await self.window() for _ in range(count)]


class Everyday:
    """A light load of all that callers do: small batches and single events, pages, commitments, proofs."""

    def __init__(self, server: Server) -> None:
        self.tenant = Tenant(server)
        self.stream = {"tenant_id": str(self.tenant.tenant_id), "store_id": str(self.tenant.store_id)}
        self._head = 0

    async def round(self, http: httpx.AsyncClient) -> None:
        for batch in (1, 20):
            events = [self.tenant.agent.event({"n": n, "text": "x" * 300}) for n in range(batch)]
            body = self.tenant.agent.body(events)
            await self._done(http, "POST", "/api/v1/ves/events/ingest", content=body)
            self._head += batch
        start = max(1, self._head - 999)
        await self._done(
            http, "GET", "/api/v1/ves/events", params={**self.stream, "from": start, "limit": 1000}
        )
        await self._done(http, "POST", "/api/v1/ves/commitments", json=self.stream)
        await self._done(http, "GET", f"/api/v1/ves/proofs/{self._head}", params=self.stream)

    @staticmethod
    async def _done(http: httpx.AsyncClient, method: str, path: str, **what: Any) -> None:
        answer = await http.request(method, path, headers={"content-type": "application/json"}, **what)
        if answer.status_code not in (200, 201):
            raise SystemExit(f"{method} {path}: {answer.status_code} {answer.text[:300]}")


@dataclass(frozen=True)
class Sample:
    """Memory at one moment of a soak, in MiB by part."""

    at_s: float
    pss: dict[str, float]
    private: dict[str, float]
    """Shares (PSS) grow too when a stranger ends who had the same libraries open; this does not."""

    @classmethod
    def now(cls, server: Server, at_s: float) -> Sample:
        return cls(at_s, memory(server), memory(server, "Private_Clean", "Private_Dirty"))

    def __str__(self) -> str:
        parts = ", ".join(f"{part} {size:.1f}" for part, size in self.pss.items() if size)
        return (
            f"after {self.at_s:>5.0f} s: {sum(self.pss.values()):6.1f} MiB together"
            f" (private {sum(self.private.values()):.1f}): {parts}"
        )


async def soak(server: Server, seconds: float) -> None:
    """Prints the memory at the start, each minute and at the end, and whether it was flat."""
    everyday = Everyday(server)
    headers = {"authorization": f"ApiKey {everyday.tenant.api_key}"}
    samples: list[Sample] = []

    def look(at_s: float) -> None:
        samples.append(Sample.now(server, at_s))
        print(samples[-1], flush=True)

    print(f"\n{seconds:g} s of a light load of everything, PSS of our Python processes:")
    async with httpx.AsyncClient(base_url=server.url, headers=headers, timeout=60) as http:
        began, rounds = trio.current_time(), 0
        while (elapsed := trio.current_time() - began) < seconds:
            if elapsed >= MINUTE_S * len(samples):
                look(elapsed)
            await everyday.round(http)
            rounds += 1
            await trio.sleep(0.1)
    look(elapsed)
    print(f"{rounds} rounds; {flatness(samples)}")


def flatness(samples: Sequence[Sample]) -> str:
    """Flat is what hardly grew in the second half: in the first, buffers and caches take their size."""
    first, middle, last = samples[min(1, len(samples) - 1)], samples[len(samples) // 2], samples[-1]
    flat = "flat" if _grown(middle, last) <= GROWTH_MAX else "NOT flat"
    most = max(sum(sample.pss.values()) for sample in samples)
    goal = "reached" if most < MEMORY_MAX_MIB else "not reached"
    return (
        f"{flat}: private memory {_grown(middle, last):+.1%} since {middle.at_s:.0f} s, at most {GROWTH_MAX:.0%} is"
        f" flat, {_grown(first, last):+.1%} since {first.at_s:.0f} s;"
        f" PSS at most {most:.1f} MiB, under {MEMORY_MAX_MIB:.1f} is wanted: {goal}"
    )


def _grown(before: Sample, after: Sample) -> float:
    return sum(after.private.values()) / sum(before.private.values()) - 1


def show(label: str, windows: list[tuple[float, float]]) -> None:
    speeds, p50 = [w[0] for w in windows], [w[1] for w in windows]
    print(
        f"{label:<34} {statistics.median(speeds):>8,.0f} ({min(speeds):,.0f}-{max(speeds):,.0f})"
        f"   p50 {statistics.median(p50):.1f} ms ({min(p50):.1f}-{max(p50):.1f})"
    )


def loop_lag(server: Server) -> str:
    text = httpx.get(
        server.admin_url + "/metrics", headers={"authorization": f"ApiKey {server.bootstrap_key}"}, timeout=30
    ).text
    return next(
        line.split()[1] for line in text.splitlines() if line.startswith("sequencer_event_loop_lag_peak")
    )


@contextmanager
def a_server(**environment: str) -> Iterator[Server]:
    with tempfile.TemporaryDirectory(dir=Path.cwd(), prefix=".bench-") as folder:
        server = Server(Path(folder) / "data", LOG_LEVEL="warning", **environment).start()
        server.wait_ready()
        try:
            yield server
        finally:
            server.terminate()


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--tenants", type=int, default=10_000)
    arguments.add_argument("--seconds", type=float, default=3, help="of each measured window")
    arguments.add_argument("--soak", type=float, default=0, help="seconds of light load afterwards")
    arguments.add_argument("--keep", action="store_true", help="keep all of them alive, however idle")
    chosen = arguments.parse_args()
    print(this_machine())
    keep = {"TENANT_IDLE_SECS": "900", "TENANTS_IDLE_MAX": "75000"} if chosen.keep else {}
    with a_server(TENANTS_MAX="100000", **keep) as server:
        busy = Busy(server, chosen.seconds)
        trio.run(touch_all, server, 200)  # everything that is loaded on first use
        trio.run(busy.windows, 1)
        before = memory(server)
        print(f"\none tenant, {BUSY_BATCH} events x {BUSY_LANES} connections, events/s median (min-max):")
        show("alone", trio.run(busy.windows))
        loop_lag(server)
        took = trio.run(touch_all, server, chosen.tenants)
        lag = loop_lag(server)
        after = memory(server)
        show(f"after {chosen.tenants:,} others came by", trio.run(busy.windows))
        print(
            f"\n{chosen.tenants:,} tenants touched once in {took:.0f} s; longest loop lag meanwhile {lag} s"
        )
        for part in before:
            cost = after[part] - before[part]
            print(
                f"{part:<10} {before[part]:>7.1f} MiB before, {after[part]:>7.1f} after: {cost:+.1f} MiB,"
                f" {1024 * cost / chosen.tenants:.1f} KiB a tenant"
            )
        print(f"all Python processes together: {sum(after.values()):.1f} MiB")
        if chosen.soak:
            trio.run(soak, server, chosen.soak)
        began = time.perf_counter()
        answer = httpx.get(
            server.admin_url + "/metrics",
            headers={"authorization": f"ApiKey {server.bootstrap_key}"},
            timeout=30,
        )
        print(
            f"/metrics beside them: {1000 * (time.perf_counter() - began):.0f} ms, {len(answer.content)} bytes"
        )


if __name__ == "__main__":
    main()
