"""What this service wants to reach on a machine of two cores, and which of it a run has shown.

Each goal is judged by the rows of one run: the median over the rounds, and in how many rounds it was reached, since
rounds of few seconds differ. A goal that compares two rows compares them round by round, because both had their turns
within the same minute; the processor time of their events stands beside it, which a busy machine hardly changes.
Goals whose rows a run did not have are not judged by it; some belong to other benchmarks (``ELSEWHERE``).
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from bench.results import Results, Round, Row

BATCHES_OF_ONE_CORE = 0.8
"""Of the rate at which one core verifies and signs."""
BATCH_P99_MS, SINGLE_P99_MS, PROOF_P99_MS = 60.0, 25.0, 10.0
SINGLES_PER_S, SINGLES_AMBITION_PER_S = 1_500.0, 4_000.0
PULLED_PER_S = 40_000.0
COMMITTED, COMMITMENT_MS = 10_000, 150.0
STREAMS = 10_000
BATCHES_OF_MANY_STREAMS, SINGLES_OF_MANY_STREAMS = 0.9, 0.5
FULL_TABLE = 0.85
"""Of the rate on an empty one, with five million events."""
ELSEWHERE = (
    (
        "memory under 250 MB with 1,000 active tenants, flat over a long run",
        "tenants --keep --tenants 1000 --soak 600",
    ),
    ("start-up under 2 s with 10,000 tenants and 5 million events", "startup"),
    ("a noisy tenant at its limit does not double another's p99", "noisy [--limits]"),
    ("proofs and commitments in a stream of a million events", "reads"),
)
"""Goals of other benchmarks: what, and ``python -m bench.…``."""


@dataclass(frozen=True)
class Judged:
    """A goal and what came of it."""

    name: str
    goal: str
    measured: str
    reached: bool
    """In the median."""
    rounds_reached: int
    rounds: int

    @property
    def verdict(self) -> str:
        what = "reached" if self.reached else "not reached"
        clear = self.rounds_reached == (self.rounds if self.reached else 0)
        return what if clear else f"{what}, in {self.rounds_reached} of {self.rounds} rounds"


def judged(results: Results) -> list[Judged]:
    """All goals whose rows this run has."""
    rows = {row.name: row for row in results.rows if row.rounds}
    return [*_rates(results, rows), *_latencies(rows), *_streams(rows), *_full_table(rows)]


def _rates(results: Results, rows: dict[str, Row]) -> Iterator[Judged]:
    batches = _fastest(rows, lambda row: row.kind == "ingest" and row.batch == 100 and not row.table_rows)
    if batches and results.limits.verify_us:
        limit = results.limits.signatures_per_s()
        goal = BATCHES_OF_ONE_CORE
        yield _least(
            "batches of 100, of what one core verifies and signs",
            batches,
            goal,
            lambda r: r.per_s / limit,
            "{:.2f}",
        )
    if single := rows.get("ingest 1x64"):
        name = "single events over 64 connections"
        yield _least(name, single, SINGLES_PER_S, _per_s, "{:,.0f}/s")
        yield _least(f"{name}: ambition", single, SINGLES_AMBITION_PER_S, _per_s, "{:,.0f}/s")
    if pulled := rows.get("pull 1000x1"):
        yield _least("events pulled in pages of 1,000", pulled, PULLED_PER_S, _per_s, "{:,.0f}/s")


def _latencies(rows: dict[str, Row]) -> Iterator[Judged]:
    if batches := rows.get("ingest 100x8 at half"):
        yield _most("p99 of a batch of 100 at half load", batches, BATCH_P99_MS, _p99)
    if single := rows.get("ingest 1x64 at half"):
        yield _most("p99 of a single event at half load", single, SINGLE_P99_MS, _p99)
    if commitment := rows.get(f"commitment of {COMMITTED:,}"):
        yield _most(f"a commitment of {COMMITTED:,} events", commitment, COMMITMENT_MS, lambda r: r.p50_ms)
    if proof := rows.get("proof 1x1"):
        yield _most("p99 of an inclusion proof", proof, PROOF_P99_MS, _p99)


def _streams(rows: dict[str, Row]) -> Iterator[Judged]:
    """One stream against many, for each way to have so many that was measured."""
    for name, one in rows.items():
        for row in rows.values():
            closed = row.mode == "closed" and not row.table_rows
            if closed and row.streams == STREAMS and row.name.partition("@")[0] == name:
                least = SINGLES_OF_MANY_STREAMS if row.batch == 1 else BATCHES_OF_MANY_STREAMS
                yield _ratio(one, row, least)


def _full_table(rows: dict[str, Row]) -> Iterator[Judged]:
    for row in rows.values():
        empty = rows.get(row.twin)
        if row.table_rows and row.mode == "closed" and empty is not None:
            yield _ratio(empty, row, FULL_TABLE)


def _per_s(one: Round) -> float:
    return one.per_s


def _p99(one: Round) -> float:
    return one.p99_ms


def _fastest(rows: dict[str, Row], wanted: Callable[[Row], bool]) -> Row | None:
    fitting = [row for row in rows.values() if row.mode == "closed" and wanted(row)]
    return max(fitting, key=lambda row: row.median(_per_s), default=None)


def _least(name: str, row: Row, goal: float, of: Callable[[Round], float], form: str) -> Judged:
    values = [of(one) for one in row.rounds]
    told = f"{_spread(values, form)} ({row.name})"
    return _judge(name, "at least " + form.format(goal), told, values, lambda value: value >= goal)


def _most(name: str, row: Row, goal: float, of: Callable[[Round], float]) -> Judged:
    values = [of(one) for one in row.rounds]
    told = f"{_spread(values, '{:.1f} ms')} ({row.name})"
    return _judge(name, f"under {goal:g} ms", told, values, lambda value: value < goal)


def _ratio(base: Row, other: Row, least: float) -> Judged:
    """Of rates, of rounds with the same number; and of processor times."""
    values = [b.per_s / a.per_s for a, b in zip(base.rounds, other.rounds, strict=True)]
    cpu = _cpu_us(other) / _cpu_us(base)
    rates = f"{other.median(_per_s):,.0f} to {base.median(_per_s):,.0f} events/s"
    told = f"{_spread(values, '{:.2f}')}: {rates}, processor time of an event x {cpu:.2f}"
    name = f"{other.name.removeprefix('ingest ')} to {base.name.removeprefix('ingest ')}"
    return _judge(name, f"at least {least:.2f}", told, values, lambda value: value >= least)


def _cpu_us(row: Row) -> float:
    """Of the server, all its parts, for each event."""
    return row.median(lambda one: sum(us for part, us in one.cpu_us.items() if part != "load"))


def _spread(values: Sequence[float], form: str) -> str:
    middle = form.format(statistics.median(values))
    return (
        f"{middle} [{form.format(min(values))} to {form.format(max(values))}]" if len(values) > 1 else middle
    )


def _judge(
    name: str, goal: str, measured: str, values: Sequence[float], good: Callable[[float], bool]
) -> Judged:
    reached = [good(value) for value in values]
    return Judged(name, goal, measured, good(statistics.median(values)), sum(reached), len(reached))
