"""The benchmark: ``make bench``, or ``python -m bench.suite [--full] [--shape 100x16] [--rounds 3] [--json FILE]``.

A real server with a durable PostgreSQL of its own, signed events, and a load generator in a process of its own,
all on this machine. Every row gets its turn in every round; the limits of the machine are measured between them.
How to read the table: docs/performance.md.
"""

from __future__ import annotations

import argparse
import asyncio
import subprocess
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
FULL = (
    *(f"{batch}x{connections}" for batch in (1, 10, 100, 1000) for connections in (1, 8, 64)),
    *("1x64@100", "100x64@100", "1x64@100x100", "100x64@100x100", "1x64@10000", "100x64@10000"),
)
AT_HALF = {"1x64", "100x8"}
"""Measured at half of their capacity too, in open loop."""
ON_A_FULL_TABLE = ("100x8", "1x64")
"""Measured on a second server whose table is not empty: ``--filled``."""
MILLION = 1_000_000
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
            limits.measure(turns[0][0], known, min(seconds, 2.0))
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
        "--full", action="store_true", help="all shapes, 10,000 tenants, a table of a million events"
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
        filled=chosen.filled if chosen.filled is not None else MILLION if chosen.full else 0,
        reads=EVENTS if chosen.reads or not chosen.shape else 0,
    )
    print(told(results))
    if chosen.json:
        write(results, chosen.json)
        say(f"written to {chosen.json}; python -m bench.plot {chosen.json} draws it")


def run(shapes: Sequence[Shape], *, rounds: int, seconds: float, filled: int, reads: int) -> Results:
    """``filled``: rows of a second server's table; ``reads``: events in the stream that is read. 0: neither."""
    with ExitStack() as running:
        stage = running.enter_context(staged())
        turns: list[Turn] = [(stage, row) for row in ingest(shapes)]
        if filled:
            turns += _beside(running.enter_context(staged()), filled)
        if reads:
            alone = running.enter_context(staged(settings=ALONE))
            turns += [(alone, row) for row in readings(reads)]
        return measured(turns, rounds, seconds)


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
    return results


def _beside(stage: Stage, rows: int) -> list[Turn]:
    """The same on a table of so many rows."""
    say(f"filling a table with {rows:,} events")
    asyncio.run(fill(stage.owner_dsn, rows))
    measurements = ingest([Shape.read(text) for text in ON_A_FULL_TABLE], label=f" on {rows:,}")
    for measurement in measurements:
        measurement.row.table_rows = rows
    return [(stage, measurement) for measurement in measurements]


if __name__ == "__main__":
    main()
