"""The whole benchmark in small: a real server, every check, a file that reads back and a picture of it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from bench.ingesting import Shape
from bench.plot import drawing
from bench.reading import ALONE, readings
from bench.report import told
from bench.results import read, write
from bench.stage import staged
from bench.suite import ingest, measured
from tests.e2e.world import ROOT


@pytest.mark.slow
def test_a_small_run_measures_every_kind_of_row_and_every_limit(tmp_path: Path) -> None:
    rows = [*ingest([Shape.read(text) for text in ("100x8", "1x4@3x2")]), *readings(1000)]
    with staged(settings=ALONE) as stage:
        results = measured([(stage, row) for row in rows], rounds=1, seconds=0.2)
    names = [row.name for row in results.rows]
    assert names[:4] == ["ingest 100x8", "ingest 100x8 at half", "ingest 1x4@3x2", "pull 1000x1"]
    for row in results.rows:
        [one] = row.rounds
        assert one.units == one.requests * row.batch > 0
        assert 0 < one.p50_ms <= one.p99_ms <= one.p999_ms <= one.max_ms
        assert one.cpu_us["load"] > 0
    limits = results.limits
    assert limits.verify_us[0] <= limits.verify_us_median[0]
    assert limits.signatures_per_s() > 0
    assert min(limits.copy_rows_per_s[0], limits.copy_rows_per_s_100[0], limits.echo_per_s[0]) > 0
    assert len(limits.page_touch_us) >= len(names) - 1  # all but the commitment are played
    assert min(limits.page_touch_us) > 0
    assert results.database["synchronous_commit"] == results.database["fsync"] == "on"
    write(results, tmp_path / "run.json")
    assert read(tmp_path / "run.json") == results
    assert all(name in told(results) for name in names)
    assert "100x8" in drawing(results)


@pytest.mark.slow
@pytest.mark.thorough
def test_a_comparison_leaves_nothing_behind() -> None:
    words = ("HEAD", "--shape", "10x4", "--seconds", "0.5", "--rounds", "2")
    done = subprocess.run(
        [sys.executable, "-m", "bench.compare", *words], cwd=ROOT, capture_output=True, text=True, timeout=600
    )
    assert done.returncode == 0, done.stderr
    assert "events a second" in done.stdout
    assert "bench-compare" not in worktrees()
    assert not list((ROOT / "build" / "bench-compare").glob("*"))


def worktrees() -> str:
    told = subprocess.run(["git", "worktree", "list"], cwd=ROOT, capture_output=True, text=True, check=True)
    return told.stdout
