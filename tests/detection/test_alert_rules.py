"""The alert rules: well formed, explained, tried by promtool, and about kinds that exist.

That every metric they name is exported is shown against a running server: tests/e2e/test_detection.py.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from actors.security_events import KINDS

ROOT = Path(__file__).resolve().parents[2]
RULES = ROOT / "deploy/prometheus/alerts.yml"
TRIALS = ROOT / "deploy/prometheus/alerts_test.yml"


def rules() -> list[dict[str, Any]]:
    groups = yaml.safe_load(RULES.read_text())["groups"]
    return [rule for group in groups for rule in group["rules"]]


def alerts() -> list[dict[str, Any]]:
    return [rule for rule in rules() if "alert" in rule]


def promtool(*words: str) -> None:
    tool = shutil.which("promtool")
    if tool is None:
        if os.environ.get("CI") == "true":
            pytest.fail("promtool is not installed: apt-get install prometheus")
        pytest.skip("promtool is not installed (apt-get install prometheus); CI=true insists on it")
    said = subprocess.run([tool, *words], capture_output=True, text=True, timeout=60, check=False)
    assert said.returncode == 0, said.stdout + said.stderr


def test_the_alert_rules_are_well_formed() -> None:
    promtool("check", "rules", str(RULES))


def test_every_alert_fires_when_it_should_and_is_quiet_before() -> None:
    promtool("test", "rules", str(TRIALS))


def test_every_alert_is_tried() -> None:
    tried = {
        trial["alertname"]
        for case in yaml.safe_load(TRIALS.read_text())["tests"]
        for trial in case["alert_rule_test"]
        if trial.get("exp_alerts")
    }
    assert {alert["alert"] for alert in alerts()} == tried


def slug(heading: str) -> str:
    return re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-")


def test_every_alert_says_how_bad_it_is_what_it_means_and_where_to_read_on() -> None:
    page = (ROOT / "docs/alerts.md").read_text()
    headings = {slug(heading) for heading in re.findall(r"^#+ (.+)$", page, re.MULTILINE)}
    for alert in alerts():
        name, told = alert["alert"], alert["annotations"]
        assert alert["labels"]["severity"] in ("warning", "critical"), name
        assert told["summary"], name
        assert told["description"], name
        document, _, anchor = told["runbook_url"].partition("#")
        assert document == "docs/alerts.md", name
        assert anchor in headings, f"{name}: no heading #{anchor}"


def test_every_security_event_an_alert_waits_for_can_happen() -> None:
    named = {
        kind
        for rule in rules()
        for kinds in re.findall(r'security_events_total\{kind=~?"([^"]+)"', rule["expr"])
        for kind in kinds.split("|")
    }
    assert named <= set(KINDS)
    assert {
        "authentication_failed",
        "signature_failed",
        "anchor_failed",
        "agent_key_compromised",
        "audit_chain_broken",
        "stored_value_unopened",
    } <= named
