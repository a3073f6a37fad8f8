"""Draws results: ``python -m bench.plot FILE.json [FILE.svg]``. Throughput under its limits, latency at half load,
processor time of an event by process. The picture in docs/performance.md is made by this from the file beside it.
"""

from __future__ import annotations

import statistics
import sys
from pathlib import Path

from bench.machine import CORE, FRONTENDS, OTHERS, POSTGRES, WORKERS
from bench.report import busy
from bench.results import Limits, Results, Row, read
from bench.svg import Bar, Chart, document

PROCESSES = (CORE, FRONTENDS, WORKERS, POSTGRES, OTHERS, "load")


def drawing(results: Results) -> str:
    """The whole picture."""
    closed = [row for row in results.rows if row.kind == "ingest" and row.mode == "closed" and row.rounds]
    at_half = [row for row in results.rows if row.mode == "open" and row.rounds]
    charts = [
        _throughput(
            "Batches accepted", [row for row in closed if row.batch > 1], _signature_limit(results.limits)
        ),
        _throughput(
            "Single events accepted", [row for row in closed if row.batch == 1], _echo_limit(results.limits)
        ),
        _latency(at_half),
        _processors(
            "Processor time of an event in a batch, by process", [row for row in closed if row.batch > 1]
        ),
        _processors(
            "Processor time of a single event, by process", [row for row in closed if row.batch == 1]
        ),
        _throughput("Read", [row for row in results.rows if row.kind == "pull" and row.rounds], []),
    ]
    caption = f"{results.made_at}, {results.revision}, {results.machine.cpu}, {results.machine.cores} cores; {busy(results)}"
    return document([chart for chart in charts if chart.bars], caption)


def _throughput(title: str, rows: list[Row], limits: list[tuple[str, float]]) -> Chart:
    bars = []
    for row in rows:
        middle = row.median(lambda one: one.per_s)
        bars.append(Bar(_short(row), (middle,), f"{middle:,.0f}", row.spread(lambda one: one.per_s)))
    return Chart(title, "events a second; batch x connections @ tenants x stores", bars, limits=limits)


def _signature_limit(known: Limits) -> list[tuple[str, float]]:
    return [("one core verifies and signs", known.signatures_per_s())] if known.verify_us else []


def _echo_limit(known: Limits) -> list[tuple[str, float]]:
    return [("Hypercorn's echo", statistics.median(known.echo_per_s))] if known.echo_per_s else []


def _latency(rows: list[Row]) -> Chart:
    bars = []
    for row in rows:
        p50, p99, p999 = (
            row.median(of) for of in (lambda one: one.p50_ms, lambda one: one.p99_ms, lambda one: one.p999_ms)
        )
        offered = row.median(lambda one: one.offered_per_s or 0.0)
        told = f"p99 {p99:.1f} at {offered:,.0f}/s"
        bars.append(Bar(_short(row), (p50, max(0.0, p99 - p50), max(0.0, p999 - p99)), told))
    return Chart(
        "Latency at half load, from when a request was due", "ms", bars, ("p50", "to p99", "to p99.9")
    )


def _processors(title: str, rows: list[Row]) -> Chart:
    used = [part for part in PROCESSES if any(part in row.cpu() for row in rows)]
    bars = [
        Bar(_short(row), tuple(row.cpu().get(part, 0.0) for part in used), f"{sum(row.cpu().values()):,.0f}")
        for row in rows
    ]
    return Chart(title, "us", bars, tuple(used))


def _short(row: Row) -> str:
    return row.name.removeprefix("ingest ")


def main() -> None:
    if len(sys.argv) not in (2, 3):
        raise SystemExit("python -m bench.plot FILE.json [FILE.svg]")
    source = Path(sys.argv[1])
    target = Path(sys.argv[2]) if len(sys.argv) == 3 else source.with_suffix(".svg")
    target.write_text(drawing(read(source)))
    print(f"drawn to {target}")


if __name__ == "__main__":
    main()
