"""The benchmark: ``make bench``, or ``python -m bench.suite [--full] [--shape 100x16] [--rounds 3] [--json FILE]``.

A real server with a durable PostgreSQL of its own, signed events, and a load generator in a process of its own,
all on this machine. Every row gets its turn in every round; the limits of the machine are measured between them.
How to read the table: docs/performance.md.
"""

from __future__ import annotations

import argparse
import asyncio
import subprocess
import time
from collections.abc import Sequence
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path

from bench import limits
from bench.fill import fill
from bench.ingesting import AtHalf, Ingest, Shape
from bench.machine import machine
from bench.reading import ALONE, EVENTS, readings
from bench.report import told
from bench.results import Limits, Results, write
from bench.stage import Measurement, Stage, end_in_order, say, staged
from tests.e2e.world import ROOT

IMPORTANT = ("1x1", "1x64", "10x8", "100x8", "100x64", "1000x8", "1x64@100", "100x64@100", "100x64@100x100")
"""What ``make bench`` measures of ingest; @tenants, or @tenants x stores of each."""
LIMIT_S = 2.0
"""At most, for each of the machine's limits in each round."""
FILLED_STREAMS = 10_000
MANY_STREAMS = ("", "@100", "@100x100", "@10000")
FULL = (
    *("1x1", "1x8", *(f"1x64{streams}" for streams in MANY_STREAMS), "10x1", "10x8", "10x64"),
    *("100x1", "100x8", *(f"100x64{streams}" for streams in MANY_STREAMS), "1000x1", "1000x8", "1000x64"),
)
"""All of them. What is compared stands side by side."""
AT_HALF = {"1x64", "100x8"}
"""Measured at half of their capacity too, in open loop."""
ON_A_FULL_TABLE = ("100x8", "1x64")
"""Measured on a second server too, whose table is not empty: ``--filled``."""
FILLED = 5_000_000
"""Events in it, of ``--full``."""
FILLED_PER_S, FIRST_POSTS_PER_S, AROUND_S, WARMING_S, LIMITS_S = 60_000, 250, 3.0, 5.0, 6.0
"""What else takes time: filling, the first event of each tenant, and seconds for signing and checking around each turn, for warming up each row and for
the limits of a round beside their own; as seen on two cores, to tell beforehand how long it will take."""
Turn = tuple[Stage, Measurement]


def ingest(shapes: Sequence[Shape], label: str = "") -> list[Measurement]:
    rows: list[Measurement] = []
    for shape in shapes:
        rows.append(Ingest(shape, label=label))
        if str(shape) in AT_HALF:
            rows.append(AtHalf(shape, label=label))
    return rows


def take_turns(turns: Sequence[Turn], rounds: int, seconds: float, known: Limits | None = None) -> None:
    """Each turn once in each round, every second round from the last to the first. One works at a time; servers
    that are not asked stand still. The limits are measured at the beginning of each round."""
    for stage, measurement in turns:
        say(f"warming up: {stage.name}{measurement.row.name}")
        measurement.prepare(stage)
    for number in range(rounds):
        if known is not None:
            say(f"round {number + 1} of {rounds}: the limits of this machine")
            limits.measure(turns[0][0], known, min(seconds, LIMIT_S))
        for stage, measurement in turns if number % 2 == 0 else turns[::-1]:
            result = measurement.round(stage, seconds)
            row = measurement.row
            row.rounds.append(result)
            say(f"round {number + 1} of {rounds}: {stage.name}{row.name}: {result.per_s:,.0f} {row.unit}/s")


def revision(root: Path = ROOT) -> str:
    found = subprocess.run(
        ["git", "describe", "--always", "--dirty", "--exclude", "*"],
        cwd=root,
        capture_output=True,
        text=True,
        check=False,
    )
    return found.stdout.strip() or "unknown"


def main() -> None:
    arguments = argparse.ArgumentParser(prog="bench.suite", description=__doc__.split("\n\n")[1])
    arguments.add_argument(
        "--full", action="store_true", help=f"all shapes, 10,000 tenants, a table of {FILLED:,} events"
    )
    arguments.add_argument(
        "--shape", action="append", help="only this ingest: events x connections [@tenants[x stores]]"
    )
    arguments.add_argument("--seconds", type=float, default=4.0, help="of each row's turn")
    arguments.add_argument("--rounds", type=int, default=3)
    arguments.add_argument(
        "--filled", type=int, help="rows in the table of a second server, measured beside the first"
    )
    arguments.add_argument(
        "--reads", action="store_true", help="with --shape: pages, proofs and commitments too"
    )
    arguments.add_argument("--json", type=Path, help="write everything measured there")
    chosen = arguments.parse_args()
    end_in_order()
    results = run(
        [Shape.read(text) for text in chosen.shape or (FULL if chosen.full else IMPORTANT)],
        rounds=chosen.rounds,
        seconds=chosen.seconds,
        filled=chosen.filled if chosen.filled is not None else FILLED if chosen.full else 0,
        reads=EVENTS if chosen.reads or not chosen.shape else 0,
    )
    print(told(results))
    if chosen.json:
        write(results, chosen.json)
        say(f"written to {chosen.json}; python -m bench.plot {chosen.json} draws it")


def run(shapes: Sequence[Shape], *, rounds: int, seconds: float, filled: int, reads: int) -> Results:
    """``filled``: rows of a second server's table; ``reads``: events in the stream that is read. 0: neither."""
    beside = [Shape.read(text) for text in ON_A_FULL_TABLE] if filled else []
    rows = ingest([*shapes, *(shape for shape in beside if shape not in shapes)])
    on_full = ingest(beside, label=f" on {filled:,}")
    read = readings(reads) if reads else []
    tenants = max(shape.tenants for shape in shapes)
    expected = expected_s(len(rows) + len(on_full) + len(read), rounds, seconds, filled, tenants)
    say(f"some {expected / 60:.0f} minutes")
    began = time.monotonic()
    with ExitStack() as running:
        stage = running.enter_context(staged())
        turns: list[Turn] = [(stage, row) for row in rows]
        if filled:
            turns = side_by_side(turns, _filled(running.enter_context(staged()), filled, on_full))
        if read:
            alone = running.enter_context(staged(settings=ALONE))
            turns += [(alone, row) for row in read]
        results = measured(turns, rounds, seconds)
    say(f"it took {(time.monotonic() - began) / 60:.1f} minutes")
    return results


def expected_s(rows: int, rounds: int, seconds: float, filled: int, tenants: int) -> float:
    """About, on two cores."""
    a_round = rows * (seconds + AROUND_S) + 4 * min(seconds, LIMIT_S) + LIMITS_S
    return filled / FILLED_PER_S + tenants / FIRST_POSTS_PER_S + rows * WARMING_S + rounds * a_round


def side_by_side(turns: Sequence[Turn], others: Sequence[Turn]) -> list[Turn]:
    """Each of the others directly after the turn that it is compared with: on a machine that drifts, neighbours differ
    least."""
    after = {measurement.row.twin: (stage, measurement) for stage, measurement in others}
    found: list[Turn] = []
    for turn in turns:
        found.append(turn)
        if (other := after.get(turn[1].row.name)) is not None:
            found.append(other)
    return found


def measured(turns: Sequence[Turn], rounds: int, seconds: float) -> Results:
    """The turns taken, and everything a reader has to know beside them. The first one's server tells its database."""
    results = Results(
        made_at=f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC",
        revision=revision(),
        machine=machine(Path.cwd()),
        database=turns[0][0].database(),
        seconds=seconds,
        limits=Limits(),
        rows=[measurement.row for _, measurement in turns],
    )
    take_turns(turns, rounds, seconds, results.limits)
    for stage in dict.fromkeys(stage for stage, _ in turns):
        results.limits.page_touch_us += stage.page_touch_us
    return results


def _filled(stage: Stage, rows: int, measurements: Sequence[Measurement]) -> list[Turn]:
    """The measurements on a table of so many rows."""
    say(f"filling a table with {rows:,} events")
    began = time.monotonic()
    asyncio.run(fill(stage.owner_dsn, rows, FILLED_STREAMS))
    say(f"filled in {time.monotonic() - began:.0f} s")
    for measurement in measurements:
        measurement.row.table_rows = rows
    return [(stage, measurement) for measurement in measurements]


if __name__ == "__main__":
    main()
