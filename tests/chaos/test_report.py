"""What makes a run fail, and that its last line tells the counts of whichever judge found more."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest

from tests.chaos.checker import Verdict
from tests.chaos.run import Report

GOOD = Report(
    verdict=Verdict(acked=10),
    auditor=Verdict(),
    hits=Counter({"kill-worker": 2, "net-reset": 3, "wire:commit/unheard": 1, "crash-at:append.copied": 1}),
    tried=Counter({"kill-worker": 2}),
    never_hit=[],
    anomalies=[],
    answers=Counter({"200": 5}),
    seconds=61.2,
)


def test_a_run_that_broke_nothing_passes_and_counts_ends_as_kills_but_no_weather() -> None:
    assert GOOD.exit_code == 0
    assert GOOD.last_line() == "acked=10 lost=0 doubled=0 gaps=0 invalid=0 kills=3 seconds=61"


@pytest.mark.parametrize(
    "worse",
    [
        {"verdict": Verdict(acked=10, lost=["one"])},
        {"auditor": Verdict(gaps=["one"])},
        {"never_hit": ["net-reset"]},
        {"anomalies": ["500: internal error"]},
        {"verdict": Verdict(acked=0)},
    ],
    ids=["history", "auditor", "never-hit", "anomaly", "nothing-acknowledged"],
)
def test_each_of_these_alone_fails_a_run(worse: dict[str, object]) -> None:
    assert replace(GOOD, **worse).exit_code == 1  # type: ignore[arg-type]


def test_the_last_line_counts_what_either_judge_found() -> None:
    report = replace(
        GOOD, verdict=Verdict(acked=10, lost=["a"]), auditor=Verdict(lost=["a", "b"], gaps=["c"])
    )
    assert report.last_line() == "acked=10 lost=2 doubled=0 gaps=1 invalid=0 kills=3 seconds=61"
