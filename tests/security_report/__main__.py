"""``make security``: each line of the security guide, the tests SECURITY.md names for it, how they did.

Runs exactly those tests. Exit 0: every line has its row, and every named test ran and passed. A failed,
skipped or not collected test, a line without a row, and a row still ``pending`` are failures; ``open`` and
``duty`` are told apart and counted. ``--list`` only shows what would be run. ``--outcomes FOLDER``: what
``tests/conftest.py`` has recorded there of runs of this very state is not run again.
"""

from __future__ import annotations

import json
import re
import sys
from collections import Counter, defaultdict
from pathlib import Path

import pytest

from tests.conftest import Outcomes
from tests.security_report.guide import LINES
from tests.security_report.table import Row, faults, judge, rows

ROOT = Path(__file__).resolve().parents[2]
BAD = ("FAIL", "pending")


def where_defined() -> dict[str, list[str]]:
    """Name of a test function -> node ids ``file::name``."""
    found: defaultdict[str, list[str]] = defaultdict(list)
    for path in sorted((ROOT / "tests").rglob("test_*.py")):
        for name in re.findall(r"^(?:async )?def (test_\w+)", path.read_text(), re.MULTILINE):
            found[name].append(f"{path.relative_to(ROOT)}::{name}")
    return dict(found)


def selections(table: list[Row]) -> dict[str, list[str]]:
    """Name or path as in the table -> what pytest is asked for."""
    defined = where_defined()
    names = dict.fromkeys(name for row in table for name in row.tests)
    return {
        name: defined.get(name, []) if name.startswith("test_") else [name] if (ROOT / name).exists() else []
        for name in names
    }


def recorded(folder: Path) -> dict[str, str]:
    """Of all runs in it; the worst counts."""
    found: dict[str, str] = {}
    for file in sorted(folder.glob("*.json")):
        for test, outcome in json.loads(file.read_text()).items():
            if found.get(test, "passed") == "passed":
                found[test] = outcome
    return found


def outcomes_by_name(wanted: dict[str, list[str]], ran: dict[str, str]) -> dict[str, dict[str, str]]:
    return {
        name: {test: outcome for test, outcome in ran.items() if any(_is_of(test, one) for one in asked)}
        for name, asked in wanted.items()
    }


def _is_of(test: str, asked: str) -> bool:
    if "::" in asked:
        return test == asked or test.startswith(f"{asked}[")
    return test.startswith(asked.rstrip("/") + ("/" if asked.endswith("/") else "::"))


def report(table: list[Row], outcomes: dict[str, dict[str, str]]) -> Counter[str]:
    counts: Counter[str] = Counter()
    by_id = {row.id: row for row in table}
    section = ""
    for name, line in LINES.items():
        if line.section != section:
            section = line.section
            print(f"\n{section}")
        verdict = judge(by_id[name], outcomes) if name in by_id else None
        told = verdict.verdict if verdict else "FAIL"
        counts[told] += 1
        print(f"  {told:8} {name:28} {line.text}: {verdict.why if verdict else 'no row in SECURITY.md'}")
    return counts


def main() -> int:
    table = rows((ROOT / "SECURITY.md").read_text())
    wrong = faults(table)
    wanted = selections(table)
    asked = sorted({one for many in wanted.values() for one in many})
    if "--list" in sys.argv[1:]:
        print("\n".join(asked))
        return 0
    recorder = Outcomes()
    if "--outcomes" in sys.argv[1:]:
        recorder.ended = recorded(Path(sys.argv[sys.argv.index("--outcomes") + 1]))
        known = [one for one in asked if any(_is_of(test, one) for test in recorder.ended)]
        print(f"{len(known)} of {len(asked)} were run before")
        asked = [one for one in asked if one not in known]
    if asked:
        pytest.main(["-q", "-p", "no:cacheprovider", *asked], plugins=[recorder])
    counts = report(table, outcomes_by_name(wanted, recorder.ended))
    print("\n" + "\n".join(wrong) if wrong else "")
    print(", ".join(f"{count} {verdict}" for verdict, count in sorted(counts.items())))
    return 1 if wrong or any(counts[bad] for bad in BAD) else 0


if __name__ == "__main__":
    sys.exit(main())
