"""SECURITY.md's table of the guide's lines, read and judged. Pure: running the tests is somebody else's.

A row is ``| id | control | where | shown by |``. What shows it: names of tests, test files or folders in
backticks; ``pending: name`` for work under way; ``open: why`` where the line may wait (``guide.LATER``);
``duty: [page](…)`` for what an organisation has to do.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from typing import Literal, NamedTuple

from tests.security_report.guide import LATER, LINES

HEADING = "## The guide, line by line"

Verdict = Literal["pass", "duty", "open", "pending", "FAIL"]


class Row(NamedTuple):
    id: str
    control: str
    where: str
    shown_by: str

    @property
    def tests(self) -> list[str]:
        """Names of test functions, and paths of files and folders."""
        return [one for one in re.findall(r"`([^`]+)`", self.shown_by) if re.match(r"test_\w+$|tests/", one)]


class Judged(NamedTuple):
    verdict: Verdict
    why: str


def rows(page: str) -> list[Row]:
    """Of the table under ``HEADING``."""
    _, found, below = page.partition(HEADING)
    if not found:
        raise ValueError(f"SECURITY.md has no heading {HEADING!r}")
    section = below.split("\n## ", 1)[0]
    cells = [
        [cell.strip() for cell in line.strip().strip("|").split("|")]
        for line in section.splitlines()
        if line.startswith("|")
    ]
    table = [row for row in cells[2:] if len(row) > 1 or row[0]]
    wrong = [row for row in table if len(row) != 4]
    if wrong:
        raise ValueError(f"a row of SECURITY.md has not four cells: {wrong[0]}")
    return [Row(*row) for row in table]


def faults(table: Collection[Row]) -> list[str]:
    """What is wrong with the table itself."""
    ids = [row.id for row in table]
    found = [f"{one}: the guide has no such line" for one in ids if one not in LINES]
    found += [f"{one}: two rows" for one in sorted(set(ids)) if ids.count(one) > 1]
    found += [f"{one}: no row in SECURITY.md" for one in LINES if one not in ids]
    return found + [f"{row.id}: nothing shows it" for row in table if not _says_something(row)]


def _says_something(row: Row) -> bool:
    return bool(row.tests) or any(word in row.shown_by for word in ("pending:", "open:", "duty:"))


def judge(row: Row, outcomes: Mapping[str, Mapping[str, str]]) -> Judged:
    """``outcomes``: name or path as in the row -> test id -> passed, failed, skipped."""
    for name in row.tests:
        ran = outcomes.get(name, {})
        if not ran:
            return Judged("FAIL", f"{name}: no test of this name was collected")
        bad = sorted(test for test, outcome in ran.items() if outcome != "passed")
        if bad:
            return Judged("FAIL", f"{bad[0]} {ran[bad[0]]}")
    if "pending:" in row.shown_by:
        return Judged("pending", row.shown_by.partition("pending:")[2].strip())
    if "open:" in row.shown_by:
        why = row.shown_by.partition("open:")[2].strip()
        return Judged("open", why) if row.id in LATER else Judged("FAIL", "this line may not stay open")
    if row.tests:
        return Judged("pass", f"{sum(len(outcomes[name]) for name in row.tests)} tests")
    return Judged("duty", row.shown_by.partition("duty:")[2].strip())
