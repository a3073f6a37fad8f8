"""What a noisy tenant does to a quiet one: the quiet one's latency alone, and beside a tenant at its limit.

``python -m bench.noisy [--limits] [--seconds 10] [--rounds 3] [--quiet 5x16] [--rate 40] [--noisy 100x16]``. The
quiet tenant posts small batches in open loop at a steady rate: a latency counts from when its request was due. The
noisy one posts in closed loop on all its connections, from before the quiet one's first request until after its
last. *Its limit* is one of two:

- without ``--limits`` there are none: it takes what the machine gives, and what comes between the two is only how
  the server shares its pools, transactions and connections;
- with ``--limits`` those of a fresh installation are in force. What it is refused (429, and 503 where it asks for more
  than its share) it sends again at once, so it is at its limit all the time, and refusing it costs too. Limits count
  requests (``--noisy 10x16`` meets that one) and events (``--noisy 100x16``); buckets are full at first, and the
  noisy one begins early enough to have spent them.

``--noisy-rate 100``: the noisy one in open loop too, at so many requests a second: one that keeps to its limit.

Alone and beside are measured in turns, every second round the other way round, on one server, each time with fresh
tenants. Prints the machine, p50 and p99 alone and beside and their ratio for each round, and whether the noisy one has
doubled the quiet one's p99; ``--json FILE`` writes it too.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Sequence
from pathlib import Path

import msgspec

from bench.ingesting import REFUSALS, Shape, all_new
from bench.playing import Play, Run
from bench.report import this_machine
from bench.results import quantile
from bench.signing import Sender
from bench.stage import Stage, end_in_order, say, staged

RATIO_MAX = 2.0
"""Of the quiet one's p99 beside the noisy one to its p99 alone."""
LEAD_S = {False: 1.0, True: 6.0}
"""The noisy one is at it for so long before the quiet one's first request; with limits until its burst is spent."""
BEYOND_S = 1.0
"""And for so long after its last."""
SMALL, SMALL_GUESS, LARGE_GUESS = 10, 6_000, 25_000
"""Events a second that are signed for the noisy one: of requests of fewer than so many events, and of larger ones."""
WARM_S = 1.0


class Heard(msgspec.Struct, frozen=True, kw_only=True):
    """One turn: what the quiet tenant saw, and what the noisy one had meanwhile."""

    p50_ms: float
    p99_ms: float
    max_ms: float
    requests: int
    noisy_per_s: float
    """Events of the noisy one that were accepted."""
    noisy_refused: dict[str, int]
    """By status."""
    cpu_s: dict[str, float]
    """By part of the server."""
    elsewhere: float
    """Share of the machine's processors that other programs had."""


class Pair(msgspec.Struct, frozen=True):
    """One round."""

    alone: Heard
    beside: Heard

    @property
    def ratio(self) -> float:
        return self.beside.p99_ms / self.alone.p99_ms


class Found(msgspec.Struct, kw_only=True):
    """What ``--json`` writes."""

    machine: str
    limits: bool
    quiet: str
    rate: float
    noisy: str
    noisy_rate: float | None
    seconds: float
    pairs: list[Pair] = []


class Both:
    """The two tenants' ways, on one server."""

    def __init__(self, stage: Stage, found: Found) -> None:
        self.stage, self.rate, self.noisy_rate = stage, found.rate, found.noisy_rate
        self.quiet, self.noisy = Shape.read(found.quiet), Shape.read(found.noisy)
        if self.quiet.streams > 1 or self.noisy.streams > 1:
            raise SystemExit("--quiet and --noisy are one tenant's each: events x connections, without @")
        self.lead_s = LEAD_S[found.limits]

    def pair(self, seconds: float, *, noisy_first: bool) -> Pair:
        turns = {noisy: self.turn(seconds, noisy=noisy) for noisy in (noisy_first, not noisy_first)}
        return Pair(turns[False], turns[True])

    def turn(self, seconds: float, *, noisy: bool) -> Heard:
        sender, files = self._signed(self.quiet, int(self.rate * seconds) + 1, "quiet")
        after_s = self.lead_s if noisy else 0.0
        plays = [Play(files, self.quiet.connections, seconds, rate=self.rate, after_s=after_s)]
        if noisy:
            plays.append(self._noise(self.lead_s + seconds + BEYOND_S))
        quiet, *others = self.stage.play(*plays)
        accepted = all_new(quiet.told, self.quiet.batch)
        if self.stage.head(sender) != accepted:
            raise SystemExit(f"the head is not the quiet tenant's {accepted} accepted events")
        if any(run.told["ran_out"] for run in others):
            raise SystemExit("the noisy tenant's signed requests ran out before its time did")
        return heard(quiet, others)

    def _noise(self, seconds: float) -> Play:
        guess = SMALL_GUESS if self.noisy.batch < SMALL else LARGE_GUESS
        rate = self.noisy_rate or guess / self.noisy.batch
        _, files = self._signed(self.noisy, int(rate * seconds) + 1, "noisy")
        return Play(files, self.noisy.connections, seconds, self.noisy_rate, refusals=REFUSALS)

    def _signed(self, shape: Shape, requests: int, name: str) -> tuple[Sender, list[Path]]:
        """Of a fresh tenant."""
        [sender] = self.stage.senders(tenants=1, stores=1, agents=1)
        return sender, self.stage.requests([sender], shape.batch, max(shape.connections, requests), name)


def heard(quiet: Run, others: Sequence[Run]) -> Heard:
    """From what the generators told."""
    latencies = quiet.told["latencies_us"]
    refused = [(status, n) for run in others for status, n in run.told["statuses"].items() if status != "200"]
    return Heard(
        p50_ms=quantile(latencies, 0.5) / 1000,
        p99_ms=quantile(latencies, 0.99) / 1000,
        max_ms=latencies[-1] / 1000,
        requests=len(latencies),
        noisy_per_s=sum(run.told["accepted"] / run.told["seconds"] for run in others),
        noisy_refused=dict(refused),
        cpu_s=quiet.cpu_s,
        elsewhere=quiet.elsewhere,
    )


def told(found: Found) -> list[str]:
    """For a person: each round, the medians, and what they mean."""
    limits = "those of a fresh installation" if found.limits else "none"
    lines = [
        found.machine,
        f"quiet: {found.quiet}, {_loop(found.rate)}; noisy: {found.noisy}, {_loop(found.noisy_rate)};"
        f" limits: {limits}; turns of {found.seconds:g} s",
        "",
        f"{'':<8}{'alone: p50 / p99 ms':>22}{'beside: p50 / p99 ms':>22}{'p50':>7}{'p99':>7}  the noisy one meanwhile",
    ]
    for number, pair in enumerate(found.pairs, 1):
        alone, beside = pair.alone, pair.beside
        refused = "".join(f", {n} x {status}" for status, n in beside.noisy_refused.items())
        lines.append(
            f"round {number:<2}{_both(alone):>22}{_both(beside):>22}{beside.p50_ms / alone.p50_ms:>7.2f}"
            f"{pair.ratio:>7.2f}  {beside.noisy_per_s:,.0f} events/s{refused}; others had"
            f" {max(alone.elsewhere, beside.elsewhere):.0%} of the processors"
        )
    return [*lines, "", verdict(found.pairs)]


def _loop(rate: float | None) -> str:
    return "closed loop" if rate is None else f"{rate:g} requests a second"


def _both(one: Heard) -> str:
    return f"{one.p50_ms:.1f} / {one.p99_ms:.1f}"


def verdict(pairs: Sequence[Pair]) -> str:
    ratios = [pair.ratio for pair in pairs]
    middle, within = statistics.median(ratios), sum(ratio <= RATIO_MAX for ratio in ratios)
    reached = "reached" if middle <= RATIO_MAX else "not reached"
    return (
        f"p99 beside / alone: {middle:.2f} in the median round ({min(ratios):.2f}-{max(ratios):.2f});"
        f" a noisy tenant must not double it: {reached}, in {within} of {len(ratios)} rounds"
    )


def main() -> None:
    arguments = argparse.ArgumentParser(prog="bench.noisy", description=(__doc__ or "").split("\n\n")[0])
    arguments.add_argument(
        "--limits", action="store_true", help="with the rate limits of a fresh installation"
    )
    arguments.add_argument("--seconds", type=float, default=10.0, help="of each turn")
    arguments.add_argument("--rounds", type=int, default=3)
    arguments.add_argument(
        "--quiet", default="5x16", help="events in a request x connections of the quiet one"
    )
    arguments.add_argument("--rate", type=float, default=40.0, help="requests a second of the quiet one")
    arguments.add_argument("--noisy", default="100x16", help="the same of the noisy one")
    arguments.add_argument("--noisy-rate", type=float, help="requests a second of the noisy one: open loop")
    arguments.add_argument("--json", type=Path, help="write everything measured there")
    chosen = arguments.parse_args()
    end_in_order()
    found = Found(
        machine=this_machine(),
        limits=chosen.limits,
        quiet=chosen.quiet,
        rate=chosen.rate,
        noisy=chosen.noisy,
        noisy_rate=chosen.noisy_rate,
        seconds=chosen.seconds,
    )
    with staged(settings={"RATE_LIMIT_MODE": "enforce" if chosen.limits else "off"}) as stage:
        stage.database()
        both = Both(stage, found)
        say("warming up")
        both.pair(min(WARM_S, chosen.seconds), noisy_first=True)
        for number in range(chosen.rounds):
            found.pairs.append(both.pair(chosen.seconds, noisy_first=bool(number % 2)))
            say(f"round {number + 1} of {chosen.rounds}: p99 x {found.pairs[-1].ratio:.2f}")
    print("\n".join(told(found)))
    if chosen.json:
        chosen.json.write_bytes(msgspec.json.format(msgspec.json.encode(found), indent=1) + b"\n")


if __name__ == "__main__":
    main()
