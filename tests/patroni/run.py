"""A run: build the cluster and a node on it, load it, lose machines one after the other, have it audited.

Alone decides what makes a run fail and how a write gap is measured. Clients, history, checker and auditor are
those of ``tests/chaos``: whatever was acknowledged has to be there, once, at its number.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

import trio

from tests.chaos.checker import Verdict, check
from tests.chaos.clients import Wire
from tests.chaos.history import History, Json, read_history
from tests.chaos.judgement import classified
from tests.chaos.run import clients_of, evening, streams_of
from tests.patroni.cluster import Cluster, House, built

CALM_S = 5.0
"""Load alone, before each loss and after it is repaired."""
AWAY_S = 10.0
"""A lost machine stays away for so long after writing goes on again."""
WRITES_AGAIN_S = 120.0


@dataclass(frozen=True)
class Loss:
    """One of them, and what it cost."""

    kind: str
    victim: str
    gap_s: float
    """The longest time without an acknowledged ingest request, around it."""
    promoted_s: float | None
    """From the blow until another machine says that it is the primary; None: it is the same."""
    whole_again_s: float
    """From the machine's return until the cluster has three members again."""

    def line(self) -> str:
        promoted = "-" if self.promoted_s is None else f"{self.promoted_s:.1f}"
        return f"{self.kind:<18}{self.victim:<9}{self.gap_s:>12.1f}{promoted:>12}{self.whole_again_s:>15.1f}"


@dataclass
class Report:
    losses: list[Loss]
    verdict: Verdict
    auditor: Verdict
    anomalies: list[str]
    answers: str
    seconds: float
    problems: list[str] = field(default_factory=list)

    @property
    def exit_code(self) -> int:
        broken = self.verdict.broken or self.auditor.broken or self.anomalies or self.problems
        return 1 if broken or not self.verdict.acked or not self.losses else 0

    def lines(self) -> list[str]:
        counts = " ".join(
            f"{kind}={max(len(getattr(self.verdict, kind)), len(getattr(self.auditor, kind)))}"
            for kind in ("lost", "doubled", "gaps", "invalid")
        )
        return [
            f"{'loss':<18}{'machine':<9}{'write gap s':>12}{'promoted s':>12}{'whole again s':>15}",
            *(loss.line() for loss in self.losses),
            f"answers: {self.answers}",
            *(f"PROBLEM: {text}" for text in self.problems),
            *(f"ANOMALY: {text}" for text in self.anomalies[:20]),
            *(f"BROKEN (auditor): {text}" for text in self.auditor.broken[:20]),
            *(f"BROKEN (history): {text}" for text in self.verdict.broken[:20]),
            f"acked={self.verdict.acked} {counts} losses={len(self.losses)} seconds={self.seconds:.0f}",
        ]


Strike = Callable[[Cluster], Awaitable[tuple[str, Callable[[], None]]]]
"""Who it hit, and what brings that machine back."""


async def _kill_primary(cluster: Cluster) -> tuple[str, Callable[[], None]]:
    return await _kill(cluster, await _primary(cluster))


async def _kill_standby(cluster: Cluster) -> tuple[str, Callable[[], None]]:
    return await _kill(cluster, await trio.to_thread.run_sync(cluster.standby))


async def _kill(cluster: Cluster, name: str) -> tuple[str, Callable[[], None]]:
    machine = cluster.machine(name)
    await trio.to_thread.run_sync(machine.end)
    return name, machine.start


async def _silence_primary(cluster: Cluster) -> tuple[str, Callable[[], None]]:
    machine = cluster.machine(await _primary(cluster))
    machine.signal_all(signal.SIGSTOP)
    return machine.name, lambda: _told(machine.signal_all(signal.SIGCONT))


async def _switch_over(cluster: Cluster) -> tuple[str, Callable[[], None]]:
    primary = await _primary(cluster)
    to = await trio.to_thread.run_sync(cluster.standby)
    await trio.to_thread.run_sync(cluster.switch_over, primary, to)
    return primary, lambda: None


async def _primary(cluster: Cluster) -> str:
    name = await trio.to_thread.run_sync(cluster.primary)
    assert name is not None, "there is no primary"
    return name


def _told(count: int) -> None:
    assert count, "nobody was there to be told"


STRIKES: dict[str, Strike] = {
    "kill-primary": _kill_primary,
    "silence-primary": _silence_primary,
    "kill-standby": _kill_standby,
    "switchover": _switch_over,
}


async def fail_over(folder: Path, cluster: Cluster, kinds: list[str], seed: int) -> Report:
    started = time.monotonic()
    history = History(folder / "chaos-history.jsonl")
    history.run(seed=seed, kinds=kinds)
    try:
        async with built(cluster) as house:
            wire = Wire(history, lambda: house.url)
            streams = await streams_of(house)
            stop = trio.Event()
            async with trio.open_nursery() as load:
                for client in clients_of(seed, wire, streams):
                    load.start_soon(client.run, stop)
                losses = [await _loss(house, history, kind) for kind in kinds]
                stop.set()
            served = house.server.process
            assert served is not None
            problems = [] if served.poll() is None else [f"the node ended with {served.returncode}"]
            auditor = await evening(house, wire, streams)
    finally:
        history.close()
    return Report(
        losses=losses,
        verdict=check(read_history(history.path)),
        auditor=classified(auditor),
        anomalies=wire.anomalies,
        answers=", ".join(f"{count} x {what}" for what, count in wire.answers.most_common()),
        seconds=time.monotonic() - started,
        problems=problems,
    )


async def _loss(house: House, history: History, kind: str) -> Loss:
    await trio.sleep(CALM_S)
    since = time.monotonic()
    primary = await _primary(house.cluster)
    began = time.monotonic()
    victim, bring_back = await STRIKES[kind](house.cluster)
    struck = time.monotonic()
    history.act(kind, machine=victim)
    promoted_s = None
    with trio.fail_after(WRITES_AGAIN_S):
        while victim == primary and promoted_s is None:
            now_primary = await trio.to_thread.run_sync(house.cluster.primary, {victim})
            promoted_s = None if now_primary is None else time.monotonic() - began
            await trio.sleep(0.1)
        # Writing goes on when a request that was sent after the blow has been acknowledged ...
        while not acknowledged(read_history(history.path), sent_after=struck):  # noqa: ASYNC110
            await trio.sleep(0.5)
    await trio.sleep(AWAY_S)  # ... and the gap is known when some more were.
    bring_back()
    returned = time.monotonic()
    await house.cluster.becomes_healthy()
    whole_again_s = time.monotonic() - returned
    await trio.sleep(CALM_S)
    ends = acknowledged(read_history(history.path), sent_after=0.0)
    print(f"{kind}: {victim}", flush=True)
    gap_s = longest_silence(ends, since - CALM_S, time.monotonic())
    return Loss(kind, victim, gap_s, promoted_s, whole_again_s)


def acknowledged(history: list[Json], *, sent_after: float) -> list[float]:
    """When ingest requests were answered with receipts, in order."""
    sent = {
        line["id"]
        for line in history
        if line["type"] == "invoke" and line["op"] == "ingest" and line["mono"] > sent_after
    }
    return [
        line["mono"]
        for line in history
        if line["type"] == "complete" and line["id"] in sent and line.get("receipts")
    ]


def longest_silence(ends: list[float], since: float, until: float) -> float:
    """Between two neighbours of these moments, and the edges."""
    moments = [since, *(end for end in ends if since < end < until), until]
    return max(later - earlier for earlier, later in pairwise(moments))
