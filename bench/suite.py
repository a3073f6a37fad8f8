"""The benchmark: ``make bench``, or ``python -m bench.suite [--full] [--shape 100x16] [--only TEXT] [--json FILE]``.

A real server with a durable PostgreSQL of its own, signed events, and a load generator in a process of its own,
all on this machine. Every row gets its turn in every round; the limits of the machine are measured between them.
How to read the table: docs/performance.md.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from bench.ingesting import AtHalf, Ingest, Shape
from bench.machine import machine
from bench.report import told
from bench.results import Limits, Results, Row, write
from bench.stage import Measurement, Stage, staged
from tests.e2e.world import ROOT

IMPORTANT = ("1x1", "1x64", "10x8", "100x8", "100x64", "1000x8", "1x64@100", "100x64@100", "100x64@100x100")
"""What ``make bench`` measures of ingest; @tenants, or @tenants x stores of each."""
FULL = (
    *(f"{batch}x{connections}" for batch in (1, 10, 100, 1000) for connections in (1, 8, 64)),
    *("1x64@100", "100x64@100", "1x64@100x100", "100x64@100x100", "1x64@10000", "100x64@10000"),
)
AT_HALF = {"1x64", "100x8"}
"""Measured at half of their capacity too, in open loop."""


def ingest(shapes: Sequence[Shape]) -> list[Measurement]:
    rows: list[Measurement] = []
    for shape in shapes:
        rows.append(Ingest(shape))
        if str(shape) in AT_HALF:
            rows.append(AtHalf(shape))
    return rows


def take_turns(
    stages: Sequence[Stage], rows: Sequence[Sequence[Measurement]], rounds: int, seconds: float
) -> None:
    """Every row of every stage once in each round; ``rows`` has the rows of each stage. Stages change who is first."""
    for stage, each in zip(stages, rows, strict=True):
        for measurement in each:
            measurement.prepare(stage)
    for number in range(rounds):
        for turn in zip(*rows, strict=True):
            pairs = list(zip(stages, turn, strict=True))
            for stage, measurement in pairs if number % 2 == 0 else pairs[::-1]:
                result = measurement.round(stage, seconds)
                measurement.row.rounds.append(result)
                say(
                    f"round {number + 1}: {stage.name:<8}{measurement.row.name}: {result.per_s:,.0f} {measurement.row.unit}/s"
                )


def say(what: str) -> None:
    """What goes on, for who waits; the table alone is on standard output."""
    print(what, file=sys.stderr, flush=True)


def revision(root: Path = ROOT) -> str:
    found = subprocess.run(
        ["git", "describe", "--always", "--dirty", "--exclude", "*"],
        cwd=root,
        capture_output=True,
        text=True,
        check=False,
    )
    return found.stdout.strip() or "unknown"
