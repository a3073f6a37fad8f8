"""What it costs to commit the tails of many streams, one at a time and together.

``python -m bench.commitments [--streams 1000] [--events 1] [--rounds 5] [--crowd 0]``. The committer of a node
on a real durable PostgreSQL on a fresh folder of this machine's disk; in each round every stream gets so many
events, and then they are committed one by one or 64 streams at a time, in turns. CPU of ours and of PostgreSQL
as in ``bench.journal``, and the longest that one task held the event loop. ``--crowd`` adds streams that are
behind and not asked for: what a sweep has to look through.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from collections import defaultdict
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from pathlib import Path

import trio

from actors.committer import Committer
from actors.mailbox import Inbox, Mailbox, Ref
from actors.messages import Commit, Committed, CommitTogether
from actors.sweeper import PAGE_STREAMS
from bench.journal import Meter, Step
from journal.aio import open_loop
from journal.embedded import EmbeddedPostgres
from journal.embedded_cluster import EMBEDDED_LOGINS
from journal.migrate import migrate
from journal.port import TOGETHER_LEAVES_MAX, TOGETHER_STREAMS_MAX, Journal, Stored, StreamBehind
from journal.postgres import PostgresJournal, open_journal
from supervisor.main import spare_the_collector
from tests.journal.journal_builders import a_group, an_event, question, uuid
from ves.records import Uuid

STORES = 20
"""Of each tenant."""


class LongestHold(trio.abc.Instrument):
    """The longest step of any task, in µs of processor time: so long nobody else had a turn."""

    def __init__(self) -> None:
        self.us = 0.0
        self._began = time.thread_time_ns()

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        self._began = time.thread_time_ns()

    def after_task_step(self, task: trio.lowlevel.Task) -> None:
        self.us = max(self.us, (time.thread_time_ns() - self._began) / 1e3)


async def appended(journal: Journal, tenants: dict[Uuid, list[Uuid]], events: int) -> None:
    """So many events more in every stream."""
    for tenant, stores in tenants.items():
        placed = [(store, an_event()) for store in stores for _ in range(events)]
        facts = await journal.read_facts(question(tenant, stores, [event for _, event in placed]))
        outcome = await journal.append(a_group(facts, placed))
        if not isinstance(outcome, Stored):
            raise SystemExit(f"not stored: {outcome}")


async def all_behind(journal: Journal) -> list[StreamBehind]:
    found: list[StreamBehind] = []
    after = None
    while page := await journal.streams_behind(after=after, limit=PAGE_STREAMS):
        found += page
        after = (page[-1].tenant_id, page[-1].store_id)
    return found


async def alone(committer: Ref, wanted: Sequence[Commit]) -> list[object]:
    answers: list[object] = []
    for one in wanted:
        answer = await committer.ask(one, deadline_s=60)
        answers.append(answer)
    return answers


async def together(committer: Ref, wanted: Sequence[Commit]) -> list[object]:
    answers: list[object] = []
    for first in range(0, len(wanted), TOGETHER_STREAMS_MAX):
        some = CommitTogether(tuple(wanted[first : first + TOGETHER_STREAMS_MAX]))
        told = await committer.ask(some, deadline_s=60)
        answers += told
    return answers


WAYS: dict[str, Callable[[Ref, Sequence[Commit]], Awaitable[list[object]]]] = {
    "alone": alone,
    "together": together,
}


async def measure(
    journal: PostgresJournal, meter: Meter, committer: Ref, asked: argparse.Namespace
) -> dict[str, list[tuple[Step, float]]]:
    tenants = {uuid(): [uuid() for _ in range(STORES)] for _ in range(asked.streams // STORES)}
    ours = {(tenant, store) for tenant, stores in tenants.items() for store in stores}
    taken: dict[str, list[tuple[Step, float]]] = defaultdict(list)
    for n in range(asked.rounds + 1):
        for way, act in WAYS.items():
            await appended(journal, tenants, asked.events)
            longest = LongestHold()
            trio.lowlevel.add_instrument(longest)
            behind, looking = await meter.measure(partial(all_behind, journal))
            looked = longest.us
            wanted = [
                Commit(s.tenant_id, s.store_id, s.committed_through + 1, s.head_sequence)
                for s in behind
                if (s.tenant_id, s.store_id) in ours
            ]
            longest.us = 0.0
            answers, committing = await meter.measure(partial(act, committer, wanted))
            trio.lowlevel.remove_instrument(longest)
            if len(answers) != len(ours) or not all(isinstance(answer, Committed) for answer in answers):
                raise SystemExit("not all were committed")
            if n:  # the first is for warming up
                taken["looking"].append((looking, looked))
                taken[way].append((committing, longest.us))
    return taken


async def run(server: EmbeddedPostgres, asked: argparse.Namespace) -> None:
    async with open_loop():
        await migrate(server.owner_dsn, EMBEDDED_LOGINS)
        async with open_journal(server.app_dsn, node_id=os.urandom(16)) as journal:
            crowd = {uuid(): [uuid() for _ in range(STORES)] for _ in range(asked.crowd // STORES)}
            await appended(journal, crowd, 1)
            assert server.pid is not None
            committer = Committer(journal=journal, new_batch_id=uuid, now_us=lambda: time.time_ns() // 1000)
            spare_the_collector()
            mailbox = Mailbox("committer", letters_max=10)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(committer.run, Inbox(mailbox, name="committer"))
                taken = await measure(journal, Meter(server.pid), Ref(mailbox), asked)
                nursery.cancel_scope.cancel()
    for way, steps in taken.items():
        ours, postgres, wall = (
            statistics.median(getattr(step, part) / asked.streams for step, _ in steps)
            for part in ("ours", "postgres", "wall")
        )
        held = max(us for _, us in steps) / 1e3
        print(
            f"{way:>9}: ours {ours:7.1f}  postgres {postgres:7.1f}  wall {wall:7.1f}  "
            f"longest hold of the loop {held:.1f} ms",
            flush=True,
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else None)
    parser.add_argument("--streams", type=int, default=1000)
    parser.add_argument("--events", type=int, default=1, help="of each stream and round")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--crowd", type=int, default=0, help="streams beside them that stay behind")
    asked = parser.parse_args()
    if asked.streams < STORES or asked.streams % STORES or not 1 <= asked.events <= TOGETHER_LEAVES_MAX:
        parser.error(f"--streams: a multiple of {STORES}; --events: 1 to {TOGETHER_LEAVES_MAX}")
    with tempfile.TemporaryDirectory(dir="/var/tmp") as home:
        Path(home).chmod(0o700)
        with EmbeddedPostgres(Path(home)) as server:
            print(f"{asked.streams} streams, {asked.events} events each; µs per stream, medians", flush=True)
            trio.run(run, server, asked)


if __name__ == "__main__":
    main()
