"""Validity proofs against a running server: stored sealed, given back whole, and never more than it says."""

from __future__ import annotations

import asyncio
import base64
import json
import uuid
from hashlib import sha256
from typing import Any

import asyncpg

from journal.embedded_cluster import OWNER
from tests.e2e.test_operators import embedded_dsn
from tests.e2e.world import Server, Tenant

CANARY = b"the canary in the proof " * 40


def a_batch(tenant: Tenant) -> str:
    assert tenant.post(*(tenant.agent.event({"n": n}) for n in range(3))).json()["eventsAccepted"] == 3
    committed = tenant.http.post("/api/v1/ves/commitments", json=tenant.stream)
    assert committed.status_code == 200, committed.text
    return str(committed.json()["batch_id"])


def submit(tenant: Tenant, batch: str, proof: bytes, **more: Any) -> dict[str, Any]:
    body = {"proofType": "groth16", "proofB64": base64.b64encode(proof).decode(), **more}
    answer = tenant.http.post(f"/api/v1/ves/validity/{batch}/proofs", json=body)
    assert answer.status_code == 200, answer.text
    return dict(answer.json())


async def query(dsn: str, statement: str, *arguments: Any) -> Any:
    connection = await asyncpg.connect(dsn)
    try:
        return await connection.fetch(statement, *arguments)
    finally:
        await connection.close()


def test_a_proof_is_stored_sealed_and_comes_back_whole(server: Server, tenant: Tenant) -> None:
    batch = a_batch(tenant)
    told = tenant.http.get(f"/api/v1/ves/validity/{batch}/inputs").json()
    commitment = tenant.http.get(f"/api/v1/ves/commitments/{batch}").json()
    inputs = told["public_inputs"]
    assert inputs["newStateRoot"] == commitment["new_state_root"]
    assert (inputs["sequenceStart"], inputs["sequenceEnd"], inputs["treeDepth"]) == (1, 3, 2)

    stored = submit(tenant, batch, CANARY, publicInputs=inputs)
    assert submit(tenant, batch, CANARY) == stored
    one = tenant.http.get(f"/api/v1/ves/validity/proofs/{stored['proof_id']}").json()
    assert base64.b64decode(one["proof_b64"]) == CANARY
    verdict = tenant.http.get(f"/api/v1/ves/validity/proofs/{stored['proof_id']}/verify").json()
    assert (verdict["valid"], verdict["reason"]) == (True, None)
    text = json.dumps(inputs, sort_keys=True, separators=(",", ":"))
    assert verdict["public_inputs_hash"] == sha256(text.encode()).hexdigest()

    [[kept]] = asyncio.run(
        query(
            embedded_dsn(server),
            "SELECT proof FROM record.ves_validity_proofs WHERE proof_id = $1",
            uuid.UUID(stored["proof_id"]),
        )
    )
    assert kept.startswith(b"SSE2")
    assert CANARY[:24] not in kept
    assert len(kept) == len(CANARY) + 40
    assert CANARY[:23] not in server.log.read_bytes()

    stark = {"proofType": "stark", "proofVersion": 2, "proofB64": "AAAA", "publicInputs": inputs}
    refused = tenant.http.post(f"/api/v1/ves/validity/{batch}/proofs", json=stark)
    assert refused.status_code == 400
    assert "no STARK verifier" in refused.json()["message"]


def test_a_proof_moved_to_another_row_is_not_given_out(server: Server, tenant: Tenant) -> None:
    batch = a_batch(tenant)
    first = submit(tenant, batch, b"the first proof")
    second = submit(tenant, batch, b"another proof!!", proofVersion=2)
    # Whoever may re-encrypt can write this column; the frame itself says where it belongs.
    admin = embedded_dsn(server).replace(f"//{OWNER}@", "//sequencer_admin_login@")
    assert "sequencer_admin_login" in admin
    asyncio.run(
        query(
            admin,
            "UPDATE record.ves_validity_proofs SET proof = "
            "(SELECT proof FROM record.ves_validity_proofs WHERE proof_id = $1) WHERE proof_id = $2",
            uuid.UUID(first["proof_id"]),
            uuid.UUID(second["proof_id"]),
        )
    )
    for tail in ("", "/verify"):
        answer = tenant.http.get(f"/api/v1/ves/validity/proofs/{second['proof_id']}{tail}")
        assert answer.status_code == 503, answer.text
    named = f"the validity proof {second['proof_id']} of batch {batch} does not open"
    assert named in server.log.read_text()
    assert tenant.http.get(f"/api/v1/ves/validity/proofs/{first['proof_id']}").status_code == 200
