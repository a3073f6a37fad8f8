"""What one group costs the journal, step by step: CPU of ours, CPU of PostgreSQL, wall clock.

``python -m bench.journal [--sizes 1 20 100 300] [--tenants 1] [--rows 0] [--rounds 5]``. A real durable
PostgreSQL on a fresh folder of this machine's disk; facts are read and groups appended through the port, as a
sequencer does it, with rows of ordinary width, an agent key, a credential and an entity of its own for each
event. PostgreSQL's figure is all its processes together, to the nanosecond (/proc/PID/schedstat), so that it
may be compared while others use the machine; wall clock may not. ``--rows`` fills the table first.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import asyncpg
import trio

from bench.fill import fill
from journal.aio import cross, open_loop
from journal.connections import Limits
from journal.embedded import EmbeddedPostgres
from journal.embedded_cluster import EMBEDDED_LOGINS
from journal.migrate import migrate
from journal.port import Group, Journal, KeyRegistered, Stored
from journal.postgres import open_journal
from tests.journal.journal_builders import AUDIT, a_group, an_agent_key, an_api_key, an_event, question, uuid
from ves.records import Facts, KeyName, Question, Uuid, VerifiedEvent

SEALED_BYTES = 364
"""Of a payload of ordinary size."""
_WARM_UP = 30
"""Groups before anything is measured: plans are made, files grown."""


@dataclass
class Step:
    """What one call cost, in µs."""

    ours: float
    postgres: float
    wall: float


@dataclass
class Writer:
    """A tenant with one stream, one agent key and one credential."""

    tenant_id: Uuid
    store_id: Uuid
    key: KeyName
    credential_id: Uuid

    @classmethod
    async def joined(cls, journal: Journal) -> Writer:
        tenant = uuid()
        key, credential = an_agent_key(tenant), an_api_key(tenant)
        assert isinstance(await journal.register_agent_key(key, AUDIT), KeyRegistered)
        await journal.create_api_key(credential, audit=AUDIT)
        return cls(tenant, uuid(), key.name, credential.id)

    def events(self, count: int) -> list[VerifiedEvent]:
        return [an_event(agent=self.key.agent_id) for _ in range(count)]

    def question(self, events: list[VerifiedEvent]) -> Question:
        return question(
            self.tenant_id, [self.store_id], events, keys=[self.key], credentials=[self.credential_id]
        )

    def group(self, facts: Facts, events: list[VerifiedEvent]) -> Group:
        placed = [(self.store_id, event) for event in events]
        return a_group(facts, placed, sealed_bytes=SEALED_BYTES)


class Meter:
    """CPU of this process and of a PostgreSQL."""

    def __init__(self, postmaster: int) -> None:
        self._postmaster = postmaster

    async def measure(self, act: Callable[[], Awaitable[Any]]) -> tuple[Any, Step]:
        postgres, wall, ours = self._postgres_ns(), time.perf_counter_ns(), time.process_time_ns()
        answer = await act()
        step = [time.process_time_ns() - ours, time.perf_counter_ns() - wall]
        return answer, Step(step[0] / 1e3, (self._postgres_ns() - postgres) / 1e3, step[1] / 1e3)

    def _postgres_ns(self) -> int:
        children = Path(f"/proc/{self._postmaster}/task/{self._postmaster}/children").read_text().split()
        return sum(int(Path(f"/proc/{pid}/schedstat").read_text().split()[0]) for pid in children)


async def measure(
    journal: Journal, meter: Meter, writers: list[Writer], size: int, groups: int
) -> dict[str, list[Step]]:
    """Each group is of all writers together: each reads and appends ``size`` events, at the same time."""
    steps: dict[str, list[Step]] = {"facts": [], "append": []}
    for _ in range(groups):
        events = [writer.events(size) for writer in writers]
        questions = [writer.question(e) for writer, e in zip(writers, events, strict=True)]
        facts, step = await meter.measure(partial(together, journal.read_facts, questions))
        steps["facts"].append(step)
        made = [w.group(f, e) for w, f, e in zip(writers, facts, events, strict=True)]
        outcomes, step = await meter.measure(partial(together, journal.append, made))
        if outcomes != [Stored()] * len(made):
            raise SystemExit(f"not stored: {outcomes}")
        steps["append"].append(step)
    return steps


async def together(call: Callable[[Any], Awaitable[Any]], arguments: Iterable[Any]) -> list[Any]:
    arguments = list(arguments)
    answers: list[Any] = [None] * len(arguments)

    async def one(n: int, argument: Any) -> None:
        answers[n] = await call(argument)

    if len(arguments) == 1:
        return [await call(arguments[0])]
    async with trio.open_nursery() as nursery:
        for n, argument in enumerate(arguments):
            nursery.start_soon(one, n, argument)
    return answers


def report(size: int, tenants: int, steps: dict[str, list[Step]]) -> None:
    events = size * tenants
    cells = []
    for name, taken in steps.items():
        ours, postgres, wall = (
            statistics.median(getattr(s, part) for s in taken) for part in ("ours", "postgres", "wall")
        )
        mean = statistics.fmean(s.postgres for s in taken)
        cells.append(
            f"{name}: ours {ours / events:7.1f}  postgres {postgres / events:7.1f} (mean {mean / events:7.1f})  "
            f"wall {wall / events:7.1f}"
        )
    print(f"{tenants:>5} x {size:<5} {'   '.join(cells)}", flush=True)


async def run(server: EmbeddedPostgres, asked: argparse.Namespace) -> None:
    async with open_loop():
        await migrate(server.owner_dsn, EMBEDDED_LOGINS)
        if asked.rows:
            await cross(lambda: fill(server.owner_dsn, asked.rows))
        limits = Limits(connections_max=asked.connections)
        async with open_journal(server.app_dsn, node_id=os.urandom(16), limits=limits) as journal:
            writers = [await Writer.joined(journal) for _ in range(asked.tenants)]
            assert server.pid is not None
            meter = Meter(server.pid)
            await measure(journal, meter, writers, 20, _WARM_UP)
            await cross(lambda: _checkpoint(server.owner_dsn))
            collected: dict[int, dict[str, list[Step]]] = {}
            for _ in range(asked.rounds):
                for size in asked.sizes:
                    groups = max(10, min(100, asked.events // size // asked.tenants))
                    found = await measure(journal, meter, writers, size, groups)
                    for name, steps in found.items():
                        collected.setdefault(size, {}).setdefault(name, []).extend(steps)
            for size, all_steps in collected.items():
                report(size, asked.tenants, all_steps)


async def _checkpoint(dsn: str) -> None:
    connection = await asyncpg.connect(dsn)
    await connection.execute("CHECKPOINT")
    await connection.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else None)
    parser.add_argument("--sizes", type=int, nargs="+", default=[1, 20, 100, 300], help="events per group")
    parser.add_argument("--tenants", type=int, default=1, help="that append at the same time")
    parser.add_argument("--rows", type=int, default=0, help="events in the table before")
    parser.add_argument("--events", type=int, default=5000, help="per size and round")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--connections", type=int, default=8)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory(dir="/var/tmp") as home:
        Path(home).chmod(0o700)
        with EmbeddedPostgres(Path(home)) as server:
            print("tenants x events of each; µs per event, medians", flush=True)
            trio.run(run, server, asked)


if __name__ == "__main__":
    main()
