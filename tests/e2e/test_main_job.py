"""The main job as an agent sees it: post, receipts, read back, commit, prove; resending is harmless."""

from __future__ import annotations

import hashlib
import struct
import time
import uuid

import httpx
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from tests.e2e.world import Load, Server, Tenant, signing_hash


def test_accepted_events_get_gap_free_numbers_and_receipts_in_request_order(tenant: Tenant) -> None:
    events = [tenant.agent.event({"n": n}) for n in range(25)]
    answer = tenant.post(*events)
    assert answer.status_code == 200, answer.text
    told = answer.json()
    assert (told["eventsAccepted"], told["eventsReplayed"], told["eventsRejected"]) == (25, 0, 0)
    assert (told["sequenceStart"], told["sequenceEnd"], told["headSequence"]) == (1, 25, 25)
    assert [r["eventId"] for r in told["receipts"]] == [e["event_id"] for e in events]
    assert [r["sequenceNumber"] for r in told["receipts"]] == list(range(1, 26))
    assert "rejections" not in told


def test_a_receipt_verifies_against_the_published_key(server: Server, tenant: Tenant) -> None:
    event = tenant.agent.event({"total": 99.5})
    receipt = tenant.post(event).json()["receipts"][0]
    published = httpx.get(server.url + "/.well-known/ves-sequencer").json()
    key = next(k for k in published["receipt_keys"] if k["key_version"] == receipt["sequencerKeyVersion"])
    assert published["sequencer_id"] == receipt["sequencerId"]
    digest = hashlib.sha256(
        b"VES_RECEIPT_V1"
        + tenant.tenant_id.bytes
        + tenant.store_id.bytes
        + uuid.UUID(event["event_id"]).bytes
        + struct.pack(">Q", receipt["sequenceNumber"])
        + signing_hash(event)
    ).digest()
    assert receipt["receiptHash"] == digest.hex()
    public = Ed25519PublicKey.from_public_bytes(bytes.fromhex(key["public_key"].removeprefix("0x")))
    public.verify(bytes.fromhex(receipt["sequencerSignature"]), digest)


def test_resending_the_same_bytes_returns_the_same_receipts_and_stores_nothing(tenant: Tenant) -> None:
    body = tenant.agent.body([tenant.agent.event({"n": n}) for n in range(5)])
    first, second = tenant.post_raw(body).json(), tenant.post_raw(body).json()
    assert second["receipts"] == first["receipts"]
    assert (second["eventsAccepted"], second["eventsReplayed"]) == (0, 5)
    assert second["sequenceStart"] is None
    assert second["headSequence"] == 5
    assert tenant.head() == 5


def test_the_same_id_with_other_content_is_refused_and_its_neighbours_are_not(tenant: Tenant) -> None:
    first = tenant.agent.event({"n": 1})
    tenant.post(first)
    other = tenant.agent.event({"n": 2}, event_id=first["event_id"])
    fine = tenant.agent.event({"n": 3})
    told = tenant.post(other, fine).json()
    assert told["eventsAccepted"] == 1
    assert told["rejections"] == [
        {
            "event_id": first["event_id"],
            "reason": "duplicate_event_id",
            "message": "Event ID already exists with different contents",
        }
    ]
    assert told["receipts"][0]["eventId"] == fine["event_id"]


def test_events_come_back_exactly_as_they_were_signed(tenant: Tenant) -> None:
    payload = {"z": 1, "a": [1.5, "é€\U0001f600", None, True], "nul": "a\u0000b"}
    event = tenant.agent.event(payload, created_at="2026-01-01 00:00:00.1234567+02:00")
    receipt = tenant.post(event).json()["receipts"][0]
    page = tenant.events()
    assert page["count"] == 1
    assert page["head_sequence"] == 1
    assert page["has_more"] is False
    assert page["next_from"] == 2
    back = page["events"][0]
    for name, value in event.items():
        assert back[name] == value, name
    assert back["receipt"] == receipt
    assert back["sequence_number"] == 1
    assert back["event_signing_hash"].removeprefix("0x") == signing_hash(event).hex()
    one = tenant.http.get(f"/api/v1/ves/events/{event['event_id']}", params=tenant.stream)
    assert one.json() == back


def test_reading_pages_misses_nothing(tenant: Tenant) -> None:
    for _ in range(3):
        tenant.post(*[tenant.agent.event({"n": n}) for n in range(7)])
    seen, start = [], 0
    while True:
        page = tenant.events(start, 5)
        seen += [e["sequence_number"] for e in page["events"]]
        start = page["next_from"]
        if not page["has_more"]:
            break
    assert seen == list(range(1, 22))


def test_base_version_guards_an_entity_and_its_history_tells_the_version(tenant: Tenant) -> None:
    entity = {"entity_type": "order", "entity_id": "O 1/ä"}
    told = tenant.post(
        tenant.agent.event({"n": 1}, **entity, base_version=0),
        tenant.agent.event({"n": 2}, **entity, base_version=1),
        tenant.agent.event({"n": 3}, **entity, base_version=1),
    ).json()
    assert told["eventsAccepted"] == 2
    assert told["rejections"][0]["reason"] == "version_conflict: expected 1, actual 2"
    history = tenant.http.get("/api/v1/ves/entities/order/O%201%2F%C3%A4", params=tenant.stream)
    assert history.status_code == 200, history.text
    assert history.json()["version"] == 2
    assert [e["payload"]["n"] for e in history.json()["events"]] == [1, 2]


def test_a_command_id_is_used_once_per_stream(tenant: Tenant) -> None:
    command = str(uuid.uuid4())
    assert tenant.post(tenant.agent.event({"n": 1}, command_id=command)).json()["eventsAccepted"] == 1
    told = tenant.post(tenant.agent.event({"n": 2}, command_id=command)).json()
    assert told["rejections"][0]["reason"] == "duplicate_command_id"


def test_a_revoked_key_signs_nothing_more_and_its_old_events_still_replay(tenant: Tenant) -> None:
    old = tenant.agent.event({"n": 1})
    first = tenant.post(old).json()
    names = {"tenantId": str(tenant.tenant_id), "agentId": str(tenant.agent.agent_id), "keyId": 1}
    revoked = tenant.http.post("/api/v1/agents/keys/revoke", json={**names, "reason": "test"})
    assert revoked.status_code == 200, revoked.text
    told = tenant.post(tenant.agent.event({"n": 2})).json()
    assert told["rejections"][0]["reason"] == "agent_key_invalid: Agent key has been revoked"
    assert tenant.post(old).json()["receipts"] == first["receipts"]
    listed = tenant.http.get(
        f"/api/v1/agents/{tenant.agent.agent_id}/keys", params={"tenant_id": str(tenant.tenant_id)}
    ).json()
    assert len(listed["keys"]) == 1


def test_commitments_chain_and_proofs_lead_to_their_root(tenant: Tenant) -> None:
    tenant.post(*[tenant.agent.event({"n": n}) for n in range(5)])
    first = tenant.http.post("/api/v1/ves/commitments", json=tenant.stream).json()
    assert (first["sequence_start"], first["sequence_end"], first["leaf_count"]) == (1, 5, 5)
    assert (first["padded_leaf_count"], first["tree_depth"]) == (8, 3)
    assert first["prev_state_root"] == "00" * 32
    tenant.post(tenant.agent.event({"n": 5}))
    second = tenant.http.post("/api/v1/ves/commitments", json=tenant.stream).json()
    assert second["prev_state_root"] == first["new_state_root"]
    assert (second["sequence_start"], second["sequence_end"], second["tree_depth"]) == (6, 6, 0)
    nothing = tenant.http.post("/api/v1/ves/commitments", json=tenant.stream)
    assert nothing.status_code == 409
    again = tenant.http.post(
        "/api/v1/ves/commitments", json={**tenant.stream, "sequence_start": 1, "sequence_end": 5}
    )
    assert again.status_code == 200
    assert again.json()["batch_id"] == first["batch_id"]
    clash = tenant.http.post(
        "/api/v1/ves/commitments", json={**tenant.stream, "sequence_start": 3, "sequence_end": 6}
    )
    assert clash.status_code == 409
    assert "7" in clash.json()["message"]
    told = tenant.http.get("/api/v1/ves/proofs/3", params=tenant.stream)
    assert told.status_code == 200, told.text
    proof = told.json()
    assert proof["merkle_root"] == first["merkle_root"]
    running = bytes.fromhex(proof["leaf_hash"])
    index = proof["leaf_index"]
    for sibling in map(bytes.fromhex, proof["proof_path"]):
        pair = running + sibling if index % 2 == 0 else sibling + running
        running = hashlib.sha256(b"VES_NODE_V1" + pair).digest()
        index //= 2
    assert running.hex() == first["merkle_root"]
    checked = tenant.http.post(
        "/api/v1/ves/proofs/verify",
        json={k: proof[k] for k in ("leaf_hash", "merkle_root", "proof_path", "leaf_index")},
    )
    assert checked.json()["valid"] is True
    leaves = tenant.http.get(f"/api/v1/ves/commitments/{first['batch_id']}/leaves").json()
    assert len(leaves["leaf_hashes"]) == 5
    listed = tenant.http.get("/api/v1/ves/commitments", params=tenant.stream).json()
    assert [c["batch_id"] for c in listed["commitments"]] == [first["batch_id"], second["batch_id"]]


def test_many_agents_at_once_share_one_gap_free_stream(tenant: Tenant) -> None:
    load = Load([tenant, tenant, tenant, tenant], batch=9).start()
    time.sleep(2)
    load.stop()
    assert not load.problems
    numbers = sorted(r["sequenceNumber"] for r in load.acknowledged.values())
    assert numbers == list(range(1, len(numbers) + 1))
    assert tenant.head() == len(numbers) > 0


def test_streams_of_one_tenant_count_on_their_own_and_share_event_ids(tenant: Tenant) -> None:
    other = tenant.new_agent(store_id=uuid.uuid4())
    here, there = tenant.agent.event({"n": 1}), other.event({"n": 1})
    assert tenant.post(here).json()["receipts"][0]["sequenceNumber"] == 1
    assert tenant.post(there, agent=other).json()["receipts"][0]["sequenceNumber"] == 1
    stolen = other.event({"n": 2}, event_id=here["event_id"])
    assert tenant.post(stolen, agent=other).json()["rejections"][0]["reason"] == "duplicate_event_id"


def test_the_same_event_id_in_two_tenants_is_no_clash(server: Server, tenant: Tenant) -> None:
    neighbour = Tenant(server)
    event_id = str(uuid.uuid4())
    for one in (tenant, neighbour):
        assert one.post(one.agent.event({"n": 1}, event_id=event_id)).json()["eventsAccepted"] == 1


@pytest.mark.parametrize("header", ["authorization-raw", "authorization-lower", "x-api-key"])
def test_a_key_is_accepted_in_every_documented_spelling(server: Server, tenant: Tenant, header: str) -> None:
    headers = {
        "authorization-raw": {"authorization": tenant.api_key},
        "authorization-lower": {"authorization": f"apikey {tenant.api_key}"},
        "x-api-key": {"x-api-key": tenant.api_key},
    }[header]
    answer = httpx.get(server.url + "/api/v1/ves/head", params=tenant.stream, headers=headers)
    assert answer.status_code == 200, answer.text
