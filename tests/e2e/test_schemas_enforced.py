"""Schemas and policies on a real server: refused from the next request on, and no replay is."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.e2e.nodes import metrics
from tests.e2e.world import Server, Tenant
from tests.no_house import NO_HOUSE
from transport.cli.app import build_app

POSITIVE = {
    "type": "object",
    "properties": {"total": {"type": "number", "minimum": 0}},
    "required": ["total"],
}
CANARY = "4929-canary-payload"


def register(tenant: Tenant, schema: Any, **more: Any) -> httpx.Response:
    body = {"tenantId": str(tenant.tenant_id), "eventType": "order.created", "schemaJson": schema, **more}
    return tenant.http.post("/api/v1/schemas", json=body)


def set_policy(tenant: Tenant, **policy: Any) -> None:
    server = tenant.server
    answer = httpx.put(
        f"{server.admin_url}/api/v1/admin/tenants/{tenant.tenant_id}/policy",
        headers={"authorization": f"ApiKey {server.bootstrap_key}"},
        json=policy,
        timeout=30,
    )
    assert answer.status_code == 200, answer.text


def reasons(answer: httpx.Response) -> list[str]:
    assert answer.status_code == 200, answer.text
    return [rejection["reason"] for rejection in answer.json().get("rejections", [])]


def test_a_schema_counts_from_the_next_request_on_and_refuses_no_replay(tenant: Tenant) -> None:
    old = tenant.agent.event({"total": -1})
    assert reasons(tenant.post(old)) == []
    registered = register(tenant, POSITIVE)
    assert registered.status_code == 200, registered.text
    good, bad = tenant.agent.event({"total": 1}), tenant.agent.event({"total": CANARY})
    answer = tenant.post(old, good, bad)
    assert reasons(answer) == ["schema_validation: /total type"]
    assert CANARY not in answer.text
    assert (answer.json()["eventsReplayed"], answer.json()["eventsAccepted"]) == (1, 1)
    tried = tenant.http.post(
        "/api/v1/schemas/validate",
        json={"tenantId": str(tenant.tenant_id), "eventType": "order.created", "payload": {"total": CANARY}},
    )
    assert [e["path"] for e in tried.json()["errors"]] == ["/total"]
    assert CANARY not in tried.text
    narrower = register(tenant, POSITIVE | {"required": ["total", "currency"]})
    assert narrower.status_code == 400
    assert "compatibility none" in narrower.json()["message"]
    tenant.http.delete(f"/api/v1/schemas/{registered.json()['id']}")
    assert reasons(tenant.post(tenant.agent.event({"total": -1}))) == []
    assert CANARY not in tenant.server.log.read_text(errors="replace")


def test_a_tenants_mode_and_entity_types_count_from_the_next_request_on(tenant: Tenant) -> None:
    register(tenant, POSITIVE)
    bad = {"total": -1}
    set_policy(tenant, schemaMode="warn")
    assert reasons(tenant.post(tenant.agent.event(bad))) == []
    set_policy(tenant, schemaMode="required", entityTypes=["order"])
    told = tenant.post(
        tenant.agent.event(bad),
        tenant.agent.event({}, event_type="order.paid"),
        tenant.agent.event({"total": 1}, entity_type="invoice"),
        tenant.agent.event({"total": 1}),
    )
    assert reasons(told) == [
        "schema_validation: /total minimum",
        "schema_validation: event_type",
        "schema_validation: entity_type",
    ]
    counted = metrics(tenant.server)
    assert counted['sequencer_schema_validations_total{mode="warn",outcome="failed"}'] >= 1
    assert counted['sequencer_schema_validations_total{mode="required",outcome="validated"}'] >= 2


Command = Callable[..., tuple[int, str]]


@pytest.fixture
def command(tenant: Tenant, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: Any) -> Command:
    """The command line of this tenant's administrator, without a process of its own."""
    for name in ("SEQUENCER_API_KEY_FILE", "SEQUENCER_URL", "SEQUENCER_ADMIN_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("DATA_DIR", str(tenant.server.data_dir))
    monkeypatch.setenv("SEQUENCER_API_KEY", tenant.api_key)
    monkeypatch.setenv("SEQUENCER_TENANT", str(tenant.tenant_id))
    monkeypatch.setenv("SEQUENCER_PINS", str(tmp_path / "pins"))
    app = build_app(NO_HOUSE)

    def call(*words: str) -> tuple[int, str]:
        code = app(list(words), result_action="return_value")
        said = capfd.readouterr()
        assert "Traceback" not in said.err
        return code, said.out + said.err

    return call


def test_schemas_are_kept_by_the_command_line(command: Command, tmp_path: Path) -> None:
    (tmp_path / "schema.json").write_text(json.dumps(POSITIVE))
    (tmp_path / "payload.json").write_text('{"total": -1}')
    (tmp_path / "nothing.json").write_text("nothing")
    tries = ["schema", "validate", "order.created", str(tmp_path / "payload.json")]
    assert command("schema", "list") == (0, "there is no schema\n")
    code, said = command("schema", "add", "order.created", str(tmp_path / "schema.json"), "--json")
    assert code == 0, said
    schema_id = json.loads(said)["id"]
    assert schema_id in command("schema", "list", "--event-type", "order.created")[1]
    assert json.loads(command("schema", "show", schema_id)[1]) == POSITIVE
    code, said = command(*tries)
    assert (code, "/total" in said) == (1, True)
    assert command(*tries, "--schema-version", "9")[0] == 1
    assert command("schema", "status", schema_id, "archived")[0] == 0
    assert command(*tries)[0] == 0
    assert command("schema", "add", "order.created", str(tmp_path / "nothing.json"))[0] == 2


def test_policies_are_set_by_the_command_line_and_what_is_not_named_stays(command: Command) -> None:
    code, said = command("tenant-policy", "set", "--schema-mode", "required", "--entity-type", "order")
    assert code == 0, said
    shown = json.loads(command("tenant-policy", "show", "--json")[1])
    assert shown["effective"] == {"entityTypes": ["order"], "schemaMode": "required"}
    command("tenant-policy", "set", "--all-entity-types")
    assert command("tenant-policy", "show")[1] == (
        "entity types: all\nschemas: required (its own mode), 0 active\n"
    )
    command("tenant-policy", "set", "--schema-mode", "default")
    assert "enforce (the node's mode)" in command("tenant-policy", "show")[1]
    assert command("tenant-policy", "set", "--all-entity-types", "--entity-type", "order")[0] == 2


BOMBS = {
    "fan out": {"allOf": [{}] * 5000},
    "doubled references": {"$ref": "#/$defs/d0"}
    | {
        "$defs": {f"d{n}": {"anyOf": [{"$ref": f"#/$defs/d{n + 1}"}] * 2} for n in range(60)} | {"d60": False}
    },
    "recursion through two branches": {"items": {"anyOf": [{"$ref": "#"}, {"$ref": "#"}]}},
    "itself": {"$ref": "#"},
    "a large pattern": {"pattern": "((a{100}){100}){100}"},
    "a backtracking pattern": {"pattern": "^(?=(a+)+$)"},
    "a file": {"$ref": "file:///etc/passwd"},
    "the metadata service": {"$ref": "http://169.254.169.254/latest/meta-data"},
    "a huge list": {"enum": [{"n": n} for n in range(8000)]},
}


@pytest.mark.parametrize("name", BOMBS)
def test_a_bomb_is_refused_and_costs_no_verifier(tenant: Tenant, name: str) -> None:
    answer = register(tenant, BOMBS[name])
    assert answer.status_code == 400, answer.text
    assert answer.json()["error"]["code"] == "SCHEMA_VALIDATION_FAILED"
    assert reasons(tenant.post(tenant.agent.event({"total": 1}))) == []


@pytest.mark.slow
def test_the_nodes_own_rules_come_from_its_settings(own_server: Callable[..., Server]) -> None:
    server = own_server(
        ALLOWED_ENTITY_TYPES="order,invoice",
        MAX_EVENT_PAYLOAD_SIZE="20",
        MAX_FUTURE_SKEW_SECS="0",
        SCHEMA_VALIDATION_MODE="strict",
    ).start()
    server.wait_ready()
    tenant = Tenant(server)
    register(tenant, True)
    agent = tenant.agent
    told = tenant.post(
        agent.event({}),
        agent.event({}, entity_type="person"),
        agent.event({"a": "x" * 20}),
        agent.event({}, created_at="2999-01-01T00:00:00Z"),
        agent.event({}, event_type="order.paid"),
    )
    assert reasons(told) == [
        "schema_validation: entity_type",
        "schema_validation: payload",
        "schema_validation: created_at",
        "schema_validation: event_type",
    ]
    assert told.json()["eventsAccepted"] == 1
