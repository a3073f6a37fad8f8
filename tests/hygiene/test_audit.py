"""The dependency audit is never clean because nobody answered."""

from __future__ import annotations

from typing import Any

import pytest

from tests.hygiene.audit import CANARY, DATABASES, Ask, ask_pip_audit, audit, locked

PINS = ["good==1.0", "other==2.0"]


def entry(pin: str, *advisories: str) -> dict[str, Any]:
    name, version = pin.split("==")
    return {
        "name": name,
        "version": version,
        "vulns": [{"id": one, "fix_versions": ["3.0"]} for one in advisories],
    }


def skipped(pin: str) -> dict[str, Any]:
    return {"name": pin.split("==")[0], "skip_reason": "Dependency not found"}


def answering(*, canary: bool, about: list[dict[str, Any]] | None, only: str = "") -> Ask:
    def ask(database: str, pins: list[str]) -> dict[str, Any] | None:
        if only and database != only:
            return None
        if pins == [CANARY]:
            return {"dependencies": [entry(CANARY, "CVE-2020-1747") if canary else skipped(CANARY)]}
        return None if about is None else {"dependencies": about}

    return ask


def test_a_database_that_knows_the_known_one_is_believed_about_the_others() -> None:
    verdict = audit(PINS, answering(canary=True, about=[entry(pin) for pin in PINS]), required=True)
    assert verdict.code == 0
    assert "2 locked packages, none with an advisory" in verdict.lines[0]


@pytest.mark.parametrize("database", DATABASES)
def test_one_database_in_reach_is_enough(database: str) -> None:
    ask = answering(canary=True, about=[entry(pin) for pin in PINS], only=database)
    assert audit(PINS, ask, required=True).code == 0


@pytest.mark.parametrize("required", [False, True])
def test_a_mirror_without_advisories_is_not_done_and_never_clean(required: bool) -> None:
    for ask in (answering(canary=False, about=[entry(pin) for pin in PINS]), lambda database, pins: None):
        verdict = audit(PINS, ask, required=required)
        assert verdict.code == int(required)
        assert "NOT DONE" in verdict.lines[0]


def test_an_advisory_fails_and_says_what_mends_it() -> None:
    verdict = audit(
        PINS, answering(canary=True, about=[entry(PINS[0], "CVE-1"), entry(PINS[1])]), required=False
    )
    assert verdict.code == 1
    assert verdict.lines == ["good 1.0: CVE-1, mended in 3.0"]


def test_a_package_that_was_not_looked_up_fails() -> None:
    for about in ([entry(PINS[0]), skipped(PINS[1])], [entry(PINS[0])]):
        verdict = audit(PINS, answering(canary=True, about=about), required=False)
        assert verdict.code == 1
        assert any("other==2.0 could not be looked up" in line for line in verdict.lines)
    assert audit(PINS, answering(canary=True, about=None), required=False).code == 1


def test_everything_that_is_locked_is_asked_about() -> None:
    pins = locked()
    assert {"trio", "cryptography", "pytest", "setuptools"} <= {pin.split("==")[0] for pin in pins}
    assert len(pins) > 100


@pytest.mark.slow
def test_the_real_tool_answers_in_the_shape_that_is_read() -> None:
    """Wherever this runs: the canary is found, or it is marked as skipped, or there is no answer at all."""
    report = ask_pip_audit("pypi", [CANARY])
    if report is not None:
        [one] = report["dependencies"]
        assert one["name"] == "pyyaml"
        assert one.get("vulns") or "skip_reason" in one or one["vulns"] == []
