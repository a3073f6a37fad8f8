"""A whole run: build the house, load it, attack it, let it calm down, replay everything, have it audited.

Alone decides what makes a run fail. The judging is done by others: the auditor in ``tests/auditor``, who
reads the server and its tables, and ``checker``, who reads the history alone.
"""

from __future__ import annotations

import random
import time
import uuid
from collections import Counter
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import trio

from tests.chaos.adversary import Adversary
from tests.chaos.checker import Verdict, check
from tests.chaos.clients import COMMIT, Client, Stream, Wire, read_note
from tests.chaos.history import History, read_history
from tests.chaos.house import House, built, built_embedded
from tests.chaos.judgement import Home, audited, classified
from tests.chaos.schedule import NEEDS_PROXY

STANDARD_S = 60.0
TENANTS, STORES, CLIENTS = 3, 2, 8
PAUSE_S = 0.2
"""Mean pause of a client between two requests: at most 40 requests a second, together."""
PROLONGED = 1.0
"""A run of the standard length or more goes on until every kind of attack has hit, at most so much longer."""
REPLAYERS = 4
CALM_DEADLINE_S = 150.0


@dataclass(frozen=True)
class Plan:
    folder: Path
    seed: int
    duration_s: float
    without: frozenset[str] = frozenset()
    embedded: bool = False
    """The PostgreSQL that the server keeps, on a unix socket: no path for a proxy."""


@dataclass
class Report:
    verdict: Verdict
    """Of the history alone."""
    auditor: Verdict
    """Of what the server shows, by the independent auditor."""
    hits: Counter[str]
    tried: Counter[str]
    never_hit: list[str]
    """Empty in a run shorter than the standard."""
    anomalies: list[str]
    answers: Counter[str]
    seconds: float
    notes: list[str] = field(default_factory=list)

    @property
    def exit_code(self) -> int:
        broken = self.verdict.broken or self.auditor.broken or self.anomalies or self.never_hit
        return 1 if broken or not self.verdict.acked else 0

    def lines(self) -> list[str]:
        shown = [f"  {kind:<36}{self.hits[kind]:>4} of {self.tried[kind]}" for kind in sorted(self.tried)]
        answers = ", ".join(f"{count} x {what}" for what, count in self.answers.most_common())
        return [
            "hits:",
            *shown,
            f"answers: {answers}",
            *self.notes,
            *(f"NEVER HIT: {kind}" for kind in self.never_hit),
            *(f"ANOMALY: {text}" for text in self.anomalies[:20]),
            *(f"BROKEN (auditor): {text}" for text in self.auditor.broken[:20]),
            *(f"BROKEN (history): {text}" for text in self.verdict.broken[:20]),
            self.last_line(),
        ]

    def last_line(self) -> str:
        counts = {
            kind: max(len(getattr(self.verdict, kind)), len(getattr(self.auditor, kind)))
            for kind in ("lost", "doubled", "gaps", "invalid")
        }
        told = " ".join(f"{kind}={count}" for kind, count in counts.items())
        kills = sum(count for kind, count in self.hits.items() if not kind.startswith(NEEDS_PROXY))
        return f"acked={self.verdict.acked} {told} kills={kills} seconds={self.seconds:.0f}"


async def attack(plan: Plan) -> Report:
    started = time.monotonic()
    history = History(plan.folder / "chaos-history.jsonl")
    history.run(seed=plan.seed, duration_s=plan.duration_s, without=sorted(plan.without))
    try:
        async with (built_embedded if plan.embedded else built)(plan.folder) as house:
            wire = Wire(history, lambda: house.url)
            streams = await streams_of(house)
            adversary = Adversary(
                house,
                history,
                plan.seed,
                without=plan.without,
                tenants=sorted({str(stream.tenant_id) for stream in streams}),
            )
            clients = clients_of(plan.seed, wire, streams)
            fought_s = await _fight(plan, clients, adversary, house)
            auditor = await evening(house, wire, streams)
    finally:
        history.close()
    verdict = check(read_history(history.path))
    short = plan.duration_s < STANDARD_S
    report = Report(
        verdict=verdict,
        auditor=classified(auditor),
        hits=adversary.hits,
        tried=adversary.tried,
        never_hit=[] if short else adversary.never_hit(),
        anomalies=wire.anomalies,
        answers=wire.answers,
        seconds=time.monotonic() - started,
    )
    report.notes.append(f"attacked for {fought_s:.0f} s")
    report.notes.append(f"revocations acknowledged: {sum(client.revocations for client in clients)}")
    return report


async def streams_of(house: Home) -> list[Stream]:
    streams = []
    for _ in range(TENANTS):
        tenant_id = uuid.uuid4()
        api_key = await house.new_api_key(str(tenant_id))
        streams += [Stream(tenant_id, uuid.uuid4(), api_key) for _ in range(STORES)]
    return streams


def clients_of(seed: int, wire: Wire, streams: list[Stream]) -> list[Client]:
    return [
        Client(
            f"client-{n}",
            wire,
            streams[n % len(streams)],
            random.Random(f"{seed}/client-{n}"),
            PAUSE_S,
        )
        for n in range(CLIENTS)
    ]


async def _fight(plan: Plan, clients: list[Client], adversary: Adversary, house: House) -> float:
    """Until the time is over; then calm, and every client gets the answers it waits for. Answers how many
    seconds the attack took."""
    started = time.monotonic()
    enough, stop = trio.Event(), trio.Event()
    async with trio.open_nursery() as load:
        for client in clients:
            load.start_soon(client.run, stop)
        async with trio.open_nursery() as harm:
            harm.start_soon(adversary.end_lives, enough)
            harm.start_soon(adversary.strike, enough)
            harm.start_soon(adversary.harm, enough)
            await trio.sleep(plan.duration_s)
            if plan.duration_s >= STANDARD_S:
                with trio.move_on_after(plan.duration_s * PROLONGED):
                    while adversary.never_hit():  # noqa: ASYNC110 - a slow machine is given the time
                        await trio.sleep(0.1)
            enough.set()
        fought_s = time.monotonic() - started
        await house.become_calm()
        stop.set()
    return fought_s


async def evening(house: Home, wire: Wire, streams: list[Stream]) -> list[str]:
    """Everything acknowledged is replayed, everything sequenced committed, all of it read back and judged."""
    with trio.fail_after(CALM_DEADLINE_S):
        turn = iter(list(wire.acknowledged.values()))

        async def replay(name: str) -> None:
            for sent in turn:
                await wire.ingest(name, sent, op="replay")

        async with trio.open_nursery() as nursery:
            for n in range(REPLAYERS):
                nursery.start_soon(replay, f"replayer-{n}")
        for stream in streams:
            await wire.call("auditor", "commit", stream, "POST", COMMIT, note={}, json=stream.name)
        problems, evidence = await trio.to_thread.run_sync(partial(audited, house, wire, streams))
    for stream, shown in zip(streams, evidence, strict=True):
        number = wire.history.invoke(
            "auditor", "read", tenant=str(stream.tenant_id), store=str(stream.store_id)
        )
        wire.history.complete(number, "auditor", "ok", **read_note(shown.events, shown.head))
    wire.history.receipt_keys(
        [
            {"sequencer_id": name, "key_version": version, "public_key": key.hex()}
            for (name, version), key in evidence[0].receipt_keys.by_name.items()
        ]
    )
    await wire.http.aclose()
    code = await trio.to_thread.run_sync(house.server.terminate)
    if code != 0:
        wire.anomalies.append(f"the calm server ended with {code} at SIGTERM")
    return problems
