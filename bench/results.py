"""What a benchmark found, as it is written to a file: typed, versioned, and read back only if it is ours.

A *row* is one thing measured (``ingest 100x64``), with a *round* for each time its turn came. Rounds of all rows
are interleaved, because machines drift; what is printed are medians over rounds, and the spread.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

import msgspec

from bench.machine import Machine

LAYOUT = 1
"""Grows with every change that makes an old file unreadable or differently meant."""


class Round(msgspec.Struct, frozen=True, kw_only=True):
    """One turn of one row."""

    seconds: float
    requests: int
    units: int
    """What the row counts: accepted events, events read, proofs …"""
    per_s: float
    """Units a second."""
    p50_ms: float
    p99_ms: float
    p999_ms: float
    max_ms: float
    offered_per_s: float | None = None
    """Open loop: units that were due a second."""
    cpu_us: dict[str, float] = {}
    """Processor microseconds per unit, by part of the server, and of the load generator (``load``)."""
    elsewhere: float = 0.0
    """Share of the machine's processors that other programs had meanwhile."""


class Row(msgspec.Struct, kw_only=True):
    name: str
    """As ``--only`` knows it, such as ``ingest 100x64`` or ``ingest 1x64 at half``."""
    kind: str
    unit: str
    """Of what is counted, in the plural."""
    mode: Literal["closed", "open"]
    batch: int = 1
    """Units in a request."""
    connections: int = 1
    streams: int = 1
    table_rows: int = 0
    """In ves_events before the run."""
    rounds: list[Round] = []

    @property
    def twin(self) -> str:
        """The name of the same row on an empty table."""
        return self.name.replace(f" on {self.table_rows:,}", "")

    def median(self, of: Callable[[Round], float]) -> float:
        return statistics.median(of(one) for one in self.rounds)

    def spread(self, of: Callable[[Round], float]) -> tuple[float, float]:
        values = [of(one) for one in self.rounds]
        return min(values), max(values)

    def cpu(self) -> dict[str, float]:
        """Medians by part, those that took nothing left out."""
        parts = self.rounds[0].cpu_us
        medians = {part: self.median(lambda one, part=part: one.cpu_us[part]) for part in parts}  # type: ignore[misc]
        return {part: value for part, value in medians.items() if value >= 0.05}


class Limits(msgspec.Struct, kw_only=True):
    """What this machine cannot exceed, a value a round; measured between the rows, while nothing else of ours runs."""

    verify_us: list[float] = []
    """One signature, the best of many repeats, one core busy."""
    verify_us_median: list[float] = []
    sign_us: list[float] = []
    sign_us_median: list[float] = []
    verify_us_all_cores: list[float] = []
    """Median, with every core verifying."""
    sign_us_all_cores: list[float] = []
    copy_rows_per_s: list[float] = []
    """Real rows by COPY into a table like ves_events, a thousand a COMMIT that waits for the disk."""
    copy_rows_per_s_100: list[float] = []
    """A hundred a COMMIT."""
    echo_per_s: list[float] = []
    """Small POSTs answered by a bare ASGI application in Hypercorn on Trio, 16 connections."""
    echo_cpu_us: list[float] = []
    page_touch_us: list[float] = []
    """A page of memory touched before each run (``bench/first_touch.py``)."""

    def signatures_per_s(self) -> float:
        """Events a second one core verifies and signs a receipt for, and does nothing else: for as long as it is asked
        to, like the other limits and whatever is compared with it."""
        return 1e6 / (statistics.median(self.verify_us_median) + statistics.median(self.sign_us_median))

    def signatures_per_s_at_best(self) -> float:
        """The same in the fastest milliseconds of each round, which no second is made of."""
        return 1e6 / (statistics.median(self.verify_us) + statistics.median(self.sign_us))


class Results(msgspec.Struct, kw_only=True):
    layout: int = LAYOUT
    made_at: str
    """UTC."""
    revision: str
    """Of the code measured; ``-dirty``: with changes that are in no commit."""
    machine: Machine
    database: dict[str, str]
    """PostgreSQL's version and the settings that make a COMMIT durable, as the server told them."""
    seconds: float
    """Of each closed or open round."""
    limits: Limits
    rows: list[Row]


def write(results: Results, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(msgspec.json.format(msgspec.json.encode(results), indent=1) + b"\n")


class _Layout(msgspec.Struct):
    layout: int


def read(path: Path) -> Results:
    """Raises SystemExit naming the file and what is wrong with it."""
    try:
        layout = msgspec.json.decode(path.read_bytes(), type=_Layout).layout
        if layout != LAYOUT:
            raise SystemExit(f"{path} has layout {layout}, this program reads {LAYOUT}: measure again")
        return msgspec.json.decode(path.read_bytes(), type=Results)
    except OSError as error:
        raise SystemExit(f"{path} cannot be read: {error.strerror}") from error
    except msgspec.DecodeError as error:
        raise SystemExit(f"{path} holds no results of this program: {error}") from error


def quantile(ordered: Sequence[float], share: float) -> float:
    """The smallest value that at least ``share`` of them do not exceed. ``ordered`` is sorted and not empty."""
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]


def round_of(
    told: dict[str, Any],
    *,
    units: int,
    offered_per_s: float | None,
    cpu_s: dict[str, float],
    elsewhere: float,
) -> Round:
    """From what the load generator printed, and what the processors did meanwhile."""
    latencies = told["latencies_us"]
    return Round(
        seconds=told["seconds"],
        requests=told["answered"],
        units=units,
        per_s=units / told["seconds"],
        p50_ms=quantile(latencies, 0.5) / 1000,
        p99_ms=quantile(latencies, 0.99) / 1000,
        p999_ms=quantile(latencies, 0.999) / 1000,
        max_ms=latencies[-1] / 1000,
        offered_per_s=offered_per_s,
        cpu_us={part: 1e6 * seconds / units for part, seconds in (cpu_s | {"load": told["cpu_s"]}).items()},
        elsewhere=elsewhere,
    )
