"""What is refused, how clearly, and that nothing of it is stored."""

from __future__ import annotations

import json
import socket
import uuid
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from typing import Any

import httpx
import pytest

from tests.e2e.world import Agent, Server, Tenant


def refused_whole(tenant: Tenant, body: bytes, status: int, *words: str) -> None:
    answer = tenant.post_raw(body)
    assert answer.status_code == status, answer.text
    told = answer.json()
    assert told["message"] == told["error"]["message"]
    assert told["error"]["code"] == answer.headers["x-error-code"]
    assert told["error"]["request_id"] == answer.headers["x-request-id"]
    for word in words:
        assert word in told["message"], told
    assert tenant.head() == 0


def rejected(tenant: Tenant, body: bytes, reason: str) -> None:
    answer = tenant.post_raw(body)
    assert answer.status_code == 200, answer.text
    told = answer.json()
    assert [r["reason"] for r in told["rejections"]] == [reason]
    assert told["rejections"][0]["message"]
    assert told["eventsAccepted"] == 0
    assert tenant.head() == 0


def with_payload_text(agent: Agent, text: str) -> bytes:
    """A well-formed envelope whose payload is exactly this JSON text."""
    body = agent.body([agent.event("PAYLOAD")])
    return body.replace(b'"PAYLOAD"', text.encode("utf-8", "surrogatepass"))


@pytest.mark.parametrize(
    "text",
    [
        '{"a":1,"a":2}',
        '{"b":{"a":1,"a":2}}',
        '{"\\u0061":1,"a":2}',
        '{"n":9007199254740992}',
        '{"n":-9007199254740992}',
        '{"n":1e16}',
        '{"n":123456789012345678901234567890}',
        '{"s":"\\ud800"}',
        '{"\\udc00":1}',
        "[" * 125 + "]" * 125,
    ],
)
def test_a_payload_whose_signature_would_be_ambiguous_is_refused(tenant: Tenant, text: str) -> None:
    if text.startswith("[["):
        refused_whole(tenant, with_payload_text(tenant.agent, text), 400)
    else:
        rejected(tenant, with_payload_text(tenant.agent, text), "schema_validation: payload")


@pytest.mark.parametrize("text", ['{"n":NaN}', '{"n":Infinity}', '{"n":01}', '{"n":1,}', "{'n':1}", '{"n":}'])
def test_what_is_not_json_is_a_400(tenant: Tenant, text: str) -> None:
    refused_whole(tenant, with_payload_text(tenant.agent, text), 400)


@pytest.mark.parametrize("body", [b"", b"{", b"\xff\xfe", b'{"agentId":"x"} {}', b"null x", b"\x00"])
def test_bytes_that_are_no_json_document_are_a_400(tenant: Tenant, body: bytes) -> None:
    refused_whole(tenant, body, 400)


def test_invalid_utf8_inside_a_payload_is_a_400(tenant: Tenant) -> None:
    refused_whole(tenant, with_payload_text(tenant.agent, '"X"').replace(b'"X"', b'"\xc3\x28"'), 400)


def test_trailing_bytes_are_a_400(tenant: Tenant) -> None:
    refused_whole(tenant, tenant.agent.body([tenant.agent.event({})]) + b"{}", 400)


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"ves_version": "1"}, "ves_version"),
        ({"event_id": "no-uuid"}, "event_id"),
        ({"agent_key_id": 1.5}, "agent_key_id"),
        ({"agent_key_id": -1}, "agent_key_id"),
        ({"payload_kind": 2}, "payload_kind"),
        ({"payload_plain_hash": "0x12"}, "payload_plain_hash"),
        ({"payload_plain_hash": "0X" + "00" * 32}, "payload_plain_hash"),
        ({"agent_signature": "zz" * 64}, "agent_signature"),
        ({"entity_type": 7}, "entity_type"),
        ({"base_version": "0"}, "base_version"),
        ({"command_id": 5}, "command_id"),
    ],
)
def test_a_wrong_type_is_a_422_that_names_the_field(
    tenant: Tenant, changes: dict[str, Any], field: str
) -> None:
    event = tenant.agent.event({"n": 1}) | changes
    refused_whole(tenant, tenant.agent.body([tenant.agent.event({}), event]), 422, f"events[1].{field}")


def test_a_missing_or_doubled_envelope_member_is_a_422_that_names_it(tenant: Tenant) -> None:
    event = tenant.agent.event({"n": 1})
    missing = {k: v for k, v in event.items() if k != "created_at"}
    refused_whole(tenant, tenant.agent.body([missing]), 422, "events[0].created_at")
    doubled = tenant.agent.body([event]).replace(b'"ves_version": 1', b'"ves_version": 1, "ves_version": 1')
    refused_whole(tenant, doubled, 422, "ves_version")
    wrapper = tenant.agent.body([event]).replace(b'{"agentId"', b'{"agentId": "x", "agentId"', 1)
    refused_whole(tenant, wrapper, 422, "agentId")


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"ves_version": 2}, "unsupported_version"),
        ({"entity_type": ""}, "schema_validation: entity_type"),
        ({"entity_type": "x" * 129}, "schema_validation: entity_type"),
        ({"entity_id": "é" * 257}, "schema_validation: entity_id"),
        ({"entity_id": "a\u0000b"}, "schema_validation: entity_id"),
        ({"event_type": "x" * 257}, "schema_validation: event_type"),
        ({"created_at": "2026-01-01T00:00:00"}, "schema_validation: created_at"),
        ({"created_at": "2999-01-01T00:00:00Z"}, "schema_validation: created_at"),
        ({"payload_plain_hash": "0x" + "11" * 32}, "invalid_payload_hash"),
        ({"payload_cipher_hash": "0x" + "11" * 32}, "schema_validation: payload_cipher_hash"),
        ({"agent_signature": "0x" + "11" * 64}, "invalid_signature"),
        ({"agent_key_id": 99}, "agent_key_invalid: Agent key not found"),
        ({"payload": None}, "schema_validation: payload"),
    ],
)
def test_a_bad_event_is_refused_with_its_reason(tenant: Tenant, changes: dict[str, Any], reason: str) -> None:
    payload = changes.get("payload", {"n": 1})
    others = {name: value for name, value in changes.items() if name != "payload"}
    rejected(tenant, tenant.agent.body([tenant.agent.event(payload, **others)]), reason)


def test_a_bad_event_does_not_hold_up_its_neighbours(tenant: Tenant) -> None:
    bad = tenant.agent.event({"n": 2}, agent_signature="0x" + "00" * 64)
    told = tenant.post(tenant.agent.event({"n": 1}), bad, tenant.agent.event({"n": 3})).json()
    assert (told["eventsAccepted"], told["eventsRejected"]) == (2, 1)
    assert [r["sequenceNumber"] for r in told["receipts"]] == [1, 2]


def test_limits_are_told_clearly(tenant: Tenant) -> None:
    one = tenant.agent.event({"n": 1})
    refused_whole(tenant, tenant.agent.body([]), 400, "events")
    refused_whole(tenant, tenant.agent.body([one] * 1001), 413, "1000")
    refused_whole(tenant, b" " * (10_485_760 + 1), 413, "10485760")
    rejected(
        tenant, with_payload_text(tenant.agent, json.dumps("x" * 1_048_577)), "schema_validation: payload"
    )


def test_a_chunked_body_over_the_limit_is_a_413_too(tenant: Tenant) -> None:
    def chunks() -> Any:
        for _ in range(11):
            yield b" " * 1_048_576

    try:
        answer = tenant.http.post(
            "/api/v1/ves/events/ingest", content=chunks(), headers={"content-type": "application/json"}
        )
    except httpx.HTTPError:
        pass  # the server may close while we still send; what matters is that it lives
    else:
        assert answer.status_code == 413
    assert tenant.head() == 0


def test_events_of_two_streams_or_another_agent_in_one_request_are_a_400(tenant: Tenant) -> None:
    other = tenant.agent.event({"n": 1}, store_id=str(uuid.uuid4()))
    refused_whole(tenant, tenant.agent.body([tenant.agent.event({}), other]), 400)
    foreign = tenant.agent.event({"n": 1}, source_agent_id=str(uuid.uuid4()))
    refused_whole(tenant, tenant.agent.body([foreign]), 400, "agent")


def test_a_body_that_is_not_json_by_its_content_type_is_a_415(tenant: Tenant) -> None:
    answer = tenant.http.post(
        "/api/v1/ves/events/ingest", content=b"{}", headers={"content-type": "text/plain"}
    )
    assert answer.status_code == 415
    assert answer.json()["error"]["code"] == "UNSUPPORTED_MEDIA_TYPE"


def test_unknown_paths_and_methods_are_told_in_the_same_shape(server: Server, tenant: Tenant) -> None:
    assert tenant.http.get("/nope").status_code == 404
    assert tenant.http.get("/nope").json()["error"]["code"] == "RESOURCE_NOT_FOUND"
    wrong = tenant.http.get("/api/v1/ves/events/ingest")
    assert wrong.status_code == 405
    assert "POST" in wrong.headers["allow"]
    for path in ("/metrics", "/api/v1/admin/api-keys", "/health/detailed"):
        assert httpx.get(server.url + path).status_code == 404


@pytest.mark.parametrize(
    "params",
    [
        {"limit": "1001"},
        {"limit": "0"},
        {"limit": "x"},
        {"from": "-1"},
        {"from": str(2**63)},
        {"wait_s": "31"},
    ],
)
def test_bad_query_values_are_a_400_that_names_them(tenant: Tenant, params: dict[str, str]) -> None:
    answer = tenant.http.get("/api/v1/ves/events", params={**tenant.stream, **params})
    assert answer.status_code == 400, answer.text
    assert next(iter(params)) in answer.json()["message"]


def test_credentials_are_judged_before_anything_is_looked_at(server: Server, tenant: Tenant) -> None:
    for headers in ({}, {"authorization": "ApiKey ss_wrong"}, {"authorization": "Basic eA=="}):
        answer = httpx.get(server.url + "/api/v1/ves/head", params=tenant.stream, headers=headers)
        assert answer.status_code == 401
        assert "www-authenticate" in answer.headers
    foreign = {"tenant_id": str(uuid.uuid4()), "store_id": str(uuid.uuid4())}
    assert tenant.http.get("/api/v1/ves/head", params=foreign).status_code == 403
    reader = tenant.new_api_key(["read"])
    body = tenant.agent.body([tenant.agent.event({})])
    assert tenant.post_raw(body, authorization=f"ApiKey {reader}").status_code == 403
    other_store = tenant.new_api_key(["read", "write"], storeIds=[str(uuid.uuid4())])
    assert tenant.post_raw(body, authorization=f"ApiKey {other_store}").status_code == 403
    other_agent = tenant.new_api_key(["read", "write"], agentId=str(uuid.uuid4()))
    assert tenant.post_raw(body, authorization=f"ApiKey {other_agent}").status_code == 403
    assert tenant.head() == 0


def test_a_commitment_of_another_tenant_looks_like_one_that_does_not_exist(
    server: Server, tenant: Tenant
) -> None:
    tenant.post(tenant.agent.event({}))
    batch = tenant.http.post("/api/v1/ves/commitments", json=tenant.stream).json()["batch_id"]
    stranger = Tenant(server)
    foreign = stranger.http.get(f"/api/v1/ves/commitments/{batch}")
    absent = stranger.http.get(f"/api/v1/ves/commitments/{uuid.uuid4()}")
    assert foreign.status_code == absent.status_code == 404
    assert foreign.json()["message"] == absent.json()["message"]


def test_an_api_key_revoked_here_is_refused_at_once(server: Server, tenant: Tenant) -> None:
    admin = httpx.Client(
        base_url=server.admin_url, headers={"authorization": f"ApiKey {server.bootstrap_key}"}, timeout=30
    )
    with admin:
        made = admin.post(
            "/api/v1/admin/api-keys", json={"tenantId": str(tenant.tenant_id), "permissions": ["read"]}
        ).json()
        headers = {"authorization": f"ApiKey {made['apiKey']}"}
        url = server.url + "/api/v1/ves/head"
        assert httpx.get(url, params=tenant.stream, headers=headers).status_code == 200
        assert admin.delete(f"/api/v1/admin/api-keys/{made['id']}").status_code in (200, 204)
        assert httpx.get(url, params=tenant.stream, headers=headers).status_code == 401
        listed = admin.get("/api/v1/admin/api-keys", params={"tenant_id": str(tenant.tenant_id)}).json()
    assert made["apiKey"] not in json.dumps(listed)


def test_an_api_key_is_refused_after_its_end_and_says_so(server: Server, tenant: Tenant) -> None:
    end = (datetime.now(UTC) + timedelta(seconds=1.5)).isoformat()
    key = tenant.new_api_key(["read"], expiresAt=end)
    headers = {"authorization": f"Bearer {key}"}
    url = server.url + "/api/v1/ves/head"
    while (answer := httpx.get(url, params=tenant.stream, headers=headers)).status_code == 200:
        pass
    assert answer.status_code == 401
    assert "expired" in answer.json()["message"]
    assert datetime.now(UTC).isoformat() >= end


def test_an_agent_lives_on_keys_of_its_own_making(server: Server, tenant: Tenant) -> None:
    """Rotates its key without an administrator: makes one, uses it, ends the old one with it."""
    agent = str(tenant.agent.agent_id)
    old = httpx.post(
        server.admin_url + "/api/v1/admin/api-keys",
        headers={"authorization": f"ApiKey {server.bootstrap_key}"},
        json={"tenantId": str(tenant.tenant_id), "role": "agent", "agentId": agent, "rateLimit": 6000},
        timeout=30,
    ).json()["apiKey"]
    keys = f"/api/v1/agents/{agent}/api-keys"
    with httpx.Client(base_url=server.url, timeout=30) as http:
        http.headers["authorization"] = f"Bearer {old}"
        made = http.post(keys, json={}).json()
        http.headers["authorization"] = f"Bearer {made['apiKey']}"
        body = tenant.agent.body([tenant.agent.event({"n": 1})])
        posted = http.post(
            "/api/v1/ves/events/ingest", content=body, headers={"content-type": "application/json"}
        )
        assert posted.json()["eventsAccepted"] == 1, posted.text
        assert http.delete(f"{keys}/{sha256(old.encode()).hexdigest()[:16]}").status_code == 200
        listed = http.get(keys).json()["keys"]
        assert [key["active"] for key in listed] == [True, False]
        assert http.get(f"/api/v1/agents/{agent}").json()["rateLimit"] == 6000
        http.headers["authorization"] = f"Bearer {old}"
        assert http.get(keys).status_code == 401


def told(server: Server, raw: bytes) -> bytes:
    host, port = server.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=10) as connection:
        connection.sendall(raw)
        heard = b""
        while more := connection.recv(65536):
            heard += more
    return heard


def test_a_request_with_two_lengths_or_two_credentials_ends_the_connection(server: Server) -> None:
    for extra in (
        b"content-length: 5\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n"
        b"GET /health HTTP/1.1\r\nhost: x\r\n\r\n",
        b"authorization: ApiKey ss_a\r\nauthorization: ApiKey ss_b\r\n\r\n",
    ):
        heard = told(server, b"POST /api/v1/ves/proofs/verify HTTP/1.1\r\nhost: x\r\n" + extra)
        assert heard.startswith(b"HTTP/1.1 400 "), heard
        assert heard.count(b"HTTP/1.1 ") == 1


def test_no_small_body_holds_the_node(tenant: Tenant) -> None:
    """Unterminated strings and many marks were once read again and again; the timeout is the assertion."""
    marks = b"x" + b"".join(b"(half of a surrogate pair %d)" % n for n in range(60_000))
    for path, body in (
        ("/api/v1/ves/proofs/verify", b"[" * 17 + b'"' + b'\\"' * 32_000),
        ("/api/v1/ves/events/ingest", marks),
    ):
        headers = {"content-type": "application/json"}
        assert tenant.http.post(path, content=body, headers=headers, timeout=5).status_code == 400


def test_a_created_at_too_long_in_bytes_is_refused_and_costs_nobody_anything(tenant: Tenant) -> None:
    text = "2026-01-01T00:00:00." + "1" * 38 + "\u221201:00"
    assert len(text) == 64
    rejected(
        tenant,
        tenant.agent.body([tenant.agent.event({"n": 1}, created_at=text)]),
        "schema_validation: created_at",
    )


@pytest.mark.parametrize("text", ["0001-01-01T00:00:00+23:59", "9999-12-31T23:59:59-23:59"])
def test_a_validity_that_could_not_be_listed_is_refused(tenant: Tenant, text: str) -> None:
    names = {"tenantId": str(tenant.tenant_id), "agentId": str(tenant.agent.agent_id), "keyId": 2}
    body = {**names, "publicKey": Agent(tenant.tenant_id, tenant.store_id).public_key, "validFrom": text}
    assert tenant.http.post("/api/v1/agents/keys", json=body).status_code == 400
    listed = f"/api/v1/agents/{tenant.agent.agent_id}/keys"
    assert tenant.http.get(listed, params={"tenant_id": str(tenant.tenant_id)}).status_code == 200
