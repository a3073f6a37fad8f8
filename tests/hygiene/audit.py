"""Known vulnerabilities of every locked package: ``python -m tests.hygiene.audit [--required]``.

pip-audit asks an advisory database. Where none answers, or a mirror answers without advisories, it says "No
known vulnerabilities" about everything; so each database is first asked about a release that is known to be
vulnerable, and only one that knows it is believed. Without such a database the audit is *not done*: said so,
and with ``--required`` a failure.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).resolve().parents[2]
DATABASES = ("pypi", "osv")
CANARY = "pyyaml==5.3"
"""CVE-2020-1747, in every advisory database since 2020."""
DEADLINE_S = 120.0
PINNED = re.compile(r"^([A-Za-z0-9._-]+)==([^\s;\\]+)", re.MULTILINE)

Ask = Callable[[str, list[str]], "dict[str, Any] | None"]
"""Database and pins to pip-audit's report; None: no answer."""


class Verdict(NamedTuple):
    code: int
    lines: list[str]


def locked() -> list[str]:
    """Every ``name==version`` of the locks, once."""
    pins = {
        f"{name.lower()}=={version}"
        for lock in sorted((ROOT / "requirements").glob("*.lock"))
        for name, version in PINNED.findall(lock.read_text())
    }
    return sorted(pins)


def ask_pip_audit(database: str, pins: list[str]) -> dict[str, Any] | None:
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as wanted:
        wanted.write("\n".join(pins) + "\n")
        wanted.flush()
        words = ["--no-deps", "--disable-pip", "--progress-spinner", "off", "--format", "json"]
        command = [sys.executable, "-m", "pip_audit", "-r", wanted.name, "-s", database, *words]
        try:
            done = subprocess.run(command, capture_output=True, timeout=DEADLINE_S, check=False)
            report: dict[str, Any] = json.loads(done.stdout)
        except (subprocess.TimeoutExpired, ValueError):
            return None
    return report


def audit(pins: list[str], ask: Ask, *, required: bool) -> Verdict:
    for database in DATABASES:
        if _vulnerable(ask(database, [CANARY])):
            return _audited(pins, database, ask(database, pins))
    why = f"no advisory database in reach knows about {CANARY}, so none is believed about the others"
    return Verdict(int(required), [f"dependency audit: NOT DONE for {len(pins)} packages: {why}"])


def _audited(pins: list[str], database: str, report: dict[str, Any] | None) -> Verdict:
    if report is None:
        return Verdict(1, [f"dependency audit: {database} gave no answer about the locked packages"])
    looked_up = {f"{one['name']}=={one['version']}" for one in report["dependencies"] if "version" in one}
    missing = [pin for pin in pins if pin not in looked_up]
    found = _vulnerable(report)
    if missing or found:
        unknown = [f"dependency audit: {pin} could not be looked up in {database}" for pin in missing]
        return Verdict(1, [*found, *unknown])
    return Verdict(0, [f"dependency audit: {len(pins)} locked packages, none with an advisory in {database}"])


def _vulnerable(report: dict[str, Any] | None) -> list[str]:
    return [
        f"{one['name']} {one['version']}: {advisory['id']}, mended in "
        f"{', '.join(advisory['fix_versions']) or 'no release'}"
        for one in (report or {}).get("dependencies", [])
        for advisory in one.get("vulns", [])
    ]


if __name__ == "__main__":
    verdict = audit(locked(), ask_pip_audit, required="--required" in sys.argv[1:])
    print("\n".join(verdict.lines))
    sys.exit(verdict.code)
