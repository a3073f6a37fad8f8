"""Results as a small run would have made them, with numbers that are easy to calculate with."""

from __future__ import annotations

from bench.machine import Machine
from bench.results import Limits, Results, Round, Row

MACHINE = Machine("A processor", 2, 4096, "Linux 6", "3.11.7", {"trio": "0.35.0"}, "ext4 on /dev/vda")


def one_round(
    per_s: float, *, core: float = 20.0, offered: float | None = None, elsewhere: float = 0.0
) -> Round:
    return Round(
        seconds=4.0,
        requests=40,
        units=4000,
        per_s=per_s,
        p50_ms=10.0,
        p99_ms=20.0,
        p999_ms=30.0,
        max_ms=31.0,
        offered_per_s=offered,
        cpu_us={"core": core, "workers": 80.0, "PostgreSQL": 10.0, "others": 0.0, "load": 2.0},
        elsewhere=elsewhere,
    )


def row(name: str, batch: int, *rates: float, core: float = 20.0) -> Row:
    rounds = [one_round(rate, core=core) for rate in rates]
    return Row(name=name, kind="ingest", unit="events", mode="closed", batch=batch, rounds=rounds)


def results(*, elsewhere: float = 0.0) -> Results:
    at_half = [one_round(4000.0, offered=4000.0, elsewhere=elsewhere) for _ in range(3)]
    rows = [
        row("ingest 1x64", 1, 1000.0, 900.0, 1100.0),
        row("ingest 100x8", 100, 8000.0, 7000.0, 9000.0),
        Row(
            name="ingest 100x8 at half", kind="ingest", unit="events", mode="open", batch=100, rounds=at_half
        ),
        Row(
            name="pull 1000x1",
            kind="pull",
            unit="events",
            mode="closed",
            batch=1000,
            rounds=[one_round(50_000.0)],
        ),
    ]
    limits = Limits(
        verify_us=[45.0, 55.0, 45.0],
        verify_us_median=[50.0, 60.0, 50.0],
        sign_us=[11.25, 11.25, 11.25],
        sign_us_median=[14.0, 12.5, 12.0],
        verify_us_all_cores=[60.0, 62.0, 58.0],
        sign_us_all_cores=[16.0, 16.0, 16.0],
        copy_rows_per_s=[80_000.0, 80_000.0, 10_000.0],
        copy_rows_per_s_100=[40_000.0, 40_000.0, 40_000.0],
        echo_per_s=[2000.0, 2000.0, 1.0],
        echo_cpu_us=[440.0, 440.0, 440.0],
        page_touch_us=[1.5, 7.5, 2.0],
    )
    return Results(
        made_at="2026-01-01 00:00 UTC",
        revision="abc1234",
        machine=MACHINE,
        database={"server_version": "18.6", "synchronous_commit": "on"},
        seconds=4.0,
        limits=limits,
        rows=rows,
    )
