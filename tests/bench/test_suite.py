"""The whole benchmark in small: a real server, every check, a file that reads back and a picture of it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from bench.plot import drawing
from bench.results import read
from tests.e2e.world import ROOT


def ran(*words: str, timeout_s: float) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [sys.executable, "-m", *words],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=timeout_s,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done


@pytest.mark.slow
def test_a_small_run_measures_every_kind_of_row_and_every_limit(tmp_path: Path) -> None:
    words = ("--shape", "100x8", "--shape", "1x4@3x2", "--reads", "--seconds", "0.3", "--rounds", "1")
    done = ran("bench.suite", *words, "--json", str(tmp_path / "run.json"), timeout_s=180)
    results = read(tmp_path / "run.json")
    assert [row.name for row in results.rows][:3] == [
        "ingest 100x8",
        "ingest 100x8 at half",
        "ingest 1x4@3x2",
    ]
    assert {row.kind for row in results.rows} == {"ingest", "pull", "proof", "commitment"}
    for row in results.rows:
        [one] = row.rounds
        assert one.units == one.requests * row.batch > 0
        assert 0 < one.p50_ms <= one.p99_ms <= one.p999_ms <= one.max_ms
        assert one.cpu_us["load"] > 0
        assert row.name in done.stdout
    limits = results.limits
    assert limits.verify_us[0] <= limits.verify_us_median[0]
    assert limits.signatures_per_s() > 0
    assert limits.copy_rows_per_s[0] > 0
    assert limits.copy_rows_per_s_100[0] > 0
    assert limits.echo_per_s[0] > 0
    assert results.database["synchronous_commit"] == results.database["fsync"] == "on"
    assert "100x8" in drawing(results)


@pytest.mark.slow
@pytest.mark.thorough
def test_a_comparison_leaves_nothing_behind() -> None:
    before = subprocess.run(
        ["git", "worktree", "list"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout
    done = ran("bench.compare", "HEAD", "--shape", "10x4", "--seconds", "0.5", "--rounds", "2", timeout_s=600)
    assert "events a second" in done.stdout
    after = subprocess.run(
        ["git", "worktree", "list"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout
    assert after == before
    assert not list((ROOT / "build" / "bench-compare").glob("*"))
