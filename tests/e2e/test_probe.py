"""The black-box probe: an attacker's requests against a running server, and what is left of them.

Nothing is answered but 4xx, nothing in the record has changed, nobody else's data was seen, every log line is
still one line of our own making.
"""

from __future__ import annotations

import asyncio
import base64
import json
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import asyncpg
import httpx
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from tests.e2e import unsigned
from tests.e2e.test_operators import embedded_dsn
from tests.e2e.world import Server, Tenant
from tests.probe.attacks import ATTACKS, Party, Scene
from tests.probe.prober import Prober
from tests.probe.routes import read_routes

LIMITS = {
    "COMMITMENT_INTERVAL_SECS": "3600",
    "RATE_LIMIT_MODE": "off",
    "AUTH_FAILURES_BURST": "1000000",  # each attempt is to be judged, not turned away
}
GROWING = ("audit_",)
"""Tables that tell of the attack itself."""
CONTROLS = ("\u2028", "\x1b", "\r")


@pytest.mark.slow
def test_an_attacker_is_refused_and_changes_nothing(
    own_server: Callable[..., Server], tmp_path: Path
) -> None:
    issuer = Ed25519PrivateKey.generate().public_key().public_bytes_raw()
    key_set = tmp_path / "jwks.json"
    key_set.write_text(json.dumps({"keys": [jwk(issuer)]}))
    server = own_server(JWT_JWKS_FILE=str(key_set), **LIMITS).start()
    server.wait_ready()
    victim, attacker = party(server, "canary-of-the-victim"), party(server, "canary-of-the-attacker")
    prober = Prober(server.url, server.admin_url, ["canary-of-the-victim"])
    scene = Scene(prober, read_routes(server.url, server.admin_url), victim, attacker, issuer)
    before = asyncio.run(snapshot(embedded_dsn(server)))
    try:
        for attack in ATTACKS:
            attack(scene)
    finally:
        prober.close()
    after = asyncio.run(snapshot(embedded_dsn(server)))
    told = server.log.read_text(errors="replace")

    assert not prober.problems, f"{len(prober.problems)} problems:\n" + "\n".join(prober.problems[:60])
    assert after == before
    assert len(before) >= 15
    assert sum(prober.sent.values()) > 2000, prober.sent
    # The rule can be broken: with the right credential the same requests do work.
    assert (
        httpx.get(
            server.url + "/api/v1/ves/events",
            params=stream(victim),
            headers={"authorization": f"ApiKey {victim.admin_key}"},
        ).status_code
        == 200
    )
    lines = [line for line in told.splitlines() if line.startswith("{")]
    assert len(lines) > 2000
    for line in lines:
        entry = json.loads(line)
        assert entry.get("kind") != "forged", line
        assert entry["event"] != "internal error", line
    others = [line for line in told.split("\n") if line and not line.startswith("{")]
    assert not [line for line in others if "forged" in line], others
    assert not [control for control in CONTROLS if control in told]


def test_a_captured_request_sent_again_changes_nothing(server: Server, tenant: Tenant) -> None:
    captured = tenant.agent.body([tenant.agent.event({"n": 1})])
    first = tenant.post_raw(captured).json()
    thief = Tenant(server)
    assert tenant.post_raw(captured).json()["receipts"] == first["receipts"]
    assert thief.post_raw(captured).status_code == 403
    named = {"tenantId": str(tenant.tenant_id), "agentId": str(tenant.agent.agent_id), "keyId": 1}
    revoke = tenant.http.post("/api/v1/agents/keys/revoke", json={**named, "reason": "drill"})
    assert revoke.status_code == 200, revoke.text
    # Neither the event nor the key comes back to life; who has the receipt gets the same one.
    assert tenant.post_raw(captured).json()["receipts"] == first["receipts"]
    registered = {**named, "publicKey": tenant.agent.public_key}
    assert tenant.http.post("/api/v1/agents/keys", json=registered).json()["alreadyRegistered"] is True
    late = tenant.post(tenant.agent.event({"n": 2})).json()
    assert [one["reason"].partition(":")[0] for one in late["rejections"]] == ["agent_key_invalid"]
    assert tenant.head() == 1


def jwk(public_key: bytes) -> dict[str, str]:
    x = base64.urlsafe_b64encode(public_key).rstrip(b"=").decode()
    return {"kty": "OKP", "crv": "Ed25519", "alg": "EdDSA", "use": "sig", "kid": "1", "x": x}


def party(server: Server, canary: str) -> Party:
    tenant = Tenant(server)
    event = tenant.agent.event({"card": canary}, entity_id=canary)
    assert tenant.post(event).json()["eventsAccepted"] == 1
    told = unsigned.post(tenant, unsigned.unsigned(tenant, {"card": canary}, entity_id=canary))
    assert told["events_accepted"] == 1
    committed = tenant.http.post("/api/v1/ves/commitments", json=tenant.stream)
    assert committed.status_code == 200, committed.text
    proof = tenant.http.post(
        f"/api/v1/ves/validity/{committed.json()['batch_id']}/proofs",
        json={"proofType": canary, "proofB64": base64.b64encode(canary.encode()).decode()},
    )
    assert proof.status_code == 200, proof.text
    legacy = tenant.http.post("/api/v1/commitments", json=tenant.stream)
    assert legacy.status_code == 200, legacy.text
    overheard = tenant.agent.event({"card": canary}, entity_id=canary)
    revoked = tenant.new_api_key(["read", "write", "admin"])
    keys = httpx.get(
        server.admin_url + "/api/v1/admin/api-keys",
        params={"tenant_id": str(tenant.tenant_id)},
        headers={"authorization": f"ApiKey {server.bootstrap_key}"},
    ).json()["apiKeys"]
    last = next(key["id"] for key in keys if revoked.startswith(key["prefix"]))
    httpx.delete(
        f"{server.admin_url}/api/v1/admin/api-keys/{last}",
        headers={"authorization": f"ApiKey {server.bootstrap_key}"},
    ).raise_for_status()
    schema = tenant.http.post(
        "/api/v1/schemas",
        json={"tenantId": str(tenant.tenant_id), "eventType": canary, "schemaJson": {"type": "object"}},
    )
    assert schema.status_code == 200, schema.text
    known: dict[Any, Any] = {
        **tenant.stream,
        "agent_id": str(tenant.agent.agent_id),
        "key_id": tenant.agent.key_id,
        "public_key": tenant.agent.public_key,
        "event_id": event["event_id"],
        "batch_id": committed.json()["batch_id"],
        "proof_id": proof.json()["proof_id"],
        "sequence_number": 1,
        "sequence_start": 1,
        "sequence_end": 1,
        "entity_type": "order",
        "entity_id": canary,
        "permissions": ["read"],
        "schema_id": schema.json()["id"],
        "event_type": canary,
        "key_prefix": "ab" * 8,
        "node_id": str(uuid.UUID(int=1)),
        ("/api/v1/ves/events/ingest", "events"): [overheard],
        ("/api/v1/events/ingest", "events"): [unsigned.unsigned(tenant, {"card": canary}, entity_id=canary)],
        ("/api/v1/commitments/{batch_id}", "batch_id"): legacy.json()["batch_id"],
        ("/api/v1/proofs/{sequence_number}", "batch_id"): legacy.json()["batch_id"],
        ("/api/v1/anchor", "batch_id"): legacy.json()["batch_id"],
        ("/api/v1/anchor/{batch_id}/verify", "batch_id"): legacy.json()["batch_id"],
        ("/api/v1/admin/api-keys/{id}", "id"): keys[0]["id"],
    }
    return Party(tenant.api_key, tenant.new_api_key(["read"]), revoked, known)


def stream(party: Party) -> dict[str, str]:
    return {"tenant_id": party.known["tenant_id"], "store_id": party.known["store_id"]}


async def snapshot(dsn: str) -> dict[str, str]:
    """A digest of every table of the record."""
    connection = await asyncpg.connect(dsn)
    try:
        tables = await connection.fetch(
            "SELECT tablename FROM pg_tables WHERE schemaname = 'record' ORDER BY 1"
        )
        return {
            table: str(
                await connection.fetchval(
                    f"SELECT md5(string_agg(t::text, '|' ORDER BY t::text)) FROM record.{table} t"
                )
            )
            for [table] in tables
            if not table.startswith(GROWING)
        }
    finally:
        await connection.close()
