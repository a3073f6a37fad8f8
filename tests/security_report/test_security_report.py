"""The report itself: it must not say pass where nothing was shown."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.conftest import Outcomes
from tests.security_report.__main__ import ROOT, outcomes_by_name, recorded, selections
from tests.security_report.guide import LATER, LINES
from tests.security_report.table import HEADING, Row, faults, judge, rows

PASSED = {"test_a": {"tests/x.py::test_a": "passed"}}


def row(shown_by: str, line: str = "tls") -> Row:
    return Row(line, "a control", "somewhere", shown_by)


def test_every_line_of_the_guide_has_its_row_and_every_row_a_line() -> None:
    assert faults(rows((ROOT / "SECURITY.md").read_text())) == []


def test_every_test_that_the_table_names_exists() -> None:
    wanted = selections(rows((ROOT / "SECURITY.md").read_text()))
    assert len(wanted) > 20
    assert [name for name, asked in wanted.items() if not asked] == []


def test_only_what_ran_and_passed_is_a_pass() -> None:
    assert judge(row("`test_a`"), PASSED).verdict == "pass"
    for outcome in ("failed", "skipped"):
        bad = {"test_a": {"tests/x.py::test_a[1]": "passed", "tests/x.py::test_a[2]": outcome}}
        assert judge(row("`test_a`"), bad).verdict == "FAIL"
    assert judge(row("`test_a`"), {}).verdict == "FAIL", "not collected"
    assert judge(row("`test_a`, `test_b`"), PASSED).verdict == "FAIL", "one of two is missing"


def test_what_is_pending_open_or_a_duty_is_told_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(LATER, "non-repudiation", "another issue")
    assert judge(row("pending: tls"), {}).verdict == "pending"
    assert judge(row("`test_a`, pending: tls"), PASSED).verdict == "pending", "half of it is not shown"
    assert judge(row("open: later", "non-repudiation"), {}).verdict == "open"
    assert judge(row("open: later", "tls"), {}).verdict == "FAIL", "this line may not wait"
    assert judge(row("duty: [page](docs/alerts.md)"), {}).verdict == "duty"
    assert set(LATER) <= set(LINES)


def test_a_missing_doubled_unknown_or_empty_row_is_found() -> None:
    table = [row("`test_a`", line) for line in LINES]
    assert faults(table) == []
    assert faults(table[1:]) == [f"{table[0].id}: no row in SECURITY.md"]
    assert faults([*table, table[3]]) == [f"{table[3].id}: two rows"]
    assert faults([*table, row("`test_a`", "invented")]) == ["invented: the guide has no such line"]
    assert faults([*table[1:], row("trust us", table[0].id)]) == [f"{table[0].id}: nothing shows it"]


def test_the_table_is_read_as_it_is_written() -> None:
    head = "| a | b | c | d |\n|---|---|---|---|\n"
    page = f"x\n{HEADING}\n\n{head}| tls | one | `two` | `test_x` |\n\n## Next\n| no |"
    assert rows(page) == [Row("tls", "one", "`two`", "`test_x`")]
    with pytest.raises(ValueError, match="four cells"):
        rows(page.replace("| one |", "| one | more |"))
    with pytest.raises(ValueError, match="heading"):
        rows("nothing")


def test_a_test_in_a_file_of_a_similar_name_is_not_taken_for_it() -> None:
    wanted = {"test_a": ["tests/x.py::test_a"], "tests/x/": ["tests/x/"], "tests/x.py": ["tests/x.py"]}
    ran = {
        "tests/x.py::test_a[1]": "passed",
        "tests/x.py::test_ab": "failed",
        "tests/xy/t.py::test_a": "failed",
    }
    found = outcomes_by_name(wanted, ran)
    assert found["test_a"] == {"tests/x.py::test_a[1]": "passed"}
    assert found["tests/x/"] == {}
    assert list(found["tests/x.py"]) == ["tests/x.py::test_a[1]", "tests/x.py::test_ab"]


def test_a_test_that_fails_while_it_is_set_up_or_torn_down_has_not_passed() -> None:
    class Report:
        nodeid = "tests/x.py::test_a"

        def __init__(self, when: str, outcome: str) -> None:
            self.when, self.outcome = when, outcome

    for story, expected in (
        ([("setup", "passed"), ("call", "passed"), ("teardown", "passed")], "passed"),
        ([("setup", "failed"), ("teardown", "passed")], "failed"),
        ([("setup", "skipped"), ("teardown", "passed")], "skipped"),
        ([("setup", "passed"), ("call", "passed"), ("teardown", "failed")], "failed"),
    ):
        recorder = Outcomes()
        for when, outcome in story:
            recorder.pytest_runtest_logreport(Report(when, outcome))  # type: ignore[arg-type]
        assert recorder.ended[Report.nodeid] == expected, story


def test_recorded_runs_are_read_and_the_worst_end_of_a_test_counts(tmp_path: Path) -> None:
    (tmp_path / "1.json").write_text('{"tests/x.py::test_a": "passed", "tests/x.py::test_b": "failed"}')
    (tmp_path / "2.json").write_text('{"tests/x.py::test_a": "skipped", "tests/x.py::test_b": "passed"}')
    assert recorded(tmp_path) == {"tests/x.py::test_a": "skipped", "tests/x.py::test_b": "failed"}
    assert recorded(tmp_path / "none") == {}
