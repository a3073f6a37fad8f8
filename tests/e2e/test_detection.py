"""What the alert rules watch is there on a running server from the start, and moves when it happens."""

from __future__ import annotations

import re
from collections.abc import Callable

import httpx
import yaml

from actors.security_events import KINDS
from tests.e2e.nodes import metrics
from tests.e2e.world import ROOT, Server, Tenant
from tests.http import anchors

OF_PROMETHEUS = {"up"}
WITH_TLS = {"sequencer_certificate_expires_seconds"}
"""Of a server that has a certificate."""


def watched() -> set[str]:
    groups = yaml.safe_load((ROOT / "deploy/prometheus/alerts.yml").read_text())["groups"]
    rules = [rule for group in groups for rule in group["rules"]]
    recorded = {rule["record"] for rule in rules if "record" in rule}
    text = "\n".join(re.sub(r'"[^"]*"', "", rule["expr"]) for rule in rules)
    return set(re.findall(r"\b(?:sequencer[\w:]+|up)\b", text)) - recorded


def test_no_alert_watches_a_name_that_nobody_exports(server: Server) -> None:
    exported = {name.partition("{")[0] for name in metrics(server)}
    names = watched()
    assert len(names) > 8, "the search finds nothing any more"
    anchoring = {name.partition("{")[0] for name in anchors.exported()}
    assert names - OF_PROMETHEUS - WITH_TLS - anchoring - exported == set()


def test_every_kind_of_security_event_and_every_reason_is_0_from_the_start(
    own_server: Callable[..., Server],
) -> None:
    found = metrics(own_server(VERIFIERS="1", ENCRYPTORS="1").start())
    for kind in KINDS:
        assert found[f'sequencer_security_events_total{{kind="{kind}"}}'] == 0
    assert found['sequencer_events_rejected_total{reason="invalid_signature"}'] == 0
    assert found["sequencer_events_accepted_total"] == 0
    assert found['sequencer_database_units_total{outcome="done"}'] > 0
    assert found['sequencer_database_units_total{outcome="unknown"}'] == 0
    assert found["sequencer_database_connections_max"] == 14


def happened(server: Server, kind: str) -> float:
    return metrics(server)[f'sequencer_security_events_total{{kind="{kind}"}}']


def lines(server: Server, kind: str, request_id: str) -> list[str]:
    log = server.log.read_text(errors="replace").splitlines()
    return [line for line in log if kind in line and request_id in line and "security_event" in line]


def test_wrong_signatures_are_counted_per_event_and_said_in_one_line(server: Server, tenant: Tenant) -> None:
    before = happened(server, "signature_failed")
    events = [tenant.agent.event({"n": n}) for n in range(3)]
    for event in events[:2]:
        event["entity_id"] += "-forged"
    answer = tenant.http.post(
        "/api/v1/ves/events/ingest",
        content=tenant.agent.body(events),
        headers={"content-type": "application/json", "x-request-id": "forged-1"},
    )
    assert answer.json()["eventsRejected"] == 2
    assert happened(server, "signature_failed") == before + 2
    [line] = lines(server, "signature_failed", "forged-1")
    assert '"times": 2' in line or '"times":2' in line
    assert str(tenant.agent.agent_id) in line


def test_a_403_is_counted_and_said_with_who_from_where_and_what(server: Server, tenant: Tenant) -> None:
    before = happened(server, "permission_denied")
    reader = tenant.new_api_key(["read"])
    denied = httpx.post(
        f"{server.url}/api/v1/agents/keys",
        json={},
        headers={"authorization": f"ApiKey {reader}", "x-request-id": "denied-1"},
    )
    assert denied.status_code == 403
    assert happened(server, "permission_denied") == before + 1
    [line] = lines(server, "permission_denied", "denied-1")
    assert "127.0.0.1" in line
    assert "agent_keys:write" in line
    assert reader not in line


def test_a_monitor_reads_the_metrics_and_nothing_else_and_no_tenant_can_make_one(
    server: Server, tenant: Tenant
) -> None:
    keys = f"{server.admin_url}/api/v1/admin/api-keys"
    wanted = {"tenantId": str(tenant.tenant_id), "role": "monitor"}

    def made_by(key: str) -> httpx.Response:
        return httpx.post(keys, json=wanted, headers={"authorization": f"ApiKey {key}"})

    assert made_by(tenant.api_key).status_code == 403
    made = made_by(server.bootstrap_key)
    assert made.status_code == 201, made.text
    monitor = {"authorization": f"Bearer {made.json()['apiKey']}"}
    assert httpx.get(f"{server.admin_url}/metrics", headers=monitor).status_code == 200
    for path in ("/health/detailed", "/api/v1/admin/audit", "/api/v1/admin/api-keys"):
        assert httpx.get(server.admin_url + path, headers=monitor).status_code == 403, path
    head = httpx.get(f"{server.url}/api/v1/ves/head", params=tenant.stream, headers=monitor)
    assert head.status_code == 403


def test_a_tenants_administrator_does_not_read_the_nodes_metrics(server: Server, tenant: Tenant) -> None:
    answer = httpx.get(f"{server.admin_url}/metrics", headers={"authorization": f"ApiKey {tenant.api_key}"})
    assert answer.status_code == 403
    assert "metrics:read" in answer.text
